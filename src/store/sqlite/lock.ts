/** One node a file: a lock beside the database, which the system takes away with the process that holds it. */
import { closeSync, existsSync, openSync, realpathSync } from 'node:fs';
import { hostname } from 'node:os';
import { DatabaseSync } from 'node:sqlite';

/** SQLite's code of a file that another process holds. */
const SQLITE_BUSY = 5;
/** A predecessor that is just ending may let go. */
const WAIT_MS = 1_000;

export interface FileLock {
  release(): void;
}

/**
 * Takes the lock of a database file for a node, or throws an error that says which node has it (`errcode` as SQLite's
 * own of a busy file). Links and relative paths lead to the same lock. Node has no flock, and SQLite's locks are those
 * of the system: an open write transaction on `{file}-lock` is the lock, and its committed row names the holder, which
 * others can read all the while.
 */
export function lockFile(path: string, nodeId: string): FileLock {
  // Only a file that is not there is opened here: closing one would take this process's other locks on it away.
  if (!existsSync(path)) closeSync(openSync(path, 'a'));
  const db = new DatabaseSync(`${realpathSync(path)}-lock`);
  try {
    db.exec(`pragma busy_timeout = ${WAIT_MS}`);
    db.exec('create table if not exists holder (pid integer, host text, node text, since text)');
    hold(db, path, nodeId);
  } catch (error) {
    db.close();
    throw error;
  }
  return { release: () => db.close() };
}

function hold(db: DatabaseSync, path: string, nodeId: string): void {
  const since = new Date().toISOString();
  const name = db.prepare('insert into holder (pid, host, node, since) values (?, ?, ?, ?)');
  for (;;) {
    begin(db, path);
    const found = db.prepare('select * from holder').get();
    if (found?.node === nodeId && found.since === since && found.pid === process.pid) return;
    db.exec('delete from holder');
    name.run(process.pid, hostname(), nodeId, since);
    // Between the two transactions another may come first: then its name is found.
    db.exec('commit');
  }
}

function begin(db: DatabaseSync, path: string): void {
  try {
    db.exec('begin immediate');
  } catch (error) {
    if (!(error instanceof Error && 'errcode' in error && error.errcode === SQLITE_BUSY)) throw error;
    const { node, pid, host, since } = db.prepare('select * from holder').get() ?? {};
    const who =
      node === undefined ? 'another node' : `node ${node} (process ${pid} on ${host}, since ${since})`;
    throw Object.assign(new Error(`${who} has ${path}, and one node a database is the limit`), {
      errcode: SQLITE_BUSY,
      cause: error,
    });
  }
}
