/** The AsyncAPI document: that it holds together, and that what the node reads and writes is what it says. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { replySchemas } from '../../../src/domain/action-replies.ts';
import { expectsReply, readCommand } from '../../../src/domain/action-types.ts';
import { type DomainAction, parseDomainAction } from '../../../src/domain/domain-action.ts';
import { refusal } from '../../../src/domain/errors.ts';
import { type EventData, eventData } from '../../../src/domain/frames.ts';
import { agentIdSchema } from '../../../src/domain/ids.ts';
import * as queues from '../../../src/domain/queues.ts';
import { TIERS } from '../../../src/domain/tiers.ts';
import { ragQuery } from '../../../src/llm/tools/rag-query.ts';
import { registryTool } from '../../../src/llm/tools/registry-tool.ts';
import type { Tool } from '../../../src/llm/tools/tool.ts';
import { SERVICE_OF } from '../../../src/ports/peers.ts';
import {
  ASKED,
  peerReply,
  peerSchemas,
  SAVE,
  saveMessageSchema,
  socketQuerySchema,
} from '../../../transports/asyncapi/catalogue.ts';
import { asyncApi } from '../../../transports/asyncapi/document.ts';
import { readSessionPath } from '../../../transports/websocket/upgrade.ts';
import { encodeFrame } from '../../../transports/wire/codec.ts';
import { BACK, envelope, openActionNode, run } from '../../actors/actions/action-node.ts';
import { openHttpNode } from '../../support/http-node.ts';
import { memoryTransport } from '../../support/transport.ts';
import * as fixtures from '../peers/peer-fixtures.ts';
import { at, describes, document, fits, text } from './asyncapi-document.ts';

// --- The document ----------------------------------------------------------------------------------------------

test('every reference resolves, and operations speak of messages of their channels', () => {
  const references = [...text.matchAll(/"\$ref":"([^"]+)"/g)].map(([, pointer = '']) => pointer);
  assert.ok(references.length > 100);
  assert.deepEqual(
    references.filter((pointer) => !pointer.startsWith('#/') || at(pointer) === undefined),
    [],
  );
  for (const [name, { reply, ...operation }] of Object.entries(document.operations))
    for (const { channel, messages } of reply ? [operation, reply] : [operation])
      for (const { $ref } of messages) assert.ok($ref.startsWith(`${channel.$ref}/messages/`), name);
  const used = new Set(
    Object.values(document.operations)
      .flatMap((each) => [each, each.reply ?? each])
      .flatMap(({ messages }) => messages.map(({ $ref }) => $ref.split('/messages/')[1])),
  );
  assert.deepEqual(
    Object.keys(document.components.messages).filter((name) => !used.has(name)),
    [],
  );
  for (const [name, { address, parameters }] of Object.entries(document.channels))
    assert.deepEqual(Object.keys(parameters), [...(address ?? '').matchAll(/[^{]+(?=\})/g)].flat(), name);
  for (const [name, { payload }] of Object.entries(document.components.messages)) {
    assert.equal(fits(payload, 'no object'), false, name);
    assert.equal(fits(payload, {}), false, name);
  }
});

test('every type that the node works on is described, and whether it is answered', () => {
  const unknown = readCommand({ ...action('no.such_type'), data: {} });
  const known = /Known are: (.+)\.$/.exec(unknown.ok ? '' : unknown.error.message)?.[1]?.split(', ') ?? [];
  assert.ok(known.length > 10);
  const { work, olderSenders, callbacks } = document.channels;
  const taken = { ...work?.messages, ...callbacks?.messages };
  assert.deepEqual(Object.keys(taken).sort(), known.sort());
  assert.deepEqual(olderSenders?.messages, work?.messages);
  for (const type of known) {
    const operation = document.operations[type];
    assert.equal(operation?.action, 'receive', type);
    assert.equal(operation.reply !== undefined, expectsReply(type), type);
  }
});

test('addresses are those of the queues', () => {
  const address = (name: string, values: Record<string, string>): string => {
    const { address: template = '', parameters = {} } = document.channels[name] ?? {};
    assert.deepEqual(Object.keys(parameters), Object.keys(values), name);
    for (const [key, value] of Object.entries(values))
      assert.ok(parameters[key]?.enum?.includes(value) ?? true, `${name} ${key}`);
    return Object.entries(values).reduce(
      (made, [key, value]) => made.replace(`{${key}}`, value),
      template ?? '',
    );
  };
  for (const tier of TIERS) {
    for (const priority of queues.PRIORITIES)
      assert.equal(address('work', { tier, priority }), queues.workQueue(tier, priority));
    assert.equal(address('callbacks', { tier }), queues.callbackQueue(tier));
    for (const service of Object.values(SERVICE_OF))
      assert.equal(address(service, { tier }), queues.serviceQueue(service, tier));
  }
  const tenant_id = 'acme';
  assert.equal(address('orchestrator', { tenant_id }), queues.orchestratorQueue('acme'));
  assert.equal(address('notifications', { tenant_id }), queues.managementQueue('notifications', 'acme'));
  for (const topic of ['tasks', 'validation', 'templates'] as const) {
    assert.equal(address('agentTasks', { topic, tenant_id }), queues.managementQueue(topic, 'acme'));
    assert.equal(queues.managementTenant(address('agentTasks', { topic, tenant_id })), 'acme');
  }
  assert.equal(address('nodeReplies', { holder: 'h' }), queues.repliesQueue('h'));
});

// --- What the node takes ---------------------------------------------------------------------------------------

const parsed = (type: string, more: object) =>
  parseDomainAction({ ...envelope(type, 'a-1'), ...more }, 0, () => 'made');
const action = (type: string, more: object = {}): DomainAction => {
  const read = parsed(type, more);
  assert.ok(read.ok);
  return read.action;
};
const isTaken = (type: string, more: object): boolean => {
  const read = parsed(type, more);
  return read.ok && readCommand(read.action).ok;
};

test('what the document allows is taken, and what it forbids is refused', () => {
  const cases: readonly [boolean, string, object][] = [
    [true, 'execution.agent_run', { data: { input: 'hi', user_info: { id: 'u' }, execution_params: {} } }],
    [true, 'execution.execute', { data: { message: 'hi' }, agent_id: 'a', session_id: 's' }],
    [false, 'execution.execute', { data: {} }],
    [false, 'execution.execute', {}],
    [false, 'execution.agent_run', { data: { input: '' } }],
    [false, 'execution.agent_run', { data: { input: 'x'.repeat(32_001) } }],
    [false, 'execution.agent_run', { data: { input: 'hi', tools_config: { a: 1 } } }],
    [false, 'execution.agent_run', { data: { input: 'hi', session_id: 'not an id' } }],
    [true, 'execution.batch', { data: { items: [{ input: 'a' }, { message: 'b' }] } }],
    [false, 'execution.batch', { data: { items: [] } }],
    [false, 'execution.batch', { data: { items: [{}] } }],
    [false, 'execution.batch', { data: { items: [{ input: 'a' }], concurrency: 21 } }],
    [true, 'execution.cancel', { task_id: 't' }],
    [true, 'chat.cancel', { data: { task_id: 't' } }],
    [false, 'chat.status', { data: {} }],
    [true, 'execution.cache.invalidate', { agent_id: 'a' }],
    [false, 'execution.management.get_agent_config', {}],
    [true, 'execution.conversation.get_history', { session_id: 's', data: { limit: 500 } }],
    [false, 'execution.conversation.get_context', { session_id: 's', data: { limit: 501 } }],
    [true, 'chat.process', { data: { message: 'hi', on_busy: 'reject', stream: false } }],
    [false, 'chat.process', { data: { message: 'hi', on_busy: 'maybe' } }],
    [true, 'websocket.send', { session_id: 's', data: { message_type: 'x' } }],
    [false, 'websocket.send', { data: { message_type: 'x' } }],
    [true, 'websocket.broadcast', { data: { message_type: 'x', target_sessions: ['s'] } }],
    [false, 'websocket.broadcast', { data: { message_type: 'x y' } }],
  ];
  for (const [allowed, type, more] of cases) {
    const label = `${type} ${JSON.stringify(more).slice(0, 99)}`;
    assert.equal(describes(type, { action_type: type, tenant_id: 'acme', ...more }), allowed, label);
    assert.equal(isTaken(type, more), allowed, label);
  }
  for (const wrong of [{ tenant_id: 'a b' }, { tenant_tier: 'gold' }, { timeout: 0 }, { data: 7 }])
    assert.equal(
      describes('chat.process', { ...action('chat.process', { message: 'hi' }), ...wrong }),
      false,
    );
});

test('the samples of the old services are described', () => {
  const sample = { tenant_id: 'client123', session_id: 'sess_abc123' };
  const data = {
    ...{
      agent_id: 'agent-abc',
      input: 'Necesito información',
      conversation_id: 'conv-123',
      session_id: 'xyz',
    },
    tools_config: { web_search: true, calculator: true },
    execution_params: { max_iterations: 5, max_execution_time: 120 },
  };
  const ids = { action_id: 'uuid-1', task_id: 'conversation-123', tenant_id: 'tenant1', tenant_tier: 'free' };
  const execute = { ...ids, action_type: 'execution.execute', data, callback_queue: 'orchestrator.callback' };
  assert.ok(describes('execution.execute', execute));
  const message = { agent_id: 'agent_xyz789', message: '¿Cuál es la capital de Francia?', user: { id: 'u' } };
  const back = { callback_queue: 'orchestrator:client123:callback' };
  assert.ok(describes('chat.process', action('chat.process', { ...sample, ...message, ...back })));
  const frame = { message_type: 'chat.response', message_data: { content: 'París', role: 'assistant' } };
  assert.ok(describes('websocket.send', action('websocket.send', { ...sample, ...frame })));
  const payload = {
    agent_id: 'a',
    agent_name: 'A',
    agent_type: 'rag',
    version: '1.0',
    config: {},
    tools: [],
  };
  const about = { task_id: 't', tenant_id: 'acme', created_at: '2026-01-01T00:00:00', status: 'pending' };
  const work = { ...about, type: 'agent_create', priority: 9, metadata: { source: 'api' }, payload };
  assert.ok(describes('agent-management.task', work));
  assert.equal(describes('agent-management.task', { ...work, priority: 10 }), false);
});

// --- What the node sends ---------------------------------------------------------------------------------------

/** Nothing in it that the schema does not name; reading an action copies its envelope's `agent_id` into its data. */
function saysAll(schema: z.ZodType | undefined, data: unknown): void {
  const fields = z.looseObject({});
  const plain = fields.parse(JSON.parse(JSON.stringify(data)));
  const { agent_id } = plain;
  const said = { ...fields.parse(schema?.parse(plain)), ...(agent_id === undefined ? {} : { agent_id }) };
  assert.deepEqual(said, plain);
}

