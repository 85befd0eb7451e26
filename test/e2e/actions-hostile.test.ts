/** What no honest sender writes: it goes to the dead list with its reason or is refused, and the next action is done. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  action,
  actionScene,
  type Fields,
  ownList,
  packed,
  pydantic2,
  WORK,
  workOf,
} from '../support/action-client.ts';
import { say } from '../support/stub-model.ts';
import { until } from '../support/until.ts';
import { settled } from './actions-cluster.ts';

const MIB = 1024 * 1024;
const DEEP = 100_000;

const run = (more: Fields = {}, data: Fields = { input: 'Hi.' }): Fields =>
  action('execution.agent_run', data, more);
const text = (more: Fields): string => pydantic2(run(more));
/** An action whose `data` is written by hand. */
const withData = (data: string): string => pydantic2(run()).replace('{"input":"Hi."}', data);

/** Each is refused when it is read; the dead letter's text names the reason. */
const DEAD: readonly (readonly [string, string | Uint8Array, RegExp])[] = [
  ['no JSON', '{"action_type": "execution.agent_run"', /JSON/],
  ['nothing', '', /./],
  ['null', 'null', /./],
  ['a list', `[${pydantic2(run())}]`, /./],
  ['a number', '42', /./],
  ['bytes of no format', new Uint8Array([0xc1, 0xff, 0, 1]), /msgpack/],
  ['half a msgpack map', packed(run()).subarray(0, 40), /msgpack/],
  ['JSON that is deep', withData(`{"input":${'['.repeat(DEEP)}${']'.repeat(DEEP)}}`), /nested/],
  ['JSON that is deep and does not end', withData('{"a":'.repeat(DEEP)), /nested|JSON/],
  ['msgpack that is deep', new Uint8Array(DEEP).fill(0x91), /./],
  ['5 MiB', withData(`{"input":"${'x'.repeat(5 * MIB)}"}`), /larger/],
  ...Object.entries({
    action_id: [{}, 42, '', 'a b', 'x'.repeat(129)],
    action_type: [undefined, {}, 42, '', 'a b', '__proto__', 'x'.repeat(129)],
    task_id: [{}, 42, '../../x', 'a\u0000b'],
    tenant_id: [undefined, {}, 42, '', 'a/b', '*'],
    tenant_tier: [{}, 42, 'platinum'],
    session_id: [[], 42, 'a b'],
    user_id: [[], 42, '', 'x'.repeat(256)],
    agent_id: [[], 42, 'a b'],
    correlation_id: [{}, 42, ''],
    trace_id: [{}, 42, ''],
    data: ['text', 42, []],
    payload: ['text', 42, []],
    metadata: ['text', 42, []],
    execution_context: ['text', 42, []],
    callback_queue: [{}, 42, '', 'a b', 'a\nb', 'x'.repeat(600)],
    timeout: [{}, 'soon', '', 'P1Y', -1, 0, 1e12],
    timestamp: [{}, 42, 'yesterday', '2026-99-99T00:00:00'],
  }).flatMap(([name, values]) =>
    values.map(
      (value) =>
        [
          `${name}: ${JSON.stringify(value)?.slice(0, 20)}`,
          text({ [name]: value }),
          new RegExp(name === 'payload' ? 'payload' : name),
        ] as const,
    ),
  ),
  [
    'an unknown type',
    pydantic2(action('execution.destroy', {}, { callback_queue: 'tests:x' })),
    /not worked on/,
  ],
  ['a reply', pydantic2(action('execution.callback', { status: 'success' })), /is a reply/],
  ['a type of no kind', pydantic2(action('constructor', {})), /not worked on/],
  ['a push without a type', pydantic2(action('websocket.send', {}, { session_id: 's1' })), /message_type/],
  [
    'a push to sessions that are none',
    pydantic2(
      action('websocket.broadcast', { message_type: 'x', message_data: {}, target_sessions: ['a b', 7] }),
    ),
    /target_sessions/,
  ],
  ...[
    WORK,
    workOf('free', 'high_priority'),
    'agent_execution_service:free:callbacks',
    'nooble:inbox:test-node',
    'nooble:holders',
    'nooble:dead-queues',
    'nooble:lease:someone',
    `${WORK}:dead`,
    'orchestrator:globex:callback',
    'agent-management.tasks.globex',
    'agent-management.notifications.globex',
  ].map((queue) => [`answers to ${queue}`, text({ callback_queue: queue }), /callback_queue/] as const),
];

/** Each is taken, and refused to whoever asked. */
const REFUSED: readonly (readonly [string, string, Fields])[] = [
  ['execution.agent_run', 'an input of 2 MiB', { input: 'x'.repeat(2 * MIB) }],
  ['execution.agent_run', 'no input', {}],
  ['execution.agent_run', 'an input that is none', { input: { toString: 'x' } }],
  ['execution.agent_run', 'parameters that are none', { input: 'Hi.', execution_params: 'many' }],
  ['execution.agent_run', 'negative limits', { input: 'Hi.', execution_params: { max_iterations: -1 } }],
  ['execution.agent_run', 'tools that are none', { input: 'Hi.', tools_config: { calculator: 'yes' } }],
  ['execution.batch', 'no items', { items: [] }],
  ['execution.batch', 'items that are none', { items: [null, 7, 'x'] }],
  ['execution.batch', 'too many items', { items: Array.from({ length: 101 }, () => ({ input: 'x' })) }],
  ['chat.process', 'a message that is none', { message: ['Hi.'] }],
  ['execution.cancel', 'a task that is none', { task_id: { $ne: null } }],
];

