/** Brings notices to webhooks: keeps each as a delivery, makes attempts as they fall due, and writes down how they ended. */
import { randomUUID } from 'node:crypto';
import type { TenantNotice, Webhook, WebhookDelivery } from '../../src/domain/agent-record.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import type { Notices, WebhookStore } from '../../src/ports/management.ts';
import { type Clock, type Log, systemTimers, type Timers } from '../../src/ports/telemetry.ts';
import { createDeliveryQueue, type DeliveryJob, QUEUE_BOUNDS, type QueueBounds } from './queue.ts';
import { afterAttempt } from './retry.ts';
import type { Send } from './send.ts';

export interface DispatchTiming {
  /** One attempt, name resolution included. */
  readonly timeoutMs: number;
  /** The store is asked at least this often for what is due, and will be before the next time. */
  readonly pollMs: number;
  readonly bounds: QueueBounds;
}

export const DISPATCH_TIMING: DispatchTiming = { timeoutMs: 10_000, pollMs: 5_000, bounds: QUEUE_BOUNDS };

/** While an attempt runs its delivery is due only after this: a killed process leaves it to the next one. */
const LEASE_MS = 60_000;
/** Rows asked of the store at once, beside those held. */
const BATCH = 100;
/** What a busy webhook can not take now comes back after this, and then this far apart. */
const DEFER_MS = 2_000;
const DEFER_STEP_MS = 20;
/** Waits between attempts to keep a notice that the store refuses. */
const KEEP_WAITS_MS = [200, 1_000, 5_000] as const;
/** Notices that are being kept now; past this they are given up, loudly. */
const MAX_KEEPING = 2_000;

export interface WebhookMetrics {
  webhookAttempted(outcome: 'delivered' | 'retrying' | 'dead'): void;
}

export interface DispatcherDeps {
  readonly store: WebhookStore;
  readonly notices: Notices;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics?: WebhookMetrics;
  readonly timing: DispatchTiming;
  readonly timers?: Timers;
  readonly random?: () => number;
  readonly send: Send;
}

export interface Dispatcher {
  start(): void;
  /** A kept delivery that is due now. */
  place(job: DeliveryJob): void;
  drop(tenantId: TenantId, webhookId: string): Promise<void>;
  close(): Promise<void>;
}

