/** The deliveries that this node holds: a line for each webhook, taken in turns, so that a dead receiver delays nobody else. */
import type { Webhook, WebhookDelivery } from '../../src/domain/agent-record.ts';
import type { TenantId } from '../../src/domain/ids.ts';

export interface DeliveryJob {
  readonly delivery: WebhookDelivery;
  readonly webhook: Webhook;
}

export interface QueueBounds {
  readonly runningPerWebhook: number;
  readonly runningPerTenant: number;
  readonly running: number;
  readonly heldPerWebhook: number;
  readonly heldPerTenant: number;
  readonly held: number;
}

export const QUEUE_BOUNDS: QueueBounds = {
  runningPerWebhook: 4,
  runningPerTenant: 8,
  running: 64,
  heldPerWebhook: 50,
  heldPerTenant: 200,
  held: 5_000,
};

/** Why an attempt is broken off. */
export type Stop = 'removed' | 'closing';

export interface DeliveryQueue {
  /** False where it is held already, or too many are: then it stays in the store. */
  add(job: DeliveryJob): boolean;
  has(deliveryId: string): boolean;
  size(): number;
  /** Forgets a webhook's deliveries; resolves when none of its attempts runs. */
  drop(tenantId: TenantId, webhookId: string): Promise<void>;
  /** Breaks off what runs and takes no more; resolves when nothing runs. */
  close(): Promise<void>;
}

interface WebhookLine {
  readonly tenantId: TenantId;
  readonly webhookId: string;
  readonly waiting: DeliveryJob[];
  readonly running: Map<Promise<void>, AbortController>;
}

/** `run` makes one attempt and never rejects; its signal's reason is a Stop. */
export function createDeliveryQueue(
  bounds: QueueBounds,
  run: (job: DeliveryJob, signal: AbortSignal) => Promise<void>,
): DeliveryQueue {
  /** In the order of their turns: the line that was served last stands last. */
  const lines = new Map<string, WebhookLine>();
  const held = new Set<string>();
  const tenants = new Map<TenantId, { running: number; held: number }>();
  let running = 0;
  let closed = false;

  const tenantOf = (tenantId: TenantId): { running: number; held: number } => {
    const known = tenants.get(tenantId) ?? { running: 0, held: 0 };
    tenants.set(tenantId, known);
    return known;
  };

  const letGo = (job: DeliveryJob): void => {
    held.delete(job.delivery.id);
    const tenant = tenantOf(job.webhook.tenant_id);
    tenant.held -= 1;
    if (tenant.held === 0) tenants.delete(job.webhook.tenant_id);
  };

  const start = (line: WebhookLine, job: DeliveryJob): void => {
    const aborter = new AbortController();
    const tenant = tenantOf(line.tenantId);
    running += 1;
    tenant.running += 1;
    const attempt = run(job, aborter.signal).finally(() => {
      running -= 1;
      tenant.running -= 1;
      line.running.delete(attempt);
      letGo(job);
      if (line.running.size === 0 && line.waiting.length === 0) lines.delete(line.webhookId);
      pump();
    });
    line.running.set(attempt, aborter);
  };

  const pump = (): void => {
    for (const line of [...lines.values()]) {
      if (closed || running >= bounds.running) return;
      const busy =
        line.running.size >= bounds.runningPerWebhook ||
        tenantOf(line.tenantId).running >= bounds.runningPerTenant;
      const job = busy ? undefined : line.waiting.shift();
      if (!job) continue;
      lines.delete(line.webhookId);
      lines.set(line.webhookId, line);
      start(line, job);
    }
  };

  const stop = (line: WebhookLine, reason: Stop): Promise<unknown> => {
    for (const job of line.waiting.splice(0)) letGo(job);
    for (const aborter of line.running.values()) aborter.abort(reason);
    if (line.running.size === 0) lines.delete(line.webhookId);
    return Promise.all(line.running.keys());
  };

  return {
    add(job) {
      const { webhook, delivery } = job;
      if (closed || held.has(delivery.id) || held.size >= bounds.held) return false;
      const line: WebhookLine = lines.get(webhook.id) ?? {
        tenantId: webhook.tenant_id,
        webhookId: webhook.id,
        waiting: [],
        running: new Map(),
      };
      const tenant = tenants.get(webhook.tenant_id);
      if (line.waiting.length >= bounds.heldPerWebhook || (tenant?.held ?? 0) >= bounds.heldPerTenant)
        return false;
      lines.set(webhook.id, line);
      line.waiting.push(job);
      held.add(delivery.id);
      tenantOf(webhook.tenant_id).held += 1;
      pump();
      return true;
    },
    has: (deliveryId) => held.has(deliveryId),
    size: () => held.size,
    async drop(tenantId, webhookId) {
      const line = lines.get(webhookId);
      if (line?.tenantId === tenantId) await stop(line, 'removed');
    },
    async close() {
      closed = true;
      await Promise.all([...lines.values()].map((line) => stop(line, 'closing')));
    },
  };
}
