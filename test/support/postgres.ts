/** A real PostgreSQL server for one test file: its own data folder and port, on loopback, gone afterwards. */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { freePort, killed, orphanGuard } from './processes.ts';

const START_MS = 30_000;
const run = promisify(execFile);

export interface PostgresServer {
  /** As a superuser, whom row-level security does not hold. */
  readonly adminUrl: string;
  /** A new, empty database that a plain role of its own owns: what a node should be given. */
  database(): Promise<string>;
  /** Ends the server at once and waits until it is gone. */
  stop(): Promise<void>;
  /** Starts it again on the same port with the same data. */
  start(): Promise<void>;
  /** stop(), and deletes its data. */
  close(): Promise<void>;
}

/** Starts a server. Throws one line that says what to do where PostgreSQL is not installed. */
export async function startPostgres(): Promise<PostgresServer> {
  const bin = findBinaries();
  const user = unprivileged();
  const folder = mkdtempSync(join(tmpdir(), 'nooble-pg-'));
  if (user) chownSync(folder, user.uid, user.gid);
  const data = join(folder, 'data');
  const as = { cwd: folder, env: { PATH: process.env.PATH, LC_ALL: 'C', HOME: folder }, ...user };
  const initdb = ['-D', data, '-U', 'admin', '-A', 'trust', '-E', 'UTF8', '--no-locale', '--no-sync'];
  await run(join(bin, 'initdb'), initdb, as);
  const port = await freePort();
  const url = (role: string, name: string) => `postgres://${role}@127.0.0.1:${port}/${name}`;
  const adminUrl = url('admin', 'postgres');
  let server: ChildProcess | undefined;
  let databases = 0;

  const start = async (): Promise<void> => {
    const flags = ['-D', data, '-p', String(port), '-c', 'listen_addresses=127.0.0.1'];
    const more = ['-c', 'unix_socket_directories=', '-c', 'fsync=off', '-c', 'max_connections=50'];
    server = spawn(join(bin, 'postgres'), [...flags, ...more], { ...as, stdio: 'ignore' });
    await answering(adminUrl, server);
  };
  /** SIGINT is PostgreSQL's fast shutdown. */
  const stop = () => killed(server, 'SIGINT');
  /** SIGQUIT ends it without a farewell. */
  const unguarded = orphanGuard(() => server?.kill('SIGQUIT'));

  await start();
  return {
    adminUrl,
    start,
    stop,
    async database() {
      databases += 1;
      const name = `test${databases}`;
      await asAdmin(adminUrl, [`create role ${name} login`, `create database ${name} owner ${name}`]);
      return url(name, name);
    },
    async close() {
      await stop();
      unguarded();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Runs statements one by one on a connection of their own. */
export async function asAdmin(url: string, statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

async function answering(url: string, server: ChildProcess): Promise<void> {
  const deadline = performance.now() + START_MS;
  for (;;) {
    try {
      return await asAdmin(url, ['select 1']);
    } catch (error) {
      if (server.exitCode !== null) throw new Error(`PostgreSQL ended with code ${server.exitCode}.`);
      if (performance.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

function findBinaries(): string {
  const versions = '/usr/lib/postgresql';
  const installed = existsSync(versions)
    ? readdirSync(versions)
        .sort((a, b) => Number(b) - Number(a))
        .map((version) => join(versions, version, 'bin'))
    : [];
  const folders = [...installed, ...(process.env.PATH ?? '').split(delimiter)];
  const found = folders.find((folder) =>
    ['initdb', 'postgres'].every((name) => existsSync(join(folder, name))),
  );
  if (!found) throw new Error('PostgreSQL is not installed: run .ci/setup (this test starts a server).');
  return found;
}

/** PostgreSQL refuses to run as root; then it runs as `postgres`, or as `nobody`. */
function unprivileged(): { readonly uid: number; readonly gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  for (const name of ['postgres', 'nobody']) {
    try {
      const id = (flag: string) =>
        Number(execFileSync('id', [flag, name], { stdio: ['ignore', 'pipe', 'ignore'] }));
      return { uid: id('-u'), gid: id('-g') };
    } catch {}
  }
  throw new Error('PostgreSQL does not run as root, and there is no user postgres or nobody.');
}
