/** What happens to a message while another turn runs, and to a message that was sent before. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isEnd, last, numbered, types } from '../support/chatter.ts';
import { startScene } from '../support/node.ts';
import { callTools, say, stallAfter } from '../support/stub-model.ts';
import { gate } from '../support/transport.ts';

test('enqueue: turns wait in line, are told how many are ahead, and run one after another', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(stallAfter('First '), say('Second.'), say('Third.'));
  const client = await chat('acme', 's1');
  const first = client.say('1');
  await client.see('chat.delta');
  const [second, third] = [client.say('2'), client.say('3')];
  const accepted = await client.see(({ task_id, type }) => task_id === third && type === 'chat.accepted');
  assert.deepEqual(accepted.data, { status: 'queued', position: 2 });
  assert.deepEqual(client.of(second)[0]?.data, { status: 'queued', position: 1 });

  client.send({ type: 'chat.cancel', task_id: first });
  const moved = await client.see(({ task_id, type }) => task_id === third && type === 'chat.queued');
  assert.deepEqual(moved.data, { position: 1 });
  assert.equal((await client.ended(third)).data.content, 'Third.');
  assert.equal(last(client.of(second), 'chat.response').data.content, 'Second.');
  const order = numbered(client.frames)
    .filter(isEnd)
    .map(({ task_id }) => task_id);
  assert.deepEqual(order, [first, second, third]);
});

test('reject: a busy session refuses with BUSY and the task id, and nothing is numbered', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(stallAfter('Working '), say('Now.'));
  const client = await chat('acme', 's1');
  const first = client.say('1');
  await client.see('chat.delta');
  const second = client.say('2', { on_busy: 'reject' });
  const refused = await client.ended(second);

  assert.deepEqual([refused.data.code, refused.data.retryable, refused.seq], ['BUSY', true, undefined]);
  assert.ok(refused.data.retry_after_ms > 0);
  client.send({ type: 'chat.cancel', task_id: first });
  await client.ended(first);
  const again = client.say('2', { on_busy: 'reject', task_id: second });
  const end = await client.see((frame) => frame.task_id === again && frame.type === 'chat.response');
  assert.equal(end.data.content, 'Now.');
});

test('interrupt: the running turn is cancelled, and the new one overtakes those that wait', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(stallAfter('I was say'), say('Urgent.'), say('Patient.'));
  const client = await chat('acme', 's1');
  const running = client.say('1');
  await client.see('chat.delta');
  const waiting = client.say('2');
  const urgent = client.say('3', { on_busy: 'interrupt' });
  await Promise.all([waiting, urgent].map(client.ended));
  await stub.closedByClient(0);

  const ends = numbered(client.frames).filter(isEnd);
  assert.deepEqual(
    ends.map(({ task_id, type, data }) => [task_id, type, data.content]),
    [
      [running, 'chat.cancelled', 'I was say'],
      [urgent, 'chat.response', 'Urgent.'],
      [waiting, 'chat.response', 'Patient.'],
    ],
  );
});

test('interrupt while a tool runs: the tool is let go of, and the new turn is answered', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(callTools([{ name: 'calculator', args: '{"expression":"1 + 1"}' }]), say('Here I am.'));
  const client = await chat('acme', 's1');
  const adding = client.say('Add.');
  await client.see('tool.started');
  const frames = await client.turn('Never mind.', { on_busy: 'interrupt' });

  assert.equal(last(frames, 'chat.response').data.content, 'Here I am.');
  assert.equal(last(client.of(adding), 'chat.cancelled').data.content, '');
  assert.ok(!types(client.frames).includes('tool.finished'));
  const told = (await stub.request(1)).body.messages.map(({ role, content }) => [role, content]);
  // Endpoints refuse two questions in a row.
  assert.deepEqual(told.slice(1), [['user', 'Add.\n\nNever mind.']]);
});

test('a resend of a running turn is accepted again, and runs once', async (t) => {
  const { stub, chat } = await startScene(t);
  const held = gate();
  stub.next(async (reply) => {
    reply.delta({ content: 'Once.' });
    await held.opened;
    reply.finish('stop');
    reply.done();
  });
  const client = await chat('acme', 's1');
  client.say('Go.', { task_id: 'my-task' });
  await client.see('chat.delta');
  client.say('Go.', { task_id: 'my-task' });
  await client.see(({ data }) => data.deduplicated === true);
  held.open();
  await client.ended('my-task');
  client.say('Go.', { task_id: 'my-task' });
  client.send({ type: 'ping' });
  await client.see('pong');

  await client.turn('Something else.');
  const mine = client.of('my-task');
  assert.equal(mine.filter(isEnd).length, 1);
  assert.equal(mine.filter(({ type }) => type === 'execution.started').length, 1);
  const accepted = mine.filter(({ type }) => type === 'chat.accepted').map(({ data }) => data.deduplicated);
  assert.deepEqual(accepted, [undefined, true, true]);
  assert.equal(stub.requests.length, 2);
});

test('resends that race each other run once', async (t) => {
  const { stub, chat } = await startScene(t);
  const [one, two] = [await chat('acme', 's1'), await chat('acme', 's1')];
  for (const client of [one, two, one, two]) client.say('Go.', { task_id: 'same' });
  await Promise.all([one.ended('same'), two.ended('same')]);
  await one.turn('Else.');

  assert.equal(one.of('same').filter(isEnd).length, 1);
  assert.equal(stub.requests.length, 2);
});

test('a task id that another session uses is a CONFLICT, while it runs and after', async (t) => {
  const { stub, chat } = await startScene(t);
  stub.next(stallAfter('Mine '));
  const [client, other] = [await chat('acme', 's1'), await chat('acme', 's2')];
  const task = client.say('1', { task_id: 'taken' });
  await client.see('chat.delta');
  other.say('2', { task_id: 'taken' });
  const refused = await other.ended('taken');
  assert.deepEqual([refused.data.code, refused.seq], ['CONFLICT', undefined]);

  client.send({ type: 'chat.cancel', task_id: task });
  await client.ended(task);
  const seen = other.frames.length;
  other.say('2', { task_id: 'taken' });
  await other.see(() => other.frames.length > seen);
  assert.deepEqual([other.frames.at(-1)?.data.code, other.frames.at(-1)?.seq], ['CONFLICT', undefined]);
  last(await other.turn('Something else.'), 'chat.response');
  const stranger = await chat('globex', 's1');
  assert.equal((await stranger.turn('3', { task_id: 'taken' })).at(-1)?.type, 'chat.response');
});