export function createDispatcher(deps: DispatcherDeps): Dispatcher {
  const { store, clock, log, timing, send } = deps;
  const timers = deps.timers ?? systemTimers;
  const random = deps.random ?? Math.random;
  const queue = createDeliveryQueue(timing.bounds, attempt);
  const keeping = new Set<Promise<void>>();
  /** Where the next deferred delivery of a webhook goes. */
  const deferredTo = new Map<string, number>();
  const waits = new Set<() => void>();
  let alarm: { readonly atMs: number; readonly cancel: () => void } | undefined;
  let looking: Promise<void> | undefined;
  let missed = false;
  /** Attempts that ended while the store was asked: what it answers about them is old. */
  const endedMeanwhile = new Set<string>();
  let stopListening: (() => void) | undefined;
  let closed = false;

  // 1. A notice becomes a delivery for every webhook that wants it.
  function hear(notice: TenantNotice): void {
    if (keeping.size >= MAX_KEEPING) {
      log.error({ event: notice.event, tenant_id: notice.tenant_id }, 'a notice for webhooks was given up');
      return;
    }
    const work = accept(notice).finally(() => keeping.delete(work));
    keeping.add(work);
  }

  async function accept(notice: TenantNotice): Promise<void> {
    try {
      const webhooks = await insistently(() => store.list(notice.tenant_id));
      await Promise.all(webhooks.filter((webhook) => wants(webhook, notice)).map((one) => keep(one, notice)));
    } catch (error) {
      log.error(
        { err: error, event: notice.event, tenant_id: notice.tenant_id },
        'a notice was not kept for webhooks',
      );
    }
  }

  async function keep(webhook: Webhook, notice: TenantNotice): Promise<void> {
    const delivery = newDelivery(webhook, notice, clock.now());
    await insistently(() => store.keep(delivery));
    place({ delivery, webhook });
  }

  /** Tries again where the store fails, a few times; rejects with its last word, or on close. */
  async function insistently<T>(work: () => Promise<T>): Promise<T> {
    for (const waitMs of KEEP_WAITS_MS) {
      try {
        return await work();
      } catch (error) {
        if (closed) throw error;
        await wait(waitMs);
      }
    }
    return work();
  }

  const wait = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      const end = (): void => {
        cancel();
        waits.delete(end);
        resolve();
      };
      const cancel = timers.after(ms, end);
      waits.add(end);
    });

  // 2. Deliveries wait in the queue; what it can not hold is put off in the store.
  function place(job: DeliveryJob): void {
    if (closed || queue.has(job.delivery.id) || queue.add(job)) return;
    const soonest = clock.now() + DEFER_MS;
    const atMs = Math.max(soonest, (deferredTo.get(job.webhook.id) ?? 0) + DEFER_STEP_MS);
    deferredTo.set(job.webhook.id, atMs);
    const deferred = { ...job.delivery, next_attempt_at: new Date(atMs).toISOString() };
    store.keep(deferred).then(
      () => wake(atMs),
      (error: unknown) => log.warn({ err: error }, 'a delivery could not be put off'),
    );
  }

  // 3. What falls due is asked of the store: retries, and what an earlier process left.
  function wake(atMs: number): void {
    if (closed || (alarm && alarm.atMs <= atMs)) return;
    alarm?.cancel();
    const cancel = timers.after(Math.max(0, atMs - clock.now()), () => {
      alarm = undefined;
      if (looking) missed = true;
      looking ??= look().finally(() => {
        looking = undefined;
        wake(clock.now() + (missed ? 0 : timing.pollMs));
        missed = false;
      });
    });
    alarm = { atMs, cancel };
  }

  /** Takes what is due, and sets the alarm for what will be before the next look. */
  async function look(): Promise<void> {
    const now = clock.now();
    for (const [webhookId, atMs] of deferredTo) if (atMs < now) deferredTo.delete(webhookId);
    endedMeanwhile.clear();
    try {
      const limit = BATCH + queue.size();
      const rows = await store.due(now + timing.pollMs, limit);
      for (const job of rows) {
        const atMs = Date.parse(job.delivery.next_attempt_at ?? job.delivery.created_at);
        if (atMs > now) wake(atMs);
        else if (!endedMeanwhile.has(job.delivery.id)) place(job);
      }
      const last = rows.at(-1)?.delivery.next_attempt_at ?? '';
      if (rows.length >= limit && Date.parse(last) <= now) wake(clock.now() + DEFER_STEP_MS);
    } catch (error) {
      log.warn({ err: error }, 'due deliveries could not be read');
    }
  }

  // 4. One attempt: counted before it is made, so that a process that dies of it does not make it for ever.
  async function attempt(job: DeliveryJob, signal: AbortSignal): Promise<void> {
    const { webhook, delivery } = job;
    const begun: WebhookDelivery = {
      ...delivery,
      attempts: delivery.attempts + 1,
      next_attempt_at: new Date(clock.now() + LEASE_MS).toISOString(),
    };
    try {
      await store.keep(begun);
      if (signal.aborted) return await giveBack(delivery, signal);
      const { url, secret } = webhook;
      const body = JSON.stringify(delivery.payload);
      const sent = await send({ url, secret, id: delivery.id, atMs: clock.now(), body }, signal);
      if (signal.aborted && sent.type === 'failed') return await giveBack(delivery, signal);
      if (signal.aborted && signal.reason === 'removed') return;
      const after = afterAttempt(begun, sent, clock.now(), random());
      await store.keep(after);
      report(after);
    } catch (error) {
      // It stays due: once the lease is over the attempt is made again.
      log.error({ err: error, delivery_id: delivery.id }, 'the outcome of a delivery could not be kept');
    } finally {
      if (looking) endedMeanwhile.add(delivery.id);
    }
  }

  /** An attempt that was broken off, not failed: due at once, for whoever comes next. */
  async function giveBack(delivery: WebhookDelivery, signal: AbortSignal): Promise<void> {
    if (signal.reason === 'closing')
      await store.keep({ ...delivery, next_attempt_at: new Date(clock.now()).toISOString() });
  }

  function report(delivery: WebhookDelivery): void {
    const { id, webhook_id, status, attempts, last_error, next_attempt_at } = delivery;
    const outcome = status === 'pending' ? 'retrying' : status;
    deps.metrics?.webhookAttempted(outcome);
    const fields = { delivery_id: id, webhook_id, attempts, last_error };
    if (outcome === 'dead') log.warn(fields, 'a delivery is dead');
    else log.debug(fields, `a delivery is ${outcome}`);
    if (next_attempt_at !== null) wake(Date.parse(next_attempt_at));
  }

  return {
    start() {
      if (closed || stopListening) return;
      stopListening = deps.notices.listen(hear);
      wake(clock.now());
    },
    place,
    drop: (tenantId, webhookId) => queue.drop(tenantId, webhookId),
    async close() {
      closed = true;
      stopListening?.();
      alarm?.cancel();
      for (const end of [...waits]) end();
      await Promise.all([...keeping, looking]);
      await queue.close();
    },
  };
}

const wants = (webhook: Webhook, notice: TenantNotice): boolean =>
  webhook.events === null || webhook.events.includes(notice.event);

const newDelivery = (webhook: Webhook, notice: TenantNotice, nowMs: number): WebhookDelivery => ({
  id: `msg_${randomUUID()}`,
  webhook_id: webhook.id,
  tenant_id: webhook.tenant_id,
  event: notice.event,
  payload: notice,
  status: 'pending',
  attempts: 0,
  next_attempt_at: new Date(nowMs).toISOString(),
  last_error: null,
  created_at: new Date(nowMs).toISOString(),
  delivered_at: null,
});
