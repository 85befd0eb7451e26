/** Brings notices to webhooks: stores each as a delivery, makes attempts as they fall due, and writes down how they ended. */
import { randomUUID } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import {
  deliveryTo,
  type TenantNotice,
  type Webhook,
  type WebhookDelivery,
} from '../../src/domain/agent-record.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import type { ClaimedDelivery, Notices, WebhookStore } from '../../src/ports/management.ts';
import {
  type Clock,
  type DeliveryMeter,
  type DeliveryStats,
  type Log,
  pause,
  type Timers,
} from '../../src/ports/telemetry.ts';
import { createDeliveryQueue, QUEUE_BOUNDS, type QueueBounds } from './queue.ts';
import { afterAttempt } from './retry.ts';
import type { Send } from './send.ts';

export interface DispatchTiming {
  /** One attempt, name resolution included. */
  readonly timeoutMs: number;
  /** The store is asked at least this often for what is due, and will be before the next time. */
  readonly pollMs: number;
  readonly bounds: QueueBounds;
}

export const ATTEMPT_TIMEOUT_MS = 10_000;

export const DISPATCH_TIMING: DispatchTiming = {
  timeoutMs: ATTEMPT_TIMEOUT_MS,
  pollMs: 5_000,
  bounds: QUEUE_BOUNDS,
};

/** While an attempt runs its delivery is claimed for this long: a killed process leaves it to the next one. */
const LEASE_MS = 60_000;
/** So long it is claimed to wait in memory; then whoever asks the store first has it. */
const CLAIM_MS = 15_000;
/** Deliveries claimed at once. */
const BATCH = 100;
/** What a busy webhook can not take now comes back after this, and then this far apart. */
const DEFER_MS = 2_000;
const DEFER_STEP_MS = 20;
/** Waits between tries to store a notice that the store refuses. */
const STORE_WAITS_MS = [200, 1_000, 5_000] as const;
/** Webhooks whose last deferral is remembered. */
const MAX_DEFERRING = 10_000;
/** Notices that are being stored now; past this they are lost, loudly. */
const MAX_STORING = 2_000;

interface DispatcherDeps {
  readonly store: WebhookStore;
  readonly notices: Notices;
  readonly clock: Clock;
  readonly log: Log;
  readonly meter: DeliveryMeter;
  readonly timing: DispatchTiming;
  readonly timers: Timers;
  readonly random: () => number;
  readonly send: Send;
}

interface Dispatcher {
  start(): void;
  /** Stores a delivery, new or changed, as claimed by this node, and takes it. */
  take(delivery: WebhookDelivery, webhook: Webhook): Promise<void>;
  /** Waiting are those in memory; deliveries between two attempts wait in the store. */
  stats(): DeliveryStats;
  drop(tenantId: TenantId, webhookId: string): Promise<void>;
  close(): Promise<void>;
}

