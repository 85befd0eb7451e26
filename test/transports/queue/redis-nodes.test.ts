/** What happens to the actions of nodes that die, and to what others leave in Redis. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { type TestContext, test } from 'node:test';
import type { ErrorData } from '../../../src/domain/errors.ts';
import {
  managementPattern,
  managementQueue,
  type Subscription,
  tierSubscription,
} from '../../../src/domain/queues.ts';
import type { ActionDelivery } from '../../../src/ports/transport.ts';
import { killed } from '../../support/processes.ts';
import type { RedisServer } from '../../support/redis.ts';
import { redisFor, transportFor } from '../../support/redis-node.ts';
import { startWorker } from '../../support/redis-workers.ts';
import { action, collecting, counting, gate, queue, refusedWith } from '../../support/transport.ts';
import { until } from '../../support/until.ts';

const WORK = queue('execution_service:free:default');
const LANES: readonly Subscription[] = [tierSubscription(WORK, 'free')];

/** A consumer in a process of its own; resolves when it has begun work on so many actions. */
async function victim(t: TestContext, redis: RedisServer, count: number): Promise<ChildProcess> {
  let begun = 0;
  const child = startWorker(t, { url: redis.url, queue: WORK, credits: 10 }, () => {
    begun += 1;
  });
  await until('the victim to work', () => begun >= count, 30_000);
  return child;
}

test("a killed node's actions go back to the front of their queue, in their order, once", async (t) => {
  const redis = await redisFor(t);
  const sender = await transportFor(t, redis.url);
  for (const n of [1, 2, 3]) await sender.send(WORK, action(n), 'json');
  const child = await victim(t, redis, 3);
  await killed(child);
  await sender.send(WORK, action(4), 'json');
  const idle = [tierSubscription(queue('elsewhere'), 'free')];
  const meter = counting();
  const janitors = await Promise.all([1, 2, 3].map(() => transportFor(t, redis.url, meter)));
  for (const janitor of janitors) await janitor.consume(idle, async () => {}, { credits: 1 });
  await until('three to come back', () => meter.of('action.returned') === 3);
  const heard = collecting();
  await sender.consume(LANES, heard.listener, { credits: 1 });
  await heard.heard(4);

  assert.deepEqual([...heard.numbers()].sort(), [1, 2, 3, 4]);
  assert.deepEqual(
    heard.numbers().slice(-3),
    [2, 3, 4].filter((n) => heard.numbers().indexOf(n) > 0),
  );
  assert.equal(meter.of('action.returned'), 3);
});

test('an action that kills three nodes is dead, and who reads its queue is told', async (t) => {
  const redis = await redisFor(t);
  const meter = counting();
  const janitor = await transportFor(t, redis.url, meter);
  const told: unknown[] = [];
  const onDead = (from: string) => (delivery: ActionDelivery, error: ErrorData) =>
    void told.push([from, delivery.action.data.n, delivery.queue, error.code]);
  const elsewhere = [tierSubscription(queue('elsewhere'), 'free')];
  await janitor.consume(elsewhere, async () => {}, { credits: 1, onDead: onDead('elsewhere') });
  // It reads the queue, and has no room for what waits there.
  const busy = gate();
  const occupied = [...elsewhere, ...LANES].map((lane) => ({ ...lane, queue: queue(`${lane.queue}:busy`) }));
  const reader = await janitor.consume(occupied, () => busy.opened, { credits: 1, onDead: onDead('reader') });
  await janitor.send(queue(`${WORK}:busy`), action(0), 'json');
  await until('the reader to be busy', async () => (await redis.client.llen(`${WORK}:busy`)) === 0);
  for (const lane of LANES) reader.add(lane);
  await janitor.send(WORK, action(1), 'json');
  for (const round of [1, 2, 3]) {
    await killed(await victim(t, redis, 1));
    const done = (): boolean => meter.of('action.returned') + meter.of('action.dead') === round;
    await until('it to be found', done);
  }
  const [letter] = await janitor.dead.list(WORK, 10);

  busy.open();
  assert.deepEqual(told, [['reader', 1, WORK, 'POISON']]);
  assert.equal(letter?.error.code, 'POISON');
  assert.equal(JSON.parse(letter.body).data.n, 1);
  assert.equal(await redis.client.llen(WORK), 0);
});

test('a key of another type where a queue should be stops nothing else', async (t) => {
  const redis = await redisFor(t);
  const transport = await transportFor(t, redis.url);
  await redis.client.set('execution_service:enterprise:default', 'not a list');
  const heard = collecting();
  const lanes = [tierSubscription(queue('execution_service:enterprise:default'), 'enterprise'), ...LANES];
  await transport.consume(lanes, heard.listener, { credits: 2 });
  for (const n of [1, 2, 3]) await transport.send(WORK, action(n), 'json');
  await heard.heard(3);

  assert.equal(
    await refusedWith(transport.send(lanes[0]?.queue ?? WORK, action(4), 'json')),
    'INVALID_REQUEST',
  );
});

test('replies expire, also those that nobody fetches', async (t) => {
  const redis = await redisFor(t);
  const transport = await transportFor(t, redis.url);
  const name = queue('execution_service:responses:query.request:c1');
  await transport.send(name, action(1), 'json');
  const gone = queue('nooble:replies:a-node-that-is-gone');
  await transport.send(gone, action(1), 'json');
  await until('an expiry', async () => (await redis.client.ttl(gone)) > 0);

  assert.ok((await redis.client.ttl(name)) > 290);
});

test('a queue that appears while the connection that would tell of it is broken is found', async (t) => {
  const redis = await redisFor(t);
  const transport = await transportFor(t, redis.url);
  const heard = collecting();
  await transport.consume([], heard.listener, { credits: 2, patterns: [managementPattern] });
  for (let n = 1; n < 6; n += 1) {
    await redis.client.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await redis.client.lpush(managementQueue('tasks', `tenant-${n}`), JSON.stringify(action(n)));
    await heard.heard(n);
  }

  assert.deepEqual(heard.numbers(), [1, 2, 3, 4, 5]);
});
