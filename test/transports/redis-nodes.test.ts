/** What happens to the actions of nodes that die, and to what others leave in Redis. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Lane, tierLane } from '../../src/domain/queues.ts';
import type { RedisServer } from '../support/redis.ts';
import { redisFor, transportFor } from '../support/redis-node.ts';
import { action, collecting, counting, queue, refusedWith } from '../support/transport.ts';
import { until } from '../support/until.ts';

const WORK = queue('execution_service:free:default');
const LANES: readonly Lane[] = [tierLane(WORK, 'free')];

/** A consumer in a process of its own; resolves when it has begun work on so many actions. */
async function victim(t: TestContext, redis: RedisServer, count: number): Promise<ChildProcess> {
  const script = fileURLToPath(new URL('../support/worker-node.ts', import.meta.url));
  const child = spawn(process.execPath, ['--import', 'tsx', script, redis.url, WORK, '10'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  let begun = 0;
  createInterface({ input: child.stdout ?? process.stdin }).on('line', (line) => {
    if (line !== 'taking') begun += 1;
  });
  await until('the victim to work', () => begun >= count, 30_000);
  return child;
}

async function killed(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}

test("a killed node's actions go back to the front of their queue, in their order, once", async (t) => {
  const redis = await redisFor(t);
  const sender = await transportFor(t, redis.url);
  for (const n of [1, 2, 3]) await sender.send(WORK, action(n), 'json');
  const child = await victim(t, redis, 3);
  await killed(child);
  await sender.send(WORK, action(4), 'json');
  const idle = [tierLane(queue('elsewhere'), 'free')];
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

test('an action that kills three nodes is dead', async (t) => {
  const redis = await redisFor(t);
  const meter = counting();
  const janitor = await transportFor(t, redis.url, meter);
  await janitor.consume([tierLane(queue('elsewhere'), 'free')], async () => {}, { credits: 1 });
  await janitor.send(WORK, action(1), 'json');
  for (const round of [1, 2, 3]) {
    await killed(await victim(t, redis, 1));
    const done = (): boolean => meter.of('action.returned') + meter.of('action.dead') === round;
    await until('it to be found', done);
  }
  const [letter] = await janitor.dead.list(WORK, 10);

  assert.equal(letter?.error.code, 'POISON');
  assert.equal(JSON.parse(letter.body).data.n, 1);
  assert.equal(await redis.client.llen(WORK), 0);
});

test('a key of another type where a queue should be stops nothing else', async (t) => {
  const redis = await redisFor(t);
  const transport = await transportFor(t, redis.url);
  await redis.client.set('execution_service:enterprise:default', 'not a list');
  const heard = collecting();
  const lanes = [tierLane(queue('execution_service:enterprise:default'), 'enterprise'), ...LANES];
  await transport.consume(lanes, heard.listener, { credits: 2 });
  for (const n of [1, 2, 3]) await transport.send(WORK, action(n), 'json');
  await heard.heard(3);

  assert.equal(
    await refusedWith(transport.send(lanes[0]?.queue ?? WORK, action(4), 'json')),
    'TRANSPORT_UNAVAILABLE',
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
