/** Gathers writes that arrive while a transaction runs into the next one, and gives each its own outcome. */
import { performance } from 'node:perf_hooks';
import { isUnavailable, unavailable } from './failure.ts';

interface GroupCommitOptions<W, R> {
  /** Stores all writes in one transaction, in order, or none; one outcome each. */
  readonly apply: (writes: readonly W[]) => Promise<readonly R[]>;
  /** Rough bytes of a write, for the bounds. */
  readonly sizeOf: (write: W) => number;
  readonly limits?: Partial<GroupCommitLimits>;
  /** Milliseconds on a clock that never goes back. */
  readonly now?: () => number;
}

export interface GroupCommitLimits {
  /** Writes and bytes of one transaction. */
  readonly maxWrites: number;
  readonly maxBytes: number;
  /** Writes and bytes that wait; beyond, writes are refused at once. */
  readonly maxWaiting: number;
  readonly maxWaitingBytes: number;
  /** A write that has not begun after this long is refused, and is not stored later. */
  readonly maxWaitMs: number;
  /**
   * Under load (the last transaction had `gatherFrom` writes or more) the next one waits up to `gatherMs` for as many
   * again: a transaction costs some hundred microseconds whatever is in it. A lone write never waits.
   */
  readonly gatherFrom: number;
  readonly gatherMs: number;
}

const GROUP_COMMIT_LIMITS: GroupCommitLimits = {
  maxWrites: 512,
  maxBytes: 4 * 1024 * 1024,
  maxWaiting: 50_000,
  maxWaitingBytes: 256 * 1024 * 1024,
  maxWaitMs: 5_000,
  gatherFrom: 8,
  gatherMs: 2,
};

export interface GroupCommit<W, R> {
  /** Resolves to the write's outcome once its transaction is stored. Takes effect in the order of the calls. */
  add(write: W): Promise<R>;
  /** Resolves once every write added before has its outcome. */
  settled(): Promise<void>;
  /** Finishes what was added; later writes are refused. Safe to call twice. */
  close(): Promise<void>;
}

interface PendingWrite<W, R> {
  readonly write: W;
  readonly bytes: number;
  readonly atMs: number;
  readonly resolve: (outcome: R) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * One transaction runs at a time. The first write waits for the end of its loop turn, so that what comes with it
 * shares its transaction. When a transaction fails for what one of its writes holds, its writes are tried one by
 * one, so that only the culprit fails; when the store itself is out (STORE_UNAVAILABLE), all of them do.
 */
export function createGroupCommit<W, R>(options: GroupCommitOptions<W, R>): GroupCommit<W, R> {
  const limits = { ...GROUP_COMMIT_LIMITS, ...options.limits };
  const now = options.now ?? (() => performance.now());
  const pending = createPendingWrites<W, R>(limits);
  let running = false;
  let closed = false;
  let last: Promise<unknown> = Promise.resolve();
  const settled = (): Promise<void> => last.then(nothing, nothing);

  async function run(): Promise<void> {
    let size = 0;
    // After a large one it looks once more: its outcomes are about to bring new writes.
    while (pending.size() > 0 || size >= limits.gatherFrom) {
      if (size >= limits.gatherFrom && pending.size() < size && !closed) await gather();
      const batch = pending.take(now());
      if (batch.length > 0) await settle(batch, options.apply);
      size = batch.length;
    }
    running = false;
  }

  const gather = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, limits.gatherMs));

  return {
    add(write) {
      if (closed) return Promise.reject(unavailable('The store is closed.'));
      const bytes = options.sizeOf(write);
      if (!pending.hasRoom(bytes))
        return Promise.reject(unavailable('Too many writes wait for the store already.'));
      const outcome = new Promise<R>((resolve, reject) => {
        pending.add({ write, bytes, atMs: now(), resolve, reject });
      });
      last = outcome;
      if (!running) {
        running = true;
        setImmediate(run);
      }
      return outcome;
    },
    settled,
    async close() {
      closed = true;
      await settled();
    },
  };
}

const nothing = (): void => {};

/** The writes that no transaction has begun with, in their order and within their bounds. */
function createPendingWrites<W, R>(limits: GroupCommitLimits) {
  let waiting: PendingWrite<W, R>[] = [];
  let waitingBytes = 0;
  return {
    size: () => waiting.length,
    hasRoom: (bytes: number) =>
      waiting.length < limits.maxWaiting && waitingBytes + bytes <= limits.maxWaitingBytes,
    add(entry: PendingWrite<W, R>): void {
      waiting.push(entry);
      waitingBytes += entry.bytes;
    },
    /** The next transaction's writes, as many as its bounds allow; those that came too late are refused. */
    take(nowMs: number): readonly PendingWrite<W, R>[] {
      let bytes = 0;
      let count = 0;
      for (const { bytes: more } of waiting) {
        if (count > 0 && (count >= limits.maxWrites || bytes + more > limits.maxBytes)) break;
        bytes += more;
        count += 1;
      }
      const batch = waiting.slice(0, count);
      waiting = waiting.slice(count);
      waitingBytes -= bytes;
      return refuseLate(batch, nowMs - limits.maxWaitMs);
    },
  };
}

function refuseLate<W, R>(
  batch: readonly PendingWrite<W, R>[],
  sinceMs: number,
): readonly PendingWrite<W, R>[] {
  if ((batch[0]?.atMs ?? 0) >= sinceMs) return batch;
  for (const entry of batch)
    if (entry.atMs < sinceMs) entry.reject(unavailable('The store is too slow; this was not stored.'));
  return batch.filter((entry) => entry.atMs >= sinceMs);
}

async function settle<W, R>(
  batch: readonly PendingWrite<W, R>[],
  apply: GroupCommitOptions<W, R>['apply'],
): Promise<void> {
  try {
    const outcomes = await apply(batch.map((entry) => entry.write));
    for (const [index, entry] of batch.entries()) {
      const outcome = outcomes[index];
      if (outcome === undefined) entry.reject(new Error('The store gave no outcome of a write.'));
      else entry.resolve(outcome);
    }
  } catch (error) {
    if (batch.length === 1 || isUnavailable(error)) for (const entry of batch) entry.reject(error);
    else for (const entry of batch) await settle([entry], apply);
  }
}
