/** Keeps the ends of turns that the store can not take now, and writes them, in their order, as soon as it can. */
import { RefusalError, refusal } from '../domain/errors.ts';
import type { TaskId, TenantId } from '../domain/ids.ts';
import { failedEnd, type TurnRecord } from '../domain/turn.ts';
import type { Store, Write, WriteOutcome } from '../ports/store.ts';
import type { EndStats, Log } from '../ports/telemetry.ts';

export interface KeptEndLimits {
  /** Writes that wait for the store, and rough bytes of them. */
  readonly maxWrites: number;
  readonly maxBytes: number;
  /** Between two tries. */
  readonly retryMs: number;
  /** Tried at once, when the first has been taken. */
  readonly chunk: number;
  /** How long close() goes on trying. */
  readonly closeMs: number;
}

const KEPT_END_LIMITS: KeptEndLimits = {
  maxWrites: 20_000,
  maxBytes: 64 * 1024 * 1024,
  retryMs: 250,
  chunk: 256,
  closeMs: 2_000,
};

/** What follows from turns that have run already, and from sessions that have left: to refuse it would undo nothing. */
export type KeptWrite = Extract<
  Write,
  { type: 'turn-ended' | 'turn-overtaken' | 'turn-notified' | 'session-released' }
>;

/** Ends of turns that outlast an outage of the store. */
export interface KeptEnds {
  /** Those that wait. While there are any, the next ones wait behind them. */
  readonly waiting: readonly unknown[];
  /** Writes it as soon as the store can take it. `error`: why that did not, at once; rejects with it where it is no outage. */
  keep(write: KeptWrite, error?: unknown): Promise<WriteOutcome>;
  /** A turn whose end waits. */
  turn(tenantId: TenantId, taskId: TaskId): TurnRecord | undefined;
  stats(): EndStats;
  /** Goes on trying for a moment; what is left is lost, and said so in the log. */
  close(): Promise<void>;
}

type TurnEnded = Extract<Write, { type: 'turn-ended' }>;
interface Entry {
  readonly write: KeptWrite;
  readonly bytes: number;
  /** The store may have it, though it did not say so. */
  tried: boolean;
  readonly resolve: (outcome: WriteOutcome) => void;
  readonly reject: (error: unknown) => void;
}

interface KeptEndsOptions {
  readonly store: Pick<Store, 'commit'>;
  readonly log: Log;
  readonly limits?: Partial<KeptEndLimits>;
}

/**
 * What fails as the store is out waits here, for as long as the node lives; its commit resolves once it is stored. Beyond
 * the bounds an end is refused, and what is kept of it is that it failed; beyond their number, nothing.
 */
