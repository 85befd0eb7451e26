/** Batches of executions: a few at a time, patient where the tenant's limits say so, remembered in memory until newer ones need the room. */
import { type ErrorData, type Reply, refusal } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import type { TurnRecord, TurnRequest } from '../../src/domain/turn.ts';
import { type BatchBody, type BatchItem, executionBody } from '../../src/domain/turn-schemas.ts';
import type { Batches, ItemRequest, Offers, Runs } from '../../src/ports/executions.ts';
import { type Log, systemTimers, type Timers } from '../../src/ports/telemetry.ts';

export interface BatchBounds {
  readonly runningPerTenant: number;
  readonly running: number;
  /** Batches that can be asked for; the oldest finished ones make room. */
  readonly keptPerTenant: number;
  readonly kept: number;
  /** UTF-16 units of all kept results together. */
  readonly keptUnits: number;
}

export const BATCH_BOUNDS: BatchBounds = {
  runningPerTenant: 10,
  running: 500,
  keptPerTenant: 100,
  kept: 2_000,
  keptUnits: 32 * 1024 * 1024,
};

const TOO_MANY_RETRY_MS = 5_000;

interface Item {
  /** Let go once the item has begun: it holds the input. */
  order: ItemRequest | null;
  told: BatchItem;
}

interface Batch {
  readonly id: string;
  readonly tenantId: TenantId;
  readonly items: readonly Item[];
  /** The first item that nobody has taken. */
  next: number;
  /** Items that have not ended. */
  open: number;
  units: number;
}

export interface BatchDeps {
  readonly offers: Offers;
  readonly log: Log;
  readonly newBatchId: () => string;
  readonly bounds?: Partial<BatchBounds>;
}

export function createBatches({ offers, log, newBatchId, ...deps }: BatchDeps): Batches {
  const bounds = { ...BATCH_BOUNDS, ...deps.bounds };
  /** Oldest first. */
  const batches = new Map<string, Batch>();
  let keptUnits = 0;
  let closed = false;

  async function work(batch: Batch): Promise<void> {
    for (let item = batch.items[batch.next]; item; item = batch.items[batch.next]) {
      batch.next += 1;
      const end = await run(item);
      item.order = null;
      item.told = end.ok ? endedItem(item.told, end.value) : failedItem(item.told, end.error);
      const units = item.told.result?.content.length ?? 0;
      batch.units += units;
      keptUnits += units;
      batch.open -= 1;
    }
    if (batch.open === 0) forgetOldest(batch.tenantId);
  }

  /** Offers an item until it is taken or refused for good, and waits for its end. */
  async function run(item: Item): Promise<Reply<TurnRecord>> {
    const { order } = item;
    if (!order) return { ok: false, error: refusal('INTERNAL') };
    const onStarted = (): void => {
      item.told = { ...item.told, status: 'processing' };
    };
    const begun = await offers.begin(order.request, {
      hear: true,
      onStarted,
      callbackUrl: order.callbackUrl,
    });
    if (!begun.ok) return begun;
    item.order = null;
    if (item.told.status !== 'processing')
      item.told = { ...item.told, session_id: begun.sessionId, status: begun.accepted.status };
    else item.told = { ...item.told, session_id: begun.sessionId };
    return begun.ended;
  }

  /** Makes room in the memory of finished batches, the tenant's own first. */
  function forgetOldest(tenantId: TenantId): void {
    const own = [...batches.values()].filter((batch) => batch.tenantId === tenantId);
    let ownCount = own.length;
    for (const batch of own) {
      if (ownCount <= bounds.keptPerTenant) break;
      if (forget(batch)) ownCount -= 1;
    }
    for (const batch of batches.values()) {
      if (batches.size <= bounds.kept && keptUnits <= bounds.keptUnits) return;
      forget(batch);
    }
  }

  function forget(batch: Batch): boolean {
    if (batch.open > 0) return false;
    keptUnits -= batch.units;
    return batches.delete(batch.id);
  }

  return {
    start(tenantId, orders, concurrency) {
      const running = [...batches.values()].filter(({ open }) => open > 0);
      const own = running.filter((batch) => batch.tenantId === tenantId);
      if (closed) return { ok: false, error: refusal('DRAINING') };
      if (own.length >= bounds.runningPerTenant || running.length >= bounds.running)
        return { ok: false, error: tooMany() };
      const items = orders.map((order) => ({ order, told: waitingItem(order.request) }));
      const batch: Batch = { id: newBatchId(), tenantId, items, next: 0, open: items.length, units: 0 };
      batches.set(batch.id, batch);
      forgetOldest(tenantId);
      for (let worker = 0; worker < Math.min(concurrency, items.length); worker += 1)
        work(batch).catch((error: unknown) => log.error({ err: error }, 'a batch of executions broke'));
      return { ok: true, value: bodyOf(batch) };
    },
    find(tenantId, batchId) {
      const batch = batches.get(batchId);
      return batch?.tenantId === tenantId ? bodyOf(batch) : undefined;
    },
    close() {
      closed = true;
    },
  };
}

