/** Sends that Redis refuses: which will never succeed, and what becomes of those behind them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RefusalError } from '../../../src/domain/errors.ts';
import { tierSubscription } from '../../../src/domain/queues.ts';
import { lpushBytes } from '../../../transports/queue/redis/producer.ts';
import { beforeRedisStops, redisFor, transportFor } from '../../support/redis-node.ts';
import { startTcpProxy } from '../../support/tcp-proxy.ts';
import { action, collecting, queue } from '../../support/transport.ts';
import { until } from '../../support/until.ts';

const WORK = queue('execution_service:free:default');

async function refusalOf(promise: Promise<unknown>): Promise<string> {
  const error: unknown = await promise.then(
    () => 'it was sent',
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RefusalError, String(error));
  return `${error.data.code}: ${error.data.message}`;
}

test('a key that is no list is refused for good, and left as it is', async (t) => {
  const redis = await redisFor(t);
  const transport = await transportFor(t, redis.url);
  for (const name of [WORK, 'a:responses:b:c', 'agent-management.notifications.acme', 'nooble:replies:x']) {
    await redis.client.set(name, 'mine');
    const refused = await refusalOf(transport.send(queue(name), action(1), 'json'));
    assert.equal(refused, 'INVALID_REQUEST: The queue is no list.');
    assert.deepEqual([await redis.client.get(name), await redis.client.ttl(name)], ['mine', -1]);
  }
  const asked = transport.request(WORK, action(1), { timeoutMs: 5_000, format: 'json' });
  assert.equal(await refusalOf(asked), 'INVALID_REQUEST: The queue is no list.');
});

test('a queue that the node may not write to is refused for good', async (t) => {
  const redis = await redisFor(t);
  await redis.client.call('ACL', 'SETUSER', 'node', 'on', '>secret', '+@all', '&*', '~nooble:*', '~open:*');
  const transport = await transportFor(t, redis.url.replace('redis://', 'redis://node:secret@'));
  const refused = await refusalOf(transport.send(WORK, action(1), 'json'));
  assert.equal(refused, 'INVALID_REQUEST: This node may not write to the queue.');
  await transport.send(queue('open:1'), action(2), 'json');
  assert.equal(await redis.client.llen('open:1'), 1);
});

test('what else Redis says is no fault of the action: it may be sent again', async (t) => {
  const redis = await redisFor(t);
  const transport = await transportFor(t, redis.url);
  await redis.client.config('SET', 'maxmemory', '1');
  const refused = await refusalOf(transport.send(WORK, action(1), 'json'));
  assert.match(refused, /^TRANSPORT_UNAVAILABLE: .*OOM/);
  await redis.client.config('SET', 'maxmemory', '0');
  await transport.send(WORK, action(1), 'json');
});

test('what was handed over behind a write that fails is refused with it, and does not overtake it', async (t) => {
  const redis = await redisFor(t);
  const proxy = await startTcpProxy(redis.port);
  beforeRedisStops(t, () => proxy.close());
  const transport = await transportFor(t, `redis://127.0.0.1:${proxy.port}`);
  await redis.client.set(WORK, 'in the way');
  // The answer to the first write is under way while the second could be written.
  proxy.delay(100);
  const sends = [1, 2, 3].map((n) => refusalOf(transport.send(WORK, action(n), 'json')));
  const elsewhere = transport.send(queue('elsewhere'), action(4), 'json');
  await until('the first to be refused', async () =>
    /errorstat_WRONGTYPE/.test(await redis.client.info('errorstats')),
  );
  await redis.client.del(WORK);
  assert.deepEqual(await Promise.all(sends), Array(3).fill('INVALID_REQUEST: The queue is no list.'));
  assert.equal(await redis.client.llen(WORK), 0);

  await elsewhere;
  await Promise.all([5, 6].map((n) => transport.send(WORK, action(n), 'json')));
  const heard = collecting();
  await transport.consume([tierSubscription(WORK, 'free')], heard.listener, { credits: 1 });
  await heard.heard(2);
  assert.deepEqual(heard.numbers(), [5, 6]);
});

test('an LPUSH is what RESP says, whatever the bodies hold', async () => {
  const bulk = (bytes: Buffer) =>
    Buffer.concat([Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from('\r\n')]);
  const written = (bodies: readonly Buffer[]): Buffer =>
    Buffer.concat([
      Buffer.from(`*${2 + bodies.length}\r\n`),
      ...[Buffer.from('lpush'), Buffer.from(WORK), ...bodies].map(bulk),
    ]);
  const body = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));
  fc.assert(
    fc.property(fc.array(body, { minLength: 1, maxLength: 8 }), (bodies) => {
      assert.deepEqual(lpushBytes(WORK, bodies), written(bodies));
    }),
  );
  const large = [Buffer.alloc(4 * 1024 * 1024, 1), Buffer.alloc(0), Buffer.alloc(70_000, 2)];
  assert.ok(lpushBytes(WORK, large).equals(written(large)));
});
