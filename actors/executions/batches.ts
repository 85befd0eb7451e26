/** Batches of executions: a few items at a time, each with retry, stored so that another node can go on with them. */
import PQueue from 'p-queue';
import { defined } from '../../src/domain/defined.ts';
import {
  type ErrorCode,
  type ErrorData,
  RefusalError,
  type Reply,
  refusal,
} from '../../src/domain/errors.ts';
import type { TaskId, TenantId } from '../../src/domain/ids.ts';
import { isEndStatus, type TurnRecord } from '../../src/domain/turn.ts';
import { type BatchBody, type BatchItem, executionBody } from '../../src/domain/turn-schemas.ts';
import type { BatchStore, ItemRequest, LeftBatch, StoredBatch, StoredItem } from '../../src/ports/batches.ts';
import type { Batches, Executions } from '../../src/ports/executions.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import { type Log, pause, type Timers } from '../../src/ports/telemetry.ts';
import { type BatchBounds, createBatchMemory, type RunningBatch, type RunningItem } from './batch-memory.ts';

/** What says nothing of the execution, but of its node. */
const NODE_GOES: ReadonlySet<ErrorCode> = new Set(['DRAINING', 'INTERRUPTED']);
const TOO_MANY_RETRY_MS = 5_000;
/** A batch is its node's for so long after its last word; that is said this often. */
const TERM_MS = 15_000;
const RENEW_MS = 5_000;
/** Batches that one look takes over. */
const TAKE_COUNT = 10;

interface BatchDeps {
  readonly store: BatchStore;
  readonly directory: Pick<Directory, 'turn'>;
  readonly startWithRetry: Executions['startWithRetry'];
  readonly log: Log;
  readonly timers: Timers;
  readonly newBatchId: () => string;
  readonly bounds: BatchBounds;
}