const tooMany = (): ErrorData =>
  refusal('OVERLOADED', {
    message: 'Too many batches are running already; wait for one to end.',
    retryAfterMs: TOO_MANY_RETRY_MS,
  });

const waitingItem = ({ taskId, sessionId }: TurnRequest): BatchItem => ({
  execution_id: taskId,
  session_id: sessionId,
  status: 'queued',
});

const endedItem = (told: BatchItem, turn: TurnRecord): BatchItem => {
  const { status, result, error } = executionBody(turn);
  return { ...told, status, ...(result ? { result } : {}), ...(error ? { error } : {}) };
};

const failedItem = (told: BatchItem, error: ErrorData): BatchItem => ({ ...told, status: 'failed', error });

const hasFailed = ({ status }: BatchItem): boolean =>
  status === 'failed' || status === 'timeout' || status === 'cancelled';

function bodyOf({ id, items, open }: Batch): BatchBody {
  const told = items.map((item) => item.told);
  return {
    batch_id: id,
    status: open === 0 ? 'completed' : 'processing',
    total: told.length,
    completed: told.filter(({ status }) => status === 'completed').length,
    failed: told.filter(hasFailed).length,
    items: told,
  };
}

/** Times that one execution is offered while limits refuse it. */
const MAX_TRIES = 20;

/** Where a limit asks for more patience than this, it has failed at once. */
const MAX_WAIT_MS = 120_000;

const DEFAULT_WAIT_MS = 1_000;

/** Those that wait for the same limit come back up to this far apart. */
const SPREAD_MS = 250;

export interface OfferDeps {
  readonly runs: Runs;
  readonly log: Log;
  readonly timers?: Timers;
  readonly random?: () => number;
}

export function createOffers({ runs, log, timers = systemTimers, random = Math.random }: OfferDeps): Offers {
  const pauses = new Set<() => void>();
  let closed = false;

  /** Ends early where the node closes, or nobody wants it any more. */
  const pause = (ms: number, signal: AbortSignal | undefined): Promise<void> =>
    new Promise((resolve) => {
      const end = (): void => {
        cancel();
        pauses.delete(end);
        signal?.removeEventListener('abort', end);
        resolve();
      };
      const cancel = timers.after(ms, end);
      pauses.add(end);
      signal?.addEventListener('abort', end);
    });

  return {
    async begin(first, options, signal) {
      let request = first;
      for (let tries = 1; ; tries += 1) {
        if (closed) return { ok: false, error: refusal('INTERRUPTED') };
        const begun = await runs.begin(request, options).catch((error: unknown) => {
          log.error({ err: error, task_id: request.taskId }, 'an item of a batch could not be begun');
          return { ok: false as const, error: refusal('INTERNAL') };
        });
        if (begun.ok) return begun;
        const waitMs = patience(begun.error);
        if (waitMs === null || tries === MAX_TRIES || signal?.aborted) return begun;
        await pause(waitMs + random() * SPREAD_MS, signal);
        if (signal?.aborted) return begun;
        // An offer that got no answer in time may have been taken all the same: the next one finds it.
        request = { ...request, taskIdGiven: true };
      }
    },
    close() {
      closed = true;
      for (const end of [...pauses]) end();
    },
  };
}

/** How long to wait before it is offered again; null: it has failed. */
function patience({ code, retry_after_ms: waitMs = DEFAULT_WAIT_MS }: ErrorData): number | null {
  const passing = code === 'OVERLOADED' || code === 'RATE_LIMITED';
  return passing && waitMs <= MAX_WAIT_MS ? waitMs : null;
}
