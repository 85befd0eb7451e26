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

const closers = new WeakMap<TestContext, (() => unknown)[]>();

/** Has something closed before the test's Redis goes away; the last that was named goes first. */
export function beforeRedisStops(t: TestContext, close: () => unknown): void {
  closers.get(t)?.push(close);
}

/** It goes when all else of the test is closed, and leaks are looked for: nothing else of the test need look for them. */
export async function redisFor(t: TestContext, options: RedisServerOptions = {}): Promise<RedisServer> {
  const mine: (() => unknown)[] = [];
  closers.set(t, mine);
  // A hook of a hook runs after those of the nodes; and this one before the look for leaks.
  t.after(() =>
    t.after(async () => {
      for (const close of mine.reverse()) await close();
    }),
  );
  leakFree(t);
  const redis = await startRedis(options);
  mine.push(() => redis.stop());
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
