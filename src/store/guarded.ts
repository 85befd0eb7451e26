/** Keeps a failing database from being asked, and from being waited for: a time limit, and a circuit breaker. */
import { performance } from 'node:perf_hooks';
import { BrokenCircuitError, ConsecutiveBreaker, circuitBreaker, handleWhen } from 'cockatiel';
import type { Log } from '../ports/telemetry.ts';
import type { Database } from './database.ts';
import { isUnavailable, unavailable, unsettled } from './failure.ts';

export interface GuardOptions {
  readonly log: Log;
  /** A call that takes longer is given up. Beyond the database's own limits, for one that answers nothing at all. */
  readonly timeoutMs?: number;
  /** Outages in a row that open the circuit. */
  readonly failures?: number;
  /** How long nobody asks; then one call tries, and the others wait for what it finds. */
  readonly openMs?: number;
}

const TIMEOUT_MS = 10_000;
const FAILURES = 5;
const OPEN_MS = 1_000;

/**
 * Guards all that is stored through a database, group commit, reads and management alike: one breaker, asked once a
 * transaction. While it is open calls reject at once with STORE_UNAVAILABLE and what is left of `openMs`. Only
 * outages count: a statement that is refused for what it says proves that the database is there. A call that was
 * given up may still be carried out; its caller was told that it failed, never that it was stored.
 */
export function guarded<D extends Database>(database: D, options: GuardOptions): D {
  const { log, timeoutMs = TIMEOUT_MS, failures = FAILURES, openMs = OPEN_MS } = options;
  const breaker = circuitBreaker(handleWhen(isUnavailable), {
    halfOpenAfter: openMs,
    breaker: new ConsecutiveBreaker(failures),
  });
  let openedAtMs = 0;
  breaker.onBreak((reason) => {
    openedAtMs = performance.now();
    log.error(
      { err: 'error' in reason ? reason.error : undefined, retry_after_ms: openMs },
      'store unavailable',
    );
  });
  breaker.onReset(() => log.info({}, 'store available again'));

  async function guard<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await breaker.execute(() => within(timeoutMs, call()));
    } catch (error) {
      if (!(error instanceof BrokenCircuitError)) throw error;
      const leftMs = Math.max(1, openedAtMs + openMs - performance.now());
      throw unavailable('The store is out of order; nothing was stored.', error, leftMs);
    }
  }

  const { statement } = database;
  return {
    ...database,
    ...(statement
      ? { statement: (body: Parameters<typeof statement>[0]) => guard(() => statement(body)) }
      : {}),
    read: (scope, body) => guard(() => database.read(scope, body)),
    write: (scope, body) => guard(() => database.write(scope, body)),
    batch: (writes) => guard(() => database.batch(writes)),
  };
}

/** What comes after the time limit is dropped, errors too. By hand: cockatiel's time limit takes 9 µs a call, this 1. */
function within<T>(limitMs: number, work: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(unsettled(unavailable('The store is too slow.'))), limitMs);
    work.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
