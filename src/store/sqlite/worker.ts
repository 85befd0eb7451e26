/** The thread in which SQLite runs: a commit waits for the disk, and the event loop must not wait with it. */
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { parentPort, workerData } from 'node:worker_threads';
import { LRUCache } from 'lru-cache';
import type { Param } from '../encode.ts';
import { createBatch, type RunBatch } from './batch.ts';
import type { QueryResult, SqliteOptions, WorkerReply, WorkerRequest } from './protocol.ts';

/** Prepared statements; Kysely's are made of few shapes. */
const MAX_STATEMENTS = 200;
const BUSY_TIMEOUT_MS = 2_000;
/** Pages of the write-ahead log before its pages are moved into the file: 16 MiB. */
const CHECKPOINT_PAGES = 4_000;

interface Open {
  readonly db: DatabaseSync;
  readonly batch: RunBatch;
  query(sql: string, params: readonly Param[]): QueryResult;
}

/** Throws where the file can not be used now; the next request tries again. */
function open(options: SqliteOptions): Open {
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
  };
}

function serve(
  options: SqliteOptions,
  answer: (reply: WorkerReply) => void,
): (request: WorkerRequest) => void {
  let opened: Open | undefined;
  return (request) => {
    const { id } = request;
    try {
      if (request.type === 'close') {
        opened?.db.close();
        answer({ id, type: 'closed' });
        return;
      }
      opened ??= open(options);
      if (request.type === 'batch') answer({ id, type: 'outcomes', outcomes: opened.batch(request.writes) });
      else answer({ id, type: 'result', result: opened.query(request.sql, request.params) });
    } catch (error) {
      const errcode = error instanceof Error && 'errcode' in error ? Number(error.errcode) : undefined;
      const message = error instanceof Error ? error.message : String(error);
      answer({ id, type: 'failed', failure: { message, errcode } });
    }
  };
}

const port = parentPort;
if (port) {
  const work = serve(workerData, (reply) => port.postMessage(reply));
  port.on('message', (request: WorkerRequest) => {
    work(request);
    if (request.type === 'close') port.close();
  });
}
