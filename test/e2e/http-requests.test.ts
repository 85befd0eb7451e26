/** Requests as clients and proxies of every kind write them: what is meant is taken, what is not meant is told by name. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rawConnection, readEvents, requestText } from '../support/http-client.ts';
import { startTestNode, type TestNode } from '../support/node.ts';

const MESSAGE = { message: 'hi', session_id: 's1' };

async function named(node: TestNode, path: string, body: unknown, field: string, near?: string) {
  const answer = await node.ask(path, { body });
  assert.equal(answer.status, 400, `${path} ${JSON.stringify(body)}: ${answer.text}`);
  const { code, message } = answer.body.error;
  assert.equal(code, 'INVALID_REQUEST');
  assert.ok(message.includes(`${field}: `), message);
  if (near !== undefined) assert.ok(message.includes(`did you mean \`${near}\``), message);
}

test('unknown fields are refused by name, over HTTP', async (t) => {
  const node = await startTestNode(t);
  await named(node, '/api/chat/send', { message: 'hi', sesion_id: 'x' }, 'sesion_id', 'session_id');
  await named(node, '/api/chat/send', { message: 'hi', sessionId: 'x' }, 'sessionId', 'session_id');
  await named(node, '/api/chat/send', { mesage: 'hi' }, 'mesage', 'message');
  await named(node, '/api/chat/send', { ...MESSAGE, wholly: 1 }, 'wholly');
  await named(node, '/api/chat/send', '{"message":"hi","__proto__":{"a":1}}', '__proto__');
  const format = { type: 'json_schema', json_schema: { name: 'a', schema: {}, stric: true } };
  await named(
    node,
    '/api/chat/send',
    { ...MESSAGE, response_format: format },
    'response_format.json_schema.stric',
    'strict',
  );
  await named(node, '/api/chat/status', { task_id: 't', taskid: 't' }, 'taskid', 'task_id');
  await named(node, '/api/executions', { input: 'hi', agent_id: 'default', wiat: true }, 'wiat', 'wait');
  const params = { max_iteration: 1 };
  const run = { input: 'hi', agent_id: 'default' };
  await named(
    node,
    '/api/executions',
    { ...run, execution_params: params },
    'execution_params.max_iteration',
    'max_iterations',
  );
  await named(node, '/api/executions/batch', { items: [run, { ...run, n: 1 }] }, 'items.1.n');
  await named(node, '/api/agents', { name: 'A', temprature: 1 }, 'temprature', 'temperature');
  await named(node, '/api/chat/send?resoning=1', MESSAGE, 'resoning', 'reasoning');
  await named(node, '/api/executions?wait=true', run, 'wait');
  await named(node, '/api/agents?pagesize=5', undefined, 'pagesize', 'page_size');
  await named(node, '/api/sessions/s1/messages?Limit=5', undefined, 'Limit', 'limit');
  assert.equal((await node.ask('/health?_=1')).status, 200, 'monitors write what they like');
});

test('unknown fields are refused by name, over WebSocket', async (t) => {
  const node = await startTestNode(t);
  const chat = await node.chat('acme', 's1');
  for (const [frame, expected] of [
    [
      { type: 'chat.send', message: 'hi', agentid: 'a' },
      'agentid: is not a field here; did you mean `agent_id`?',
    ],
    [{ type: 'chat.cancel', task_id: 't', reason: 'x' }, 'reason: is not a field here'],
    [{ type: 'ping', x: 1 }, 'x: is not a field here'],
  ] as const) {
    chat.send(frame);
    const { data } = await chat.see(({ type, data }) => type === 'error' && data.message.includes(expected));
    assert.equal(data.code, 'INVALID_REQUEST');
  }
});

test('null is absence, on every field that may be absent', async (t) => {
  const node = await startTestNode(t);
  const nulls = { agent_id: null, context: null, stream: null, on_busy: null, images: null, reasoning: null };
  const said = await node.ask('/api/chat/send', { body: { message: 'hi', session_id: null, ...nulls } });
  assert.equal(said.status, 202, said.text);
  const run = { input: 'hi', agent_id: 'default', session_id: null, wait: true, callback_url: null };
  const params = { execution_params: { max_iterations: null, max_execution_time: 5 }, tools_config: null };
  assert.equal((await node.ask('/api/executions', { body: { ...run, ...params } })).status, 200);
  const agent = await node.ask('/api/agents', { body: { name: 'A', description: null, max_tokens: null } });
  assert.deepEqual([agent.status, agent.body.description], [201, '']);
  const unnamed = await node.ask('/api/agents', { body: { name: null } });
  assert.match(unnamed.body.error.message, /an agent needs a name/);

  const chat = await node.chat('acme', 's1');
  chat.send({ type: 'chat.send', message: 'hi', task_id: null, agent_version: null });
  await chat.see('chat.response');
  await node
    .ask('/api/chat/send', { body: { message: null } })
    .then(({ status }) => assert.equal(status, 400));
});

test('problems stop at the first hundred, and a list that is too long is not looked into', async (t) => {
  const node = await startTestNode(t);
  const many = Object.fromEntries(Array.from({ length: 2_000 }, (_, index) => [`f${index}`, 1]));
  const refusedFields = await node.ask('/api/agents', { body: { name: 'A', ...many } });
  assert.equal(refusedFields.status, 400);
  assert.ok(refusedFields.body.error.details.issues.length <= 100);
  const unknown = await node.ask('/api/chat/send', { body: { message: 'hi', ...many } });
  assert.ok(unknown.body.error.details.length <= 100);
  const tools = await node.ask('/api/agents', { body: { name: 'A', tools: Array(40_000).fill(1) } });
  assert.deepEqual(
    tools.body.error.details.issues.map(({ field }: { field: string }) => field),
    ['tools'],
  );
  const items = await node.ask('/api/executions/batch', { body: { items: Array(40_000).fill(1) } });
  assert.match(items.body.error.message, /^items: must have at most 100/);
});

test('a whole object comes back: what only the node sets may stay, and its version counts', async (t) => {
  const node = await startTestNode(t);
  const { body: agent } = await node.ask('/api/agents', { body: { name: 'Whole', description: 'one' } });
  const path = `/api/agents/${agent.id}`;
  const put = (body: unknown, headers = {}) => node.ask(path, { method: 'PUT', body, headers });
  assert.equal((await put(agent)).body.version, 1, 'nothing changed');
  const two = await put({ ...agent, description: 'two' });
  assert.deepEqual([two.status, two.body.version, two.body.description], [200, 2, 'two']);
  assert.equal((await put({ ...agent, description: 'late' })).status, 409);
  assert.equal((await put({ ...agent, description: 'late' }, { 'if-match': 'W/"2"' })).status, 409);
  const foreign = await put({ ...two.body, tenant_id: 'globex' });
  assert.match(foreign.body.error.message, /^tenant_id: /);
  assert.equal((await put(two.body, { 'if-match': 'W/"2"' })).status, 200);

  const made = { name: 'T', slug: 'whole', agent: { description: 'x' } };
  const tier = 'enterprise';
  const { body: template } = await node.ask('/api/templates', { body: made, tier });
  const change = (body: object) => node.ask(`/api/templates/${template.id}`, { method: 'PUT', body, tier });
  const changed = await change({ ...template, name: 'U' });
  assert.deepEqual([changed.status, changed.body.version], [200, 2], changed.text);
  assert.equal((await change({ ...template, name: 'V' })).status, 409);
});

test('a slug names an agent wherever its id does', async (t) => {
  const node = await startTestNode(t);
  const fields = { name: 'Front Desk', provider: 'offline', model: 'offline-2x0' };
  const { body: agent } = await node.ask('/api/agents', { body: fields });
  const wait = { input: 'hi', agent_id: 'front-desk', wait: true };
  const run = await node.ask('/api/executions', { body: wait });
  assert.deepEqual([run.status, run.body.agent_id, run.body.agent_version], [200, agent.id, 1], run.text);
  const changed = await node.ask('/api/agents/front-desk', { method: 'PATCH', body: { description: 'x' } });
  assert.equal(changed.body.version, 2);
  const again = await node.ask('/api/executions', { body: wait });
  assert.equal(again.body.agent_version, 2, 'who asks by the slug hears of the change');
  for (const path of ['', '/versions', '/versions/1', '/history', '/diff?from=1&to=2'])
    assert.equal((await node.ask(`/api/agents/front-desk${path}`)).status, 200, path);
  const dry = await node.ask('/api/agents/validate', { body: { agent_id: 'front-desk', temperature: 0 } });
  assert.equal(dry.body.valid, true, dry.text);

  const chat = await node.chat('acme', 's1', { query: { agent_id: 'front-desk' } });
  chat.send({ type: 'chat.send', message: 'hi' });
  assert.equal((await chat.see('execution.started')).data.agent_id, agent.id);
  await chat.see('chat.response');

  const rename = { slug: 'reception' };
  await node.ask(`/api/agents/${agent.id}`, { method: 'PATCH', body: rename });
  assert.equal((await node.ask('/api/executions', { body: wait })).body.error.code, 'AGENT_NOT_FOUND');
  const renamed = { ...wait, agent_id: 'reception' };
  assert.equal((await node.ask('/api/executions', { body: renamed })).body.agent_version, 3);
  await node.ask('/api/agents/reception', { method: 'DELETE' });
  assert.equal((await node.ask('/api/executions', { body: renamed })).body.error.code, 'AGENT_NOT_FOUND');
});

test('a stream goes on where its reader was cut off', async (t) => {
  const node = await startTestNode(t, { env: { DEFAULT_MODEL: 'offline-8x30', DELTA_WINDOW_MS: '0' } });
  const body = { ...MESSAGE, task_id: 'cut-off' };
  const events = async (headers: Record<string, string> = {}) => {
    const accept = { accept: 'text/event-stream', ...headers };
    return readEvents(await node.fetch('/api/chat/send', { body, headers: accept })).rest();
  };
  const all = await events();
  assert.ok(all.length > 6);
  const after = all.slice(0, 4).at(-1)?.id ?? '';
  const rest = await events({ 'last-event-id': after });
  assert.deepEqual(rest, all.slice(4), 'the frames after that one, and no acceptance');
  const gone = await events({ 'last-event-id': '999999' });
  assert.deepEqual(
    gone.map(({ event }) => event),
    ['chat.accepted', 'chat.response'],
    'where they are not there any more, the end is told',
  );
  const which = await node.ask('/api/chat/send', {
    body: MESSAGE,
    headers: { accept: 'text/event-stream', 'last-event-id': '3' },
  });
  assert.equal(which.status, 400, 'without the task id it would run a second time');
});

test('media types are read by their grammar', async (t) => {
  const node = await startTestNode(t);
  const send = (headers: Record<string, string>) => node.ask('/api/chat/send', { body: MESSAGE, headers });
  for (const type of [
    'application/json ; charset=utf-8',
    'APPLICATION/JSON;charset="UTF-8"',
    'application/json;',
  ])
    assert.equal((await send({ 'content-type': type })).status, 202, type);
  for (const type of [
    'application/json; charset=utf-16',
    'application/jsonp',
    'text/plain',
    'application/json; =',
  ])
    assert.equal((await send({ 'content-type': type })).status, 400, type);
  for (const accept of ['text/event-stream;q=0', 'text/event-stream;q=0.1, application/json', '*/*'])
    assert.equal((await send({ accept })).status, 202, accept);
  for (const accept of [
    'text/event-stream;q=0.5',
    'Text/Event-Stream',
    'application/json, text/event-stream',
  ])
    assert.match((await send({ accept })).headers.get('content-type') ?? '', /^text\/event-stream/, accept);
});