test('the replies of the action worker are what the document says', async (t) => {
  const created_at = '2026-01-01T00:00:00.000Z';
  const message = { role: 'user', content: 'hi', task_id: 'r1', created_at };
  const asked = fixtures.agentRecord();
  const node = await openActionNode(t, {
    peers: {
      ask: async ({ type }) =>
        type === 'management.get_agent_config' ? { agent_config: asked } : { messages: [message] },
    },
  });
  const about = { callback_queue: BACK, correlation_id: 'c-1' };
  const ask = (type: string, id: string, data: object = {}) => ({
    ...envelope(type, id),
    ...about,
    data,
  });
  const pushed: readonly [object, readonly string[]][] = [
    [run('r-1', 'hi', { task_id: 't-1', ...about }), ['execution.callback']],
    [run('r-2', 'fail:MODEL_RATE_LIMITED', about), ['execution.error']],
    [run('r-3', 'hi', about, { execution_params: 7 }), ['execution.error']],
    [
      { ...ask('execution.batch', 'b-1', { items: [{ input: 'a' }, { input: 'fail:INTERNAL' }] }) },
      ['execution.callback', 'execution.error', 'execution.batch_completed'],
    ],
    [ask('chat.cancel', 'k-1', { task_id: 't-1' }), ['execution.callback']],
    [ask('execution.cancel', 'k-2', { task_id: 'nobody' }), ['execution.error']],
    [ask('chat.status', 'q-1', { task_id: 't-1' }), ['chat.status.response']],
    [ask('chat.status', 'q-2', { task_id: 'nobody' }), ['chat.status.response']],
    ...['execution.management.get_agent_config', 'execution.conversation.get_history'].map(
      (type): [object, readonly string[]] => [
        ask(type, type, { agent_id: 'a1', session_id: 's' }),
        [`${type}.response`],
      ],
    ),
    [
      ask('execution.conversation.get_context', 'q-3', { session_id: 's' }),
      ['execution.conversation.get_context.response'],
    ],
  ];
  const schemas = new Map<string, z.ZodType>(Object.entries(replySchemas));
  const seen = new Set<string>();
  let heard = 0;
  for (const [request, types] of pushed) {
    node.push(request);
    const replies: DomainAction[] = [];
    for (const _ of types) replies.push(await node.reply(heard++));
    assert.deepEqual(replies.map((reply) => reply.action_type).sort(), [...types].sort());
    for (const reply of replies) {
      assert.ok(describes(reply.action_type, reply), JSON.stringify(reply));
      saysAll(schemas.get(reply.action_type), reply.data);
      seen.add(reply.action_type);
    }
  }
  assert.deepEqual([...seen].sort(), [...schemas.keys()].sort());
});

