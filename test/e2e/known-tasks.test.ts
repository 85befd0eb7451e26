/** What was said before reaches no model and no tool again: on no wire, in no phase, before a restart and after it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { life } from '../support/node.ts';
import { callTools, say } from '../support/stub-model.ts';
import { temporary } from '../support/temporary.ts';

const SESSION = { session_id: 's1' };

for (const tier of ['professional', 'hasty'])
  test(`a task that is said again after a restart runs nothing (${tier})`, async (t) => {
    const hasty = { TIERS_FILE: new URL('./hasty-tiers.json', import.meta.url).pathname };
    const env = { DATABASE_URL: temporary(t).database, ...(tier === 'hasty' ? hasty : {}) };
    await life(t, 'the first life', { env }, async ({ chat, ask, stub, running }) => {
      stub.byDefault(() => say('Once.'));
      const client = await chat('acme', 's1');
      await client.turn('Go.', { task_id: 'socket-task' });
      for (const task_id of ['http-task', 'sse-task'])
        await ask('/api/chat/send', { body: { message: 'Go.', ...SESSION, task_id } });
      await client.ended('http-task');
      await client.ended('sse-task');
      const run = { agent_id: 'default', input: 'Go.', wait: true, execution_id: 'run-task' };
      assert.equal((await ask('/api/executions', { body: run })).status, 200);
      await running.drain();
    });
    await life(t, 'the second life', { env }, async ({ chat, ask, fetch, stub }) => {
      stub.byDefault(() => callTools([{ name: 'calculator', args: '{"expression":"1 + 1"}' }]));
      const client = await chat('acme', 's1');
      client.say('Go.', { task_id: 'socket-task' });
      const again = await client.see('chat.accepted');
      assert.equal(again.data.deduplicated, true);

      const sent = await ask('/api/chat/send', {
        body: { message: 'Go.', ...SESSION, task_id: 'http-task' },
      });
      assert.deepEqual([sent.status, sent.body.deduplicated, sent.body.status], [202, true, 'completed']);

      const streamed = await fetch('/api/chat/send', {
        body: { message: 'Go.', ...SESSION, task_id: 'sse-task' },
        headers: { accept: 'text/event-stream' },
      });
      assert.match(await streamed.text(), /^event: chat.response$/m);

      // In another session it is somebody else's; it runs there no more than here.
      const elsewhere = { message: 'Go.', session_id: 's2', task_id: 'socket-task' };
      assert.equal((await ask('/api/chat/send', { body: elsewhere })).status, 409);

      const run = { agent_id: 'default', input: 'Go.', wait: true, execution_id: 'run-task' };
      const ran = await ask('/api/executions', { body: run });
      assert.deepEqual([ran.status, ran.body.result?.content], [200, 'Once.'], ran.text);
      assert.deepEqual(stub.requests, [], 'no model was asked');
    });
  });

test('a flood of one task is no turn, and does not stand in the way of another', async (t) => {
  const env = { DATABASE_URL: temporary(t).database };
  await life(t, 'the first life', { env }, async ({ chat, stub, running }) => {
    stub.byDefault(() => say('Never said.'));
    const client = await chat('acme', 's1');
    await client.turn('Go.', { task_id: 'task' });
    await running.drain();
  });
  await life(t, 'the second life', { env }, async ({ chat, stub }) => {
    stub.byDefault(() => say('Anew.'));
    const client = await chat('acme', 's1');
    for (let time = 0; time < 20; time += 1) client.say('Go.', { task_id: 'task' });
    const frames = await client.turn('Another.');
    assert.equal(frames.at(-1)?.data.content, 'Anew.');
    assert.equal(stub.requests.length, 1);
    const roles = stub.requests[0]?.body.messages.slice(1).map(({ content }) => content);
    assert.deepEqual(roles, ['Go.', 'Never said.', 'Another.']);
  });
});
