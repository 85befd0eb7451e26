/** Actions that are no runs: pushes to sockets, batches, questions by proxy, and queues that older senders write to. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  action,
  actionScene,
  ownList,
  pydantic1,
  pydantic2,
  WORK,
  workOf,
} from '../support/action-client.ts';
import type { Chatter } from '../support/chatter.ts';
import { say } from '../support/stub-model.ts';
import { until } from '../support/until.ts';
import { settled } from './actions-cluster.ts';

/** What was pushed to a socket: all but its greeting and pongs. */
const pushed = ({ frames }: Chatter) =>
  frames
    .filter(({ type }) => type !== 'session.ready' && type !== 'pong')
    .map(({ type, seq, data }) => ({ type, seq, data }));

test('a push reaches the session, a broadcast the tenant or the sessions that it names, and nobody else', async (t) => {
  const { client, chat } = await actionScene(t);
  const [s1, twin, s2, foreign] = [
    await chat('client123', 'sess_abc123'),
    await chat('client123', 'sess_abc123'),
    await chat('client123', 's2'),
    await chat('globex', 'sess_abc123'),
  ];
  const sent = pydantic1({
    action_type: 'websocket.send',
    tenant_id: 'client123',
    session_id: 'sess_abc123',
    message_type: 'chat.note',
    message_data: { content: 'París es la capital de Francia.', role: 'assistant' },
  });
  const broadcast = (message_type: string, more: object): string =>
    pydantic2(
      action(
        'websocket.broadcast',
        { message_type, message_data: { n: 1 }, ...more },
        { tenant_id: 'client123' },
      ),
    );
  const twice = broadcast('to.some', { target_sessions: ['s2', 'nobody'] });
  await client.push(WORK, sent);
  await client.push(workOf('free'), broadcast('to.all', {}));
  await settled(client, WORK);
  await settled(client, workOf('free'));
  await client.push(WORK, twice, twice);
  await settled(client, WORK);
  await s2.see('to.some');
  for (const socket of [s1, twin, s2, foreign]) {
    socket.send({ type: 'ping' });
    await socket.see('pong');
  }
  const note = {
    type: 'chat.note',
    seq: undefined,
    data: { content: 'París es la capital de Francia.', role: 'assistant' },
  };
  const all = { type: 'to.all', seq: undefined, data: { n: 1 } };
  assert.deepEqual(pushed(s1), [note, all]);
  assert.deepEqual(pushed(twin), [note, all]);
  assert.deepEqual(pushed(s2), [all, { type: 'to.some', seq: undefined, data: { n: 1 } }]);
  assert.deepEqual(pushed(foreign), []);
});

test('each item of a batch is answered, and then all of them are told together', async (t) => {
  const { client, stub, ask } = await actionScene(t);
  stub.byDefault(({ body }) => say(`You said ${body.messages.at(-1)?.content}`));
  const list = ownList('execution.batch');
  const items = [
    { input: 'zero' },
    { message: 'one', session_id: 's1' },
    { input: 'two', agent_id: 'nobody' },
    { input: 'three', task_id: 'mine-3' },
    { input: 'four', conversation_id: 'c4' },
  ];
  await client.push(
    WORK,
    pydantic1(
      action('execution.batch', { items }, { task_id: 'batch-1', callback_queue: list, agent_id: 'default' }),
    ),
  );
  const replies = await client.replies(list, 6);
  const end = replies.at(-1);
  assert.equal(end?.action_type, 'execution.batch_completed');
  assert.equal(end.task_id, 'batch-1');
  assert.deepEqual([end.data.total, end.data.completed, end.data.failed], [5, 4, 1]);
  assert.deepEqual(
    end.data.items.map(({ status }: { status: string }) => status),
    ['success', 'success', 'failed', 'success', 'success'],
  );
  const told = replies.slice(0, 5).toSorted((a, b) => a.data.index - b.data.index);
  assert.deepEqual(
    told.map(({ action_type, data }) => [action_type, data.index, data.response ?? data.error_code]),
    [
      ['execution.callback', 0, 'You said zero'],
      ['execution.callback', 1, 'You said one'],
      ['execution.error', 2, 'AGENT_NOT_FOUND'],
      ['execution.callback', 3, 'You said three'],
      ['execution.callback', 4, 'You said four'],
    ],
  );
  assert.deepEqual(
    told.map(({ task_id }) => task_id),
    end.data.items.map(({ task_id }: { task_id: string }) => task_id),
  );
  assert.equal(told[3]?.task_id, 'mine-3');
  assert.deepEqual([told[1]?.data.session_id, told[4]?.data.conversation_id], ['s1', 'c4']);
  assert.equal(new Set(replies.map(({ action_id }) => action_id)).size, 6);
  assert.equal((await ask('/api/chat/tasks/mine-3')).body.status, 'completed');
  assert.equal(stub.requests.length, 4);
});

