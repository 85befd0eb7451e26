/** The tests' PostgreSQL server, started once more as it is in earnest: a commit waits until the disk has it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { startPostgres } from '../../test/support/postgres.ts';
import { childrenOf, cpuUs } from './proc-stat.ts';
import { pinnedTo } from './process.ts';

const START_MS = 30_000;

export interface DurablePostgres {
  readonly version: string;
  /** URL of a new, empty database that a plain role of its own owns. */
  database(): Promise<string>;
  /** User and system time of the server's processes that run now, in µs. */
  cpuUs(): number;
  /** Stops the server and deletes its data. */
  close(): Promise<void>;
}

/**
 * A server with the settings it comes with (fsync, synchronous_commit and full_page_writes on), on the load's core:
 * a database stands on another machine. Rejects with one line where PostgreSQL is not installed.
 */
export async function startDurablePostgres(): Promise<DurablePostgres> {
  const tests = await startPostgres();
  // The tests' server runs with fsync=off on its command line, which no SQL can change: it makes way for this one.
  const bin = await asked(tests.adminUrl, "select setting from pg_config where name = 'BINDIR'");
  const data = await asked(tests.adminUrl, 'show data_directory');
  const version = await asked(tests.adminUrl, 'show server_version');
  await tests.stop();

  const { uid, gid } = statSync(data);
  const flags = ['listen_addresses=127.0.0.1', 'unix_socket_directories=', 'max_connections=50'];
  const [program = '', ...args] = [
    ...[...pinnedTo('load'), join(bin, 'postgres'), '-D', data, '-p', new URL(tests.adminUrl).port],
    ...flags.flatMap((flag) => ['-c', flag]),
  ];
  const env = { PATH: process.env.PATH, LC_ALL: 'C' };
  const server = spawn(program, args, { cwd: dirname(data), env, uid, gid, stdio: 'ignore' });
  const pid = server.pid ?? 0;

  /** A bench that breaks off leaves neither a server nor its data behind. */
  const abandon = (): void => {
    server.kill('SIGQUIT');
    rmSync(dirname(data), { recursive: true, force: true, maxRetries: 5 });
  };
  process.once('exit', abandon);

  const close = async (): Promise<void> => {
    if (server.exitCode === null && server.signalCode === null) {
      const gone = once(server, 'exit');
      server.kill('SIGINT');
      await gone;
    }
    process.off('exit', abandon);
    await tests.close();
  };
  try {
    if ((await answering(tests.adminUrl)) !== 'on') throw new Error('PostgreSQL runs with fsync off.');
  } catch (error) {
    await close();
    throw error;
  }
  return {
    version,
    database: () => tests.database(),
    cpuUs: () => [pid, ...childrenOf(pid)].reduce((total, each) => total + cpuUs(each), 0),
    close,
  };
}

/** Whether it syncs, once it answers. */
async function answering(url: string): Promise<string> {
  const deadline = performance.now() + START_MS;
  for (;;) {
    try {
      return await asked(url, 'show fsync');
    } catch (error) {
      if (performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** The one text that a query answers. */
async function asked(url: string, query: string): Promise<string> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const { rows } = await client.query<[string]>({ text: query, rowMode: 'array' });
    return rows[0]?.[0] ?? '';
  } finally {
    await client.end();
  }
}
