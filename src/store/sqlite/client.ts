/** The node's end of the SQLite worker: one connection, handed to one user at a time, in the order of asking. */
import { mkdirSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { Log } from '../../ports/telemetry.ts';
import type { EncodedWrite, Param } from '../encode.ts';
import { SqliteError, unavailable, unsettled } from '../failure.ts';
import type { QueryResult, SqliteOptions, WorkerReply, WorkerTask } from './protocol.ts';

/** The connection while one user has it. Rejects once its worker is gone, also when a new one is there. */
export interface SqliteSession {
  query(sql: string, params: readonly Param[]): Promise<QueryResult>;
  /** One transaction; see batch.ts for the outcomes. */
  batch(writes: readonly EncodedWrite[]): Promise<readonly number[]>;
  release(): void;
}

export interface SqliteClient {
  acquire(): Promise<SqliteSession>;
  /** Ends the worker at once, as a crash would; the next use starts another. For tests. */
  crash(): Promise<void>;
  close(): Promise<void>;
}

interface Thread {
  readonly ask: (task: WorkerTask) => Promise<WorkerReply>;
  readonly alive: () => boolean;
  readonly worker: Worker;
  readonly ended: Promise<void>;
}

/** Starts no worker yet. Makes the folder of the file. */
export function createSqliteClient(options: SqliteOptions, log: Log): SqliteClient {
  const inMemory = options.path === ':memory:';
  if (!inMemory) mkdirSync(dirname(resolve(options.path)), { recursive: true, mode: 0o700 });
  let thread: Thread | undefined;
  let closed = false;

  function current(): Thread {
    if (closed) throw unavailable('The store is closed.');
    if (thread && !thread.alive() && inMemory) throw unavailable('The database in memory is gone.');
    if (!thread?.alive()) thread = startThread(options, log);
    return thread;
  }

  const acquire = oneAtATime(() => sessionOf(current()));

  return {
    acquire,
    async crash() {
      await thread?.worker.terminate();
    },
    async close() {
      if (closed) return thread?.ended;
      const session = await acquire().catch(() => undefined);
      closed = true;
      session?.release();
      if (!thread?.alive()) return;
      await thread.ask({ type: 'close' });
      await thread.ended;
    },
  };
}

/** Opens a session for each who asks, once the one before is released. */
export function oneAtATime(open: () => Omit<SqliteSession, 'release'>): () => Promise<SqliteSession> {
  let last: Promise<void> = Promise.resolve();
  return async () => {
    const before = last;
    let release = (): void => {};
    last = new Promise((done) => {
      release = done;
    });
    await before;
    try {
      return { ...open(), release };
    } catch (error) {
      release();
      throw error;
    }
  };
}

function sessionOf(thread: Thread): Omit<SqliteSession, 'release'> {
  return {
    async query(sql, params) {
      const reply = await thread.ask({ type: 'query', sql, params });
      if (reply.type !== 'result') throw new Error(`The SQLite worker answered a query with ${reply.type}.`);
      return reply.result;
    },
    async batch(writes) {
      const reply = await thread.ask({ type: 'batch', writes });
      if (reply.type !== 'outcomes')
        throw new Error(`The SQLite worker answered a batch with ${reply.type}.`);
      return reply.outcomes;
    },
  };
}

interface Asked {
  readonly resolve: (reply: WorkerReply) => void;
  readonly reject: (error: unknown) => void;
}

/** The worker has flags of its own: it runs under plain Node also beside tsx, and prints no warning of node:sqlite. */
function startThread(options: SqliteOptions, log: Log): Thread {
  const worker = new Worker(new URL('./worker.ts', import.meta.url), {
    name: 'sqlite',
    workerData: options,
    execArgv: ['--disable-warning=ExperimentalWarning'],
  });
  const asked = new Map<number, Asked>();
  let ids = 0;
  let alive = true;

  worker.on('message', (reply: WorkerReply) => {
    const waiter = asked.get(reply.id);
    asked.delete(reply.id);
    if (reply.type === 'failed') waiter?.reject(new SqliteError(reply.failure));
    else waiter?.resolve(reply);
  });
  worker.on('error', (error) => log.error({ err: error }, 'the SQLite worker crashed'));
  const ended = new Promise<void>((done) => {
    worker.on('exit', () => {
      alive = false;
      for (const waiter of asked.values()) waiter.reject(unsettled(unavailable('The SQLite worker ended.')));
      asked.clear();
      done();
    });
  });

  return {
    worker,
    ended,
    alive: () => alive,
    ask: (task) =>
      new Promise((resolve, reject) => {
        if (!alive) {
          reject(unavailable('The SQLite worker ended.'));
          return;
        }
        ids += 1;
        asked.set(ids, { resolve, reject });
        worker.postMessage({ ...task, id: ids });
      }),
  };
}