test('a page of one holds a whole turn, and every message can be reached', async (t) => {
  const node = await startTestNode(t);
  const chat = await node.chat('acme', 's1');
  for (const message of ['one', 'two']) await chat.turn(message);
  const found: string[] = [];
  for (let before = '', more = true; more; ) {
    const { body } = await node.ask(`/api/sessions/s1/messages?limit=1${before && `&before=${before}`}`);
    assert.ok(body.messages.length >= 1);
    found.unshift(...body.messages.map(({ role }: { role: string }) => role));
    before = body.messages[0].task_id;
    more = body.has_more;
  }
  assert.deepEqual(found, ['user', 'assistant', 'user', 'assistant']);
});

test('agents are paged while others are made and changed: none twice, none left out', async (t) => {
  const node = await startTestNode(t);
  const tier = 'enterprise';
  const made: string[] = [];
  const make = async (name: string) => {
    made.push((await node.ask('/api/agents', { body: { name }, tier })).body.id);
  };
  for (const name of ['a1', 'a2', 'a3', 'a4']) await make(name);
  const page = async (number: number): Promise<string[]> => {
    const { body } = await node.ask(`/api/agents?page=${number}&page_size=2`, { tier });
    return body.items.map(({ id }: { id: string }) => id);
  };
  const first = await page(1);
  await make('a5');
  await node.ask(`/api/agents/${made[3]}`, { method: 'PATCH', body: { description: 'x' }, tier });
  assert.deepEqual([...first, ...(await page(2)), ...(await page(3))], made);
});