test('what can not be an action goes to the dead list with its reason, and the node goes on', {
  timeout: 60_000,
}, async (t) => {
  const { client, stub } = await actionScene(t);
  const { redis } = client;
  const dead = `${WORK}:dead`;
  const problems: string[] = [];
  for (const [name, body, reason] of DEAD) {
    await client.push(WORK, body);
    const letter = await redis.client.brpop(dead, 5);
    const { error } = JSON.parse(letter?.[1] ?? '{}');
    if (!reason.test(error?.message ?? '')) problems.push(`${name}: ${error?.code} ${error?.message}`);
  }
  const reply = await client.ask('execution.agent_run', { input: 'Hi.' });
  assert.deepEqual(problems, []);
  assert.equal(reply.data.response, 'Hello there.');
  assert.equal(stub.requests.length, 1);
  await settled(client, WORK);
  for (const queue of ['nooble:holders', 'nooble:dead-queues'])
    assert.notEqual(await redis.client.type(queue), 'list', queue);
});

test('what is refused is told to whoever asked, and the node goes on', async (t) => {
  const { client, stub } = await actionScene(t);
  for (const [type, name, data] of REFUSED) {
    const { task_id: taskId, ...more }: Fields = type === 'execution.cancel' ? { task_id: null } : {};
    const reply = await client.ask(type, data, { ...more, ...(taskId === null ? { task_id: null } : {}) });
    assert.deepEqual([name, reply.data.error_code], [name, 'INVALID_REQUEST'], JSON.stringify(reply.data));
    assert.equal(reply.action_type, 'execution.error', name);
  }
  assert.equal(stub.requests.length, 0);
  assert.equal((await client.ask('execution.agent_run', { input: 'Hi.' })).data.status, 'success');
});

test('keys that reach for prototypes reach nothing', async (t) => {
  const { client, stub } = await actionScene(t);
  const list = ownList();
  const reaching = '"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}';
  const head = `"action_type":"execution.agent_run","tenant_id":"acme","callback_queue":"${list}"`;
  await client.push(WORK, `{${reaching},${head},"data":{${reaching},"input":"Hi."}}`);
  const refused = await client.reply(list);
  assert.match(refused.data.error, /constructor: is not a field here/);
  await client.push(
    WORK,
    `{${reaching},${head},"data":{"__proto__":{"polluted":true},"input":"Hi.","context":{${reaching}},"user_info":{${reaching}}},"metadata":{${reaching}}}`,
  );
  assert.equal((await client.reply(list)).data.status, 'success');
  // An envelope must not lie in a prototype.
  await client.push(
    WORK,
    `{"__proto__":{${head},"data":{"input":"Hi."}}}`,
    `{${head},"data":{"__proto__":{"input":"Hi."}}}`,
  );
  assert.equal((await client.reply(list)).data.error_code, 'INVALID_REQUEST');
  await until('the dead', async () => (await client.redis.client.llen(`${WORK}:dead`)) === 3);
  const empty: Record<string, unknown> = {};
  assert.equal(empty.polluted, undefined);
  assert.equal(stub.requests.length, 1);
});

test('an answer that its queue will never take is given up, and holds up nobody', async (t) => {
  const { client, line } = await actionScene(t);
  await client.redis.client.set('their:setting', '1');
  await client.push(WORK, text({ callback_queue: 'their:setting' }));
  assert.equal((await client.ask('execution.agent_run', { input: 'Hi.' })).data.status, 'success');
  await line('a stored message can never be sent: given up');
  assert.equal(await client.redis.client.get('their:setting'), '1');
});

test("another tenant's ids are other ids", async (t) => {
  const { client, stub, ask, chat } = await actionScene(t);
  stub.byDefault(({ body }) => say(`You said ${body.messages.at(-1)?.content}`));
  const socket = await chat('acme', 's1');
  const ids = { session_id: 's1', task_id: 't1' };
  await client.ask('execution.agent_run', { input: 'mine' }, ids);
  await socket.ended('t1');
  const before = socket.frames.length;
  const theirs = await client.ask(
    'execution.agent_run',
    { input: 'theirs' },
    { ...ids, tenant_id: 'globex' },
  );
  assert.equal(theirs.data.response, 'You said theirs');
  // A task of the tenant's own, asked for in another session of it, is not run there.
  const moved = await client.ask('execution.agent_run', { input: 'mine' }, { ...ids, session_id: 's2' });
  assert.equal(moved.data.error_code, 'CONFLICT', JSON.stringify(moved.data));
  for (const type of ['execution.conversation.get_history', 'execution.conversation.get_context']) {
    const read = await client.ask(type, { session_id: 's1' }, { tenant_id: 'initech' });
    assert.doesNotMatch(JSON.stringify(read.data), /mine|theirs/);
  }
  const { body } = await ask('/api/sessions/s1/messages');
  assert.deepEqual(
    body.messages.map(({ content }: { content: string }) => content),
    ['mine', 'You said mine'],
  );
  socket.send({ type: 'ping' });
  await socket.see('pong');
  assert.equal(socket.frames.length, before + 1, 'the socket was told of what is none of its own');
});
