/** The nightly job that deletes what is too old: conversations by tier, answers, deliveries, batches, and what dead nodes left. */
import { Cron } from 'croner';
import { TIERS, type Tier, type TierTable } from '../domain/tiers.ts';
import type { BatchStore } from '../ports/batches.ts';
import type { JobRuns, OwnerTable } from '../ports/cluster.ts';
import type { DeliveryStore } from '../ports/management.ts';
import type { Store } from '../ports/store.ts';
import type { Clock, Log } from '../ports/telemetry.ts';

interface RetentionOptions {
  readonly store: Store;
  readonly webhooks: Pick<DeliveryStore, 'expire'>;
  /** Where nodes share the database. */
  readonly owners?: Pick<OwnerTable, 'sweep'> | undefined;
  readonly batches: Pick<BatchStore, 'expire'>;
  /** Absent: no other node runs it. */
  readonly jobs?: JobRuns | undefined;
  readonly tiers: TierTable;
  /** Whose days count for tenants that have no tier of their own. */
  readonly defaultTier: Tier;
  readonly clock: Clock;
  readonly log: Log;
  /** When it runs, as a cron line in UTC; default: every night at 03:17. */
  readonly schedule?: string;
}

interface Retention {
  /** Runs the job now. Never rejects: what failed is logged and comes up again at the next run. */
  run(): Promise<void>;
  /** No further runs. */
  close(): void;
}

const NIGHTLY = '17 3 * * *';
const DAY_MS = 86_400_000;
/** How long a repeated action is answered as before. */
export const ANSWER_RETENTION_MS = 7 * DAY_MS;
/** How long a webhook's deliveries can be looked at once they were delivered; dead ones can be replayed as well. */
export const DELIVERED_RETENTION_MS = 7 * DAY_MS;
export const DEAD_RETENTION_MS = 30 * DAY_MS;
/** How long a batch of executions can be asked for. */
const BATCH_RETENTION_MS = 7 * DAY_MS;
/** Deliveries of a webhook that stay from one night to the next. */
export const MAX_DELIVERIES = 10_000;

/** Starts the schedule. Two runs never overlap; the store deletes in chunks between its other writes. */
export function createRetention(options: RetentionOptions): Retention {
  const { store, webhooks, batches, owners, jobs, tiers, defaultTier, clock, log } = options;
  const { schedule = NIGHTLY } = options;

  async function attempt(what: string, work: () => Promise<unknown>, fields: object = {}): Promise<void> {
    try {
      await work();
    } catch (error) {
      log.warn({ err: error, ...fields }, `${what} could not be deleted`);
    }
  }

  async function expireHistory(tier: Tier | null): Promise<void> {
    const days = tiers[tier ?? defaultTier].history_days;
    if (days === null) return;
    const beforeMs = clock.now() - days * DAY_MS;
    const commit = () => store.commit({ type: 'history-expired', tier, beforeMs });
    await attempt('old conversations', commit, { tier: tier ?? 'none' });
  }

  async function expireDeliveries(nowMs: number): Promise<void> {
    const deleted = await webhooks.expire({
      deliveredBeforeMs: nowMs - DELIVERED_RETENTION_MS,
      deadBeforeMs: nowMs - DEAD_RETENTION_MS,
      perWebhook: MAX_DELIVERIES,
    });
    log.info({ deleted }, 'old deliveries deleted');
  }

  async function run(): Promise<void> {
    for (const tier of [...TIERS, null]) await expireHistory(tier);
    const nowMs = clock.now();
    const answers = { type: 'outgoing-expired', beforeMs: nowMs - ANSWER_RETENTION_MS } as const;
    await attempt('old answers', () => store.commit(answers));
    await attempt('old deliveries', () => expireDeliveries(nowMs));
    if (owners) await attempt('what dead nodes left', () => owners.sweep());
    await attempt('old batches', () => batches.expire(nowMs - BATCH_RETENTION_MS));
    log.info({}, 'old conversations deleted');
  }

  /** Of all nodes the first does it. What it leaves, since it fails or dies, is done the next night. */
  async function nightly(): Promise<void> {
    try {
      if (!jobs || (await jobs.begin('retention'))) await run();
    } catch (error) {
      log.warn({ err: error }, 'the nightly job was not begun');
    }
  }

  const job = new Cron(schedule, { protect: true, timezone: 'UTC', unref: true }, nightly);
  return { run, close: () => job.stop() };
}
