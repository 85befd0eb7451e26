/** The same action over and over: it is done once, and answered alike each time, whoever asks and whenever. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  action,
  actionScene,
  ownList,
  packed,
  pydantic1,
  pydantic2,
  type Reply,
  WORK,
} from '../support/action-client.ts';
import { say } from '../support/stub-model.ts';
import { actionCluster, settled } from './actions-cluster.ts';

test('ten at once and later ones are one run with one answer', async (t) => {
  const { client, stub, ask } = await actionScene(t);
  stub.byDefault(({ index }) => say(`Answer ${index}.`, { everyMs: 5 }));
  const list = ownList();
  const sent = action(
    'execution.agent_run',
    { input: 'Count.', session_id: 's1' },
    { callback_queue: list, action_id: 'same-1', task_id: 'once-1' },
  );
  await client.push(WORK, ...Array.from({ length: 10 }, () => pydantic2(sent)));
  const first = await client.reply(list);
  await settled(client, WORK);
  // Those that came while it ran waited with it: there may be one answer for all of them.
  const early = await client.replies(list, await client.redis.client.llen(list));
  const later: Reply[] = [];
  for (const body of [pydantic1(sent), packed(sent), pydantic2(sent), pydantic1(sent)]) {
    await client.push(WORK, body);
    later.push(await client.reply(list));
  }
  assert.equal(first.data.response, 'Answer 0.');
  for (const other of [...early, ...later])
    assert.deepEqual([other.action_id, other.data], [first.action_id, first.data]);
  assert.equal(stub.requests.length, 1);
  const { body } = await ask('/api/sessions/s1/messages');
  assert.deepEqual(
    body.messages.map(({ content }: { content: string }) => content),
    ['Count.', 'Answer 0.'],
  );
});

test('the same action_id of another tenant is another action', async (t) => {
  const { client, stub } = await actionScene(t);
  stub.byDefault(({ index }) => say(`Answer ${index}.`));
  const more = { action_id: 'same-1', task_id: 'once-1' };
  const mine = await client.ask('execution.agent_run', { input: 'Count.' }, more);
  const theirs = await client.ask(
    'execution.agent_run',
    { input: 'Count.' },
    { ...more, tenant_id: 'globex' },
  );
  assert.deepEqual([mine.data.response, theirs.data.response], ['Answer 0.', 'Answer 1.']);
  assert.equal(theirs.tenant_id, 'globex');
  assert.equal(stub.requests.length, 2);
});

test('after a restart on the same database the stored answer comes, and nothing runs', async (t) => {
  const { client, stub, node } = await actionCluster(t);
  const list = ownList();
  const run = { action_id: 'same-1', callback_queue: list };
  const sent = pydantic2(action('execution.agent_run', { input: 'Count.' }, run));
  const items = [{ input: 'One.' }, { input: 'Two.' }];
  const batch = pydantic2(
    action('execution.batch', { items }, { action_id: 'same-2', callback_queue: list }),
  );
  const first = await node();
  await client.push(WORK, sent);
  const before = [await client.reply(list)];
  await client.push(WORK, batch);
  before.push(...(await client.replies(list, 3)));
  assert.equal(stub.requests.length, 3);
  first.kill('SIGTERM');
  assert.equal((await first.exit).code, 0);

  await node();
  await client.push(WORK, sent);
  const after = [await client.reply(list)];
  await client.push(WORK, batch);
  after.push(...(await client.replies(list, 3)));
  assert.deepEqual(
    after.toSorted((a, b) => a.action_id.localeCompare(b.action_id)),
    before.toSorted((a, b) => a.action_id.localeCompare(b.action_id)),
  );
  assert.equal(stub.requests.length, 3);
  await settled(client, WORK);
  assert.equal(await client.redis.client.llen(list), 0);
});
