/** A cancel reaches the model's connection, keeps the partial text, and is answered, whatever the turn was doing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deltas, isEnd, last, numbered, types } from '../support/chatter.ts';
import { startScene } from '../support/node.ts';
import { callTools, say, silence, stallAfter } from '../support/stub-model.ts';

test('a cancel closes the connection to the model and saves what there was', async (t) => {
  const { stub, chat, ask } = await startScene(t);
  stub.next(stallAfter('Once upon a '));
  const client = await chat('acme', 's1');
  const task = client.say('Tell me a story.');
  await client.see('chat.delta');
  client.send({ type: 'chat.cancel', task_id: task });
  const end = await client.ended(task);
  await stub.closedByClient(0);

  assert.equal(end.type, 'chat.cancelled');
  assert.equal(end.data.content, 'Once upon a ');
  assert.equal(end.data.content, deltas(client.of(task)));
  assert.ok(Number.isInteger(end.data.abort_ms) && end.data.abort_ms >= 0);
  assert.ok(end.data.abort_ms < 1_000);
  const { body } = await ask('/api/sessions/s1/messages');
  assert.deepEqual(
    body.messages.map(({ role, content, task_id }: Record<string, string>) => [role, content, task_id]),
    [
      ['user', 'Tell me a story.', task],
      ['assistant', 'Once upon a ', task],
    ],
  );

  stub.next(say('The end.'));
  assert.equal(last(await client.turn('Go on.'), 'chat.response').data.content, 'The end.');
  const told = (await stub.request(1)).body.messages.map(({ content }) => content);
  assert.deepEqual(told.slice(1), ['Tell me a story.', 'Once upon a ', 'Go on.']);
});

test('a cancel before the first token leaves no answer behind', async (t) => {
  const { stub, chat, ask } = await startScene(t);
  stub.next(silence());
  const client = await chat('acme', 's1');
  const task = client.say('Hello?');
  await stub.request(0);
  client.send({ type: 'chat.cancel', task_id: task });
  const end = await client.ended(task);
  await stub.closedByClient(0);

  assert.deepEqual([end.type, end.data.content], ['chat.cancelled', '']);
  const { body } = await ask('/api/sessions/s1/messages');
  assert.equal(body.messages.length, 1);
  const status = await ask(`/api/chat/tasks/${task}`);
  assert.equal(status.body.status, 'cancelled');
});

test('a cancel of a turn that is not streamed tells the text there was, too', async (t) => {
  const { stub, chat } = await startScene(t);
  let written = (): void => {};
  const wrote = new Promise<void>((resolve) => {
    written = resolve;
  });
  stub.next(callTools([{ name: 'current_time', args: '{}' }], { text: 'Let me ' }), (reply) => {
    stallAfter('see: ')(reply);
    written();
  });
  const client = await chat('acme', 's1');
  const task = client.say('Time?', { stream: false });
  await client.see('tool.finished');
  await wrote;
  client.send({ type: 'chat.cancel', task_id: task });
  const end = await client.ended(task);
  assert.equal(end.type, 'chat.cancelled');
  assert.match(end.data.content, /^Let me /);
  assert.ok(!types(client.of(task)).includes('chat.delta'));
});

test('a cancel at once after the send still ends the turn exactly once', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.byDefault(() => say('Too late.'));
  const client = await chat('acme', 's1');
  for (let round = 0; round < 20; round += 1) {
    const task = client.say('Quick.');
    client.send({ type: 'chat.cancel', task_id: task });
    await client.see((frame) => frame.task_id === task && isEnd(frame) && frame.seq !== undefined);
  }
  client.send({ type: 'ping' });
  await client.see('pong');
  assert.equal(numbered(client.frames).filter(isEnd).length, 20);
});

test('a cancelled turn that waited never reaches the model', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(stallAfter('Busy '));
  const client = await chat('acme', 's1');
  const first = client.say('One.');
  await client.see('chat.delta');
  const second = client.say('Two.');
  await client.see((frame) => frame.task_id === second && frame.type === 'chat.accepted');
  client.send({ type: 'chat.cancel', task_id: second });
  const end = await client.ended(second);
  assert.deepEqual([end.type, end.data.content], ['chat.cancelled', '']);
  assert.deepEqual(types(client.of(second)), ['chat.accepted', 'chat.cancelled']);

  client.send({ type: 'chat.cancel', task_id: first });
  assert.equal((await client.ended(first)).type, 'chat.cancelled');
  assert.equal(stub.requests.length, 1);
});

test('a cancel while a tool runs ends the turn without waiting for the tool', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(callTools([{ name: 'calculator', args: '{"expression":"1 + 1"}' }]));
  const client = await chat('acme', 's1');
  const task = client.say('Add.');
  await client.see('tool.started');
  client.send({ type: 'chat.cancel', task_id: task });

  assert.equal((await client.ended(task)).type, 'chat.cancelled');
  assert.ok(!types(client.of(task)).includes('tool.finished'));
  assert.equal(stub.requests.length, 1);
});

test('a cancel of an unknown task is answered NOT_FOUND, to that socket alone', async (t) => {
  const { chat } = await startScene(t);
  const [client, other] = [await chat('acme', 's1'), await chat('acme', 's1')];
  client.send({ type: 'chat.cancel', task_id: 'nothing-of-that-name' });
  const error = await client.see('error');

  assert.equal(error.seq, undefined);
  assert.equal(error.task_id, 'nothing-of-that-name');
  assert.equal(error.data.code, 'NOT_FOUND');
  other.send({ type: 'ping' });
  await other.see('pong');
  assert.deepEqual(types(other.frames), ['session.ready', 'pong']);
});

test('a cancel over HTTP ends a turn of a socket, and a second one answers its status', async (t) => {
  const { stub, chat, ask } = await startScene(t);
  stub.next(stallAfter('Some '));
  const client = await chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');
  const answer = await ask('/api/chat/cancel', { body: { task_id: task } });
  await stub.closedByClient(0);

  assert.equal(answer.status, 200);
  assert.equal(answer.body.task_id, task);
  assert.equal(answer.body.status, 'cancelled');
  assert.ok(answer.body.abort_ms < 1_000);
  assert.equal((await client.ended(task)).data.content, 'Some ');
  assert.deepEqual((await ask('/api/chat/cancel', { body: { task_id: task } })).body, {
    task_id: task,
    status: 'cancelled',
    abort_ms: 0,
  });
  assert.equal((await ask('/api/chat/cancel', { body: { task_id: 'unknown' } })).status, 404);
});