test('a configuration that is asked for by proxy is the newest, and a run uses it once the cache was told', async (t) => {
  const { client, stub, ask } = await actionScene(t);
  const body = { name: 'Clerk', slug: 'clerk', system_prompt: 'You are the first.' };
  const { id } = (await ask('/api/agents', { body })).body;
  const run = () => client.ask('execution.agent_run', { agent_id: id, input: 'Hi.' });
  await run();
  const changed = { system_prompt: 'You are the second.' };
  assert.equal((await ask(`/api/agents/${id}`, { method: 'PATCH', body: changed })).status, 200);
  await client.push(WORK, pydantic2(action('execution.cache.invalidate', { agent_id: id })));
  await settled(client, WORK);
  await run();
  const prompts = stub.requests.map((request) => String(request.body.messages[0]?.content));
  assert.match(prompts[0] ?? '', /the first/);
  assert.match(prompts[1] ?? '', /the second/);

  const type = 'execution.management.get_agent_config';
  const read = await client.ask(type, { agent_id: id });
  assert.equal(read.action_type, `${type}.response`);
  const { success, agent_config: config } = read.data;
  assert.deepEqual(
    [success, config.id, config.version, config.system_prompt],
    [true, id, 2, 'You are the second.'],
  );
  const own = await client.ask(type, { agent_id: 'default' });
  assert.equal(own.data.success, true, JSON.stringify(own.data));
  for (const [agent, tenant] of [
    ['nobody', 'acme'],
    [id, 'globex'],
  ]) {
    const refused = await client.ask(type, { agent_id: agent }, { tenant_id: tenant });
    assert.deepEqual([refused.data.success, refused.data.error.code], [false, 'NOT_FOUND']);
  }
});

test('what an external service says of an agent is believed until the cache is told otherwise', async (t) => {
  const { client, stub } = await actionScene(t, {
    env: { MANAGEMENT_SERVICE: 'redis', PEER_TIMEOUT_SECONDS: '20' },
  });
  const asked = 'management_service:professional:default';
  const answer = async (system_prompt: string): Promise<void> => {
    const { action_type, callback_queue, correlation_id, tenant_id, data } = await client.reply(asked);
    assert.deepEqual([action_type, data.agent_id], ['management.get_agent_config', 'clerk-1']);
    const config = { id: 'clerk-1', tenant_id, name: 'Clerk', slug: 'clerk', system_prompt };
    const reply = action(
      'management.get_agent_config.response',
      { success: true, agent_config: config },
      { tenant_id, correlation_id },
    );
    await client.push(String(callback_queue), pydantic1(reply));
  };
  const list = ownList();
  const run = async (): Promise<void> => {
    const more = { callback_queue: list };
    await client.push(
      WORK,
      pydantic1(action('execution.agent_run', { agent_id: 'clerk-1', input: 'Hi.' }, more)),
    );
  };
  await run();
  await answer('You are the first.');
  await client.reply(list);
  await run();
  await client.reply(list);
  const foreign = { tenant_id: 'globex' };
  for (const more of [foreign, {}])
    await client.push(WORK, pydantic2(action('execution.cache.invalidate', { agent_id: 'clerk-1' }, more)));
  await settled(client, WORK);
  assert.equal(await client.redis.client.llen(asked), 0);
  await run();
  await answer('You are the second.');
  await client.reply(list);
  const prompts = stub.requests.map(({ body }) => body.messages[0]?.content);
  assert.deepEqual(prompts, ['You are the first.', 'You are the first.', 'You are the second.']);
  assert.deepEqual(await client.redis.client.keys('*:dead'), []);
});

