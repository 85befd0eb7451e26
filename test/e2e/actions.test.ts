/** DomainActions in all their spellings, from a real Redis through a whole node and back, and the chat on the socket. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  action,
  actionScene,
  type Fields,
  ownList,
  packed,
  pydantic1,
  pydantic2,
  type Reply,
  WORK,
} from '../support/action-client.ts';
import { types } from '../support/chatter.ts';
import { say, stallAfter } from '../support/stub-model.ts';
import { until } from '../support/until.ts';
import { SPELLINGS, type Spelling } from './actions-spellings.ts';

const ORCHESTRATED = 'orchestrator:acme:callback';

/** A callback of an execution has these fields, and no others. */
function checkCallback(reply: Reply, sent: Fields, { session, conversation }: Spelling): void {
  const { data } = reply;
  assert.equal(reply.action_type, 'execution.callback', JSON.stringify(reply));
  for (const name of ['task_id', 'correlation_id', 'trace_id', 'tenant_tier'])
    if (sent[name] !== null) assert.equal(reply[name], sent[name], name);
  assert.equal(reply.tenant_id, 'acme');
  assert.notEqual(reply.action_id, sent.action_id);
  assert.match(String(reply.timestamp), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  const names = ['agent_id', 'conversation_id', 'execution_info', 'response', 'session_id', 'status'];
  assert.deepEqual(Object.keys(data).toSorted(), names);
  assert.match(data.session_id, typeof session === 'string' ? new RegExp(`^${session}$`) : session);
  assert.equal(data.conversation_id, conversation ?? data.session_id);
  assert.deepEqual(
    [data.agent_id, data.response, data.status],
    ['default', 'Tenemos productos: ¡muchos!', 'success'],
  );
  const { execution_time_ms, tools_used, iterations, tokens_used } = data.execution_info;
  assert.ok(execution_time_ms >= 0);
  assert.deepEqual([tools_used, iterations, tokens_used], [[], 1, 42]);
}

test('a run is taken in every spelling and answered in the encoding of its request', async (t) => {
  const { client, stub } = await actionScene(t);
  const { redis } = client;
  stub.byDefault(() => say('Tenemos productos: ¡muchos!'));
  for (const [index, spelling] of SPELLINGS.entries()) {
    const { queue = WORK, body, fields, name } = spelling;
    await t.test(name, async () => {
      const list = index === 0 ? 'orchestrator.callback' : ownList();
      const sent = fields(list);
      await client.push(queue, body(sent));
      await until('the reply', async () => (await redis.client.llen(list)) > 0);
      // It is given its time once it is there: a key of another type must not be.
      if (index > 0) await until('its time', async () => (await redis.client.ttl(list)) >= 0);
      const ttl = await redis.client.ttl(list);
      if (index === 0) assert.equal(ttl, -1, 'a list that is read for ever expires');
      else assert.ok(ttl > 290 && ttl <= 300, `it expires in ${ttl} s`);
      const reply = await client.reply(list);
      assert.equal(reply.encoding, body === packed ? 'msgpack' : 'json');
      checkCallback(reply, { ...sent, tenant_tier: sent.tenant_tier ?? reply.tenant_tier }, spelling);
      assert.equal(stub.requests.length, index + 1);
      const asked = stub.requests[index]?.body.messages.at(-1);
      assert.deepEqual([asked?.role, asked?.content], ['user', 'Necesito información sobre productos']);
    });
  }
});

test('a refused run is told as execution.error', async (t) => {
  const { client, stub } = await actionScene(t);
  const reply = await client.ask('execution.agent_run', {
    agent_id: 'nobody',
    input: 'Hi',
    session_id: 's1',
    conversation_id: 'c1',
  });
  assert.equal(reply.action_type, 'execution.error');
  const { error, error_details, ...rest } = reply.data;
  assert.deepEqual(rest, {
    agent_id: 'nobody',
    conversation_id: 'c1',
    session_id: 's1',
    error_code: 'AGENT_NOT_FOUND',
  });
  assert.match(error, /no such agent/);
  assert.equal(error_details.retryable, false);
  assert.equal(stub.requests.length, 0);
});

test('what chat.process asks is seen on the socket, and its status can be asked for', async (t) => {
  const { client, stub, chat } = await actionScene(t);
  const { redis } = client;
  stub.byDefault(() => say('París es la capital de Francia.'));
  const socket = await chat('acme', 'sess_abc123');
  await client.push(
    WORK,
    pydantic1({
      action_type: 'chat.process',
      tenant_id: 'acme',
      session_id: 'sess_abc123',
      agent_id: 'default',
      message: '¿Cuál es la capital de Francia?',
      user: { id: 'user_123', name: 'John Doe' },
      callback_queue: ORCHESTRATED,
    }),
  );
  const { task_id: taskId = '', data } = await socket.see('chat.response');
  assert.equal(data.content, 'París es la capital de Francia.');
  const seen = types(socket.of(taskId));
  assert.deepEqual([seen[0], seen[1], seen.at(-1)], ['chat.accepted', 'execution.started', 'chat.response']);
  const status = await client.ask('chat.status', { task_id: taskId });
  assert.equal(status.action_type, 'chat.status.response');
  const { task_id, session_id, result, execution_info } = status.data;
  assert.deepEqual([task_id, session_id, status.data.status], [taskId, 'sess_abc123', 'completed']);
  assert.deepEqual(result, { content: 'París es la capital de Francia.', role: 'assistant' });
  assert.equal(execution_info.tokens_used, 42);

  // Asked for elsewhere, the same comes as a callback too.
  const elsewhere = await client.ask(
    'chat.process',
    { message: 'Again?', stream: true },
    { session_id: 'sess_abc123', task_id: 'given-1' },
  );
  assert.deepEqual([elsewhere.task_id, elsewhere.data.status], ['given-1', 'success']);
  assert.equal((await socket.ended('given-1')).data.content, elsewhere.data.response);
  assert.ok(types(socket.of('given-1')).includes('chat.delta'));
  const unknown = await client.ask('chat.status', { task_id: 'nobody' });
  assert.deepEqual([unknown.data.success, unknown.data.error.code], [false, 'NOT_FOUND']);
  const foreign = await client.ask('chat.status', { task_id: taskId }, { tenant_id: 'globex' });
  assert.equal(foreign.data.error.code, 'NOT_FOUND');
  assert.equal(await redis.client.exists(ORCHESTRATED), 0, 'the node writes what nobody reads');
});

test('a chat that is refused is told on the socket, where nobody else would hear of it', async (t) => {
  const { client, chat } = await actionScene(t);
  const socket = await chat('acme', 's1');
  const more = { session_id: 's1', task_id: 'refused-1', callback_queue: ORCHESTRATED };
  await client.push(WORK, pydantic1(action('chat.process', { message: 'Hi.', agent_id: 'nobody' }, more)));
  const refused = await socket.ended('refused-1');
  assert.deepEqual([refused.type, refused.data.code], ['error', 'AGENT_NOT_FOUND']);
  assert.equal(await client.redis.client.exists(ORCHESTRATED), 0);
});

test('a run takes no longer than its sender waits, or asks for', async (t) => {
  const { client, stub } = await actionScene(t);
  stub.byDefault(() => stallAfter('Hm'));
  const waiting = client.ask('execution.agent_run', { input: 'Hi.' }, { timeout: 0.2 });
  await stub.closedByClient(0);
  const late = await waiting;
  assert.deepEqual([late.action_type, late.data.error_code], ['execution.error', 'EXECUTION_TIMEOUT']);
  const params = { max_execution_time: 0.2, max_iterations: null };
  const own = await client.ask('execution.agent_run', { input: 'Hi.', execution_params: params });
  assert.equal(own.data.error_code, 'EXECUTION_TIMEOUT');
});

for (const type of ['chat.cancel', 'execution.cancel'])
  test(`${type} ends a running turn: its model, its socket and its callback`, async (t) => {
    const { client, stub, chat } = await actionScene(t);
    stub.next(stallAfter('Well, '));
    const socket = await chat('acme', 's1');
    const list = ownList();
    const fields = { callback_queue: list, task_id: 'long-1', session_id: 's1' };
    await client.push(WORK, pydantic2(action('chat.process', { message: 'Go on.', stream: true }, fields)));
    await socket.see('chat.delta');
    const foreign = await client.ask(type, { task_id: 'long-1' }, { tenant_id: 'globex' });
    assert.deepEqual([foreign.action_type, foreign.data.error_code], ['execution.error', 'NOT_FOUND']);

    const cancelled = await client.ask(type, { task_id: 'long-1' });
    assert.deepEqual([cancelled.action_type, cancelled.data.status], ['execution.callback', 'cancelled']);
    assert.equal(cancelled.data.task_id, 'long-1');
    const ended = await client.reply(list);
    assert.deepEqual(
      [ended.action_type, ended.task_id, ended.data.status, ended.data.response],
      ['execution.callback', 'long-1', 'cancelled', 'Well, '],
    );
    await stub.closedByClient(0);
    assert.equal((await socket.ended('long-1')).type, 'chat.cancelled');
    const again = await client.ask(type, { task_id: 'long-1' });
    assert.equal(again.data.status, 'cancelled');
    socket.send({ type: 'ping' });
    await socket.see('pong');
    assert.equal(types(socket.of('long-1')).filter((each) => each === 'chat.cancelled').length, 1);
  });
