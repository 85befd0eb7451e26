/** A Redis and transports over it for one test, closed in the right order after it: the transports first. */
import type { TestContext } from 'node:test';
import type { Transport } from '../../src/ports/transport.ts';
import { openRedisTransport } from '../../transports/queue/redis/transport.ts';
import { leakFree } from './leaks.ts';
import { quiet } from './quiet.ts';
import { type RedisServer, type RedisServerOptions, startRedis } from './redis.ts';
import { counting, type Meter } from './transport.ts';

/** Short, so that tests need not wait long for a dead node to be found. */
export const SHORT_LEASE = { ttlMs: 400, renewMs: 100 };

const closers = new WeakMap<TestContext, (() => Promise<void>)[]>();

/** Has something closed before the test's Redis goes away. */
export function beforeRedisStops(t: TestContext, close: () => Promise<void>): void {
  closers.get(t)?.push(close);
}

export async function redisFor(t: TestContext, options: RedisServerOptions = {}): Promise<RedisServer> {
  leakFree(t);
  const redis = await startRedis(options);
  const mine: (() => Promise<void>)[] = [];
  closers.set(t, mine);
  t.after(async () => {
    for (const close of mine.reverse()) await close();
    await redis.stop();
  });
  return redis;
}

export async function transportFor(
  t: TestContext,
  url: string,
  meter: Meter = counting(),
): Promise<Transport> {
  const transport = await openRedisTransport({ url, nodeId: 'node', log: quiet, meter, lease: SHORT_LEASE });
  beforeRedisStops(t, () => transport.close());
  return transport;
}