export function createKeptEnds({ store, log, limits: given }: KeptEndsOptions): KeptEnds {
  const limits = { ...KEPT_END_LIMITS, ...given };
  const waiting: Entry[] = [];
  let bytes = 0;
  let lost = 0;
  let running: Promise<void> | undefined;
  let endPause = (): void => {};
  let closingAtMs: number | undefined;

  function keep(write: KeptWrite, error?: unknown): Promise<WriteOutcome> {
    const tried = error !== undefined;
    if (tried && (!isOut(error) || closingAtMs !== undefined)) return Promise.reject(error);
    const size = sizeOf(write);
    if (waiting.length < limits.maxWrites && bytes + size <= limits.maxBytes)
      return new Promise((resolve, reject) => add({ write, bytes: size, tried, resolve, reject }));
    lose(write);
    if (write.type === 'turn-ended' && waiting.length < limits.maxWrites) {
      const short = asFailed(write);
      add({ write: short, bytes: sizeOf(short), tried, resolve: ignore, reject: ignore });
    }
    return Promise.reject(outOf('Too many ends wait for the store already.'));
  }

  function add(entry: Entry): void {
    if (waiting.length === 0) log.warn({}, 'ends of turns wait for the store');
    waiting.push(entry);
    bytes += entry.bytes;
    running ??= run().finally(() => {
      running = undefined;
    });
  }

  function lose(write: KeptWrite): void {
    if (write.type !== 'turn-ended') return;
    lost += 1;
    const { tenantId, taskId } = write.turn;
    log.error(
      { tenant_id: tenantId, task_id: taskId, waiting: waiting.length },
      'the end of a turn was lost',
    );
  }

  async function run(): Promise<void> {
    while (waiting.length > 0) {
      await pause();
      await flush();
      if (closingAtMs !== undefined && performance.now() > closingAtMs) return giveUp();
    }
    log.info({}, 'all ends that waited are stored');
  }

  /** The first alone, then many at once, until the store refuses one again. */
  async function flush(): Promise<void> {
    for (let count = 1; waiting.length > 0; count = limits.chunk) {
      const batch = waiting.slice(0, count);
      const left = await tryOnce(batch);
      waiting.splice(0, batch.length, ...left);
      bytes = waiting.reduce((sum, entry) => sum + entry.bytes, 0);
      if (left.length > 0) return;
    }
  }

  /** Those that the store can not take now. */
  async function tryOnce(batch: readonly Entry[]): Promise<readonly Entry[]> {
    const results = await Promise.allSettled(batch.map(({ write }) => store.commit(write)));
    return batch.filter((entry, index) => {
      const result = results[index];
      if (result?.status === 'fulfilled') entry.resolve(entry.tried ? 'stored' : result.value);
      else if (!isOut(result?.reason)) entry.reject(result?.reason);
      else {
        entry.tried = true;
        return true;
      }
      return false;
    });
  }

  const pause = (): Promise<void> =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, limits.retryMs);
      endPause = () => {
        clearTimeout(timer);
        resolve();
      };
    });

  function giveUp(): void {
    for (const { write, reject } of waiting.splice(0)) {
      lose(write);
      reject(outOf('The store is closed.'));
    }
    bytes = 0;
  }

  return {
    waiting,
    keep,
    turn(tenantId, taskId) {
      for (const { write } of waiting)
        if (write.type === 'turn-ended' && write.turn.taskId === taskId && write.turn.tenantId === tenantId)
          return write.turn;
      return undefined;
    },
    stats: () => ({ waiting: waiting.length, bytes, lost }),
    async close() {
      closingAtMs ??= performance.now() + limits.closeMs;
      endPause();
      await running;
    },
  };
}

const ignore = (): void => {};

const isOut = (error: unknown): boolean =>
  error instanceof RefusalError && error.data.code === 'STORE_UNAVAILABLE';
const outOf = (message: string): RefusalError => new RefusalError(refusal('STORE_UNAVAILABLE', { message }));

/** What is left of an end for which there is no room: that its answer was lost, as its clients are told. */
function asFailed({ turn, unrun, epoch }: TurnEnded): TurnEnded {
  const { content: _, reasoning: _thought, ...rest } = turn;
  const end = failedEnd(refusal('STORE_UNAVAILABLE'), turn.info);
  return {
    type: 'turn-ended',
    epoch,
    turn: { ...rest, ...end },
    message: undefined,
    ...(unrun ? { unrun } : {}),
  };
}

/** What an entry holds beside texts. */
const BASE_BYTES = 1_000;

/** Texts as they lie in memory: two bytes a unit at worst. */
function sizeOf(write: KeptWrite): number {
  if (write.type !== 'turn-ended') return BASE_BYTES;
  const { turn, message, asked, outgoing = [] } = write;
  const texts = [turn.content, turn.reasoning, asked?.content];
  // Nearly always the very text of the turn.
  if (message && message.content !== turn.content) texts.push(message.content);
  const units = texts.reduce((sum, text) => sum + (text?.length ?? 0), 0);
  const sent = outgoing.reduce((sum, { action }) => sum + JSON.stringify(action ?? null).length, 0);
  return BASE_BYTES + 2 * (units + sent);
}
