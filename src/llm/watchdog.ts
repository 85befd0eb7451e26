/** One coarse timer for the deadlines of all runs: a run that ends at once costs a Set entry, not a timer. */

/** Something with deadlines. `check` is called every tick with performance.now(). */
export interface Watched {
  check(nowMs: number): void;
}

export interface Watchdog {
  add(watched: Watched): void;
  remove(watched: Watched): void;
  /** Stops the timer, whoever is still watched. */
  close(): void;
}

/** How late a deadline may be noticed. 1,000 runs cost about 20 µs a tick. */
const TICK_MS = 20;

/** The timer runs while there is something to watch, and at most one tick longer. */
export function createWatchdog(): Watchdog {
  const all = new Set<Watched>();
  let timer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    clearInterval(timer);
    timer = undefined;
  };
  const tick = (): void => {
    if (all.size === 0) stop();
    const now = performance.now();
    for (const watched of all) watched.check(now);
  };
  return {
    add(watched) {
      all.add(watched);
      timer ??= setInterval(tick, TICK_MS);
    },
    remove: (watched) => all.delete(watched),
    close: stop,
  };
}
