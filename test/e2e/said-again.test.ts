/** A task that is said again is told where its turn stands: whether it waits, runs, or has ended, and how. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { action, actionScene, ownList, pydantic2, WORK } from '../support/action-client.ts';
import type { Chatter } from '../support/chatter.ts';
import { type ChildNode, life, modelledBy, type Scene, spawnNode, startScene } from '../support/node.ts';
import { refuse, say, stallAfter, startStubModel } from '../support/stub-model.ts';
import { temporary } from '../support/temporary.ts';

const SLOW = { EXECUTION_MAX_EXECUTION_TIME: '1' };

/** Says a known task again; resolves to what is told of it. */
async function again(client: Chatter, task_id: string): Promise<unknown> {
  const before = client.frames.length;
  client.say('Again.', { task_id });
  const { data } = await client.see(
    (frame) =>
      client.frames.indexOf(frame) >= before && frame.task_id === task_id && frame.type === 'chat.accepted',
  );
  return data;
}

const told = (status: string, position = 0) => ({ status, position, deduplicated: true });

/** A turn for every way to end, in the order in which they were said. */
async function endings({ chat, stub }: Scene) {
  const client = await chat('acme', 's1');
  stub.byDefault(() => say('Done.'));
  stub.next(say('Done.'));
  await client.turn('Go.', { task_id: 'completed' });
  stub.next(refuse(400));
  await client.turn('Go.', { task_id: 'failed' });
  stub.next(stallAfter('Half '));
  client.say('Go.', { task_id: 'cancelled' });
  await client.see(({ task_id, type }) => task_id === 'cancelled' && type === 'chat.delta');
  client.send({ type: 'chat.cancel', task_id: 'cancelled' });
  await client.ended('cancelled');
  stub.next(stallAfter('Half '));
  await client.turn('Go.', { task_id: 'timeout' });
  return client;
}
const ENDINGS = ['completed', 'failed', 'cancelled', 'timeout'] as const;

/** On every wire. No model hears of it. */
async function sameEverywhere({ ask, chat, fetch, stub }: Scene, client: Chatter) {
  const asked = stub.requests.length;
  const other = await chat('acme', 's1');
  for (const task_id of ENDINGS) {
    assert.deepEqual(await again(client, task_id), told(task_id));
    const body = { message: 'Again.', session_id: 's1', task_id };
    const sent = await ask('/api/chat/send', { body });
    assert.deepEqual([sent.status, sent.body.status], [202, task_id]);
    const streamed = await fetch('/api/chat/send', { body, headers: { accept: 'text/event-stream' } });
    assert.match(await streamed.text(), new RegExp(`^data: .*"status":"${task_id}"`, 'm'));
    assert.deepEqual(await again(other, task_id), told(task_id));
  }
  assert.equal(stub.requests.length, asked);
}

test('of a turn that has ended it is told how, on every wire, before a restart and after it', async (t) => {
  const env = { ...SLOW, DATABASE_URL: temporary(t).database };
  await life(t, 'the first life', { env }, async (node) => {
    await sameEverywhere(node, await endings(node));
    await node.running.drain();
  });
  await life(t, 'the second life', { env }, async (node) => {
    await sameEverywhere(node, await node.chat('acme', 's1'));
  });
});

test('of a turn that waits or runs it is told just that, and then how it ended', async (t) => {
  const { chat, ask, stub } = await startScene(t);
  stub.next(stallAfter('Half '));
  const client = await chat('acme', 's1');
  for (const task_id of ['runs', 'waits', 'last']) client.say('Go.', { task_id });
  await client.see(({ task_id, type }) => task_id === 'runs' && type === 'chat.delta');
  await client.see(({ task_id, type }) => task_id === 'last' && type === 'chat.accepted');
  const other = await chat('acme', 's1');
  assert.deepEqual(await again(other, 'runs'), told('processing'));
  assert.deepEqual(await again(other, 'last'), told('queued', 2));
  client.send({ type: 'chat.cancel', task_id: 'last' });
  await client.ended('last');
  assert.deepEqual(await again(other, 'last'), told('cancelled'), 'a turn that never ran');
  client.send({ type: 'chat.cancel', task_id: 'runs' });
  await client.ended('waits');
  assert.deepEqual(await again(other, 'runs'), told('cancelled'));
  assert.deepEqual(await again(other, 'waits'), told('completed'));
  const later = await ask('/api/chat/send', { body: { message: 'New.', session_id: 's1', task_id: 'new' } });
  assert.equal(later.body.status, 'processing');
  await client.ended('new');
  assert.deepEqual(await again(client, 'new'), told('completed'), 'over the socket what HTTP began');
});