export function createBatches(deps: BatchDeps): Batches {
  const { store, directory, startWithRetry, log, timers, newBatchId, bounds } = deps;
  const memory = createBatchMemory(bounds);
  const closing = new AbortController();
  const isClosing = (): boolean => closing.signal.aborted;
  let freed = false;
  let cancel = (): void => {};
  let ticking: Promise<void> = Promise.resolve();

  async function work(batch: RunningBatch, index: number): Promise<void> {
    const item = batch.items[index];
    for (let request = item?.request; item && request && !isClosing(); request = again(request)) {
      const end = await attempt(batch, item, request);
      if (end.ok || !NODE_GOES.has(end.error.code)) return over(batch, item, end);
      // It is this node that goes, or has lost sight of it: whoever has the batch then says it again.
      await pause(timers, RENEW_MS, closing.signal);
    }
  }

  async function attempt(
    { id: batchId }: RunningBatch,
    item: RunningItem,
    { request, callbackUrl }: ItemRequest,
  ): Promise<Reply<TurnRecord>> {
    const onStarted = (): void => {
      item.body = { ...item.body, status: 'processing' };
    };
    const options = { awaitEnd: 'record', onStarted, callbackUrl, batchId } as const;
    const started = await startWithRetry(request, options, closing.signal);
    if (!started.ok) return isClosing() ? no(refusal('DRAINING')) : started;
    // It may have its slot already.
    const status = item.body.status === 'processing' ? 'processing' : started.accepted.status;
    item.body = { ...item.body, session_id: started.sessionId, status };
    return started.ended;
  }

  async function over(batch: RunningBatch, item: RunningItem, end: Reply<TurnRecord>): Promise<void> {
    item.request = null;
    if (end.ok) item.body = endedItem(item.body, end.value);
    else item.body = { ...item.body, status: 'failed', error: end.error };
    memory.ended(batch, item.body.result?.content.length ?? 0);
    if (batch.open === 0 || item.body.error) await save(batch);
  }

  /** What can not be stored now is, once the batch is over; and where that can not be, another node finds it over. */
  async function save(batch: RunningBatch): Promise<void> {
    try {
      await store.save(storedOf(batch));
    } catch (error) {
      log.warn({ err: error, batch_id: batch.id }, 'a batch could not be stored');
      if (batch.open === 0) memory.unsaved.add(batch);
    }
  }

  function run(batch: RunningBatch): void {
    const queue = new PQueue({ concurrency: Math.max(1, batch.concurrency) });
    for (const [index, { request }] of batch.items.entries())
      if (request)
        queue
          .add(() => work(batch, index))
          .catch((error: unknown) => log.error({ err: error }, 'a batch of executions broke'));
  }

  /** Goes on with what a node left: items that have ended are over, the others are said again by their task ids. */
  function takeOver({ requests, turns, ...stored }: LeftBatch): void {
    if (memory.get(stored.id)?.open) return;
    const ended = endedTurns(turns);
    const items = stored.items.map((item, index) => {
      const turn = ended.get(item.taskId);
      const request = requests[index];
      const isOver = item.error !== undefined || (turn && turn.error?.code !== 'INTERRUPTED');
      const body = bodyOfItem(item, turn);
      if (isOver || !request) return { request: null, body };
      return { request: again(request), body: waitingItem(item) };
    });
    const open = items.filter(({ request }) => request).length;
    const { id, tenantId, concurrency } = stored;
    const batch: RunningBatch = { id, tenantId, concurrency, items, open, units: 0 };
    memory.put(batch);
    log.info({ batch_id: id, tenant_id: tenantId, items: open }, 'a batch that was left goes on here');
    if (open === 0) void save(batch);
    else run(batch);
  }

  async function tick(): Promise<void> {
    try {
      for (const batch of memory.unsaved) {
        await store.save(storedOf(batch));
        memory.unsaved.delete(batch);
      }
      if (!freed) await store.free();
      freed = true;
      const mine = memory.running();
      if (mine.length > 0) await store.renew(mine, TERM_MS);
      if (mine.length < bounds.running)
        for (const left of await store.claim(TAKE_COUNT, TERM_MS)) takeOver(left);
    } catch (error) {
      if (!isClosing()) log.warn({ err: error }, 'batches could not be claimed');
    }
    tickIn(RENEW_MS);
  }

  function tickIn(ms: number): void {
    if (isClosing()) return;
    cancel = timers.after(ms, () => {
      ticking = tick();
    });
  }

  return {
    async start(tenantId, requests, concurrency) {
      if (isClosing()) return no(refusal('DRAINING'));
      if (!memory.hasRoom(tenantId)) return no(tooMany());
      const items = requests.map((request) => ({
        request,
        body: waitingItem({ taskId: request.request.taskId, sessionId: request.request.sessionId }),
      }));
      const batch: RunningBatch = {
        ...{ id: newBatchId(), tenantId, concurrency },
        ...{ items, open: items.length, units: 0 },
      };
      try {
        const added = await store.add(storedOf(batch), requests, bounds.runningPerTenant, TERM_MS);
        if (!added) return no(tooMany());
      } catch (error) {
        return no(refusedBy(error, log));
      }
      memory.put(batch);
      run(batch);
      return { ok: true, value: bodyOf(batch.id, bodiesOf(batch)) };
    },
    async find(tenantId, batchId) {
      const known = memory.get(batchId);
      if (known?.tenantId === tenantId) return { ok: true, value: bodyOf(batchId, bodiesOf(known)) };
      try {
        const found = await store.find(tenantId, batchId);
        if (!found) return no(refusal('NOT_FOUND', { message: 'There is no such batch.' }));
        const ended = endedTurns(found.turns);
        const items = found.batch.items.map((item) =>
          readItem(directory, tenantId, found.batch, item, ended),
        );
        return { ok: true, value: bodyOf(batchId, await Promise.all(items)) };
      } catch (error) {
        return no(refusedBy(error, log));
      }
    },
    takeUp: () => tickIn(0),
    async close() {
      closing.abort();
      cancel();
      await ticking;
      const mine = memory.running();
      if (mine.length > 0)
        await store
          .renew(mine, 0)
          .catch((error: unknown) => log.warn({ err: error }, 'batches could not be handed on'));
    },
  };
}

