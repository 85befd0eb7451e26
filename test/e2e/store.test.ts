/** A store that is slow or down: nothing is promised before it is kept, and every turn still ends. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import type { Write } from '../../src/ports/store.ts';
import { isEnd, last, numbered, types } from '../support/chatter.ts';
import { startScene } from '../support/node.ts';
import { memoryStore, storeBehind, storesAround } from '../support/stores.ts';
import { callTools, say } from '../support/stub-model.ts';

/** A store whose commits wait, or fail, as the test says. */
function unreliable() {
  let waiting: (() => void)[] = [];
  const state = {
    held: false,
    fails: (_write: Write): boolean => false,
    down: false,
    release(): void {
      state.held = false;
      for (const go of waiting) go();
      waiting = [];
    },
  };
  const store = storeBehind(memoryStore(), async (call, write) => {
    if (state.down && (call === 'session' || call === 'ping')) throw new Error('the store is down');
    if (!write) return;
    if (state.held) await new Promise<void>((resolve) => waiting.push(resolve));
    if (state.fails(write)) throw new RefusalError(refusal('STORE_UNAVAILABLE'));
  });
  return { state, parts: { stores: storesAround(store) } };
}

test('nothing of a turn is seen before it is kept, however quick the model', async (t) => {
  const { state, parts } = unreliable();
  const { stub, chat } = await startScene(t, { parts });
  const client = await chat('acme', 's1');
  state.held = true;
  client.send({ type: 'chat.send', message: 'Go.' });
  await stub.request(0);
  client.send({ type: 'ping' });
  await client.see('pong');
  assert.deepEqual(types(client.frames), ['session.ready', 'pong']);
  state.release();
  await client.see(isEnd);
  assert.deepEqual(types(numbered(client.frames)).slice(0, 3), [
    'chat.accepted',
    'execution.started',
    'chat.delta',
  ]);
});

test('a task id of the client’s reaches the model once the store has said that it is new', async (t) => {
  const { state, parts } = unreliable();
  const { stub, chat } = await startScene(t, { parts });
  const client = await chat('acme', 's1');
  state.held = true;
  const task = client.say('Go.');
  for (let round = 0; round < 20; round += 1) {
    client.send({ type: 'ping' });
    await client.see(() => client.frames.filter(({ type }) => type === 'pong').length > round);
  }
  assert.deepEqual(stub.requests, []);
  state.release();
  assert.equal((await client.ended(task)).type, 'chat.response');
});

test('no tool runs for a turn that is not kept yet', async (t) => {
  const { state, parts } = unreliable();
  const { stub, chat } = await startScene(t, { parts });
  stub.next(callTools([{ name: 'current_time', args: '{}' }]), say('Now.'));
  const client = await chat('acme', 's1');
  state.held = true;
  client.send({ type: 'chat.send', message: 'Time?' });
  await stub.request(0);
  for (let round = 0; round < 20; round += 1) {
    client.send({ type: 'ping' });
    await client.see(() => client.frames.filter(({ type }) => type === 'pong').length > round);
  }
  assert.equal(stub.requests.length, 1);
  state.release();
  assert.equal((await client.see(isEnd)).data.content, 'Now.');
});

test('a turn that can not be kept is refused, its model is let go of, and nothing is numbered', async (t) => {
  const { state, parts } = unreliable();
  const { stub, chat, ask } = await startScene(t, { parts });
  const client = await chat('acme', 's1');
  state.fails = (write) => write.type === 'turn-accepted';
  const refused = await client.ended(client.say('Go.'));
  assert.deepEqual(
    [refused.data.code, refused.data.retryable, refused.seq],
    ['STORE_UNAVAILABLE', true, undefined],
  );
  assert.deepEqual(numbered(client.frames), []);
  const http = await ask('/api/chat/send', { body: { message: 'Go.' } });
  assert.deepEqual([http.status, http.body.error.code], [503, 'STORE_UNAVAILABLE']);

  state.fails = () => false;
  last(await client.turn('Go.'), 'chat.response');
  assert.equal(stub.requests.at(-1)?.body.messages.length, 2);
});

test('an answer that can not be stored now is told once it is, and what follows waits for it', async (t) => {
  const { state, parts } = unreliable();
  const { ask, chat, line, stub } = await startScene(t, { parts });
  const client = await chat('acme', 's1');
  state.fails = (write) => write.type === 'turn-ended';
  const [first, second] = [client.say('Go.'), client.say('And on.')];
  await line('ends of turns wait for the store');
  assert.equal((await ask(`/api/chat/tasks/${first}`)).body.status, 'processing');
  assert.match((await ask('/metrics')).text, /^nooble_ends_waiting 1$/m);
  assert.deepEqual(client.of(first).filter(isEnd), []);
  state.fails = () => false;
  assert.equal((await client.ended(first)).type, 'chat.response');
  assert.equal((await client.ended(second)).type, 'chat.response');
  assert.equal(stub.requests.at(-1)?.body.messages.length, 4);
  assert.equal((await ask(`/api/chat/tasks/${first}`)).body.status, 'completed');
});

test('a cancel that comes before the turn is kept ends it once it is', async (t) => {
  const { state, parts } = unreliable();
  const { chat } = await startScene(t, { parts });
  const client = await chat('acme', 's1');
  state.held = true;
  const task = client.say('Go.');
  client.send({ type: 'chat.cancel', task_id: task });
  client.send({ type: 'ping' });
  await client.see('pong');
  state.release();
  const end = await client.ended(task);
  assert.equal(end.type, 'chat.cancelled');
  assert.equal(client.of(task)[0]?.type, 'chat.accepted');
});

test('turns said while the store is held come out in order, once it answers', async (t) => {
  const { state, parts } = unreliable();
  const { chat, stub } = await startScene(t, { parts });
  stub.byDefault(({ index }) => say(`answer ${index}`));
  const client = await chat('acme', 's1');
  state.held = true;
  const tasks = [1, 2, 3, 4].map((count) => client.say(`${count}`));
  client.send({ type: 'ping' });
  await client.see('pong');
  state.release();
  await Promise.all(tasks.map(client.ended));
  const ends = numbered(client.frames).filter(isEnd);
  assert.deepEqual(
    ends.map(({ task_id }) => task_id),
    tasks,
  );
});

test('a node whose store is down is not ready, says so, and recovers', async (t) => {
  const { state, parts } = unreliable();
  const { ask, chat } = await startScene(t, { parts });
  state.down = true;
  const ready = await ask('/ready');
  assert.deepEqual([ready.status, ready.body.checks.store.status], [503, 'failed']);
  assert.ok(!ready.text.includes('the store is down'), 'an open route tells reasons');
  const asked = await ask('/api/sessions/s1/messages');
  assert.deepEqual([asked.status, asked.body.error.code], [503, 'STORE_UNAVAILABLE']);
  await assert.rejects(chat('acme', 's1'), /1013/);
  const sent = await ask('/api/chat/send', { body: { message: 'Go.', session_id: 's1' } });
  assert.deepEqual([sent.status, sent.body.error.code], [503, 'STORE_UNAVAILABLE']);

  state.down = false;
  assert.equal((await ask('/ready')).status, 200);
  last(await (await chat('acme', 's1')).turn('Go.'), 'chat.response');
});
