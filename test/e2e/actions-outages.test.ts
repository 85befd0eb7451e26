/** Redis or the store away while actions are worked on: nothing is lost, nothing is promised, and the sockets go on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import { action, actionScene, ownList, pydantic2, WORK } from '../support/action-client.ts';
import { last } from '../support/chatter.ts';
import { startScene } from '../support/node.ts';
import { memoryStore, storeBehind, storesAround } from '../support/stores.ts';
import { say } from '../support/stub-model.ts';
import { gate } from '../support/transport.ts';
import { until } from '../support/until.ts';
import { settled } from './actions-cluster.ts';

const RUNS = 12;
/** A client that was thrown out comes back within seconds. */
const RECOVERY_MS = 20_000;

const runs = (list: string, count: number, from = 0): readonly string[] =>
  Array.from({ length: count }, (_, n) =>
    pydantic2(
      action(
        'execution.agent_run',
        { input: `Run ${from + n}.` },
        { callback_queue: list, task_id: `run-${from + n}` },
      ),
    ),
  );

test('kill -9 of Redis while runs are in flight: sockets go on, and every run is answered once Redis is back', async (t) => {
  const { client, stub, chat, ask } = await actionScene(t, {
    redis: { appendOnly: true },
    env: { NODE_MAX_EXECUTIONS: String(RUNS + 2), DEFAULT_TIER: 'enterprise' },
  });
  const { redis } = client;
  const open = gate();
  stub.byDefault(({ body }) => {
    const asked = String(body.messages.at(-1)?.content);
    if (!asked.startsWith('Run')) return say('Still here.');
    return async (reply) => {
      await open.opened;
      await say(`Did ${asked}`)(reply);
    };
  });
  const socket = await chat('acme', 's1', { query: { tier: 'enterprise' } });
  const list = ownList();
  await client.push(WORK, ...runs(list, RUNS - 1));
  await until('they run', () => stub.requests.length === RUNS - 1);
  await redis.kill();
  await until('it is known', async () => (await ask('/ready')).status === 503);
  const { body } = await ask('/ready');
  assert.equal(body.checks.redis.status, 'failed', JSON.stringify(body));
  assert.equal(body.checks.store.status, 'ok');
  for (let turns = 0; turns < 3; turns += 1)
    assert.equal(last(await socket.turn('There?'), 'chat.response').data.content, 'Still here.');

  // They end while nobody can be told.
  open.open();
  await until('they have ended', async () => {
    const { body: health } = await ask('/health/detailed');
    const turns: readonly { running: number }[] = Object.values(health.stats.turns);
    return turns.every(({ running }) => running === 0);
  });
  await redis.restart();
  await client.push(WORK, ...runs(list, 3, RUNS));
  const ids = Array.from({ length: RUNS + 3 }, (_, n) => n).filter((n) => n !== RUNS - 1);
  const answers = new Map<string | undefined, unknown>();
  while (answers.size < ids.length) {
    const { task_id, action_id, action_type, data } = await client.reply(list);
    assert.equal(action_type, 'execution.callback', JSON.stringify(data));
    const told = [action_id, data.response];
    assert.deepEqual(answers.get(task_id) ?? told, told, 'a run has two answers');
    answers.set(task_id, told);
  }
  for (const n of ids) assert.deepEqual(answers.get(`run-${n}`)?.toString().split(',')[1], `Did Run ${n}.`);
  await until('it is ready', async () => (await ask('/ready')).status === 200, RECOVERY_MS);
  await settled(client, WORK);
  assert.deepEqual(await redis.client.keys('*:dead'), []);
  const asked = stub.requests.map((request) => request.body.messages.at(-1)?.content);
  assert.equal(new Set(asked).size, ids.length + 1, 'a run that was asked for never began');
  assert.equal(asked.filter((text) => text !== 'There?').length, ids.length, 'a run was done twice');
  last(await socket.turn('There?'), 'chat.response');
});

/** A store that does not answer as long as the test says so. */
function unreliable() {
  const state = { down: false, refused: 0 };
  const store = storeBehind(memoryStore(), () => {
    if (!state.down) return;
    state.refused += 1;
    throw new RefusalError(refusal('STORE_UNAVAILABLE', { retryAfterMs: 50 }));
  });
  return { state, parts: { stores: storesAround(store) } };
}

test('while the store is away nothing is acknowledged; the action waits, and is done when the store is back', async (t) => {
  const { state, parts } = unreliable();
  const { client, stub, ask } = await actionScene(t, { parts });
  const { redis } = client;
  const list = ownList();
  state.down = true;
  await client.push(WORK, ...runs(list, 2));
  await until('it was tried several times', () => state.refused > 6);
  const { body } = await ask('/ready');
  assert.deepEqual([body.checks.store.status, body.checks.redis.status], ['failed', 'ok']);
  const taken = await redis.client.keys('nooble:taken:*');
  const held = await Promise.all(taken.map((key) => redis.client.hgetall(key)));
  const bodies = JSON.stringify(held);
  for (const id of ['run-0', 'run-1']) assert.ok(bodies.includes(id), `${id} was let go of: ${bodies}`);
  assert.equal(await redis.client.exists(list), 0);
  state.down = false;
  const replies = await client.replies(list, 2);
  assert.deepEqual(replies.map(({ task_id, data }) => [task_id, data.status]).toSorted(), [
    ['run-0', 'success'],
    ['run-1', 'success'],
  ]);
  await settled(client, WORK);
  assert.deepEqual(await redis.client.keys('*:dead'), []);
  assert.equal(await redis.client.llen(list), 0);
  t.diagnostic(`${stub.requests.length} model calls for 2 runs, ${state.refused} refusals of the store`);
});

test('a node that goes while its store is away gives back what it took', async (t) => {
  const { state, parts } = unreliable();
  const { client, running } = await actionScene(t, { env: { DRAIN_SECONDS: '0.2' }, parts });
  const { redis } = client;
  const list = ownList();
  state.down = true;
  await client.push(WORK, ...runs(list, 2));
  await until('it was tried', () => state.refused > 2);
  await running.drain();
  assert.equal(await redis.client.llen(WORK), 2);
  assert.deepEqual(await redis.client.keys('nooble:taken:*'), []);

  await t.test('and the next one does it', async (next) => {
    await startScene(next, { env: { REDIS_URL: redis.url } });
    const replies = await client.replies(list, 2);
    assert.deepEqual(replies.map(({ task_id }) => task_id).toSorted(), ['run-0', 'run-1']);
  });
});
