/** Waiting that a desk can end, without holding on to what is over. */
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import { systemTimers, type Timers } from '../../src/ports/telemetry.ts';

/** Once ended, whoever waits or begins to wait is refused as DRAINING: the action is given back, and taken anew. */
export interface Abortable {
  readonly signal: AbortSignal;
  wait(ms: number): Promise<void>;
  /** What the promise comes to, unless this ends before. */
  of<T>(promise: Promise<T>): Promise<T>;
  end(): void;
}

const drained = (): RefusalError => new RefusalError(refusal('DRAINING'));

export function createBreaks(timers: Timers = systemTimers): Abortable {
  const aborter = new AbortController();
  // Not Promise.race against one promise of the end: that keeps what it raced against for as long as the desk lives.
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
