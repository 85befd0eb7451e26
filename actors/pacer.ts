/** Decides when held-back deltas go out: the first of a turn with this loop turn, the rest once a window. */

export interface Pacer {
  /** Runs `flush` after what this loop turn still brings. */
  soon(flush: () => void): void;
  /** Runs `flush` at the end of the running window of that length, at most `windowMs` from now. */
  later(flush: () => void, windowMs: number): void;
  close(): void;
}

/** One immediate and one timer for each window length, however many sessions stream. */
export function createPacer(): Pacer {
  let due: (() => void)[] = [];
  const windows = new Map<number, { flushes: (() => void)[]; timer: NodeJS.Timeout }>();

  const run = (flushes: readonly (() => void)[]): void => {
    for (const flush of flushes) flush();
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
