/** A master, a replica and sentinels of it for one test, out of the redis-server binary, each ended by its pid. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Redis } from 'ioredis';
import { leakFree } from './leaks.ts';
import { freePorts, killed, orphanGuard } from './processes.ts';
import { redisClient } from './redis.ts';
import { tlsArgs } from './tls-files.ts';
import { until } from './until.ts';

export interface ClusterOptions {
  /** Of the Redis servers. */
  readonly password?: string;
  readonly sentinelPassword?: string;
  /** Servers and sentinels speak TLS only, as `localhost` and 127.0.0.1 of test/support/tls. */
  readonly tls?: boolean;
}

export interface RedisCluster {
  /** Without user, password and options: `hosts/master`. */
  readonly place: string;
  readonly sentinelPorts: readonly number[];
  /** A plain client of whoever is master now; closed after the test. */
  master(): Promise<Redis>;
  /** Kills the master with -9. */
  killMaster(): Promise<void>;
  /** Resolves when the sentinels name another master than the first. */
  failedOver(): Promise<void>;
  /** Has the sentinels exchange master and replica, both alive; what the first master accepts meanwhile is lost. */
  exchange(): Promise<void>;
  killSentinel(at: number): Promise<void>;
  signalSentinel(at: number, signal: 'SIGSTOP' | 'SIGCONT'): void;
  /** Resolves when the replica has all that the master has. */
  replicated(): Promise<void>;
}

const NAME = 'cluster';
const SENTINELS = 3;
const QUORUM = 2;

/** Ends with the test, after what was registered with `before`. */
export async function startCluster(
  t: TestContext,
  { password, sentinelPassword, tls = false }: ClusterOptions = {},
): Promise<{ readonly cluster: RedisCluster; readonly beforeItEnds: (close: () => unknown) => void }> {
  leakFree(t);
  const folder = await mkdtemp(join(tmpdir(), 'nooble-cluster-'));
  const children = new Map<number, ChildProcess>();
  const clients: Redis[] = [];
  const closers: (() => unknown)[] = [];
  const unguarded = orphanGuard(() => {
    for (const child of children.values()) child.kill('SIGKILL');
  });
  t.after(async () => {
    for (const close of closers.reverse()) await close();
    for (const client of clients) client.disconnect();
    await Promise.all([...children.values()].map((child) => killed(child)));
    unguarded();
    await rm(folder, { recursive: true, force: true });
  });

  const [first = 0, second = 0, ...sentinelPorts] = await freePorts(2 + SENTINELS);
  const launch = (port: number, args: readonly string[]): void => {
    children.set(port, spawn('redis-server', args, { stdio: 'ignore' }));
  };
  const clientOf = async (port: number, secret = password): Promise<Redis> => {
    const client = redisClient(port, secret, tls);
    clients.push(client);
    client.connect().catch(() => {});
    await until(`the server on port ${port}`, () => client.status === 'ready');
    return client;
  };

  const portArgs = (port: number): readonly string[] =>
    tls
      ? [...tlsArgs(port), '--tls-replication', 'yes', '--tls-auth-clients', 'no']
      : ['--port', String(port)];
  const secrets = password ? ['--requirepass', password, '--masterauth', password] : [];
  const serverArgs = (port: number): readonly string[] => [
    ...[...portArgs(port), ...secrets, '--bind', '127.0.0.1', '--dir', folder, '--save', ''],
    ...['--dbfilename', `${port}.rdb`, '--repl-diskless-sync-delay', '0', '--loglevel', 'warning'],
  ];
  launch(first, serverArgs(first));
  const firstMaster = await clientOf(first);
  launch(second, [...serverArgs(second), '--replicaof', '127.0.0.1', String(first)]);
  const replica = await clientOf(second);
  await until('the replica', async () => /master_link_status:up/.test(await replica.info('replication')));

  for (const port of sentinelPorts) {
    const file = join(folder, `sentinel-${port}.conf`);
    const lines = [
      'bind 127.0.0.1',
      `dir ${folder}`,
      `sentinel monitor ${NAME} 127.0.0.1 ${first} ${QUORUM}`,
      `sentinel down-after-milliseconds ${NAME} 500`,
      `sentinel failover-timeout ${NAME} 3000`,
      ...(password ? [`sentinel auth-pass ${NAME} "${password}"`] : []),
      ...(sentinelPassword
        ? [`requirepass "${sentinelPassword}"`, `sentinel sentinel-pass "${sentinelPassword}"`]
        : []),
    ];
    await writeFile(file, `${lines.join('\n')}\n`);
    launch(port, [file, '--sentinel', ...portArgs(port)]);
  }
  const sentinels = await Promise.all(sentinelPorts.map((port) => clientOf(port, sentinelPassword ?? '')));
  const masterPort = async (sentinel: Redis): Promise<number> => {
    const address = await sentinel.call('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', NAME);
    return Array.isArray(address) ? Number(address[1]) : 0;
  };
  const asked = (): readonly Redis[] =>
    sentinels.filter((_, at) => children.get(sentinelPorts[at] ?? 0)?.signalCode === null);
  const agreed = async (): Promise<number | null> => {
    const ports = await Promise.all(asked().map(masterPort));
    return new Set(ports).size === 1 ? (ports[0] ?? null) : null;
  };
  for (const sentinel of sentinels) {
    await until('sentinels that know each other and the replica', async () => {
      const [master, info] = await Promise.all([
        sentinel.call('SENTINEL', 'CKQUORUM', NAME).catch(() => ''),
        sentinel.info('sentinel'),
      ]);
      return /^OK 3 usable/.test(String(master)) && /slaves=1,sentinels=3/.test(info);
    });
  }

  const failedOver = () => until('another master', async () => (await agreed()) === second);
  const cluster: RedisCluster = {
    place: `${sentinelPorts.map((port) => `127.0.0.1:${port}`).join(',')}/${NAME}`,
    sentinelPorts,
    async master() {
      return (await agreed()) === second ? replica : firstMaster;
    },
    killMaster: () => killed(children.get(first)),
    failedOver,
    async exchange() {
      await until('sentinels that are ready for it', async () => {
        const [sentinel] = asked();
        const answer = await sentinel?.call('SENTINEL', 'FAILOVER', NAME).catch(() => '');
        return answer === 'OK';
      });
      await failedOver();
    },
    killSentinel: (at) => killed(children.get(sentinelPorts[at] ?? 0)),
    signalSentinel: (at, signal) => void children.get(sentinelPorts[at] ?? 0)?.kill(signal),
    async replicated() {
      const offset = async (client: Redis, field: string): Promise<string | undefined> =>
        new RegExp(`${field}:(\\d+)`).exec(await client.info('replication'))?.[1];
      await until(
        'replication',
        async () =>
          (await offset(firstMaster, 'master_repl_offset')) === (await offset(replica, 'slave_repl_offset')),
      );
    },
  };
  return { cluster, beforeItEnds: (close) => void closers.push(close) };
}