test('more turns than a session remembers: the store says how the old ones ended', async (t) => {
  const { chat, stub } = await startScene(t);
  const client = await chat('acme', 's1');
  stub.next(refuse(400));
  await client.turn('Go.', { task_id: 'oldest' });
  stub.byDefault(() => say('Done.'));
  for (let count = 0; count < 34; count += 1) await client.turn('Go.');
  assert.deepEqual(await again(client, 'oldest'), told('failed'));
});

test('a turn that a killed node left behind has failed, and so it is told', async (t) => {
  const stub = await startStubModel();
  t.after(() => stub.close());
  stub.byDefault(() => stallAfter('Half '));
  const env = { ...modelledBy(stub), DATABASE_URL: temporary(t).database };
  const start = (): Promise<ChildNode> => spawnNode(t, env);
  const first = await start();
  const before = await first.chat('acme', 's1');
  before.say('Go.', { task_id: 'interrupted' });
  before.say('Go.', { task_id: 'waited' });
  await before.see(({ type }) => type === 'chat.delta');
  await before.see(({ task_id, type }) => task_id === 'waited' && type === 'chat.accepted');
  await first.kill('SIGKILL');
  const second = await start();
  const client = await second.chat('acme', 's1');
  for (const task of ['interrupted', 'waited']) {
    assert.equal((await client.ended(task)).data.code, 'INTERRUPTED');
    assert.deepEqual(await again(client, task), told('failed'));
  }
  await second.kill('SIGKILL');
});

test('what another session or tenant has said tells nothing of itself', async (t: TestContext) => {
  const { chat, ask, stub } = await startScene(t);
  stub.byDefault(() => say('A secret.'));
  const client = await chat('acme', 's1');
  await client.turn('Go.', { task_id: 'task' });
  const elsewhere = await chat('acme', 's2');
  elsewhere.say('Go.', { task_id: 'task' });
  const refused = await elsewhere.ended('task');
  assert.deepEqual([refused.type, refused.data.code], ['error', 'CONFLICT']);
  assert.doesNotMatch(JSON.stringify(elsewhere.frames), /secret|completed|s1/);
  const stranger = await chat('globex', 's1');
  stub.next(refuse(400));
  const frames = await stranger.turn('Go.', { task_id: 'task' });
  assert.deepEqual(frames[0]?.data, { status: 'processing', position: 0 }, 'it is theirs, and new');
  assert.deepEqual(await again(stranger, 'task'), told('failed'));
  assert.deepEqual(await again(client, 'task'), told('completed'));
  const unknown = await ask('/api/chat/tasks/task', { tenant: 'initech' });
  assert.equal(unknown.status, 404);
});

test('an action with the task of a turn that has ended is answered with its end', async (t) => {
  const { chat, client: redis, stub } = await actionScene(t);
  const socket = await chat('acme', 's1');
  stub.next(say('Once.'));
  await socket.turn('Go.', { task_id: 'good' });
  stub.next(refuse(400));
  await socket.turn('Go.', { task_id: 'bad' });
  const asked = stub.requests.length;
  for (const [task_id, type] of [
    ['good', 'execution.callback'],
    ['bad', 'execution.error'],
    ['good', 'execution.callback'],
  ] as const) {
    const list = ownList();
    const run = action(
      'execution.agent_run',
      { message: 'Go.' },
      { task_id, session_id: 's1', callback_queue: list },
    );
    await redis.push(WORK, pydantic2(run));
    const reply = await redis.reply(list);
    assert.deepEqual([reply.action_type, reply.task_id], [type, task_id]);
    if (task_id === 'good') assert.equal(reply.data.response, 'Once.');
  }
  assert.equal(stub.requests.length, asked);
  assert.deepEqual(await again(socket, 'bad'), told('failed'));
});
