/** A node whose places are all taken by runs: what feeds, asks after or ends those runs must reach it all the same. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { action, actionScene, ownList, pydantic2, WORK } from '../support/action-client.ts';
import { callTools, say, stallAfter } from '../support/stub-model.ts';

/** Seconds within which an action must have got through. */
const SOON_S = 3;

/** Runs with a tool whose service answers on the queue of callbacks, as older ones do; resolves to what the model was told. */
async function lookedUp(t: TestContext, places: string): Promise<string> {
  const { client, stub, ask } = await actionScene(t, {
    env: { NODE_MAX_EXECUTIONS: places, QUERY_SERVICE: 'redis', PEER_TIMEOUT_SECONDS: String(SOON_S) },
  });
  stub.next(callTools([{ name: 'rag_query', args: '{"query":"anvils"}' }]), say('Done.'));
  const body = { name: 'Clerk', slug: 'clerk', tools: ['rag_query'], collections: ['shop'] };
  const made = await ask('/api/agents', { body: { ...body, system_prompt: 'You look things up.' } });
  assert.equal(made.status, 201, made.text);
  const list = ownList();
  const run = { agent_id: made.body.id, input: 'Hi.' };
  await client.push(WORK, pydantic2(action('execution.agent_run', run, { callback_queue: list })));
  const { correlation_id } = await client.reply('query_service:professional:default');
  const found = { success: true, results: [{ content: 'Anvils are heavy.', score: 1, source: 'anvils.md' }] };
  const callback = action('query.callback', found, { correlation_id });
  await client.push('agent_execution_service:professional:callbacks', pydantic2(callback));
  assert.equal((await client.reply(list)).data.response, 'Done.');
  return String(stub.requests[1]?.body.messages.at(-1)?.content);
}

test('a service may answer on the queue of callbacks', async (t) => {
  assert.match(await lookedUp(t, '2'), /Anvils are heavy/);
});

test('a callback reaches a run that has the last place', async (t) => {
  assert.match(await lookedUp(t, '1'), /Anvils are heavy/);
});

test('a full node answers questions and cancels, and what waits for a place has it then', async (t) => {
  const { client, stub } = await actionScene(t, { env: { NODE_MAX_EXECUTIONS: '1' } });
  stub.next(stallAfter('Hm'), say('Next.'));
  const [end, next, list] = [ownList(), ownList(), ownList('chat.status')];
  const more = { task_id: 'long-1', callback_queue: end };
  await client.push(WORK, pydantic2(action('execution.agent_run', { input: 'Hi.' }, more)));
  await stub.request(0);
  const waiting = action('execution.agent_run', { input: 'And I.' }, { callback_queue: next });
  const question = action('chat.status', { task_id: 'long-1' }, { callback_queue: list });
  await client.push(WORK, pydantic2(waiting), pydantic2(question), pydantic2(question));
  for (const { data } of await client.replies(list, 2)) assert.equal(data.status, 'processing');
  assert.equal(stub.requests.length, 1);

  const cancelled = await client.ask('execution.cancel', { task_id: 'long-1' });
  assert.equal(cancelled.data.status, 'cancelled');
  assert.equal((await client.reply(end)).data.status, 'cancelled');
  assert.equal((await client.reply(next)).data.response, 'Next.');
});