test('a conversation can be asked for by proxy, its newest messages last', async (t) => {
  const { client, stub } = await actionScene(t);
  stub.byDefault(({ index }) => say(`Answer ${index}.`));
  for (const input of ['One?', 'Two?']) await client.ask('execution.agent_run', { input, session_id: 's1' });
  const contents = (messages: readonly { role: string; content: string }[]) =>
    messages.map(({ role, content }) => `${role}: ${content}`);

  const history = await client.ask('execution.conversation.get_history', { session_id: 's1' });
  assert.equal(history.action_type, 'execution.conversation.get_history.response');
  assert.equal(history.data.success, true);
  assert.deepEqual(contents(history.data.messages), [
    'user: One?',
    'assistant: Answer 0.',
    'user: Two?',
    'assistant: Answer 1.',
  ]);
  const some = await client.ask('execution.conversation.get_history', { session_id: 's1', limit: 2 });
  assert.deepEqual(contents(some.data.messages), ['user: Two?', 'assistant: Answer 1.']);
  const none = await client.ask('execution.conversation.get_history', { session_id: 'nobody' });
  assert.deepEqual([none.data.success, none.data.error.code], [false, 'NOT_FOUND']);
  const { data } = await client.ask('execution.conversation.get_context', {}, { session_id: 's1' });
  assert.equal(data.success, true);
  assert.deepEqual([data.context.session_id, data.context.message_count], ['s1', 4]);
  assert.equal(contents(data.context.messages).at(-1), 'assistant: Answer 1.');
});

test('older senders write to a queue of their own', async (t) => {
  const queue = 'execution:ctx-1:free';
  const { client } = await actionScene(t, { env: { EXECUTION_EXTRA_QUEUES: `${queue}, execution:ctx-2` } });
  for (const each of [queue, 'execution:ctx-2']) {
    const list = ownList();
    await client.push(
      each,
      pydantic1(action('execution.agent_run', { input: 'Hi.' }, { callback_queue: list })),
    );
    assert.equal((await client.reply(list)).data.response, 'Hello there.');
    await client.push(each, 'nothing');
    await until('the dead', async () => (await client.redis.client.llen(`${each}:dead`)) === 1);
  }
  for (const [at, taken] of ['execution:ctx-2', `${ownList()}:dead`].entries()) {
    const sent = action('execution.agent_run', { input: 'Hi.' }, { callback_queue: taken });
    await client.push(queue, pydantic1(sent));
    const isDead = async () => (await client.redis.client.llen(`${queue}:dead`)) === at + 2;
    await until(`the refusal to answer on ${taken}`, isDead);
  }
});

test('a requester is answered on the list that the contract names for it, whatever service it calls itself', async (t) => {
  const { client, stub } = await actionScene(t);
  stub.byDefault(() => say('Here.'));
  for (const queue of [
    'execution_service:responses:agent_run:abc',
    'agent_execution_service:responses:agent_run:default',
    'management_service:responses:agent_run:execution_service:free:default',
  ]) {
    const sent = action('execution.agent_run', { input: 'Hi.' }, { callback_queue: queue });
    await client.push(WORK, pydantic2(sent));
    assert.equal((await client.reply(queue)).data.response, 'Here.', queue);
  }
});
