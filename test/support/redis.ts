/** A real redis-server for one test file: on a free port of loopback, in a folder of its own, ended by its pid. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { freePort, killed, orphanGuard } from './processes.ts';
import { authorityPem, certificatePem, type Holder, keyPem, tlsArgs } from './tls-files.ts';

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
  /** It speaks TLS and nothing else; `of`: whom its certificate names. Unless `open`, clients must show a certificate. */
  readonly tls?: { readonly of: Holder; readonly open: boolean };
}

/** A plain client, as a stranger would use one, not connected yet. It comes back as often as it is thrown out. */
export function redisClient(port: number, password?: string, tls: boolean = false): Redis {
  const client = new Redis({
    port,
    host: '127.0.0.1',
    protocol: 2,
    lazyConnect: true,
    retryStrategy: () => 20,
    maxRetriesPerRequest: null,
    ...(password ? { password } : {}),
    ...(tls
      ? {
          tls: {
            ca: authorityPem,
            cert: certificatePem('localhost'),
            key: keyPem('localhost'),
            checkServerIdentity: () => undefined,
          },
        }
      : {}),
  });
  client.on('error', () => {});
  return client;
}

/** One that speaks TLS only. */
export const startTlsRedis = (of: Holder = 'localhost', open = false): Promise<RedisServer> =>
  startRedis({ tls: { of, open } });

/** Throws one line that says what to do where redis-server is not installed. */
export async function startRedis(options: RedisServerOptions = {}): Promise<RedisServer> {
  const folder = await mkdtemp(join(tmpdir(), 'nooble-redis-'));
  const port = await freePort();
  const { tls, password } = options;
  const args = [
    ...(tls ? tlsArgs(port, tls.of) : ['--port', String(port)]),
    ...(tls ? ['--tls-auth-clients', tls.open ? 'no' : 'yes'] : []),
    ...['--bind', '127.0.0.1', '--dir', folder, '--save', ''],
    ...['--appendonly', options.appendOnly ? 'yes' : 'no', '--appendfsync', 'always'],
    ...['--daemonize', 'no', '--loglevel', 'warning', '--enable-debug-command', 'local'],
    ...(password ? ['--requirepass', password] : []),
    ...(options.args ?? []),
  ];
  const launched = () => launch(args, redisClient(port, undefined, tls !== undefined));
  let server = await launched();
  const client = redisClient(port, password, tls !== undefined);
  await client.connect();
  const unguarded = orphanGuard(() => server.kill('SIGKILL'));
  const kill = () => killed(server);
  return {
    url: `${tls ? 'rediss' : 'redis'}://${password ? `:${password}@` : ''}127.0.0.1:${port}`,
    port,
    client,
    signal: (signal) => void server.kill(signal),
    kill,
    async restart() {
      await kill();
      server = await launched();
    },
    async stop() {
      client.disconnect();
      unguarded();
      await kill();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function launch(args: readonly string[], probe: Redis): Promise<ChildProcess> {
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
  await Promise.race([failed, answering(probe)]);
  return child;
}

/** Resolves once the server answers PING, whatever it answers. */
async function answering(probe: Redis): Promise<void> {
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
