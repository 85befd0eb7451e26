/** The execution routes over a real server and a directory that does what the test says. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { CLOSE, refusal } from '../../../src/domain/errors.ts';
import { rawConnection, refused } from '../../support/http-client.ts';
import { answeredTurn } from '../../support/http-node.ts';
import { loopTurns } from '../../support/until.ts';
import { openExecutions, RUN } from './execution-node.ts';

test('an execution is accepted with 202, in a session of its own, and reaches the directory as it was meant', async (t) => {
  const { post, script } = await openExecutions(t);
  const response = await post({
    ...RUN,
    agent_version: 3,
    context: { a: [1] },
    tools_config: { calculator: false, web_search: true },
    execution_params: { max_iterations: 2, max_execution_time: 1.5 },
  });
  assert.equal(response.status, 202);
  const body = JSON.parse(await response.text());
  assert.deepEqual(Object.keys(body), ['execution_id', 'task_id', 'session_id', 'status']);
  assert.deepEqual([body.execution_id, body.status], [body.task_id, 'processing']);
  assert.match(body.session_id, /^execution-[0-9a-f-]{36}$/);
  assert.deepEqual(script.said, [
    {
      caller: { tenantId: 'acme', tier: undefined, userId: undefined },
      sessionId: body.session_id,
      taskId: body.task_id,
      taskIdGiven: false,
      agentId: 'a1',
      agentVersion: 3,
      message: 'hi',
      context: { a: [1] },
      stream: false,
      onBusy: 'enqueue',
      requestId: response.headers.get('x-request-id'),
      overrides: { tools: { calculator: false, web_search: true }, maxIterations: 2, maxTimeMs: 1_500 },
      ephemeral: true,
    },
  ]);
  assert.deepEqual(script.attached('acme', body.session_id), [], 'nobody listens where nobody waits');
});

test('both names of the id are taken, and a repeated request is answered from where the first is', async (t) => {
  const { post, script } = await openExecutions(t);
  assert.equal((await post({ ...RUN, execution_id: 'e1', session_id: 's7' })).status, 202);
  assert.deepEqual([script.said[0]?.taskId, script.said[0]?.sessionId], ['e1', 's7']);
  assert.equal(script.said[0]?.taskIdGiven, true);
  assert.equal(script.said[0]?.overrides, undefined);

  script.putTurn(answeredTurn('e1'));
  const again = JSON.parse(await (await post({ ...RUN, task_id: 'e1', execution_id: 'e1' })).text());
  assert.deepEqual(again, {
    execution_id: 'e1',
    task_id: 'e1',
    session_id: 's1',
    status: 'processing',
    deduplicated: true,
  });
});

test('bodies that do not fit are refused by field, and nothing is said', async (t) => {
  const { post, script, ask } = await openExecutions(t);
  const tools = Object.fromEntries(Array.from({ length: 65 }, (_, n) => [`t${n}`, true]));
  const wrong: readonly (readonly [string, unknown])[] = [
    ['agent_id', { input: 'hi' }],
    ['agent_id', { ...RUN, agent_id: '../x' }],
    ['input', { agent_id: 'a1' }],
    ['input', { ...RUN, input: '' }],
    ['input', { ...RUN, input: 'x'.repeat(32_001) }],
    ['input', { ...RUN, input: { text: 'hi' } }],
    ['session_id', { ...RUN, session_id: '' }],
    ['task_id', { ...RUN, task_id: 'a b' }],
    ['execution_id', { ...RUN, task_id: 'a', execution_id: 'b' }],
    ['tools_config.x', { ...RUN, tools_config: { x: 'no' } }],
    ['tools_config', { ...RUN, tools_config: [] }],
    ['tools_config', { ...RUN, tools_config: tools }],
    ['execution_params', { ...RUN, execution_params: 3 }],
    ['execution_params.max_iterations', { ...RUN, execution_params: { max_iterations: 0 } }],
    ['execution_params.max_iterations', { ...RUN, execution_params: { max_iterations: 1.5 } }],
    ['execution_params.max_execution_time', { ...RUN, execution_params: { max_execution_time: -1 } }],
    ['wait', { ...RUN, wait: 'yes' }],
    ['callback_url', { ...RUN, callback_url: 'not a url' }],
    ['callback_url', { ...RUN, callback_url: 'ftp://example.com/' }],
    ['callback_url', { ...RUN, callback_url: 'https://me:secret@example.com/' }],
    ['callback_url', { ...RUN, callback_url: `https://example.com/${'x'.repeat(2_048)}` }],
  ];
  for (const [field, body] of wrong) {
    const error = await refused(await post(body), 400, 'INVALID_REQUEST');
    assert.equal(error.details?.[0]?.field, field, JSON.stringify(body).slice(0, 100));
  }
  const batches: readonly (readonly [string, unknown])[] = [
    ['items', {}],
    ['items', { items: [] }],
    ['items', { items: Array.from({ length: 101 }, () => RUN) }],
    ['items', { items: [{ ...RUN, task_id: 'x' }, RUN, { ...RUN, execution_id: 'x' }] }],
    ['items.1.input', { items: [RUN, { agent_id: 'a1' }] }],
    ['items.1.callback_url', { items: [RUN, { ...RUN, callback_url: 'file:///etc/passwd' }] }],
    ['concurrency', { items: [RUN], concurrency: 0 }],
    ['concurrency', { items: [RUN], concurrency: 21 }],
  ];
  for (const [field, body] of batches) {
    const error = await refused(await post(body, '/api/executions/batch'), 400, 'INVALID_REQUEST');
    assert.equal(error.details?.[0]?.field, field, JSON.stringify(body).slice(0, 100));
  }
  const text = await ask('/api/executions', { method: 'POST', headers: { 'content-type': 'text/plain' } });
  await refused(text, 400, 'INVALID_REQUEST');
  await refused(await ask('/api/executions/a%20b'), 400, 'INVALID_REQUEST');
  assert.deepEqual(script.said, []);
});

test('private addresses and plain http are no callbacks where webhooks may not have them either', async (t) => {
  const { post, script } = await openExecutions(t, {
    callbacks: { allowInsecure: false, blockPrivate: true },
  });
  for (const url of [
    'http://example.com/',
    'https://127.0.0.1/',
    'https://[::1]/',
    'https://2130706433/',
    'https://localhost/',
    'https://db.internal/',
  ]) {
    const error = await refused(await post({ ...RUN, callback_url: url }), 400, 'INVALID_REQUEST');
    assert.equal(error.details?.[0]?.field, 'callback_url', url);
  }
  assert.deepEqual(script.said, []);
});

test('who waits hears the end of its own execution, and of no other', async (t) => {
  const { post, script, said, answer, detached } = await openExecutions(t);
  const waiting = post({ ...RUN, session_id: 's1', wait: true });
  const request = await said(1);
  script.emit('acme', 's1', 'somebody-elses', 'chat.response', {});
  assert.equal(script.attached('acme', 's1')[0]?.deltaWindowMs, Number.POSITIVE_INFINITY);
  const gone = detached();
  answer(request);
  const response = await waiting;
  assert.equal(response.status, 200);
  const body = JSON.parse(await response.text());
  assert.deepEqual(
    [body.execution_id, body.task_id, body.session_id, body.status, body.result],
    [request.taskId, request.taskId, 's1', 'completed', { content: 'hello', role: 'assistant' }],
  );
  await gone;
  assert.deepEqual(script.attached('acme', 's1'), []);
});

test('a record that is behind is made up from what was told', async (t) => {
  const { post, script, said } = await openExecutions(t);
  const ends = [
    ['error', refusal('EXECUTION_TIMEOUT'), 'timeout'],
    ['error', refusal('MODEL_ERROR'), 'failed'],
    ['chat.cancelled', { content: 'half', abort_ms: 1 }, 'cancelled'],
    [
      'chat.response',
      { content: 'whole', role: 'assistant', execution_info: answeredTurn('x').info },
      'completed',
    ],
  ] as const;
  for (const [index, [type, data, status]] of ends.entries()) {
    const waiting = post({ ...RUN, wait: true });
    const { taskId, sessionId } = await said(index + 1);
    if (index % 2 === 0)
      script.putTurn({ ...answeredTurn(taskId, { sessionId }), status: 'processing', content: '' });
    script.emit('acme', sessionId, taskId, type, data);
    const response = await waiting;
    assert.equal(response.status, 200);
    const body = JSON.parse(await response.text());
    assert.deepEqual([body.status, body.session_id], [status, sessionId]);
    assert.equal(body.finished_at, '2026-01-02T03:04:05.006Z');
    if (status === 'failed') assert.equal(body.error.code, 'MODEL_ERROR');
    if (status === 'cancelled') assert.equal(body.result.content, 'half');
    if (status === 'completed') assert.equal(body.result.content, 'whole');
  }
});

test('what is refused before it began has the status of its code, and nobody is left listening', async (t) => {
  const { post, script, detached } = await openExecutions(t);
  script.refusal = refusal('RATE_LIMITED', { retryAfterMs: 1_200 });
  const gone = detached();
  const response = await post({ ...RUN, session_id: 's1', wait: true });
  await refused(response, 429, 'RATE_LIMITED');
  assert.equal(response.headers.get('retry-after'), '2');
  await gone;
  assert.deepEqual(script.attached('acme', 's1'), []);
  script.refusal = refusal('AGENT_NOT_FOUND');
  await refused(await post({ ...RUN, wait: true }), 404, 'AGENT_NOT_FOUND');
});

test('who repeats a request and waits hears the end, whether it was or is to come', async (t) => {
  const { post, script, answer } = await openExecutions(t);
  script.putTurn(answeredTurn('done'));
  const done = JSON.parse(await (await post({ ...RUN, task_id: 'done', wait: true })).text());
  assert.deepEqual([done.execution_id, done.session_id, done.status], ['done', 's1', 'completed']);

  const running = answeredTurn('running');
  script.putTurn({ ...running, status: 'processing' });
  const waiting = post({ ...RUN, task_id: 'running', wait: true });
  // First as the observer of `say`, then as a client of the session.
  await once(script.events, 'attached');
  await once(script.events, 'attached');
  const [request] = script.said.slice(-1);
  assert.ok(request);
  answer(request, 'late');
  assert.equal(JSON.parse(await (await waiting).text()).result.content, 'late');
});

test('an execution goes on when the client that waits for it leaves', async (t) => {
  const { port, script, said, answer, detached, mount } = await openExecutions(t);
  const body = JSON.stringify({ ...RUN, session_id: 's1', wait: true });
  const raw = rawConnection(port);
  raw.write(
    `POST /api/executions HTTP/1.1\r\nHost: x\r\nX-Tenant-ID: acme\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  );
  const request = await said(1);
  raw.destroy();
  await raw.closed;
  while (mount.pending() > 0) await loopTurns();
  assert.equal(script.attached('acme', 's1').length, 1, 'nobody cancelled it');
  const gone = detached();
  answer(request);
  await gone;
});

test('a session that closes under a waiting client, or a node, answers INTERRUPTED', async (t) => {
  const { post, script, said, executions } = await openExecutions(t);
  const first = post({ ...RUN, session_id: 's1', wait: true });
  const { taskId } = await said(1);
  script.putTurn({ ...answeredTurn(taskId), status: 'processing' });
  script.attached('acme', 's1')[0]?.close(CLOSE.restart);
  await refused(await first, 503, 'INTERRUPTED');

  const second = post({ ...RUN, wait: true });
  await said(2);
  await executions.close();
  await refused(await second, 503, 'INTERRUPTED');
});

test('executions and batches of another tenant are not found', async (t) => {
  const { post, script, ask } = await openExecutions(t);
  script.putTurn(answeredTurn('theirs', {}, 'globex'));
  await refused(await ask('/api/executions/theirs'), 404, 'NOT_FOUND');
  await refused(await ask('/api/executions/theirs/cancel', { method: 'POST' }), 404, 'NOT_FOUND');
  const { batch_id } = JSON.parse(await (await post({ items: [RUN] }, '/api/executions/batch')).text());
  assert.equal((await ask(`/api/executions/batch/${batch_id}`)).status, 200);
  const other = await ask(`/api/executions/batch/${batch_id}`, { headers: { 'x-tenant-id': 'globex' } });
  await refused(other, 404, 'NOT_FOUND');
});

test('an execution is shown and cancelled under its id', async (t) => {
  const { script, ask } = await openExecutions(t);
  script.putTurn(answeredTurn('e1'));
  const shown = JSON.parse(await (await ask('/api/executions/e1')).text());
  assert.deepEqual([shown.execution_id, shown.task_id, shown.status], ['e1', 'e1', 'completed']);
  script.putTurn({ ...answeredTurn('e2'), status: 'processing' });
  const cancelled = await ask('/api/executions/e2/cancel', { method: 'POST' });
  assert.deepEqual(JSON.parse(await cancelled.text()), {
    execution_id: 'e2',
    task_id: 'e2',
    status: 'cancelled',
    abort_ms: 2,
  });
});

test('the routes are in the OpenAPI document, and wrong methods are told the right one', async (t) => {
  const { ask } = await openExecutions(t);
  const { paths } = JSON.parse(await (await ask('/openapi.json')).text());
  for (const path of ['', '/{execution_id}', '/{execution_id}/cancel', '/batch', '/batch/{batch_id}'])
    assert.ok(paths[`/api/executions${path}`], path);
  const wrong = await ask('/api/executions', { method: 'DELETE' });
  assert.equal(wrong.headers.get('allow'), 'POST');
});
