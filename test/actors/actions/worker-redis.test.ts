/** The action worker over a real Redis: what strangers push is answered, also where one of two nodes dies over it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { redisFor, transportFor } from '../../support/redis-node.ts';
import { memoryStore } from '../../support/stores.ts';
import { until } from '../../support/until.ts';
import { ACME, BACK, idOf, openActionNode, run, task, WORK } from './action-node.ts';

test('runs that a stranger pushes are answered once, and another tenant’s queue gets nothing', async (t) => {
  const redis = await redisFor(t);
  const transport = await transportFor(t, redis.url);
  const put = (name: string, text: string): void => void redis.client.lpush(name, text);
  const node = await openActionNode(t, { store: memoryStore(), transport, put });
  node.push(run('h3', 'hi', { callback_queue: 'orchestrator:globex:callback' }));
  for (let n = 0; n < 20; n += 1) node.push(run(`r${n}`, `hi ${n}`));
  await node.reply(19);
  const ids = node.replies().map(({ action_id }) => action_id);
  assert.equal(new Set(ids).size, 20);
  await until('the dead', async () => (await transport.dead.list(WORK, 9)).length >= 1);
  const letters = await transport.dead.list(WORK, 9);
  assert.deepEqual(letters.map(({ body }) => JSON.parse(body).action_id).toSorted(), ['h3']);
  assert.equal(await redis.client.exists('orchestrator:globex:callback'), 0);
});

test('what a node was working on when it died is performed by another, and answered', async (t) => {
  const redis = await redisFor(t);
  const store = memoryStore();
  const put = (name: string, text: string): void => void redis.client.lpush(name, text);
  const first = await openActionNode(t, { store, put, transport: await transportFor(t, redis.url) });
  first.push(run('a1', 'wait'));
  await first.script.ran(1);
  await until('it is stored', async () => (await store.turn(ACME, task('a1'))) !== null);
  await first.die();
  await first.transport.close();

  const second = await openActionNode(t, {
    store,
    put,
    transport: await transportFor(t, redis.url),
    start: false,
  });
  second.script.open();
  await second.worker.start();
  const reply = await second.reply();
  assert.deepEqual([reply.action_id, reply.data.response], [idOf('a1', 'reply'), 'echo: wait']);
  second.push(run('a1', 'wait'));
  assert.deepEqual(await second.reply(1), reply);
  assert.equal(second.script.plans.length, 1);
  assert.equal(await redis.client.llen(BACK), 0);
});
