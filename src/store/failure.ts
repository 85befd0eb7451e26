/** Which failures say that the store cannot work now, as opposed to a write that it will never take. */
import { RefusalError, refusal } from '../domain/errors.ts';

/** Clients are asked to wait this long where nothing better is known. */
const RETRY_AFTER_MS = 1_000;

/** SQLite's primary result codes that no statement can help: busy, locked, out of memory or disk, broken file … */
const SQLITE_OUTAGES: ReadonlySet<number> = new Set([5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 22, 26]);
/** Classes of SQLSTATE that blame the statement or the race it was in; every other failure is an outage. */
const STATEMENT_CLASSES = /^(0A|20|21|22|23|2B|34|3F|40|42|44|54)/;

/** The store's refusal: nothing of this write was acknowledged. `cause` is for the log. */
export const unavailable = (message: string, cause?: unknown, retryAfterMs = RETRY_AFTER_MS): RefusalError =>
  Object.assign(new RefusalError(refusal('STORE_UNAVAILABLE', { message, retryAfterMs })), { cause });

export const isUnavailable = (error: unknown): boolean =>
  error instanceof RefusalError && error.data.code === 'STORE_UNAVAILABLE';

/** What PostgreSQL's fence says of a boot that is dead. */
const SUPERSEDED = 'NB409';

/** The refusal of a write whose node was declared dead: nothing of it is stored, now or later. */
export const superseded = (cause?: unknown): RefusalError =>
  Object.assign(unavailable('This node was given up by the others; nothing was stored.', cause), {
    superseded: true,
  });
export const isSuperseded = (error: unknown): boolean =>
  error instanceof RefusalError && 'superseded' in error;

/** Stored as the error of turns that nobody runs any more. */
export const interruptedError = JSON.stringify(refusal('INTERRUPTED'));

/** The refusal of a write of which nobody can say whether it is stored. */
export const unknownOutcome = (cause: unknown): RefusalError =>
  unavailable(
    'The database did not answer whether it was stored; look whether it is there before you try again.',
    cause,
  );

/** Whether PostgreSQL itself says that it has done nothing: any other failure may come after the commit. */
export const isRefused = (error: unknown): boolean =>
  isSuperseded(error) || (error instanceof Error && 'severity' in error && error.severity === 'ERROR');

/** Marks a refusal after which the write may have been stored all the same. */
export const unsettled = (error: unknown): unknown =>
  error instanceof RefusalError ? Object.assign(error, { unsettled: true }) : error;
export const isUnsettled = (error: unknown): boolean => error instanceof RefusalError && 'unsettled' in error;

/** SQLite's own number of a failure, extended code and all. */
export interface SqliteFailure {
  readonly message: string;
  readonly errcode: number | undefined;
}

/** What node:sqlite threw, as it can be sent to another thread. */
export function sqliteFailure(error: unknown): SqliteFailure {
  const errcode = error instanceof Error && 'errcode' in error ? Number(error.errcode) : undefined;
  return { message: error instanceof Error ? error.message : String(error), errcode };
}

/** Thrown for a statement that SQLite refused. */
export class SqliteError extends Error {
  readonly errcode: number | undefined;
  constructor(failure: SqliteFailure) {
    super(failure.message);
    this.name = 'SqliteError';
    this.errcode = failure.errcode;
  }
}

/** A failure of the database as an error to reject with: an outage becomes STORE_UNAVAILABLE, others stay. */
export function classified(error: unknown): unknown {
  if (error instanceof RefusalError) return error;
  if (error instanceof SqliteError)
    return error.errcode !== undefined && SQLITE_OUTAGES.has(error.errcode & 0xff)
      ? unavailable(SQLITE_TEXTS[error.errcode & 0xff] ?? 'The database file cannot be used.', error)
      : error;
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (code === SUPERSEDED) return superseded(error);
  if (STATEMENT_CLASSES.test(code) && code.length === 5) return error;
  if (error instanceof TypeError || error instanceof RangeError) return error;
  return unavailable('The database does not answer; nothing was stored.', error);
}

/** PostgreSQL's word that this server takes no writes: it was the primary once, or is not yet. */
const READ_ONLY = '25006';

/** Whether a write failed since its connection leads to a server that is read-only. Then nothing of it was stored. */
export function isReadOnly(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return ('code' in error && error.code === READ_ONLY) || isReadOnly(error.cause);
}

/** The same, of a server that says so itself. */
export const readOnlyServer = (): Error =>
  Object.assign(new Error('the server is read-only'), { code: READ_ONLY });

const SQLITE_TEXTS: Readonly<Record<number, string>> = {
  5: 'Another process holds the database; nothing was stored.',
  6: 'Another process holds the database; nothing was stored.',
  8: 'The database is read-only; nothing was stored.',
  10: 'The disk of the database fails; nothing was stored.',
  13: 'The disk of the database is full; nothing was stored.',
};
