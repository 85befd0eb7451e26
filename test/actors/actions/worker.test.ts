/** Actions off the work queues, over real actors: what is run, what is replied, and what becomes of hostile ones. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { refusal } from '../../../src/domain/errors.ts';
import { TIER_TABLE } from '../../../src/domain/tiers.ts';
import { queue } from '../../support/transport.ts';
import { until } from '../../support/until.ts';
import { INFO } from '../fixtures.ts';
import { ACME, BACK, envelope, idOf, openActionNode, run, task, WORK } from './action-node.ts';

test('a run is answered with what ties it to its request, in the request’s format', async (t) => {
  const node = await openActionNode(t);
  node.push({
    ...run('act-1', 'hi', { task_id: 'conversation-123', tenant_tier: 'professional' }),
    correlation_id: 'corr-1',
    trace_id: 'trace-1',
    user_id: 'u-1',
    data: {
      agent_id: 'a1',
      input: 'hi',
      conversation_id: 'conv-123',
      session_id: 'session-xyz',
      tools_config: { web_search: true, calculator: false },
      execution_params: { max_iterations: 2, max_execution_time: 120 },
      response_format: { type: 'json_object' },
      images: [{ url: 'https://example.com/a.png' }],
    },
    timeout: 3,
  });
  const reply = await node.reply();
  const { execution_time_ms } = z
    .looseObject({ execution_time_ms: z.int() })
    .parse(reply.data.execution_info);
  assert.deepEqual(reply, {
    action_id: idOf('act-1', 'reply'),
    action_type: 'execution.callback',
    task_id: 'conversation-123',
    tenant_id: 'acme',
    tenant_tier: 'professional',
    session_id: 'session-xyz',
    user_id: 'u-1',
    agent_id: 'a1',
    correlation_id: 'corr-1',
    trace_id: 'trace-1',
    data: {
      agent_id: 'a1',
      conversation_id: 'conv-123',
      session_id: 'session-xyz',
      response: 'echo: hi',
      status: 'success',
      execution_info: { ...INFO, execution_time_ms, time_to_first_token_ms: null, iterations: 1 },
    },
    metadata: {},
    timestamp: '2026-01-01T00:00:00.000Z',
  });
  assert.deepEqual(node.formats(), ['json']);
  const [plan] = node.script.plans;
  assert.equal(plan?.agent.id, 'a1');
  assert.deepEqual([plan?.limits.maxIterations, plan?.limits.timeoutMs], [2, 3_000]);
  assert.equal(plan?.limits.tools.includes('calculator'), false);
  assert.equal(plan?.context.user_id, 'u-1');
  assert.deepEqual(
    [plan?.responseFormat, plan?.images],
    [{ type: 'json_object' }, ['https://example.com/a.png']],
  );
});

test('every spelling of a run means the same', async (t) => {
  const node = await openActionNode(t);
  const spellings: readonly object[] = [
    { ...envelope('execution.agent_run', 's0'), callback_queue: BACK, payload: { message: 'hi' } },
    { ...envelope('execution.execute', 's1'), callback_queue_name: BACK, input: 'hi', data: {} },
    { ...envelope('execution.execute', 's2'), callback_queue: BACK, message: 'hi', data: null },
    { ...run('s3', 'hi'), session_id: null, agent_id: null, timeout: null, metadata: null },
    run(
      's4',
      'hi',
      {},
      { agent_id: null, conversation_id: null, execution_params: null, tools_config: null },
    ),
    run('s5', 'hi', {}, { execution_params: { max_iterations: null } }),
    run('s6', 'hi', { user: { id: 'u-1', name: 'Ann' } }),
    run('s7', 'hi', {}, { user_info: { user_id: 'u-1' } }),
    run('s8', 'hi', {}, { user_info: { id: 7 } }),
    { ...run('s9', 'hi'), execution_context: { tenant_id: 'acme', tenant_tier: 'free' }, tenant_id: null },
  ];
  for (const body of spellings) node.push(body);
  await node.reply(spellings.length - 1);
  const replies = new Map(node.replies().map((reply) => [reply.action_id, reply]));
  for (const at of spellings.keys()) {
    const reply = replies.get(idOf(`s${at}`, 'reply'));
    assert.equal(reply?.data.response, 'echo: hi', `s${at}`);
    assert.equal(reply?.task_id, `s${at}`);
    assert.deepEqual([reply?.session_id, reply?.data.conversation_id], Array(2).fill(`execution-s${at}`));
    assert.equal(reply?.agent_id, 'default');
  }
  const contexts = new Map(node.script.plans.map(({ taskId, context }) => [taskId, context]));
  assert.deepEqual(contexts.get(task('s6')), { user_info: { id: 'u-1', name: 'Ann' }, user_id: 'u-1' });
  assert.deepEqual(contexts.get(task('s7')), { user_info: { user_id: 'u-1' }, user_id: 'u-1' });
  assert.deepEqual(contexts.get(task('s8')), { user_info: { id: 7 } });
});

test('msgpack is answered in msgpack, older senders’ queues are taken, and a conversation goes on', async (t) => {
  const node = await openActionNode(t);
  const action = {
    ...envelope('execution.execute', 'm1'),
    tenant_id: ACME,
    data: { input: 'one' },
    metadata: {},
  };
  await node.transport.send(WORK, { ...action, callback_queue: BACK }, 'msgpack');
  await node.reply(0);
  node.push(run('m2', 'two', {}, { conversation_id: 'c1' }), queue('execution:ctx-1:free'));
  await node.reply(1);
  node.push(run('m3', 'three', {}, { conversation_id: 'c1' }), queue('old:work'));
  const last = await node.reply(2);
  assert.deepEqual(node.formats(), ['msgpack', 'json', 'json']);
  assert.equal(last.session_id, 'c1');
  const history = node.script.plans.at(-1)?.history.map(({ content }) => content);
  assert.deepEqual(history, ['two', 'echo: two', 'three']);
});

test('failures, timeouts, refusals and cancels have codes of their own', async (t) => {
  const node = await openActionNode(t);
  node.push(run('f1', 'fail:EXECUTION_TIMEOUT', {}, { conversation_id: 'c1' }));
  const timeout = await node.reply(0);
  assert.equal(timeout.action_type, 'execution.error');
  assert.deepEqual(timeout.data, {
    agent_id: 'default',
    conversation_id: 'c1',
    session_id: 'c1',
    error: 'The execution ran into its time limit.',
    error_code: 'EXECUTION_TIMEOUT',
    error_details: { retryable: true, retry_after_ms: 7 },
  });
  node.push(run('f2', 'hi', {}, { agent_id: 'nobody' }));
  const missing = await node.reply(1);
  assert.deepEqual([missing.data.error_code, missing.data.agent_id], ['AGENT_NOT_FOUND', 'nobody']);

  node.push(run('f3', 'wait', { task_id: 't3' }));
  await node.script.ran(2);
  await until('the text so far', async () => {
    const turn = await node.system.turn(ACME, task('t3'));
    return turn.ok && turn.value.status === 'processing';
  });
  node.push({ ...envelope('execution.cancel', 'k1'), callback_queue: BACK, data: { task_id: 't3' } });
  await node.reply(3);
  const byId = new Map(node.replies().map((reply) => [reply.action_id, reply]));
  const ended = byId.get(idOf('f3', 'reply'));
  assert.deepEqual(
    [ended?.action_type, ended?.data.status, ended?.data.response],
    ['execution.callback', 'cancelled', 'so far'],
  );
  const cancelled = byId.get(idOf('k1', 'cancelled'));
  assert.deepEqual([cancelled?.action_type, cancelled?.task_id], ['execution.callback', 't3']);
  assert.deepEqual([cancelled?.data.task_id, cancelled?.data.status], ['t3', 'cancelled']);

  node.push({ ...envelope('chat.cancel', 'k2'), task_id: 'f1', callback_queue: BACK });
  assert.equal((await node.reply(4)).data.status, 'timeout');
  node.push({ ...envelope('execution.cancel', 'k3'), task_id: 'unknown', callback_queue: BACK });
  const unknown = await node.reply(5);
  assert.deepEqual(
    [unknown.action_type, unknown.data.error_code, unknown.data.task_id],
    ['execution.error', 'NOT_FOUND', 'unknown'],
  );
  node.push({
    ...envelope('execution.cancel', 'k4'),
    tenant_id: 'globex',
    task_id: 't3',
    callback_queue: BACK,
  });
  assert.equal((await node.reply(6)).data.error_code, 'NOT_FOUND', 'tasks of other tenants are unknown');
});

test('chat.process is heard by the session’s sockets, and pushed only to queues of others', async (t) => {
  const node = await openActionNode(t);
  const client = await node.watch('s1');
  const orchestrator = await node.read('orchestrator:acme:callback');
  node.push({
    ...envelope('chat.process', 'p1'),
    session_id: 's1',
    message: 'hola',
    user: { id: 'user_123', name: 'John Doe' },
    callback_queue: 'orchestrator:acme:callback',
  });
  await until('the answer', () => client.frames.some(({ type }) => type === 'chat.response'));
  node.push({
    ...envelope('chat.process', 'p2'),
    data: { message: 'hola', stream: false },
    callback_queue: BACK,
  });
  const reply = await node.reply();
  assert.deepEqual([reply.session_id, reply.data.response], ['execution-p2', 'echo: hola']);
  assert.equal(orchestrator.deliveries.length, 0, 'this node is its reader');

  const nobody = { ...envelope('chat.process', 'p3'), session_id: 's1', message: 'x', agent_id: 'nobody' };
  node.push({ ...nobody, callback_queue: 'orchestrator:acme:callback' });
  await until('the refusal', () => client.frames.some(({ type }) => type === 'error'));
  const frame = client.frames.find(({ type }) => type === 'error');
  assert.equal(frame?.taskId, 'p3');
  assert.equal(refusal('AGENT_NOT_FOUND').message, Object(frame?.data).message);
});

test('chat.status answers with the body of the route, for tasks of its own tenant only', async (t) => {
  const node = await openActionNode(t);
  node.push(run('r1', 'hi', { task_id: 't1' }));
  await node.reply(0);
  node.push({ ...envelope('chat.status', 'q1'), data: { task_id: 't1' }, callback_queue: BACK });
  const { action_type, data } = await node.reply(1);
  assert.equal(action_type, 'chat.status.response');
  assert.deepEqual(
    [data.task_id, data.session_id, data.status, data.result],
    ['t1', 'execution-t1', 'completed', { content: 'echo: hi', role: 'assistant' }],
  );
  const foreign = { ...envelope('chat.status', 'q2'), tenant_id: 'globex', task_id: 't1' };
  node.push({ ...foreign, callback_queue: BACK });
  const refused = (await node.reply(2)).data;
  assert.deepEqual([refused.success, Object(refused.error).code], [false, 'NOT_FOUND']);
});

test('queries for other services are passed on and answered in their place', async (t) => {
  const node = await openActionNode(t, {
    peers: {
      async ask({ type, sessionId, data }) {
        if (type === 'management.get_agent_config') return { success: true, agent_config: { id: 'a1' } };
        if (sessionId === 'broken') throw new Error('canary');
        if (sessionId === 'empty') return { success: true };
        return {
          success: true,
          messages: [{ role: 'user', content: `at most ${data.limit}`, task_id: 't1' }],
        };
      },
    },
  });
  const ask = (type: string, id: string, data: object) =>
    node.push({ ...envelope(type, id), callback_queue: BACK, trace_id: 'tr', timeout: 2, data });
  ask('execution.management.get_agent_config', 'c1', { agent_id: 'a1' });
  const config = await node.reply(0);
  assert.equal(config.action_type, 'execution.management.get_agent_config.response');
  assert.deepEqual([config.data.success, config.data.agent_config], [true, { id: 'a1' }]);
  ask('execution.conversation.get_history', 'c2', { session_id: 's1', limit: 3 });
  const { messages } = (await node.reply(1)).data;
  assert.deepEqual(messages, [
    { role: 'user', content: 'at most 3', task_id: 't1', created_at: '2026-01-01T00:00:00.000Z' },
  ]);
  ask('execution.conversation.get_context', 'c3', { session_id: 's1' });
  const context = Object((await node.reply(2)).data.context);
  assert.deepEqual([context.session_id, context.tenant_id, context.message_count], ['s1', 'acme', 1]);
  assert.equal(context.messages[0].content, 'at most 20');
  for (const [at, session] of ['broken', 'empty'].entries()) {
    ask('execution.conversation.get_history', `d${at}`, { session_id: session });
    const { data } = await node.reply(3 + at);
    assert.deepEqual([data.success, Object(data.error).code], [false, 'INTERNAL']);
    assert.doesNotMatch(JSON.stringify(data), /canary/);
  }
  assert.deepEqual(
    node.asked.map(({ tenantId, traceId, timeoutMs }) => [tenantId, traceId, timeoutMs]),
    Array(5).fill(['acme', 'tr', 2_000]),
  );
  node.push({ ...envelope('execution.conversation.get_history', 'e1'), data: { session_id: 's1' } });
  await node.settled();
  assert.equal(node.asked.length, 5, 'what nobody waits for is not asked');
});

test('frames are pushed to the sessions that are named, once, and cached agents are forgotten', async (t) => {
  const node = await openActionNode(t);
  const [own, other, foreign] = [
    await node.watch('s1'),
    await node.watch('s2'),
    await node.watch('s1', 'globex'),
  ];
  const seen = (client: typeof own) =>
    client.frames.filter(({ type }) => type === 'x.y').map(({ data }) => data);
  const send = { ...envelope('websocket.send', 'w1'), session_id: 's1', message_type: 'x.y' };
  node.push({ ...send, message_data: { n: 1 } });
  node.push({ ...send, message_data: { n: 1 } });
  const broadcast = envelope('websocket.broadcast', 'w2');
  node.push({ ...broadcast, data: { message_type: 'x.y', message_data: { n: 2 } } });
  node.push({
    ...broadcast,
    action_id: 'w3',
    data: { message_type: 'x.y', target_sessions: ['s2', 'gone'] },
  });
  node.push({ ...envelope('execution.cache.invalidate', 'i1'), data: { agent_id: 'a1' } });
  await until('all of it', () => seen(other).length === 2 && node.invalidated.length === 1);
  assert.deepEqual(seen(own), [{ n: 1 }, { n: 2 }]);
  assert.deepEqual(seen(other), [{ n: 2 }, {}]);
  assert.deepEqual(seen(foreign), [], 'nothing of another tenant is seen');
  assert.deepEqual(node.invalidated, ['acme/a1']);
});

test('replies of other services reach who waits for them, and are always acknowledged', async (t) => {
  const node = await openActionNode(t);
  const callbacks = queue('agent_execution_service:free:callbacks');
  for (const type of ['embedding.callback', 'query.callback'])
    node.push({ ...envelope(type, type), correlation_id: 'c', data: { anything: 1 } }, callbacks);
  await until('both', () => node.replied.length === 2);
  await node.settled();
  assert.deepEqual(await node.transport.dead.queues(), []);
});

test('what nobody works on is dead at once, and answered unless it is a reply itself', async (t) => {
  const node = await openActionNode(t);
  const types = [
    'execution.callback',
    'execution.error',
    'chat.status.response',
    'execution.batch_completed',
    'x.y',
  ];
  for (const [at, type] of types.entries())
    node.push({ ...envelope(type, `u${at}`), callback_queue: BACK, data: { message: 'hi' } });
  node.push('{"action_type":');
  const letters = await node.dead(types.length + 1);
  const unknown = letters.find(({ body }) => body.includes('"x.y"'));
  assert.match(unknown?.error.message ?? '', /Known are: execution.agent_run, .*websocket.broadcast/);
  const reply = letters.find(({ body }) => body.includes('execution.callback'));
  assert.match(reply?.error.message ?? '', /a reply/);
  await node.settled();
  const [told, ...others] = node.replies();
  assert.deepEqual([told?.action_type, told?.data.error_code], ['execution.error', 'INVALID_REQUEST']);
  assert.match(String(told?.data.error), /x\.y is not worked on/);
  assert.deepEqual(others, []);
  assert.deepEqual(node.script.plans, []);
});

test('data that does not fit is dead, and answered by field where somebody waits', async (t) => {
  const node = await openActionNode(t);
  const wrong: readonly (readonly [string, string, object])[] = [
    ['input', 'execution.agent_run', {}],
    ['input', 'execution.agent_run', { input: 7 }],
    ['input', 'execution.agent_run', { input: 'x'.repeat(32_001) }],
    ['conversation_id', 'execution.agent_run', { input: 'x', conversation_id: 'a b' }],
    ['tools_config.a', 'execution.agent_run', { input: 'x', tools_config: { a: 1 } }],
    ['images.0', 'execution.agent_run', { input: 'x', images: ['https://localhost/'] }],
    ['response_format.type', 'execution.agent_run', { input: 'x', response_format: { type: 'xml' } }],
    [
      'execution_params.max_iterations',
      'execution.execute',
      { input: 'x', execution_params: { max_iterations: 0 } },
    ],
    ['context', 'execution.execute', { input: 'x', context: 'text' }],
    ['context', 'execution.execute', { input: 'x', context: { a: 'x'.repeat(256 * 1024) } }],
    ['user_info', 'chat.process', { message: 'x', user: 'bob' }],
    ['on_busy', 'chat.process', { message: 'x', on_busy: 'never' }],
    ['items', 'execution.batch', {}],
    ['items', 'execution.batch', { items: Array.from({ length: 101 }, () => ({ input: 'x' })) }],
    ['items.1.input', 'execution.batch', { items: [{ input: 'x' }, {}] }],
    [
      'items',
      'execution.batch',
      {
        items: [
          { input: 'x', task_id: 'a' },
          { input: 'x', task_id: 'a' },
        ],
      },
    ],
    ['concurrency', 'execution.batch', { items: [{ input: 'x' }], concurrency: 21 }],
    ['task_id', 'execution.cancel', {}],
    ['task_id', 'chat.status', { task_id: { $ne: null } }],
    ['agent_id', 'execution.management.get_agent_config', {}],
    ['session_id', 'execution.conversation.get_history', {}],
    ['limit', 'execution.conversation.get_context', { session_id: 's', limit: 501 }],
  ];
  for (const [at, [field, type, data]] of wrong.entries()) {
    node.push({ ...envelope(type, `w${at}`), callback_queue: BACK, data });
    const reply = await node.reply(at);
    const label = `${type} ${JSON.stringify(data).slice(0, 60)}`;
    assert.deepEqual(
      [reply.action_type, reply.data.error_code],
      ['execution.error', 'INVALID_REQUEST'],
      label,
    );
    const [first] = Object(reply.data.error_details).details;
    assert.equal(first.field, field, label);
  }
  const nobody: readonly (readonly [string, object])[] = [
    ['execution.agent_run', {}],
    ['websocket.send', { message_type: 'a' }],
    ['websocket.send', { session_id: 's', message_type: 'a b' }],
    ['websocket.send', { session_id: 's', message_type: 'a', message_data: 'text' }],
    ['websocket.broadcast', { message_type: 'x'.repeat(65) }],
    ['execution.cache.invalidate', {}],
  ];
  for (const [at, [type, data]] of nobody.entries()) node.push({ ...envelope(type, `n${at}`), data });
  await node.dead(wrong.length + nobody.length);
  assert.deepEqual(node.script.plans, []);
});

test('requesters are answered on response queues of their own, whatever service and id those name', async (t) => {
  const node = await openActionNode(t);
  const queues = [
    'execution_service:responses:agent_run:abc',
    'execution_service:responses:agent_run:default',
    'agent_execution_service:responses:agent_run:free:callbacks',
    'management_service:responses:agent_run:globex:execution_service:free:default',
  ];
  for (const [at, name] of queues.entries()) {
    const { heard, deliveries } = await node.read(name);
    node.push(run(`r${at}`, 'hi', { callback_queue: name }));
    await heard(1);
    assert.equal(deliveries[0]?.action.data.response, 'echo: hi', name);
  }
  assert.deepEqual(await node.transport.dead.queues(), []);
});

test('nobody is answered on another tenant’s queue, nor on the node’s own', async (t) => {
  const node = await openActionNode(t);
  const queues = [
    'orchestrator:globex:callback',
    'agent-management.tasks.globex',
    'agent-management.notifications.globex',
    WORK,
    `${WORK}:dead`,
    'agent_execution_service:free:callbacks',
    'agent-management.tasks.acme',
    'execution:ctx-1:free',
    'old:work',
    'execution_service:responses:agent_run:abc:dead',
  ];
  for (const [at, name] of queues.entries()) node.push(run(`h${at}`, 'hi', { callback_queue: name }));
  const letters = await node.dead(queues.length);
  assert.deepEqual([...new Set(letters.map(({ error }) => error.code))], ['FORBIDDEN']);
  assert.deepEqual(node.script.plans, []);
});

test('a refusal by a limit of the moment is sent, not stored; other refusals stay what they were', async (t) => {
  const tiers = { ...TIER_TABLE, free: { ...TIER_TABLE.free, requests_per_minute: 1 } };
  const node = await openActionNode(t, { tiers });
  const free = { tenant_id: 'tiny', tenant_tier: 'free' };
  node.push(run('l0', 'hi', free));
  await node.reply(0);
  node.push(run('l1', 'hi', free));
  const refused = await node.reply(1);
  assert.deepEqual([refused.action_type, refused.data.error_code], ['execution.error', 'RATE_LIMITED']);
  assert.ok(Number(Object(refused.data.error_details).retry_after_ms) > 0);
  assert.notEqual(
    refused.action_id,
    idOf('l1', 'reply'),
    'a later answer must not look like this one repeated',
  );
  node.push(run('l1', 'hi', free));
  assert.notEqual((await node.reply(2)).action_id, refused.action_id);

  node.push(run('l2', 'hi', {}, { agent_id: 'nobody' }));
  const gone = await node.reply(3);
  node.push(run('l2', 'hi', {}, { agent_id: 'nobody' }));
  assert.deepEqual(await node.reply(4), gone);
});