const use = async (tool: Tool | undefined, args: object, context: object): Promise<string> => {
  const prepared = tool?.prepare(args);
  assert.ok(prepared?.ok);
  const { acme: tenantId, session: sessionId, task: taskId } = fixtures;
  return prepared.run({ signal: new AbortController().signal, tenantId, sessionId, taskId, ...context });
};

test('what the node asks of services is what the document says, and what they answer', async (t) => {
  const transport = memoryTransport(t);
  const answers: [string, unknown][] = [];
  const reply = fixtures.onItsQueue(transport);
  const asked = await fixtures.startServices(transport, fixtures.embeddedFor(t), async (request, data) => {
    answers.push([request.action_type, data]);
    await reply(request, data);
  });
  const peers = fixtures.peersOver(transport, 'redis');
  const { acme: tenantId, session: sessionId, sales: agentId } = fixtures;
  const conversations = fixtures.remoteConversations(peers);
  const page = await conversations.store.session(tenantId, sessionId, { limit: 9, before: undefined });
  assert.equal(page?.messages.length, 2);
  for (const id of [agentId, agentIdSchema.parse('nobody')])
    await peers
      .ask({ type: 'management.get_agent_config', tenantId, agentId: id, data: { agent_id: id, version: 1 } })
      .catch(() => {});
  await peers.ask({ type: 'embedding.request', tenantId, data: { texts: ['a'] } });
  const found = await use(ragQuery(peers), { query: 'returns' }, { collections: ['docs'], tier: 'advance' });
  assert.match(found, /thirty days/);
  const counted = await use(registryTool('calculator', peers), { expression: '1+1' }, { tier: 'advance' });
  assert.equal(counted, '2');

  assert.deepEqual([...new Set(asked.map((each) => each.action_type))].sort(), [...ASKED].sort());
  for (const each of asked) assert.ok(describes(each.action_type, each), JSON.stringify(each));
  for (const type of ASKED) {
    for (const { data } of asked.filter((each) => each.action_type === type))
      saysAll(peerSchemas[type].asks, data);
    for (const [, data] of answers.filter(([each]) => each === type)) {
      const action_type = peerReply(type);
      const envelope = { action_type, tenant_id: 'acme', correlation_id: 'c', data };
      assert.ok(describes(peerReply(type), envelope), JSON.stringify(data));
      saysAll(peerSchemas[type].hears, data);
    }
    const own = /get_agent_config|get_history/.exec(type)?.[0];
    const list = own ? queues.responseQueue('agent_execution_service', own, '') : queues.repliesQueue('');
    const channel = document.operations[type]?.reply?.channel.$ref ?? '';
    const template = z.object({ address: z.string() }).parse(at(channel)).address;
    assert.equal(template.replace('{action}', own ?? '').replace(/\{\w+\}$/, ''), list);
    for (const each of asked.filter(({ action_type }) => action_type === type))
      assert.equal(each.callback_queue?.startsWith(own ? list : ''), true);
  }
});

