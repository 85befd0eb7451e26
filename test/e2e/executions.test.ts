/** Runs outside a chat, on a whole node: waited for, followed, cancelled, lowered, in batches, and called back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startScene, startTestNode, type TestNode } from '../support/node.ts';
import { callTools, refuse, say, silence, stallAfter } from '../support/stub-model.ts';
import { temporary } from '../support/temporary.ts';
import { bearer, JWT } from '../support/tokens.ts';
import { gate } from '../support/transport.ts';
import { until } from '../support/until.ts';
import { openReceiver } from '../transports/webhooks/webhook-receiver.ts';

const RUN = { agent_id: 'default', input: 'Go.' };
const execute = (node: TestNode, more: object = {}, tier?: string) =>
  node.ask('/api/executions', { body: { ...RUN, ...more }, ...(tier ? { tier } : {}) });

async function ended(node: TestNode, path: string) {
  for (;;) {
    const { body } = await node.ask(path);
    if (body.finished_at !== undefined || body.status === 'completed') return body;
  }
}

test('an execution is waited for, and then shown the same under every route', async (t) => {
  const node = await startScene(t);
  node.stub.next(say('Done.', { usage: 7 }));
  const { status, body } = await execute(node, { wait: true });
  assert.equal(status, 200);
  assert.deepEqual([body.status, body.result.content, body.agent_version], ['completed', 'Done.', 1]);
  assert.equal(body.execution_info.tokens_used, 7);
  assert.match(body.session_id, /^execution-/);
  assert.deepEqual((await node.ask(`/api/executions/${body.execution_id}`)).body, body);
  const { execution_id: _, ...turn } = body;
  assert.deepEqual((await node.ask(`/api/chat/tasks/${body.task_id}`)).body, turn);
});

test('executions of one session are one conversation, and its sockets see them', async (t) => {
  const node = await startScene(t);
  node.stub.next(say('One.'), say('Two.'));
  const watcher = await node.chat('acme', 's1');
  await execute(node, { input: 'First?', session_id: 's1', wait: true });
  const { body } = await execute(node, { input: 'Second?', session_id: 's1', wait: true });
  const asked = (await node.stub.request(1)).body.messages.map(({ content }) => content);
  assert.deepEqual(asked.slice(-3), ['First?', 'One.', 'Second?']);
  assert.equal((await watcher.ended(body.task_id)).data.content, 'Two.');
  const { messages } = (await node.ask('/api/sessions/s1/messages')).body;
  assert.equal(messages.length, 4);
});

test('an execution that fails after it began is told with 200, one that never began with its status', async (t) => {
  const node = await startScene(t);
  node.stub.next(refuse(400));
  const failed = await execute(node, { wait: true });
  assert.deepEqual(
    [failed.status, failed.body.status, failed.body.error.code],
    [200, 'failed', 'MODEL_ERROR'],
  );
  const unknown = await execute(node, { agent_id: 'nobody', wait: true });
  assert.deepEqual([unknown.status, unknown.body.error.code], [404, 'AGENT_NOT_FOUND']);
});

test('execution_params lower the limits of time and iterations, and never raise them', async (t) => {
  const node = await startScene(t);
  node.stub.next(silence());
  const late = await execute(node, { execution_params: { max_execution_time: 0.1 }, wait: true });
  assert.deepEqual(
    [late.status, late.body.status, late.body.error.code],
    [200, 'timeout', 'EXECUTION_TIMEOUT'],
  );

  node.stub.byDefault(({ index }) =>
    callTools([{ name: 'current_time', args: `{"timezone":"Etc/GMT-${index}"}` }]),
  );
  const once = await execute(node, { execution_params: { max_iterations: 1 }, wait: true });
  assert.deepEqual(once.body.error.details, { max_iterations: 1 });
  const many = { max_iterations: 1_000, max_execution_time: 1e300 };
  const capped = await execute(node, { execution_params: many, wait: true }, 'free');
  assert.deepEqual(capped.body.error.details, { max_iterations: 3 });
});

test('tools_config takes tools away and adds none', async (t) => {
  const node = await startScene(t);
  const offered = async (tools_config: object | undefined, tier?: string) => {
    const at = node.stub.requests.length;
    await execute(node, { ...(tools_config ? { tools_config } : {}), wait: true }, tier);
    return (await node.stub.request(at)).body.tools?.map((tool) => tool.function.name);
  };
  const all = await offered(undefined);
  assert.ok(all?.includes('calculator'));
  assert.deepEqual(await offered({ calculator: true, web_search: true }), all);
  assert.deepEqual(
    await offered({ calculator: false }),
    all?.filter((name) => name !== 'calculator'),
  );
  assert.deepEqual(await offered(JSON.parse('{"__proto__":false,"constructor":false}')), all);

  node.stub.next(callTools([{ name: 'calculator', args: '{"expression":"1 + 1"}' }]));
  const denied = await execute(node, { tools_config: { calculator: false }, wait: true });
  assert.equal(denied.body.error.code, 'TOOL_DENIED');
  assert.deepEqual(
    await offered({ calculator: true }, 'free'),
    ['current_time'],
    'the tier has the last word',
  );
});

test('an execution is cancelled: its waiting client hears what there was', async (t) => {
  const node = await startScene(t);
  node.stub.next(stallAfter('Half'));
  const waiting = execute(node, { task_id: 'e1', wait: true });
  await node.stub.request(0);
  await until('the execution runs', async () => (await node.ask('/api/executions/e1')).status === 200);
  const cancelled = await node.ask('/api/executions/e1/cancel', { method: 'POST' });
  assert.deepEqual(
    [cancelled.status, cancelled.body.status, cancelled.body.execution_id],
    [200, 'cancelled', 'e1'],
  );
  await node.stub.closedByClient(0);
  assert.equal((await waiting).body.status, 'cancelled');
  const again = await node.ask('/api/executions/e1/cancel', { method: 'POST' });
  assert.deepEqual([again.body.status, again.body.abort_ms], ['cancelled', 0]);
});

test('a repeated request runs nothing twice, and waits for the same end', async (t) => {
  const node = await startScene(t);
  node.stub.next(say('Once.', { chunks: 5, everyMs: 20 }));
  const first = await execute(node, { task_id: 'e1' });
  const [second, third] = await Promise.all([
    execute(node, { execution_id: 'e1', wait: true }),
    execute(node, { task_id: 'e1', wait: true }),
  ]);
  const fourth = await execute(node, { task_id: 'e1', wait: true });
  for (const { body } of [second, third, fourth])
    assert.deepEqual([body.result.content, body.session_id], ['Once.', first.body.session_id]);
  assert.equal(node.stub.requests.length, 1);
});

test('an execution goes on when who waits for it has left', async (t) => {
  const node = await startScene(t);
  node.stub.next(say('Done.', { chunks: 5, everyMs: 20 }));
  const leaving = new AbortController();
  const left = fetch(`${node.url}/api/executions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-tenant-id': 'acme' },
    body: JSON.stringify({ ...RUN, task_id: 'e1', wait: true }),
    signal: leaving.signal,
  });
  await node.stub.request(0);
  leaving.abort();
  await assert.rejects(left);
  await until('the execution is known', async () => (await node.ask('/api/executions/e1')).status === 200);
  assert.equal((await ended(node, '/api/executions/e1')).status, 'completed');
});

test('executions and batches of another tenant do not exist; the routes need the scope chat', async (t) => {
  const node = await startTestNode(t, { env: JWT });
  const acme = { tenant: null, headers: await bearer('acme') };
  const globex = { tenant: null, headers: await bearer('globex') };
  const one = await node.ask('/api/executions', { ...acme, body: { ...RUN, wait: true } });
  const batch = await node.ask('/api/executions/batch', { ...acme, body: { items: [RUN] } });
  const paths = [`/api/executions/${one.body.execution_id}`, `/api/executions/batch/${batch.body.batch_id}`];
  for (const path of paths) {
    assert.equal((await node.ask(path, acme)).status, 200);
    assert.equal((await node.ask(path, globex)).status, 404);
    assert.equal((await node.ask(path, { tenant: null })).status, 401);
    const scope = { tenant: null, headers: await bearer('acme', { scope: 'agents:read' }) };
    assert.equal((await node.ask(path, scope)).status, 403);
  }
  const cancel = { ...globex, method: 'POST' };
  assert.equal((await node.ask(`${paths[0]}/cancel`, cancel)).status, 404);
  await until(
    'the batch is over',
    async () => (await node.ask(paths[1] ?? '', acme)).body.status === 'completed',
  );
});

test('a batch runs its items, each in a session of its own or in the one it names, and tells what failed', async (t) => {
  const node = await startScene(t, { env: { ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: '0' } });
  node.stub.byDefault(({ body }) =>
    body.messages.at(-1)?.content === 'Fail.' ? refuse(400) : say('Fine.', { chunks: 3, everyMs: 5 }),
  );
  const items = [
    ...Array.from({ length: 30 }, (_, n) => ({ ...RUN, input: n % 10 === 3 ? 'Fail.' : `Go ${n}.` })),
    { ...RUN, agent_id: 'nobody' },
    { ...RUN, task_id: 'mine', session_id: 's1' },
  ];
  const body = { items, concurrency: 20 };
  const { status, body: accepted } = await node.ask('/api/executions/batch', { body, tier: 'advance' });
  assert.deepEqual([status, accepted.items], [202, 32]);
  const done = await ended(node, `/api/executions/batch/${accepted.batch_id}`);
  assert.deepEqual([done.total, done.completed, done.failed], [32, 28, 4]);
  assert.deepEqual([done.items[3].error.code, done.items[30].error.code], ['MODEL_ERROR', 'AGENT_NOT_FOUND']);
  assert.deepEqual([done.items[31].execution_id, done.items[31].session_id], ['mine', 's1']);
  assert.equal(done.items[0].result.content, 'Fine.');
  const { body: item } = await node.ask(`/api/executions/${done.items[0].execution_id}`);
  assert.equal(item.session_id, done.items[0].session_id);
});

test('a batch never has more running than its tier runs at once, and waits out the limit of a minute', async (t) => {
  const free = { executions: 2, waiting: 0, requests_per_minute: 30, requests_per_day: 33 };
  const TIERS_FILE = temporary(t).write('tiers.json', JSON.stringify({ free }));
  const node = await startScene(t, { env: { TIERS_FILE } });
  let running = 0;
  let most = 0;
  node.stub.byDefault(() => async (reply) => {
    running += 1;
    most = Math.max(most, running);
    await say('Fine.', { chunks: 2, everyMs: 5 })(reply);
    running -= 1;
  });
  const body = { items: Array.from({ length: 35 }, () => RUN), concurrency: 20 };
  const { body: accepted } = await node.ask('/api/executions/batch', { body, tier: 'free' });
  const done = await ended(node, `/api/executions/batch/${accepted.batch_id}`);
  assert.deepEqual([done.completed, done.failed], [33, 2]);
  const codes = done.items.flatMap(({ error }: { error?: { code: string } }) => error?.code ?? []);
  assert.deepEqual(codes, ['QUOTA_EXCEEDED', 'QUOTA_EXCEEDED']);
  assert.ok(most <= 2, `${most} ran at once`);
  assert.ok(
    node.lines.some(({ code }) => code === 'RATE_LIMITED'),
    'the limit was met',
  );
});

test('the finished execution is posted to its callback, a failed one too, and a deaf receiver is tried again', async (t) => {
  const receiver = await openReceiver(t, (response, count) =>
    response.writeHead(count === 1 ? 503 : 204).end(),
  );
  const node = await startScene(t, { env: { ALLOW_INSECURE: '1' }, parts: { blockPrivate: false } });
  const callback_url = `http://127.0.0.1:${receiver.port}/done`;
  const { body } = await execute(node, { callback_url, wait: true });
  await receiver.got(2);
  for (const request of receiver.requests) {
    assert.deepEqual([request.method, request.url], ['POST', '/done']);
    assert.deepEqual(JSON.parse(request.body), body);
    assert.equal(request.headers['webhook-id'], body.execution_id);
  }
  node.stub.next(refuse(400));
  const { body: batch } = await node.ask('/api/executions/batch', {
    body: { items: [{ ...RUN, callback_url }] },
  });
  await receiver.got(3);
  assert.equal(JSON.parse(receiver.requests[2]?.body ?? '').error.code, 'MODEL_ERROR');
  assert.equal((await ended(node, `/api/executions/batch/${batch.batch_id}`)).failed, 1);
});

test('callbacks stay on the public internet', async (t) => {
  const receiver = await openReceiver(t);
  const node = await startTestNode(t, { env: { ALLOW_INSECURE: '1' } });
  const loopback = await execute(node, { callback_url: `http://127.0.0.1:${receiver.port}/` });
  assert.deepEqual([loopback.status, loopback.body.error.code], [400, 'INVALID_REQUEST']);
  assert.equal(receiver.requests.length, 0);
});

test('callbacks go to https addresses only', async (t) => {
  const plain = await execute(await startTestNode(t), { callback_url: 'http://example.com/' });
  assert.match(plain.body.error.message, /^callback_url: must start with https/);
});

test('a node that drains ends what runs, calls back, and begins no item more', async (t) => {
  const receiver = await openReceiver(t);
  const node = await startScene(t, { env: { ALLOW_INSECURE: '1' }, parts: { blockPrivate: false } });
  const draining = gate();
  node.stub.byDefault(() => async (reply) => {
    await draining.opened;
    await say('Done.')(reply);
  });
  await execute(node, { callback_url: `http://127.0.0.1:${receiver.port}/` });
  const items = Array.from({ length: 30 }, () => RUN);
  await node.ask('/api/executions/batch', { body: { items, concurrency: 1 } });
  await node.stub.request(1);
  const drained = node.running.drain();
  draining.open();
  await drained;
  assert.equal(JSON.parse(receiver.requests[0]?.body ?? '').result.content, 'Done.');
  assert.equal(node.stub.requests.length, 2);
});

test('a node that closes leaves no batch and no callback behind', async (t) => {
  const receiver = await openReceiver(t, (response) => response.writeHead(503).end());
  const parts = { blockPrivate: false };
  const node = await startScene(t, { env: { ALLOW_INSECURE: '1' }, parts, busy: true });
  node.stub.next(say('Done.'), stallAfter('Never'));
  await execute(node, { callback_url: `http://127.0.0.1:${receiver.port}/`, wait: true });
  await receiver.got(1);
  await node.ask('/api/executions/batch', {
    body: { items: Array.from({ length: 30 }, () => RUN), concurrency: 1 },
  });
  await node.stub.request(1);
  const started = performance.now();
  await node.running.close();
  assert.ok(performance.now() - started < 5_000);
  assert.equal(node.stub.requests.length, 2);
});