export function createDispatcher(deps: DispatcherDeps): Dispatcher {
  const { store, clock, log, timing } = deps;
  const attempt = createAttempt(deps, (atMs) => due.wake(atMs));
  /** What waits, as it was claimed last: a claim that ran out may have been renewed, by this node or after another. */
  const claims = new Map<string, ClaimedDelivery>();
  const queue = createDeliveryQueue<ClaimedDelivery>(timing.bounds, keysOf, (job, signal) => {
    const latest = claims.get(job.delivery.id) ?? job;
    claims.delete(job.delivery.id);
    return attempt(latest, signal);
  });
  const due = createDueReader(deps, enqueue);
  const intake = createIntake(deps, take, () => due.wake(clock.now()));
  /** When the last deferred delivery of a webhook is due. One that is forgotten defers its next ones less. */
  const deferredTo = new LRUCache<string, number>({ max: MAX_DEFERRING });
  let closed = false;

  /** What the queue can not hold is put off in the store. */
  function enqueue(job: ClaimedDelivery): void {
    if (closed) return release(job);
    const { delivery, webhook, untilMs } = job;
    claims.set(delivery.id, job);
    if (queue.has(delivery.id) || queue.add(job)) return;
    claims.delete(delivery.id);
    const atMs = Math.max(clock.now() + DEFER_MS, (deferredTo.get(webhook.id) ?? 0) + DEFER_STEP_MS);
    deferredTo.set(webhook.id, atMs);
    store.saveClaimed({ ...delivery, next_attempt_at: iso(atMs) }, untilMs).then(
      () => due.wake(atMs),
      (error: unknown) => log.warn({ err: error }, 'a delivery could not be put off'),
    );
  }

  async function take(delivery: WebhookDelivery, webhook: Webhook): Promise<void> {
    const untilMs = clock.now() + CLAIM_MS;
    await store.saveDelivery(delivery, untilMs);
    enqueue({ delivery, webhook, untilMs });
  }

  const releasing = new Set<Promise<unknown>>();
  /** It is due again as it was. Where that fails its claim runs out. */
  function release({ delivery, untilMs }: ClaimedDelivery): void {
    const work = store.saveClaimed(delivery, untilMs).catch(() => false);
    releasing.add(work);
  }

  return {
    start() {
      if (closed) return;
      intake.start();
      due.wake(clock.now());
    },
    take,
    stats: queue.stats,
    async drop(tenantId, webhookId) {
      await queue.drop(tenantId, webhookId);
      for (const [id, { webhook }] of claims) if (webhook.id === webhookId) claims.delete(id);
    },
    async close() {
      closed = true;
      await Promise.all([intake.close(), due.close()]);
      await queue.close();
      for (const job of claims.values()) release(job);
      await Promise.all(releasing);
    },
  };
}

const keysOf = ({ delivery, webhook }: ClaimedDelivery) => ({
  id: delivery.id,
  receiver: webhook.id,
  tenantId: webhook.tenant_id,
});

const iso = (atMs: number): string => new Date(atMs).toISOString();

type Enqueue = (job: ClaimedDelivery) => void;

/** Makes attempts that never reject. Each is counted before it is made, so that a process that dies of it does not make it for ever. */
function createAttempt(deps: DispatcherDeps, wake: (atMs: number) => void) {
  const { store, clock, log, meter, send, random } = deps;

  /** An attempt that was broken off has not failed: its delivery is due at once, for the next process. */
  async function requeue(delivery: WebhookDelivery, untilMs: number, signal: AbortSignal): Promise<void> {
    if (signal.reason === 'closing')
      await store.saveClaimed({ ...delivery, next_attempt_at: iso(clock.now()) }, untilMs);
  }

  function report(delivery: WebhookDelivery): void {
    const { id, webhook_id, status, attempts, last_error, next_attempt_at } = delivery;
    const outcome = status === 'pending' ? 'retrying' : status;
    meter.deliveryAttempted('webhook', outcome);
    const fields = { delivery_id: id, webhook_id, attempts, last_error };
    if (outcome === 'dead') log.warn(fields, 'a delivery is dead');
    else log.debug(fields, `a delivery is ${outcome}`);
    if (next_attempt_at !== null) wake(Date.parse(next_attempt_at));
  }

  return async ({ webhook, delivery, untilMs }: ClaimedDelivery, signal: AbortSignal): Promise<void> => {
    const attempts = delivery.attempts + 1;
    const leaseMs = clock.now() + LEASE_MS;
    const begun = { ...delivery, attempts, next_attempt_at: iso(leaseMs) };
    try {
      // Another may have it by now, and make this attempt.
      if (!(await store.saveClaimed(begun, untilMs))) return;
      if (signal.aborted) return await requeue(delivery, leaseMs, signal);
      const { url, secret } = webhook;
      const body = JSON.stringify(delivery.payload);
      const sent = await send({ url, secret, id: delivery.id, atMs: clock.now(), body }, signal);
      if (signal.aborted && sent.type === 'failed') return await requeue(delivery, leaseMs, signal);
      if (signal.aborted && signal.reason === 'removed') return;
      const after = afterAttempt(begun, sent, clock.now(), random());
      if (await store.saveClaimed(after, leaseMs)) report(after);
    } catch (error) {
      // It stays due: once the lease is over the attempt is made again.
      log.error({ err: error, delivery_id: delivery.id }, 'the outcome of a delivery could not be stored');
    }
  };
}

