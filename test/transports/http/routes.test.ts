/** Every HTTP route over a real server: what it answers when all is well, and how it refuses what is not. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { z } from 'zod';
import { refusal } from '../../../src/domain/errors.ts';
import { sessionIdSchema, taskIdSchema } from '../../../src/domain/ids.ts';
import { refused } from '../../support/http-client.ts';
import { answeredTurn, NOW_MS, openHttpNode } from '../../support/http-node.ts';

const node = await openHttpNode(undefined);
after(() => node.close());

const send = (body: unknown, headers: Record<string, string> = {}) =>
  node.ask('/api/chat/send', { body, headers });

const idsSchema = z.object({ task_id: z.string(), session_id: z.string() });
const idsOf = async (response: Response) => idsSchema.parse(await response.json());

test('a message is accepted with 202 and reaches the directory as it was meant', async () => {
  const response = await send(
    {
      message: 'hi',
      session_id: 's1',
      agent_id: 'a1',
      task_id: 't1',
      context: { a: [1] },
      stream: false,
      on_busy: 'reject',
    },
    { 'x-user-id': 'u1', 'x-tenant-tier': 'free', 'x-request-id': 'req-1' },
  );
  assert.equal(response.status, 202);
  assert.equal(response.headers.get('x-request-id'), 'req-1');
  assert.deepEqual(await response.json(), { task_id: 't1', session_id: 's1', status: 'processing' });
  assert.deepEqual(node.script.said.at(-1), {
    caller: { tenantId: 'acme', tier: 'free', userId: 'u1' },
    sessionId: 's1',
    taskId: 't1',
    taskIdGiven: true,
    agentId: 'a1',
    message: 'hi',
    context: { a: [1] },
    stream: false,
    onBusy: 'reject',
    requestId: 'req-1',
  });
});

test('ids may travel as headers, a missing session is a new one, and a missing task id is made', async () => {
  const named = await send({ message: 'hi' }, { 'x-session-id': 's9', 'x-agent-id': 'a9' });
  const { task_id, session_id } = await idsOf(named);
  assert.equal(session_id, 's9');
  assert.match(task_id, /^task-/);
  assert.equal(node.script.said.at(-1)?.agentId, 'a9');
  assert.equal(node.script.said.at(-1)?.taskIdGiven, false);

  const fresh = await send({ message: 'hi' });
  assert.match((await idsOf(fresh)).session_id, /^session-/);
  const foreign = await send({ message: 'hi', tenant_id: 'globex' });
  assert.match((await refused(foreign, 400, 'INVALID_REQUEST')).message, /^tenant_id: /);
});

test('a resend answers the session that the turn is in', async () => {
  node.script.putTurn(answeredTurn('again'));
  const response = await send({ message: 'hi', task_id: 'again' });
  assert.equal(response.status, 202);
  assert.deepEqual(await response.json(), {
    task_id: 'again',
    session_id: 's1',
    status: 'completed',
    deduplicated: true,
  });
});

test('a refusal has the status of its code and says when to come back, for streams too', async () => {
  node.script.refusal = refusal('RATE_LIMITED', { retryAfterMs: 1_200 });
  for (const accept of ['application/json', 'text/event-stream']) {
    const response = await send({ message: 'hi' }, { accept });
    const error = await refused(response, 429, 'RATE_LIMITED');
    assert.equal(error.retry_after_ms, 1_200);
    assert.equal(response.headers.get('retry-after'), '2');
    assert.equal(response.headers.get('content-type'), 'application/json');
  }
  node.script.refusal = refusal('DRAINING');
  await refused(await send({ message: 'hi' }), 503, 'DRAINING');
  node.script.refusal = undefined;
});

test('a turn is told with its result, its times, and its figures', async () => {
  node.script.putTurn(answeredTurn('t-done'));
  const expected = {
    task_id: 't-done',
    session_id: 's1',
    agent_id: 'default',
    status: 'completed',
    created_at: '2026-01-02T03:04:05.006Z',
    finished_at: '2026-01-02T03:04:05.046Z',
    result: { content: 'hello', role: 'assistant' },
    execution_info: answeredTurn('x').info,
  };
  const posted = await node.ask('/api/chat/status', { body: { task_id: 't-done' } });
  assert.equal(posted.status, 200);
  assert.deepEqual(await posted.json(), expected);
  const got = await node.ask('/api/chat/tasks/t-done');
  assert.deepEqual(await got.json(), expected);

  node.script.putTurn(answeredTurn('t-bad', { status: 'failed', error: refusal('MODEL_ERROR') }));
  const failed = await (await node.ask('/api/chat/tasks/t-bad')).text();
  assert.match(failed, /"error":\{"code":"MODEL_ERROR"/);
});

test('a turn of another tenant, and one that never was, are not found', async () => {
  node.script.putTurn(answeredTurn('theirs', {}, 'globex'));
  for (const id of ['theirs', 'nobodys']) {
    await refused(await node.ask(`/api/chat/tasks/${id}`), 404, 'NOT_FOUND');
    await refused(await node.ask('/api/chat/status', { body: { task_id: id } }), 404, 'NOT_FOUND');
    await refused(await node.ask('/api/chat/cancel', { body: { task_id: id } }), 404, 'NOT_FOUND');
  }
});

test('cancel answers how the turn ended and how long the abort took', async () => {
  node.script.putTurn(answeredTurn('t-run', { status: 'processing' }));
  const running = await node.ask('/api/chat/cancel', { body: { task_id: 't-run' } });
  assert.equal(running.status, 200);
  assert.deepEqual(await running.json(), { task_id: 't-run', status: 'cancelled', abort_ms: 2 });
  node.script.putTurn(answeredTurn('t-over'));
  const over = await node.ask('/api/chat/cancel', { body: { task_id: 't-over' } });
  assert.deepEqual(await over.json(), { task_id: 't-over', status: 'completed', abort_ms: 0 });
});

test('history comes in pages, and is gone after DELETE', async () => {
  const message = { role: 'user', content: 'hi', taskId: taskIdSchema.parse('t1'), atMs: NOW_MS } as const;
  node.script.pages.set('acme/s-h', { messages: [message], hasMore: true });
  const page = await node.ask('/api/sessions/s-h/messages?limit=1&before=t9');
  assert.equal(page.status, 200);
  assert.deepEqual(await page.json(), {
    messages: [{ role: 'user', content: 'hi', task_id: 't1', created_at: '2026-01-02T03:04:05.006Z' }],
    has_more: true,
  });
  assert.deepEqual(node.script.pagesAsked.at(-1), { limit: 1, before: 't9' });
  await node.ask('/api/sessions/s-h/messages');
  assert.deepEqual(node.script.pagesAsked.at(-1), { limit: 50, before: undefined });

  const gone = await node.ask('/api/sessions/s-h', { method: 'DELETE' });
  assert.equal(gone.status, 204);
  assert.equal(await gone.text(), '');
  await refused(await node.ask('/api/sessions/s-h', { method: 'DELETE' }), 404, 'NOT_FOUND');
  await refused(await node.ask('/api/sessions/s-h/messages'), 404, 'NOT_FOUND');
  node.script.pages.set('globex/s-h', { messages: [message], hasMore: false });
  await refused(await node.ask('/api/sessions/s-h/messages'), 404, 'NOT_FOUND');
  assert.equal(sessionIdSchema.safeParse('s h').success, false);
});

test('what does not fit the schema is refused, field by field', async () => {
  const bodies: [unknown, string][] = [
    [{}, 'message'],
    [{ message: '' }, 'message'],
    [{ message: 7 }, 'message'],
    [{ message: 'x'.repeat(32_001) }, 'message'],
    [{ message: 'hi', session_id: 'a b' }, 'session_id'],
    [{ message: 'hi', task_id: '' }, 'task_id'],
    [{ message: 'hi', agent_id: 'x'.repeat(129) }, 'agent_id'],
    [{ message: 'hi', context: [] }, 'context'],
    [{ message: 'hi', stream: 'yes' }, 'stream'],
    [{ message: 'hi', on_busy: 'wait' }, 'on_busy'],
    [[], 'json'],
    [null, 'json'],
    ['text', 'json'],
  ];
  for (const [body, field] of bodies) {
    const error = await refused(await send(body), 400, 'INVALID_REQUEST');
    assert.equal(error.details?.[0]?.field, field, JSON.stringify(body).slice(0, 60));
  }
  const two = await refused(await send({ stream: 1 }), 400, 'INVALID_REQUEST');
  assert.deepEqual(two.details?.map(({ field }) => field).sort(), ['message', 'stream']);
  const header = await refused(
    await send({ message: 'hi' }, { 'x-session-id': 'a b' }),
    400,
    'INVALID_REQUEST',
  );
  assert.equal(header.details?.[0]?.field, 'x-session-id');
  for (const query of ['limit=0', 'limit=101', 'limit=x', 'limit=1.5', 'limit=1&limit=2', 'before=a%20b'])
    await refused(await node.ask(`/api/sessions/s1/messages?${query}`), 400, 'INVALID_REQUEST');
  for (const path of ['/api/sessions/a%20b/messages', '/api/sessions/a%2Fb/messages', '/api/chat/tasks/%00'])
    await refused(await node.ask(path), 400, 'INVALID_REQUEST');
});

test('what is no JSON, not safe JSON, or not said to be JSON is refused', async () => {
  const raw = (body: string | Buffer, type: string | null = 'application/json') =>
    fetch(`${node.url}/api/chat/send`, {
      method: 'POST',
      headers: { 'x-tenant-id': 'acme', ...(type === null ? {} : { 'content-type': type }) },
      body,
    });
  for (const body of ['', '{', '{"message":"hi"', '{"message":"hi"}}', 'undefined', "{'message':'hi'}"])
    await refused(await raw(body), 400, 'INVALID_REQUEST');
  const deep = `{"message":"hi","context":${'{"a":'.repeat(100)}1${'}'.repeat(100)}}`;
  assert.match((await refused(await raw(deep), 400, 'INVALID_REQUEST')).message, /nested deeper/);
  await refused(await raw('['.repeat(200_000)), 400, 'INVALID_REQUEST');
  await refused(await raw(Buffer.from('7b226d657373616765223a22ff227d', 'hex')), 400, 'INVALID_REQUEST');
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'application/jsonp',
    'multipart/form-data',
  ])
    assert.match(
      (await refused(await raw('{"message":"hi"}', type), 400, 'INVALID_REQUEST')).message,
      /application\/json/,
    );
  assert.equal((await raw('{"message":"[[[[{{{"}', 'application/json; charset=utf-8')).status, 202);
  const brackets = JSON.stringify({ message: '['.repeat(100), context: { '{{{{': 1 } });
  assert.equal((await raw(brackets)).status, 202, 'brackets in texts are no nesting');
});

test('an unknown route, a wrong method, and a WebSocket address without an upgrade are answered in JSON', async () => {
  await refused(await node.ask('/api/nothing'), 404, 'NOT_FOUND');
  const wrong = await node.ask('/api/chat/send');
  assert.match((await refused(wrong, 405, 'INVALID_REQUEST')).message, /POST only/);
  assert.equal(wrong.headers.get('allow'), 'POST');
  const posted = await node.ask('/health', { body: {} });
  assert.match((await refused(posted, 405, 'INVALID_REQUEST')).message, /GET/);
  assert.equal(posted.headers.get('allow'), 'GET, HEAD');
  await refused(await node.ask('/ws/acme/s1'), 400, 'INVALID_REQUEST');
});

test('without a tenant, with two, or with a tier that is none, nobody gets in', async () => {
  const body = JSON.stringify({ message: 'hi' });
  const ask = (headers: Record<string, string>) =>
    fetch(`${node.url}/api/chat/send`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body,
    });
  await refused(await ask({}), 400, 'INVALID_REQUEST');
  await refused(await ask({ 'x-tenant-id': 'a b' }), 400, 'INVALID_REQUEST');
  await refused(await ask({ 'x-tenant-id': 'acme', 'x-tenant-tier': 'gold' }), 400, 'INVALID_REQUEST');
  await refused(await node.ask('/api/chat/tasks/t1?token=x'), 401, 'UNAUTHENTICATED');
  await refused(await node.ask('/api/chat/tasks/t1?access_token=x'), 401, 'UNAUTHENTICATED');
});

test('a request id that is none is replaced by one of ours', async () => {
  for (const id of ['a b', '6f1e/1', '..', 'x'.repeat(129), undefined]) {
    const response = await node.ask('/health', { headers: id === undefined ? {} : { 'x-request-id': id } });
    assert.equal(response.status, 200);
    assert.match(response.headers.get('x-request-id') ?? '', /^[0-9a-f-]{36}$/);
  }
});

test('what breaks inside is logged once and shown to nobody', async () => {
  node.script.breaks = true;
  const before = node.lines.length;
  for (const accept of ['application/json', 'text/event-stream']) {
    const response = await send({ message: 'hi' }, { accept });
    assert.ok(!JSON.stringify(await refused(response, 500, 'INTERNAL')).includes('canary'));
  }
  node.script.breaks = false;
  const logged = node.lines.slice(before);
  assert.deepEqual(
    logged.map(({ level }) => level),
    ['error', 'error'],
  );
  assert.equal('request_id' in (logged[0]?.fields ?? {}), true);
});
