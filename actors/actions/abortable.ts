/** Waits that the action worker can end, without holding on to what is over. */
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import { systemTimers, type Timers } from '../../src/ports/telemetry.ts';

/** Once ended, whoever waits or begins to wait is refused as DRAINING: the action is requeued, and taken anew. */
export interface Abortable {
  readonly signal: AbortSignal;
  wait(ms: number): Promise<void>;
  /** The result of the promise, unless this ends before. */
  of<T>(promise: Promise<T>): Promise<T>;
  end(): void;
}

const drained = (): RefusalError => new RefusalError(refusal('DRAINING'));

export function createAbortable(timers: Timers = systemTimers): Abortable {
  const aborter = new AbortController();
  // Not Promise.race against one promise of the end: that keeps what it raced against for as long as the worker lives.
  const waiting = new Set<() => void>();

  const abortable: Abortable = {
    signal: aborter.signal,
    of: <T>(promise: Promise<T>) =>
      new Promise<T>((resolve, reject) => {
        const stop = (): void => reject(drained());
        if (aborter.signal.aborted) return stop();
        waiting.add(stop);
        promise.then(resolve, reject).finally(() => waiting.delete(stop));
      }),
    async wait(ms) {
      let cancel = (): void => {};
      const over = new Promise<void>((resolve) => {
        cancel = timers.after(ms, resolve);
      });
      await abortable.of(over).finally(cancel);
    },
    end() {
      aborter.abort();
      for (const stop of waiting) stop();
      waiting.clear();
    },
  };
  return abortable;
}

/** The store is tried again after the time that its refusal names, within these. */
const MIN_STORE_WAIT_MS = 50;
const MAX_STORE_WAIT_MS = 5_000;

/** Performs an operation once the store answers: tries again for as long as it is unavailable and `waits` go on. */
export async function onceStoreAnswers<T>(waits: Abortable, operation: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await operation();
    } catch (error) {
      if (!(error instanceof RefusalError) || error.data.code !== 'STORE_UNAVAILABLE') throw error;
      const waitMs = error.data.retry_after_ms ?? 0;
      await waits.wait(Math.min(MAX_STORE_WAIT_MS, Math.max(MIN_STORE_WAIT_MS, waitMs)));
    }
  }
}
