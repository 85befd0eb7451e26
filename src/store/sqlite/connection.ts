/** One connection to a SQLite database, with its settings. All that it does is done at once, in its caller's thread. */
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { LRUCache } from 'lru-cache';
import type { Param } from '../encode.ts';
import { createBatch, type RunBatch } from './batch.ts';
import { lockFile } from './lock.ts';
import type { QueryResult, SqliteOptions } from './protocol.ts';

/** Prepared statements; Kysely's are made of few shapes. */
const MAX_STATEMENTS = 200;
const BUSY_TIMEOUT_MS = 2_000;
/** Pages of the write-ahead log before its pages are moved into the file: 16 MiB. */
const CHECKPOINT_PAGES = 4_000;

export interface Connection {
  readonly db: DatabaseSync;
  readonly batch: RunBatch;
  query(sql: string, params: readonly Param[]): QueryResult;
  close(): void;
}

/** Opens the file, or memory; before anything is written a node takes the file's lock. Throws where it can not be used now. */
export function openConnection(options: SqliteOptions): Connection {
  const { path, nodeId } = options;
  const lock = nodeId === undefined || path === ':memory:' ? undefined : lockFile(path, nodeId);
  try {
    const connection = openUnlocked(options);
    return {
      ...connection,
      close() {
        connection.close();
        lock?.release();
      },
    };
  } catch (error) {
    lock?.release();
    throw error;
  }
}

function openUnlocked(options: SqliteOptions): Connection {
  const db = new DatabaseSync(options.path, { enableForeignKeyConstraints: true });
  db.exec(`pragma busy_timeout = ${options.busyTimeoutMs ?? BUSY_TIMEOUT_MS}`);
  db.exec('pragma journal_mode = wal');
  db.exec(`pragma synchronous = ${options.synchronous ?? 'FULL'}`);
  db.exec(`pragma wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
  // 4 MiB: what is read again soon is in the system's cache too, and does not count as the process's memory.
  db.exec('pragma cache_size = -4096');
  db.exec('pragma secure_delete = fast');
  if (options.maxPages !== undefined) db.exec(`pragma max_page_count = ${options.maxPages}`);
  const statements = new LRUCache<string, StatementSync>({ max: MAX_STATEMENTS });
  return {
    db,
    batch: createBatch(db),
    query(sql, params) {
      const statement = statements.get(sql) ?? db.prepare(sql);
      statements.set(sql, statement);
      if (statement.columns().length > 0) {
        const rows = statement.all(...params);
        return { rows, changes: rows.length };
      }
      return { rows: [], changes: Number(statement.run(...params).changes) };
    },
    close: () => db.close(),
  };
}
