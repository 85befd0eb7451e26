/** A real redis-server for one test file: on a free port of loopback, in a folder of its own, ended by its pid. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';

export interface RedisServer {
  readonly url: string;
  readonly port: number;
  /** A plain client, as a stranger would use one. Closed with the server. */
  readonly client: Redis;
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void;
  /** Kills it with -9. What the append-only file holds survives. */
  kill(): Promise<void>;
  /** Starts it again on the same port and folder. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export interface RedisServerOptions {
  /** Keep an append-only file, synced with every write. */
  readonly appendOnly?: boolean;
  /** More arguments of redis-server. */
  readonly args?: readonly string[];
  readonly password?: string;
}

/** Throws one line that says what to do where redis-server is not installed. */
export async function startRedis(options: RedisServerOptions = {}): Promise<RedisServer> {
  const folder = await mkdtemp(join(tmpdir(), 'nooble-redis-'));
  const port = await freePort();
  const args = [
    ...['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', ''],
    ...['--appendonly', options.appendOnly ? 'yes' : 'no', '--appendfsync', 'always'],
    ...['--daemonize', 'no', '--loglevel', 'warning', '--enable-debug-command', 'local'],
    ...(options.password ? ['--requirepass', options.password] : []),
    ...(options.args ?? []),
  ];
  let server = await launch(args, port);
  const client = new Redis({
    port,
    protocol: 2,
    lazyConnect: true,
    retryStrategy: () => 20,
    maxRetriesPerRequest: null,
    ...(options.password ? { password: options.password } : {}),
  });
  client.on('error', () => {});
  await client.connect();

  // A test file that breaks off must not leave a server behind.
  const orphaned = (): void => void server.kill('SIGKILL');
  process.once('exit', orphaned);

  const kill = async (): Promise<void> => {
    if (server.exitCode !== null || server.signalCode !== null) return;
    const gone = once(server, 'exit');
    server.kill('SIGKILL');
    await gone;
  };
  return {
    url: `redis://${options.password ? `:${options.password}@` : ''}127.0.0.1:${port}`,
    port,
    client,
    signal: (signal) => void server.kill(signal),
    kill,
    async restart() {
      await kill();
      server = await launch(args, port);
    },
    async stop() {
      client.disconnect();
      process.off('exit', orphaned);
      await kill();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function launch(args: readonly string[], port: number): Promise<ChildProcess> {
  const child = spawn('redis-server', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
  const failed = new Promise<never>((_resolve, reject) => {
    child.once('error', () => reject(new Error('redis-server is not installed: run .ci/setup')));
    child.once('exit', () => reject(new Error(`redis-server ended: ${said.trim()}`)));
  });
  failed.catch(() => {});
  await Promise.race([failed, answering(port)]);
  return child;
}

/** Resolves once a server on that port answers PING, whatever it answers. */
async function answering(port: number): Promise<void> {
  const probe = new Redis({ port, protocol: 2, lazyConnect: true, retryStrategy: () => 20 });
  probe.on('error', () => {});
  try {
    await new Promise<void>((resolve) => {
      probe.once('ready', () => resolve());
      probe.on('error', (error: Error) => {
        if (/NOAUTH/.test(error.message)) resolve();
      });
      probe.connect().catch(() => {});
    });
  } finally {
    probe.disconnect();
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}