/** The request of an item that was said before, perhaps by another node: it goes on, or is found to be over. */
const again = ({ request, callbackUrl }: ItemRequest): ItemRequest => ({
  request: { ...request, taskIdGiven: true, resumable: true },
  callbackUrl,
});

/** An item as it stands: stored, or as whoever runs it says. */
async function readItem(
  directory: Pick<Directory, 'turn'>,
  tenantId: TenantId,
  { isOver }: StoredBatch,
  item: StoredItem,
  ended: ReadonlyMap<TaskId, TurnRecord>,
): Promise<BatchItem> {
  const turn = ended.get(item.taskId);
  if (turn || item.error) return bodyOfItem(item, turn);
  const live = await directory.turn(tenantId, item.taskId);
  if (live.ok) {
    const { status, sessionId } = live.value;
    return isEndStatus(status)
      ? endedItem(waitingItem(item), live.value)
      : { ...waitingItem(item), session_id: sessionId, status };
  }
  // Its session was deleted since.
  return isOver ? { ...waitingItem(item), status: 'failed', error: live.error } : waitingItem(item);
}

function refusedBy(error: unknown, log: Log): ErrorData {
  if (error instanceof RefusalError) return error.data;
  log.error({ err: error }, 'a batch could not be stored or read');
  return refusal('INTERNAL');
}

const no = (error: ErrorData): Extract<Reply<never>, { ok: false }> => ({ ok: false, error });

const tooMany = (): ErrorData =>
  refusal('OVERLOADED', {
    message: 'Too many batches are running already; wait for one to end.',
    retryAfterMs: TOO_MANY_RETRY_MS,
  });

const endedTurns = (turns: readonly TurnRecord[]): ReadonlyMap<TaskId, TurnRecord> =>
  new Map(turns.filter(({ status }) => isEndStatus(status)).map((turn) => [turn.taskId, turn]));

const waitingItem = ({ taskId, sessionId }: StoredItem): BatchItem => ({
  execution_id: taskId,
  session_id: sessionId,
  status: 'queued',
});

/** An item that has ended, in a turn or without one. */
const bodyOfItem = (item: StoredItem, turn: TurnRecord | undefined): BatchItem => {
  if (turn) return endedItem(waitingItem(item), turn);
  return item.error ? { ...waitingItem(item), status: 'failed', error: item.error } : waitingItem(item);
};

const endedItem = (item: BatchItem, turn: TurnRecord): BatchItem => {
  const { status, result, error } = executionBody(turn);
  return { ...item, session_id: turn.sessionId, ...defined({ status, result, error }) };
};

const storedOf = ({ id, tenantId, concurrency, items, open }: RunningBatch): StoredBatch => ({
  ...{ id, tenantId, concurrency, isOver: open === 0 },
  items: items.map(({ body: { execution_id, session_id, error } }) => ({
    ...{ taskId: execution_id, sessionId: session_id },
    ...defined({ error }),
  })),
});

const bodiesOf = ({ items }: RunningBatch): readonly BatchItem[] => items.map(({ body }) => body);

const hasFailed = ({ status }: BatchItem): boolean =>
  status === 'failed' || status === 'timeout' || status === 'cancelled';

function bodyOf(id: string, items: readonly BatchItem[]): BatchBody {
  const completed = items.filter(({ status }) => status === 'completed').length;
  const failed = items.filter(hasFailed).length;
  return {
    batch_id: id,
    status: completed + failed === items.length ? 'completed' : 'processing',
    ...{ total: items.length, completed, failed },
    items: [...items],
  };
}
