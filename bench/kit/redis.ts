/** The tests' Redis server for a bench: on the load's core, since in earnest it stands on another machine. */
import { spawnSync } from 'node:child_process';
import { rmSync } from 'node:fs';
import { startRedis } from '../../test/support/redis.ts';
import { CORE, pinnedTo } from './process.ts';

export interface BenchRedis {
  readonly url: string;
  readonly port: number;
  readonly pid: number;
  readonly version: string;
  /** How many there are on a list; 0 where there is none. */
  length(list: string): Promise<number>;
  drop(key: string): Promise<void>;
  stop(): Promise<void>;
}

/** Starts one that writes nothing to disk. Rejects with one line where redis-server is not installed. */
export async function startBenchRedis(): Promise<BenchRedis> {
  const redis = await startRedis();
  const [, folder = ''] = await redis.client.call('CONFIG', 'GET', 'dir').then(texts);
  const info = await redis.client.info('server');
  const pid = Number(field(info, 'process_id'));
  if (pinnedTo('load').length > 0) spawnSync('taskset', ['-a', '-c', '-p', String(CORE.load), String(pid)]);

  // The server itself ends with this process (startRedis); its folder has to go too.
  const remove = (): void => {
    if (folder.includes('nooble-redis-')) rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', remove);
  return {
    url: redis.url,
    port: redis.port,
    pid,
    version: field(info, 'redis_version'),
    length: (list) => redis.client.llen(list),
    async drop(key) {
      await redis.client.unlink(key);
    },
    async stop() {
      await redis.stop();
      process.off('exit', remove);
    },
  };
}

/** CONFIG GET answers a list in RESP2 and a map in RESP3. */
const texts = (reply: unknown): readonly string[] =>
  (Array.isArray(reply) ? reply : Object.entries(Object(reply)).flat()).map(String);

const field = (info: string, name: string): string =>
  new RegExp(`^${name}:(.*?)\r?$`, 'm').exec(info)?.[1] ?? '';
