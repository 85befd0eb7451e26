/** Batches of executions: a few items at a time, each with retry; remembered in memory until newer batches need the room. */
import PQueue from 'p-queue';
import { defined } from '../../src/domain/defined.ts';
import { type ErrorData, type Reply, refusal } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import type { TurnRecord, TurnRequest } from '../../src/domain/turn.ts';
import { type BatchBody, type BatchItem, executionBody } from '../../src/domain/turn-schemas.ts';
import type { Batches, Executions, ItemRequest } from '../../src/ports/executions.ts';
import type { Log } from '../../src/ports/telemetry.ts';

export interface BatchBounds {
  readonly runningPerTenant: number;
  readonly running: number;
  /** Batches that can be asked for; the oldest finished ones make room. */
  readonly keptPerTenant: number;
  readonly kept: number;
  /** UTF-16 units of all kept results together. */
  readonly keptUnits: number;
}

const BATCH_BOUNDS: BatchBounds = {
  runningPerTenant: 10,
  running: 500,
  keptPerTenant: 100,
  kept: 2_000,
  keptUnits: 32 * 1024 * 1024,
};

const TOO_MANY_RETRY_MS = 5_000;

interface Item {
  /** Dropped once the item has started: it holds the input. */
  request: ItemRequest | null;
  body: BatchItem;
}

interface Batch {
  readonly id: string;
  readonly tenantId: TenantId;
  readonly items: readonly Item[];
  /** Items that have not ended. */
  open: number;
  units: number;
}

interface BatchDeps {
  readonly startWithRetry: Executions['startWithRetry'];
  readonly log: Log;
  readonly newBatchId: () => string;
  readonly bounds?: Partial<BatchBounds>;
}

export function createBatches({ startWithRetry, log, newBatchId, bounds }: BatchDeps): Batches {
  const memory = createBatchMemory({ ...BATCH_BOUNDS, ...bounds });
  let closed = false;

  async function work(batch: Batch, item: Item): Promise<void> {
    const end = await run(item);
    item.request = null;
    item.body = end.ok
      ? endedItem(item.body, end.value)
      : { ...item.body, status: 'failed', error: end.error };
    memory.ended(batch, item.body.result?.content.length ?? 0);
  }

  async function run(item: Item): Promise<Reply<TurnRecord>> {
    if (!item.request) return { ok: false, error: refusal('INTERNAL') };
    const { request, callbackUrl } = item.request;
    const onStarted = (): void => {
      item.body = { ...item.body, status: 'processing' };
    };
    const started = await startWithRetry(request, { awaitEnd: 'record', onStarted, callbackUrl });
    if (!started.ok) return started;
    item.request = null;
    // It may have its slot already.
    const status = item.body.status === 'processing' ? 'processing' : started.accepted.status;
    item.body = { ...item.body, session_id: started.sessionId, status };
    return started.ended;
  }

  return {
    start(tenantId, requests, concurrency) {
      if (closed) return { ok: false, error: refusal('DRAINING') };
      const items = requests.map((request) => ({ request, body: waitingItem(request.request) }));
      const batch: Batch = { id: newBatchId(), tenantId, items, open: items.length, units: 0 };
      if (!memory.add(batch)) return { ok: false, error: tooMany() };
      const queue = new PQueue({ concurrency: Math.max(1, concurrency) });
      for (const item of items)
        queue
          .add(() => work(batch, item))
          .catch((error: unknown) => log.error({ err: error }, 'a batch of executions broke'));
      return { ok: true, value: bodyOf(batch) };
    },
    find(tenantId, batchId) {
      const batch = memory.get(batchId);
      return batch?.tenantId === tenantId ? bodyOf(batch) : undefined;
    },
    close() {
      closed = true;
    },
  };
}

/**
 * The batches that can be asked for. By hand and not an LRU cache: batches that run are never dropped, and a tenant's
 * own batches make room for its new ones first.
 */
function createBatchMemory(bounds: BatchBounds) {
  /** Oldest first. */
  const batches = new Map<string, Batch>();
  let keptUnits = 0;

  /** Drops what is over the bounds, the tenant's own batches first. */
  function makeRoom(tenantId: TenantId): void {
    const own = [...batches.values()].filter((batch) => batch.tenantId === tenantId);
    let ownCount = own.length;
    for (const batch of own) {
      if (ownCount <= bounds.keptPerTenant) break;
      if (drop(batch)) ownCount -= 1;
    }
    for (const batch of batches.values()) {
      if (batches.size <= bounds.kept && keptUnits <= bounds.keptUnits) return;
      drop(batch);
    }
  }

  function drop(batch: Batch): boolean {
    if (batch.open > 0) return false;
    keptUnits -= batch.units;
    return batches.delete(batch.id);
  }

  return {
    get: (id: string) => batches.get(id),
    /** False where too many run. */
    add(batch: Batch): boolean {
      const running = [...batches.values()].filter(({ open }) => open > 0);
      const own = running.filter(({ tenantId }) => tenantId === batch.tenantId);
      if (own.length >= bounds.runningPerTenant || running.length >= bounds.running) return false;
      batches.set(batch.id, batch);
      makeRoom(batch.tenantId);
      return true;
    },
    /** An item of the batch has ended, with a result of so many units. */
    ended(batch: Batch, units: number): void {
      batch.units += units;
      keptUnits += units;
      batch.open -= 1;
      if (batch.open === 0) makeRoom(batch.tenantId);
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

const endedItem = (item: BatchItem, turn: TurnRecord): BatchItem => {
  const { status, result, error } = executionBody(turn);
  return { ...item, ...defined({ status, result, error }) };
};

const hasFailed = ({ status }: BatchItem): boolean =>
  status === 'failed' || status === 'timeout' || status === 'cancelled';

function bodyOf({ id, items, open }: Batch): BatchBody {
  const bodies = items.map(({ body }) => body);
  return {
    batch_id: id,
    status: open === 0 ? 'completed' : 'processing',
    total: bodies.length,
    completed: bodies.filter(({ status }) => status === 'completed').length,
    failed: bodies.filter(hasFailed).length,
    items: bodies,
  };
}