test('a path means what is written, and nothing is named like a way up', async (t) => {
  const node = await startTestNode(t, { env: { SERVICE_TOKEN: 'a-token-of-services' } });
  const raw = async (method: string, path: string, extra: readonly string[] = []): Promise<string> => {
    const connection = rawConnection(node.port);
    connection.write(requestText(method, path, [...extra, 'X-Tenant-ID: acme', 'Connection: close']));
    await connection.until('}');
    connection.destroy();
    return (await connection.closed).toString();
  };
  const token = ['Authorization: Bearer a-token-of-services'];
  for (const path of [
    '/api/%2e%2e/internal/agents/x/config',
    '/api/../internal/agents/x/config',
    '/api/.%2E/internal/agents/x/config',
    '/api/%2E/agents',
    '/api\\..\\internal/agents/x/config',
    '/api/agents#x',
    '/api/sessions/../messages',
    '/api/sessions/%2e/messages',
  ])
    assert.match(await raw('GET', path, token), /^HTTP\/1\.1 400 [\s\S]*INVALID_REQUEST/, path);
  for (const session_id of ['.', '..'])
    assert.equal((await node.ask('/api/chat/send', { body: { message: 'hi', session_id } })).status, 400);
  assert.equal(
    (await node.ask('/api/chat/send', { body: { message: 'hi', session_id: '...' } })).status,
    202,
  );
});

test('headers of up to 16 KiB are taken', async (t) => {
  const node = await startTestNode(t);
  for (const units of [4_200, 8_000, 15_000])
    assert.equal((await node.ask('/health', { headers: { cookie: 'x'.repeat(units) } })).status, 200);
  const connection = rawConnection(node.port);
  connection.write(requestText('GET', '/health', [`Cookie: ${'x'.repeat(20_000)}`]));
  assert.match((await connection.closed).toString(), /^HTTP\/1\.1 431 /);
});

test('a wrong method is told the right ones', async (t) => {
  const node = await startTestNode(t);
  for (const [method, path, allow] of [
    ['PUT', '/api/chat/send', 'POST'],
    ['DELETE', '/api/agents', 'GET, HEAD, POST'],
    ['POST', '/api/agents/x', 'GET, HEAD, PUT, PATCH, DELETE'],
    ['PATCH', '/openapi.json', 'GET, HEAD'],
  ] as const) {
    const answer = await node.ask(path, { method });
    assert.deepEqual([answer.status, answer.headers.get('allow')], [405, allow]);
    assert.equal(answer.body.error.code, 'INVALID_REQUEST');
  }
  assert.equal((await node.ask('/api/nothing', { method: 'PUT' })).status, 404);
});