test('messages for the conversation service are what the document says', async () => {
  const { acme, session, task, remoteConversations, servedBy } = fixtures;
  const { saved } = remoteConversations(servedBy(() => ({})).peers, {
    tierOf: async () => 'free',
    defaultTier: 'free',
  });
  const said = { taskId: task, atMs: 1 } as const;
  const info = {
    ...{ execution_time_ms: 1, time_to_first_token_ms: null, iterations: 1 },
    ...{ tools_used: [], tokens_used: 1, model: 'offline-echo' },
  };
  const about = { taskId: task, tenantId: acme, sessionId: session, agentId: fixtures.sales };
  const sent = saved({
    type: 'turn-ended',
    turn: { ...about, status: 'completed', createdAtMs: 0, content: 'b', info },
    asked: { ...said, role: 'user', content: 'a' },
    message: { ...said, role: 'assistant', content: 'b' },
  });
  assert.equal(sent.length, 2);
  for (const each of sent) {
    assert.equal(each.queue, queues.serviceQueue('conversation', 'free'));
    assert.ok(describes(SAVE, each.action));
    saysAll(saveMessageSchema, each.action?.data);
  }
});

test('frames on the wire are what the document says', () => {
  const samples: EventData = {
    'chat.accepted': { status: 'queued', position: 1, deduplicated: true },
    'chat.queued': { position: 1 },
    'execution.started': { agent_id: fixtures.sales, agent_version: 1, model: 'm' },
    'chat.delta': { content: 'a' },
    'tool.started': { call_id: 'c', tool: 't', args: {} },
    'tool.finished': { call_id: 'c', tool: 't', ok: true, result: '', duration_ms: 1 },
    'chat.response': {
      ...{ content: '', role: 'assistant' },
      execution_info: {
        ...{ execution_time_ms: 1, time_to_first_token_ms: null, iterations: 1 },
        ...{ tools_used: [], tokens_used: 1, model: 'm' },
      },
    },
    'chat.cancelled': { content: '', abort_ms: 1 },
    error: refusal('BUSY', { retryAfterMs: 1 }),
  };
  const wire = (type: string, data: unknown): unknown =>
    JSON.parse(encodeFrame({ type, seq: 1, atMs: 0, taskId: 't', data }, 'json'));
  assert.deepEqual(Object.keys(samples).sort(), Object.keys(eventData).sort());
  for (const [type, data] of Object.entries(samples)) {
    assert.ok(describes(`node.${type}`, wire(type, data)), type);
    assert.equal(describes(`node.${type}`, wire(type, {})), false, type);
  }
  const notice = { channel: 'tenant:acme', event: 'agent_updated', data: {} };
  assert.ok(describes('node.notice', wire('agent_updated', notice)));
  assert.ok(describes('client.chat.send', { type: 'chat.send', message: 'hi' }));
  assert.equal(describes('client.chat.send', { type: 'chat.send' }), false);
  const query = {
    agent_id: 'a',
    user_id: 'u',
    tier: 'free',
    last_seq: '3',
    epoch: 'e',
    delta_window_ms: '20',
  };
  assert.deepEqual(Object.keys(query).sort(), Object.keys(socketQuerySchema.shape).sort());
  const read = readSessionPath('acme', 's', new URLSearchParams(query), '');
  assert.ok(read.ok && Object.values(read.value).every((value) => value !== undefined));
});

test('the document is served without a token, and listed', async (t) => {
  const node = await openHttpNode(t, { mode: 'jwt' });
  const get = () => fetch(`${node.url}/asyncapi.json`);
  const [first, second] = [await get(), await get()];
  assert.equal(first.status, 200);
  assert.match(first.headers.get('content-type') ?? '', /^application\/json/);
  assert.equal(await first.text(), text);
  assert.equal(await second.text(), text);
  const openApi = z.object({ paths: z.record(z.string(), z.unknown()) });
  const listed = openApi.parse(await (await fetch(`${node.url}/openapi.json`)).json());
  assert.ok('/asyncapi.json' in listed.paths);
});

test('an address of the node is named where it is known', () => {
  const servers = (url: string): unknown => asyncApi({ version: '1', url }).servers;
  assert.partialDeepStrictEqual(servers('https://node.example:8443/x'), {
    sockets: { host: 'node.example:8443', protocol: 'wss' },
  });
  assert.partialDeepStrictEqual(servers('http://127.0.0.1:8000'), {
    sockets: { host: '127.0.0.1:8000', protocol: 'ws' },
  });
  assert.throws(() => asyncApi({ version: '1', url: 'nowhere' }), TypeError);
});