/**
 * Hears notices. What tells of something stored is stored with that, and read (`wake`); of any other a delivery for
 * every webhook that wants it is stored before it is sent.
 */
function createIntake(deps: DispatcherDeps, deliver: Dispatcher['take'], wake: () => void) {
  const { store, notices, log, meter, timers } = deps;
  const storing = new Set<Promise<void>>();
  const closing = new AbortController();
  let stopListening: (() => void) | undefined;

  function onNotice(notice: TenantNotice, stored: boolean): void {
    if (stored) return wake();
    if (storing.size >= MAX_STORING) return lose(notice, new Error('too many notices are being stored'));
    const work = take(notice)
      .catch((error: unknown) => lose(notice, error))
      .finally(() => storing.delete(work));
    storing.add(work);
  }

  function lose({ event, tenant_id }: TenantNotice, error: unknown): void {
    meter.deliveryAttempted('webhook', 'lost');
    log.error({ err: error, event, tenant_id }, 'a notice was lost to webhooks');
  }

  async function take(notice: TenantNotice): Promise<void> {
    const webhooks = await insistently(() => store.list(notice.tenant_id));
    await Promise.all(
      webhooks
        .filter(({ events }) => events === null || events.includes(notice.event))
        .map(async (webhook) => {
          const delivery = deliveryTo(webhook, notice, `msg_${randomUUID()}`);
          await insistently(() => deliver(delivery, webhook));
        }),
    );
  }

  /** Tries again where the store fails, a few times; rejects with its last error, or on close. */
  async function insistently<T>(work: () => Promise<T>): Promise<T> {
    for (const waitMs of STORE_WAITS_MS) {
      try {
        return await work();
      } catch (error) {
        if (closing.signal.aborted) throw error;
        await pause(timers, waitMs, closing.signal);
      }
    }
    return work();
  }

  return {
    start(): void {
      stopListening ??= notices.listen('once', onNotice);
    },
    async close(): Promise<void> {
      stopListening?.();
      closing.abort();
      await Promise.all(storing);
    },
  };
}

/** Claims what is due in the store: deliveries between two attempts, put off, or left by another process. */
function createDueReader(deps: DispatcherDeps, enqueue: Enqueue) {
  const { store, clock, log, timers } = deps;
  const { pollMs } = deps.timing;
  let alarm: { readonly atMs: number; readonly cancel: () => void } | undefined;
  let reading: Promise<void> | undefined;
  let missed = false;
  let closed = false;

  /** Reads at that time, or before. */
  function wake(atMs: number): void {
    if (closed || (alarm && alarm.atMs <= atMs)) return;
    alarm?.cancel();
    const cancel = timers.after(Math.max(0, atMs - clock.now()), () => {
      alarm = undefined;
      if (reading) missed = true;
      reading ??= read().finally(() => {
        reading = undefined;
        wake(clock.now() + (missed ? 0 : pollMs));
        missed = false;
      });
    });
    alarm = { atMs, cancel };
  }

  /** Enqueues what is due, and sets the alarm for what will be. */
  async function read(): Promise<void> {
    const now = clock.now();
    try {
      const { claimed, nextAtMs } = await store.claimDue(now, now + CLAIM_MS, BATCH);
      for (const job of claimed) enqueue(job);
      // What is due still was more than a batch, or another was claiming it.
      if (nextAtMs !== null) wake(nextAtMs > now ? nextAtMs : clock.now() + DEFER_STEP_MS);
    } catch (error) {
      log.warn({ err: error }, 'due deliveries could not be read');
    }
  }

  return {
    wake,
    async close(): Promise<void> {
      closed = true;
      alarm?.cancel();
      await reading;
    },
  };
}
