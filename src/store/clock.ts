/** The clock of a database that several nodes share: what one of them writes for a time comes at that time on all. */
import { sql } from 'kysely';
import type { Clock, Log } from '../ports/telemetry.ts';
import type { Database } from './database.ts';
import { databaseNow } from './due.ts';

/** So often it is set; between that it goes on by a clock that no one can set. */
const SET_MS = 60_000;
/** An answer that took longer says too little. */
const MAX_ANSWER_MS = 1_000;

export interface DatabaseClock extends Clock {
  close(): void;
}

/**
 * Asks the database once, and then now and then. Rejects where the first question is not answered. `monotonic`: ms on a
 * clock that never goes back.
 */
export async function openDatabaseClock(
  database: Database,
  log: Log,
  monotonic: () => number = () => performance.now(),
): Promise<DatabaseClock> {
  const ask = async () => {
    const askedAtMs = monotonic();
    const nowMs = await database.read('node', async (db) => {
      const { rows } = await sql<{
        now: number;
      }>`select ${databaseNow(database.kind, Date.now)} as now`.execute(db);
      return Number(rows[0]?.now);
    });
    const answeredAtMs = monotonic();
    return { nowMs, atMs: (askedAtMs + answeredAtMs) / 2, tookMs: answeredAtMs - askedAtMs };
  };
  let last = await ask();
  const timer = setInterval(() => {
    ask().then(
      (answer) => {
        if (answer.tookMs < MAX_ANSWER_MS) last = answer;
      },
      (error: unknown) => log.debug({ err: error }, 'the time of the database could not be read'),
    );
  }, SET_MS).unref();
  return {
    now: () => Math.round(last.nowMs + monotonic() - last.atMs),
    close: () => clearInterval(timer),
  };
}
