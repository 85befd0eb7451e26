/** Keeps strangers from using up the process's file descriptors: at the limit uWS would turn in circles, and all else fail. */
import { closeSync, openSync, readFileSync } from 'node:fs';
import type { Clock, Log } from '../../src/ports/telemetry.ts';

/** Of the limit, so much is kept for stores, models and probes: an eighth, at most so many. */
const MAX_RESERVE = 256;
const LOG_EVERY_MS = 10_000;

export interface Descriptors {
  /** Whether none should be held for long any more: no socket is upgraded then. */
  areShort(): boolean;
  /** Whether a new connection must be closed at once. Says so in the log. */
  areGone(): boolean;
}

/** Looks at the process's own limit, once. Where the system tells none, descriptors are never short. */
export function createDescriptors(log: Log, clock: Clock, limit = limitOfProcess()): Descriptors {
  const reserve = Math.min(MAX_RESERVE, Math.floor(limit / 8));
  let loggedAtMs = Number.NEGATIVE_INFINITY;

  function tell(free: number): void {
    if (clock.now() - loggedAtMs < LOG_EVERY_MS) return;
    loggedAtMs = clock.now();
    log.error(
      { limit, free },
      'file descriptors run out: new connections are closed until some are free; raise `ulimit -n`, or find who opens them',
    );
  }

  return {
    areShort: () => freeOf(limit) <= reserve,
    areGone() {
      const free = freeOf(limit);
      const isGone = free <= reserve / 2;
      if (isGone) tell(free);
      return isGone;
    },
  };
}

/** The system gives out the lowest number that is free: some 5 µs, and it counts every descriptor there is. */
function freeOf(limit: number): number {
  if (limit === Number.POSITIVE_INFINITY) return limit;
  try {
    const lowest = openSync('/dev/null', 'r');
    closeSync(lowest);
    return limit - lowest;
  } catch {
    return 0;
  }
}

function limitOfProcess(): number {
  try {
    const limits = readFileSync('/proc/self/limits', 'utf8');
    return Number(/^Max open files +(\d+)/m.exec(limits)?.[1] ?? Number.POSITIVE_INFINITY);
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
