/** A real redis-server that speaks TLS and nothing else, for one test file; ended by its pid. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { Redis } from 'ioredis';
import { authorityPem, certificatePem, type Holder, keyPem, tlsArgs } from './tls-files.ts';
import { until } from './until.ts';

export interface TlsRedis {
  readonly port: number;
  /** A plain client, as a stranger would use one. */
  readonly client: Redis;
  /** Kills it with -9, and starts it again on the same port. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** `of`: whom its certificate names. Unless `open`, its clients must show a certificate, as is Redis's default. */
export async function startTlsRedis(of: Holder = 'localhost', open = false): Promise<TlsRedis> {
  const port = await freePort();
  const args = [
    ...[...tlsArgs(port, of), '--tls-auth-clients', open ? 'no' : 'yes'],
    ...['--bind', '127.0.0.1', '--save', '', '--loglevel', 'warning'],
  ];
  const launch = (): ChildProcess => spawn('redis-server', args, { stdio: 'ignore' });
  let server = launch();
  // A test file that breaks off must not leave a server behind.
  const orphaned = (): void => void server.kill('SIGKILL');
  process.once('exit', orphaned);
  const kill = async (): Promise<void> => {
    const gone = once(server, 'exit');
    server.kill('SIGKILL');
    await gone;
  };
  const client = new Redis({
    port,
    host: '127.0.0.1',
    protocol: 2,
    retryStrategy: () => 20,
    maxRetriesPerRequest: null,
    tls: {
      ca: authorityPem,
      cert: certificatePem('localhost'),
      key: keyPem('localhost'),
      checkServerIdentity: () => undefined,
    },
  });
  client.on('error', () => {});
  const ready = (): Promise<void> => until('a Redis over TLS', () => client.status === 'ready');
  await ready();
  return {
    port,
    client,
    async restart() {
      await kill();
      await until('the end of the connection', () => client.status !== 'ready');
      server = launch();
      await ready();
    },
    async stop() {
      client.disconnect();
      process.off('exit', orphaned);
      await kill();
    },
  };
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
