/** The outbox relay over a real Redis that is killed, paused, or holds something else under a queue's name. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Relay } from '../../src/ports/outbox.ts';
import type { Outgoing, Store } from '../../src/ports/store.ts';
import type { RedisServer } from '../support/redis.ts';
import { beforeRedisStops, redisFor, transportFor } from '../support/redis-node.ts';
import { memoryStore } from '../support/stores.ts';
import { loopTurns, until } from '../support/until.ts';
import { firsts, numbers, outgoing, relayOver, unsentIn } from './relay-fixtures.ts';

const QUEUES = ['to:a', 'to:b', 'to:c'] as const;

/** What stands on a queue, oldest first. */
async function standing(redis: RedisServer, queue: string): Promise<readonly number[]> {
  const bodies = await redis.client.lrange(queue, 0, -1);
  return bodies.reverse().map((body) => Number(JSON.parse(body).data.n));
}

async function relayFor(t: TestContext, redis: RedisServer, store: Store): Promise<Relay> {
  const transport = await transportFor(t, redis.url);
  const relay = relayOver(transport, store, { timing: { backoffMs: 20, maxBackoffMs: 100 } });
  beforeRedisStops(t, () => relay.close());
  return relay;
}

const row = (n: number): readonly Outgoing[] => QUEUES.map((queue) => outgoing(n, queue));

const outcome = (promise: Promise<void>): Promise<'resolved' | 'refused'> =>
  promise.then(
    () => 'resolved',
    () => 'refused',
  );

async function allStand(redis: RedisServer, store: Store, count: number): Promise<void> {
  await until('nothing to be unsent', async () => (await unsentIn(store)).length === 0, 30_000);
  for (const queue of QUEUES)
    assert.deepEqual(firsts(await standing(redis, queue)), numbers(0, count), `order on ${queue}`);
}

test('order under load: nothing is lost, and nothing comes twice where nothing fails', async (t) => {
  const redis = await redisFor(t);
  const store = memoryStore();
  const relay = await relayFor(t, redis, store);
  const keeping: Promise<void>[] = [];
  for (const n of numbers(0, 3_000)) {
    keeping.push(relay.write(row(n)));
    if (n % 50 === 0) await loopTurns();
  }
  await Promise.all(keeping);
  await allStand(redis, store, 3_000);
  for (const queue of QUEUES) assert.equal((await standing(redis, queue)).length, 3_000);
});

for (const [trouble, rounds] of [
  ['killed', 2],
  ['stopped', 1],
] as const) {
  test(`Redis ${trouble} in mid-flow: nothing is lost, and order is kept on every queue`, async (t) => {
    const redis = await redisFor(t, { appendOnly: true });
    const store = memoryStore();
    const relay = await relayFor(t, redis, store);
    const beside = await transportFor(t, redis.url);
    let kept = 0;
    let flowing = true;
    const flow = (async () => {
      while (flowing) {
        await Promise.all(numbers(kept, kept + 10).map((n) => relay.write(row(n))));
        kept += 10;
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    })();
    for (let round = 0; round < rounds; round += 1) {
      const before = kept;
      await until('some to stand there', async () => (await redis.client.llen(QUEUES[0])) > 100);
      await until('more', () => kept > before + 200);
      if (trouble === 'killed') await redis.kill();
      else redis.signal('SIGSTOP');
      const away = kept;
      await until('a refusal', async () => (await outcome(beside.ping())) === 'refused');
      await until('some to wait', async () => kept > away + 200 && (await store.unsent(0, 500)).length > 300);
      if (trouble === 'killed') await redis.restart();
      else redis.signal('SIGCONT');
      await until('the sending to go on', async () => (await standing(redis, QUEUES[2])).includes(away));
    }
    flowing = false;
    await flow;
    await allStand(redis, store, kept);
  });
}

test('a process that dies while Redis is away leaves all to the next one', async (t) => {
  const redis = await redisFor(t, { appendOnly: true });
  const store = memoryStore();
  const first = await relayFor(t, redis, store);
  for (const n of numbers(0, 50)) await first.write(row(n));
  await redis.kill();
  for (const n of numbers(50, 400)) await first.write(row(n));
  await first.close();
  await redis.restart();
  const second = await relayFor(t, redis, store);
  for (const n of numbers(400, 500)) await second.write(row(n));
  await allStand(redis, store, 500);
});

test('a queue whose name holds something else stands in nobody’s way', async (t) => {
  const redis = await redisFor(t);
  const store = memoryStore();
  await redis.client.set('to:wrong', 'a text');
  await store.commit({ type: 'outgoing', outgoing: numbers(0, 600).map((n) => outgoing(n, 'to:wrong')) });
  const relay = await relayFor(t, redis, store);
  for (const n of numbers(0, 20))
    await relay.write([outgoing(n, 'to:wrong', { id: `again-${n}` }), ...row(n)]);
  for (const queue of QUEUES)
    await until('the others', async () => (await standing(redis, queue)).length === 20);
});
