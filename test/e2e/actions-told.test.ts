/** Whoever sent an action that is refused is told of it, as far as its envelope can be read; and spellings that are understood. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { pack } from 'msgpackr';
import {
  type ActionClient,
  action,
  actionScene,
  type Fields,
  ownList,
  packed,
  pydantic2,
  WORK,
} from '../support/action-client.ts';
import { settled } from './actions-cluster.ts';

const MIB = 1024 * 1024;

const run = (list: string, more: Fields = {}): Fields =>
  action('execution.agent_run', { message: 'hi' }, { action_id: 'a1', callback_queue: list, ...more });
const json = (list: string, more: Fields = {}): string => pydantic2(run(list, more));
const withField = (list: string, field: string): string => json(list).replace('{', `{${field},`);
const latin1 = (list: string): Uint8Array =>
  Buffer.from(json(list, { data: { message: 'caf\u00e9' } }), 'latin1');

/** What is sent, by its name; each names the list on which its sender waits. */
const REFUSED: Readonly<Record<string, (list: string) => string | Uint8Array>> = {
  ...Object.fromEntries(
    Object.entries({
      user_id: [42, {}, []],
      tenant_tier: ['gold', 42, {}],
      action_type: ['execution.agent_rum', 'a b', 42, '', undefined],
      timestamp: ['', 'yesterday', 42],
      timeout: ['soon', '', -1],
      action_id: [42, 'a b', {}],
      task_id: [{}, 'a b'],
      session_id: [42],
      agent_id: [[]],
      correlation_id: [{}],
      trace_id: ['a b'],
      data: ['text', [], { message: 42 }, { message: '' }],
      payload: [7],
      metadata: ['x'],
      execution_context: [[]],
    }).flatMap(([name, values]) =>
      values.map((value) => [
        `${name} ${JSON.stringify(value)}`,
        (list: string) => json(list, { [name]: value }),
      ]),
    ),
  ),
  'a push without a session': (list) =>
    pydantic2(action('websocket.send', { message_type: 'x' }, { callback_queue: list })),
  'Latin-1': latin1,
  'a byte of no UTF-8 in a key': (list) => Buffer.from(withField(list, '"\u00ff":1'), 'latin1'),
  NaN: (list) => withField(list, '"metadata":{"a":NaN}'),
  '-Infinity': (list) => withField(list, '"score":-Infinity'),
  '1e999': (list) => withField(list, '"score":1e999'),
  'a number of 10,000 digits': (list) => withField(list, `"score":${'9'.repeat(10_000)}`),
  'a comma too many': (list) => json(list).replace(/\}$/, ',}'),
  'cut off in its data': (list) => json(list, { data: undefined }).replace(/\}$/, ',"data":{"message":"half'),
  'two values': (list) => json(list) + json(list),
  'single quotes in its data': (list) => json(list).replace('{"message":"hi"}', "{'message':'hi'}"),
  'nested too deep': (list) => withField(list, `"deep":${'['.repeat(99_999)}${']'.repeat(99_999)}`),
  '5 MiB': (list) => withField(list, `"long":"${'x'.repeat(5 * MIB)}"`),
  'the tenant in the context': (list) => {
    const { tenant_id: tenantId, ...more } = run(list, { tenant_tier: 'gold' });
    return pydantic2({ ...more, execution_context: { tenant_id: tenantId } });
  },
  'another name of the queue': (list) => {
    const { callback_queue: queue, ...more } = run(list, { tenant_tier: 'gold' });
    return pydantic2({ ...more, callback_queue_name: queue });
  },
  'msgpack: a tier': (list) => packed(run(list, { tenant_tier: 'gold' })),
  'msgpack: NaN': (list) => packed(run(list, { metadata: { a: Number.NaN } })),
  'msgpack: a time': (list) => pack(run(list, { metadata: { at: new Date() } })),
  'msgpack: bytes': (list) => packed(run(list, { metadata: { at: Buffer.from('x') } })),
  'msgpack: cut off': (list) => packed(run(list, { zone: 'x'.repeat(99) })).subarray(0, -50),
  'msgpack: Latin-1': (list) => {
    const bytes = Buffer.from(packed(run(list, { metadata: { drink: 'caf#' } })));
    bytes[bytes.indexOf('caf#') + 3] = 0xe9;
    return bytes;
  },
};

async function nothing(client: ActionClient, list: string): Promise<void> {
  await settled(client, WORK);
  assert.equal(await client.redis.client.llen(list), 0, list);
}

