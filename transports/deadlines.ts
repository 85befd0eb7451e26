/**
 * One clock for all that wait: to set and to clear a timer each costs a request that comes alone several µs. It ticks
 * while something waits, and looks closer only when the first deadline may be over.
 */

/** How much later than asked a deadline may be noticed. */
const TICK_MS = 20;

export interface Deadlines {
  /** Something was added to what waits until then, as performance.now() tells it. */
  added(deadlineMs: number): void;
  stop(): void;
}

/** `expire` is called for what is overdue, and takes it out of `waiting`. */
export function createDeadlines<T extends { readonly deadlineMs: number }>(
  waiting: ReadonlyMap<string, T>,
  expire: (id: string, overdue: T) => void,
): Deadlines {
  let earliestMs = Number.POSITIVE_INFINITY;
  let ticking: NodeJS.Timeout | undefined;

  const stop = (): void => {
    clearInterval(ticking);
    ticking = undefined;
    earliestMs = Number.POSITIVE_INFINITY;
  };
  const added = (deadlineMs: number): void => {
    if (deadlineMs < earliestMs) earliestMs = deadlineMs;
    ticking ??= setInterval(tick, TICK_MS);
  };
  const tick = (): void => {
    if (waiting.size === 0) return stop();
    const now = performance.now();
    if (now < earliestMs) return;
    earliestMs = Number.POSITIVE_INFINITY;
    for (const [id, each] of waiting) {
      if (each.deadlineMs <= now) expire(id, each);
      else if (each.deadlineMs < earliestMs) earliestMs = each.deadlineMs;
    }
  };
  return { added, stop };
}
