/** Decides when held-back deltas go out: the first of a turn with this loop turn, the rest once a window. */

export interface Pacer {
  /** Runs `flush` after what this loop turn still brings. */
  soon(flush: () => void): void;
  /** Runs `flush` at the end of the running window of that length, at most `windowMs` from now. */
  later(flush: () => void, windowMs: number): void;
  close(): void;
}

/**
 * Flushes that run in one go. Windows end for hundreds of sessions at once, and a write costs tens of microseconds:
 * between two goes the loop turns, so that a message that has come in meanwhile waits for one go and not for all.
 */
const AT_ONCE = 32;

/** One immediate and one timer for each window length, however many sessions stream. */
export function createPacer(): Pacer {
  let due: (() => void)[] = [];
  const windows = new Map<number, { flushes: (() => void)[]; timer: NodeJS.Timeout }>();

  const run = (flushes: readonly (() => void)[], from = 0): void => {
    for (const flush of flushes.slice(from, from + AT_ONCE)) flush();
    if (from + AT_ONCE < flushes.length) setImmediate(run, flushes, from + AT_ONCE);
  };
  const flushDue = (): void => {
    const now = due;
    due = [];
    run(now);
  };
  return {
    soon(flush) {
      if (due.length === 0) setImmediate(flushDue);
      due.push(flush);
    },
    later(flush, windowMs) {
      const open = windows.get(windowMs);
      if (open) {
        open.flushes.push(flush);
        return;
      }
      const flushes = [flush];
      const timer = setTimeout(() => {
        windows.delete(windowMs);
        run(flushes);
      }, windowMs);
      windows.set(windowMs, { flushes, timer });
    },
    close() {
      for (const { timer } of windows.values()) clearTimeout(timer);
      windows.clear();
    },
  };
}