test('what is refused is told on the queue that it names, beside its dead letter', {
  timeout: 60_000,
}, async (t) => {
  const { client, stub } = await actionScene(t);
  const problems: string[] = [];
  for (const [name, body] of Object.entries(REFUSED)) {
    const list = ownList();
    await client.push(WORK, body(list));
    const reply = await client.reply(list, 3).catch(() => undefined);
    const told = `${reply?.action_type} ${reply?.data.error_code} ${reply?.tenant_id}`;
    if (told !== 'execution.error INVALID_REQUEST acme') problems.push(`${name}: ${told}`);
    if (reply && name.startsWith('msgpack') !== (reply.encoding === 'msgpack'))
      problems.push(`${name}: encoding`);
    const letter = await client.redis.client.brpop(`${WORK}:dead`, 3);
    if (!letter?.[1].includes('INVALID_REQUEST')) problems.push(`${name}: no dead letter`);
  }
  assert.deepEqual(problems, []);
  assert.equal(stub.requests.length, 0);
});

test('what ties a reply to its request is copied as far as it is valid', async (t) => {
  const { client } = await actionScene(t);
  const list = ownList();
  const ids = { task_id: 't1', correlation_id: 'c1', trace_id: 'r1', session_id: 's1', agent_id: 'g1' };
  await client.push(WORK, json(list, { ...ids, tenant_tier: 'gold' }));
  const { task_id, correlation_id, trace_id, session_id, agent_id } = await client.reply(list);
  assert.deepEqual({ task_id, correlation_id, trace_id, session_id, agent_id }, ids);
  await client.push(WORK, json(list, { ...ids, correlation_id: 'a b' }));
  const other = await client.reply(list);
  assert.deepEqual([other.task_id, other.correlation_id], ['t1', undefined]);
});

test("nobody is told on another tenant's queue or a work queue, without a tenant, or of a reply", async (t) => {
  const { client } = await actionScene(t);
  const bad = { tenant_tier: 'gold' };
  const queues = [
    'orchestrator:globex:callback',
    'agent-management.notifications.globex',
    'execution_service:free:high_priority',
    'nooble:holders:x',
    'somewhere:dead',
  ];
  for (const queue of queues) await client.push(WORK, json(queue, bad));
  const mine = ownList();
  await client.push(
    WORK,
    json(mine, { ...bad, tenant_id: undefined }),
    json(mine, { ...bad, tenant_id: 'a/b' }),
    json(mine, { ...bad, action_type: 'execution.error' }),
    json(mine, { action_type: 'x.response' }),
  );
  for (const queue of [...queues, mine]) await nothing(client, queue);
  assert.equal(await client.redis.client.llen(`${WORK}:dead`), queues.length + 4);
});

test('durations, numeric text, a byte order mark and queues of replies are understood', async (t) => {
  const { client, stub } = await actionScene(t);
  const bodies: readonly ((list: string) => string | Uint8Array)[] = [
    ...['PT30S', '30', '30.5', 'PT1M', 'PT0.5H'].map((timeout) => (list: string) => json(list, { timeout })),
    (list) => Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(json(list))]),
    (list) => packed(run(list, { timeout: 'PT30S' })),
  ];
  for (const body of bodies) {
    const list = `execution_service:responses:get_agent_config:${randomUUID()}`;
    const bytes = Buffer.from(body(list));
    const at = bytes.indexOf('"a1"');
    if (at >= 0) bytes.write(`"${stub.requests.length % 10}x"`, at);
    await client.push(WORK, bytes);
    const reply = await client.reply(list);
    assert.equal(reply.data.status, 'success', JSON.stringify(reply.data));
  }
});

/** The text of the next frame of that type, as it stands on the wire. */
function nextText(socket: WebSocket, type: string): Promise<string> {
  return new Promise((resolve) => {
    socket.addEventListener('message', ({ data }) => {
      if (String(data).includes(`"${type}"`)) resolve(String(data));
    });
  });
}

test('whole numbers arrive as they were, in JSON and in msgpack', async (t) => {
  const { client, port } = await actionScene(t);
  const socket = new WebSocket(`ws://127.0.0.1:${port}/ws/acme/s1`);
  t.after(() => socket.close());
  await nextText(socket, 'session.ready');
  const push = (data: unknown): Fields =>
    action('websocket.send', { message_type: 'told', message_data: data }, { session_id: 's1' });
  const numbers = '{"id":1234567890123456789,"few":-9007199254740993,"in":[18446744073709551615,7,1.5]}';
  const asJson = nextText(socket, 'told');
  await client.push(WORK, pydantic2(push('HERE')).replace('"HERE"', numbers));
  assert.ok((await asJson).includes(numbers), await asJson);
  const data = { id: 1234567890123456789n, few: -9007199254740993n, in: [18446744073709551615n, 7, 1.5] };
  const asMsgpack = nextText(socket, 'told');
  await client.push(WORK, packed(push(data)));
  assert.ok((await asMsgpack).includes(numbers), await asMsgpack);
});
