/** Webhooks and their deliveries in plain Maps, for nodes without a database and for tests. */
import type { Webhook, WebhookDelivery } from '../../../src/domain/agent-record.ts';
import type { TenantId } from '../../../src/domain/ids.ts';
import type { SettledLimits, WebhookStore } from '../../../src/ports/management.ts';
import { dueAt, settledAt } from '../../../src/store/webhooks.ts';
import { pageOf } from './agents.ts';
import { byAge } from './templates.ts';

interface StoredWebhook {
  webhook: Webhook;
  readonly deliveries: Map<string, WebhookDelivery>;
  /** When deliveries were settled, in ms; pending ones are not in it. */
  readonly settled: Map<string, number>;
}

/** Makes an empty store. Lists come oldest first. `now`: when deliveries are kept, in ms. */
export function createMemoryWebhooks(now: () => number = Date.now): WebhookStore {
  const tenants = new Map<TenantId, Map<string, StoredWebhook>>();
  const webhooksOf = (tenantId: TenantId): Map<string, StoredWebhook> => tenants.get(tenantId) ?? new Map();
  return {
    list: async (tenantId) => [...webhooksOf(tenantId).values()].map((stored) => stored.webhook).sort(byAge),
    async save(tenantId, webhook) {
      const webhooks = webhooksOf(tenantId);
      const { deliveries, settled } = webhooks.get(webhook.id) ?? {
        deliveries: new Map<string, WebhookDelivery>(),
        settled: new Map<string, number>(),
      };
      tenants.set(tenantId, webhooks.set(webhook.id, { webhook, deliveries, settled }));
    },
    remove: async (tenantId, webhookId) => webhooksOf(tenantId).delete(webhookId),
    async deliveries(tenantId, webhookId, page) {
      const all = [...(webhooksOf(tenantId).get(webhookId)?.deliveries.values() ?? [])];
      return pageOf(
        all.sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at) || (a.id < b.id ? -1 : 1)),
        page,
      );
    },
    async delivery(tenantId, deliveryId) {
      for (const { deliveries } of webhooksOf(tenantId).values()) {
        const found = deliveries.get(deliveryId);
        if (found) return found;
      }
      return null;
    },
    /** A delivery whose webhook was removed meanwhile has nowhere to go and is dropped. */
    async keep(delivery) {
      const stored = webhooksOf(delivery.tenant_id).get(delivery.webhook_id);
      stored?.deliveries.set(delivery.id, delivery);
      const atMs = settledAt(delivery, now());
      if (atMs === null) stored?.settled.delete(delivery.id);
      else stored?.settled.set(delivery.id, atMs);
    },
    async due(nowMs, limit) {
      const all = [...tenants.values()].flatMap((webhooks) => [...webhooks.values()]);
      return all
        .flatMap(({ webhook, deliveries }) =>
          [...deliveries.values()].map((delivery) => ({
            delivery,
            webhook,
            atMs: dueAt(delivery) ?? Infinity,
          })),
        )
        .filter(({ atMs }) => atMs <= nowMs)
        .sort((a, b) => a.atMs - b.atMs || (a.delivery.id < b.delivery.id ? -1 : 1))
        .slice(0, limit)
        .map(({ delivery, webhook }) => ({ delivery, webhook }));
    },
    async expire(limits) {
      let deleted = 0;
      for (const webhooks of tenants.values())
        for (const stored of webhooks.values()) deleted += expire(stored, limits);
      return deleted;
    },
  };
}

/** Those settled longest ago first: what is old, and what is too much. */
function expire({ deliveries, settled }: StoredWebhook, limits: SettledLimits): number {
  const before = deliveries.size;
  const oldest = [...settled].sort(([one, a], [other, b]) => a - b || (one < other ? -1 : 1));
  const drop = (id: string): void => {
    deliveries.delete(id);
    settled.delete(id);
  };
  for (const [id, atMs] of oldest) {
    const isDelivered = deliveries.get(id)?.status === 'delivered';
    if (atMs < (isDelivered ? limits.deliveredBeforeMs : limits.deadBeforeMs)) drop(id);
  }
  for (const [id] of oldest) if (deliveries.size > limits.perWebhook) drop(id);
  return before - deliveries.size;
}
