/** The HTTP routes of a whole node: a turn followed by polling and by stream, its session, and the probes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { last, numbered } from '../support/chatter.ts';
import { readEvents } from '../support/http-client.ts';
import { OFFLINE, startScene, startTestNode, type TestNode } from '../support/node.ts';
import { refuse, say, stallAfter } from '../support/stub-model.ts';

const SSE = { accept: 'text/event-stream' };

/** Asks for a turn until it has ended. */
async function finished(ask: TestNode['ask'], taskId: string) {
  for (;;) {
    const { body, status } = await ask('/api/chat/status', { body: { task_id: taskId } });
    assert.equal(status, 200);
    if (body.finished_at !== undefined) return body;
  }
}

test('a message is accepted with 202, and both status routes follow its turn to the end', async (t) => {
  const { stub, ask, chat } = await startScene(t);
  stub.next(stallAfter('Wait'), say('Answered.', { usage: 9 }));
  const watcher = await chat('acme', 's1');
  const first = await ask('/api/chat/send', { body: { message: 'One.', session_id: 's1' } });
  assert.equal(first.status, 202);
  assert.deepEqual(Object.keys(first.body), ['task_id', 'session_id', 'status']);
  assert.deepEqual([first.body.session_id, first.body.status], ['s1', 'processing']);
  await watcher.see('chat.delta');
  const second = await ask('/api/chat/send', {
    body: { message: 'Two.' },
    headers: { 'x-session-id': 's1' },
  });
  assert.equal(second.body.status, 'queued');

  const running = await ask(`/api/chat/tasks/${first.body.task_id}`);
  assert.equal(running.body.status, 'processing');
  assert.equal(running.body.result, undefined);
  const waiting = await ask('/api/chat/status', { body: { task_id: second.body.task_id } });
  assert.deepEqual(
    [waiting.body.status, waiting.body.session_id, waiting.body.agent_id],
    ['queued', 's1', 'default'],
  );

  await ask('/api/chat/cancel', { body: { task_id: first.body.task_id } });
  const done = await finished(ask, second.body.task_id);
  assert.equal(done.status, 'completed');
  assert.deepEqual(done.result, { content: 'Answered.', role: 'assistant' });
  assert.equal(done.execution_info.tokens_used, 9);
  assert.match(done.created_at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  assert.deepEqual((await ask(`/api/chat/tasks/${second.body.task_id}`)).body, done);
  assert.equal((await watcher.ended(second.body.task_id)).data.content, 'Answered.');
});

test('a failed turn keeps its error', async (t) => {
  const { stub, ask } = await startScene(t);
  stub.next(refuse(400));
  const { body } = await ask('/api/chat/send', { body: { message: 'One.' } });
  const done = await finished(ask, body.task_id);
  assert.deepEqual([done.status, done.error.code, done.result], ['failed', 'MODEL_ERROR', undefined]);
});

test("the stream of a turn is the socket's frames of that turn", async (t) => {
  const { stub, fetch, chat } = await startScene(t);
  stub.next(say('Word after word after word.', { chunks: 7, everyMs: 4 }));
  const client = await chat('acme', 's1');
  const response = await fetch('/api/chat/send', {
    body: { message: 'Go.', session_id: 's1', task_id: 't1' },
    headers: SSE,
  });
  assert.equal(response.status, 200);
  const events = await readEvents(response).rest();
  await client.ended('t1');

  assert.deepEqual(
    events.map(({ data }) => JSON.parse(data)),
    client.of('t1'),
  );
  assert.deepEqual(
    events.map(({ event, id }) => [event, id]),
    client.of('t1').map(({ type, seq }) => [type, String(seq)]),
  );
  assert.equal(last(client.of('t1'), 'chat.response').data.content, 'Word after word after word.');
});

test('a stream ends with its turn, also when the turn is cancelled, refused or sent again', async (t) => {
  const { stub, fetch, ask } = await startScene(t);
  stub.next(stallAfter('Part '));
  const body = { message: 'Go.', session_id: 's1', task_id: 't1' };
  const reader = readEvents(await fetch('/api/chat/send', { body, headers: SSE }));
  for (let event = await reader.next(); event?.event !== 'chat.delta'; event = await reader.next());
  const resent = readEvents(await fetch('/api/chat/send', { body, headers: SSE }));
  const busy = await ask('/api/chat/send', {
    body: { message: 'Now.', session_id: 's1', on_busy: 'reject' },
    headers: SSE,
  });
  assert.deepEqual([busy.status, busy.body.error.code], [409, 'BUSY']);
  await ask('/api/chat/cancel', { body: { task_id: 't1' } });
  assert.equal((await reader.rest()).at(-1)?.event, 'chat.cancelled');
  assert.equal((await resent.rest()).at(-1)?.event, 'chat.cancelled');
  const later = await readEvents(await fetch('/api/chat/send', { body, headers: SSE })).rest();
  assert.deepEqual(
    later.map(({ event }) => event),
    ['chat.accepted', 'chat.cancelled'],
  );
  assert.equal(stub.requests.length, 1);
});

test('a reader that leaves its stream does not end the turn', async (t) => {
  const { stub, fetch, ask } = await startScene(t);
  stub.next(say('To the very end.', { chunks: 6, everyMs: 10 }));
  const response = await fetch('/api/chat/send', {
    body: { message: 'Go.', task_id: 't1' },
    headers: SSE,
  });
  const reader = response.body?.getReader();
  await reader?.read();
  await reader?.cancel();
  const done = await finished(ask, 't1');
  assert.equal(done.result.content, 'To the very end.');
});

test('history pages backwards; after DELETE session and sockets are gone, and the name is free', async (t) => {
  const { stub, chat, ask } = await startScene(t);
  stub.byDefault(({ index }) => say(`a${index}`));
  const client = await chat('acme', 's1');
  const tasks = [];
  for (const message of ['q0', 'q1', 'q2']) tasks.push((await client.turn(message))[0]?.task_id);
  const texts = (body: { messages: { content: string }[] }) => body.messages.map(({ content }) => content);

  const all = await ask('/api/sessions/s1/messages');
  assert.deepEqual([texts(all.body), all.body.has_more], [['q0', 'a0', 'q1', 'a1', 'q2', 'a2'], false]);
  const newest = await ask('/api/sessions/s1/messages?limit=2');
  assert.deepEqual([texts(newest.body), newest.body.has_more], [['q2', 'a2'], true]);
  const older = await ask(`/api/sessions/s1/messages?limit=2&before=${tasks[2]}`);
  assert.deepEqual([texts(older.body), older.body.has_more], [['q1', 'a1'], true]);
  const oldest = await ask(`/api/sessions/s1/messages?before=${tasks[1]}`);
  assert.deepEqual([texts(oldest.body), oldest.body.has_more], [['q0', 'a0'], false]);
  assert.equal((await ask('/api/sessions/s1/messages?limit=0')).status, 400);

  stub.next(stallAfter('Going '));
  const running = client.say('q3');
  await client.see(({ task_id, type }) => task_id === running && type === 'chat.delta');
  assert.equal((await ask('/api/sessions/s1', { method: 'DELETE' })).status, 204);
  await stub.closedByClient(3);
  assert.equal((await client.ended(running)).type, 'chat.cancelled');
  assert.equal((await client.closed).code, 1001);
  assert.equal((await ask('/api/sessions/s1/messages')).status, 404);
  assert.equal((await ask('/api/sessions/s1', { method: 'DELETE' })).status, 404);

  const fresh = await chat('acme', 's1');
  await fresh.turn('Who am I?');
  assert.equal(stub.requests.at(-1)?.body.messages.length, 2);
  assert.equal(numbered(fresh.frames)[0]?.seq, 1);
});

test('the probes answer, and the metrics have what dashboards need', async (t) => {
  const { ask, chat } = await startTestNode(t, { env: OFFLINE });
  const client = await chat('acme', 's1');
  await client.turn('Go.');

  assert.deepEqual((await ask('/health', { tenant: null })).body, { status: 'ok' });
  const ready = await ask('/ready', { tenant: null });
  assert.deepEqual([ready.status, ready.body.status, ready.body.checks.store.status], [200, 'ready', 'ok']);
  const detailed = (await ask('/health/detailed', { tenant: null })).body;
  assert.deepEqual([detailed.node_id, detailed.stats.sessions], ['test-node', 1]);
  assert.equal((await ask('/ws/stats')).body.sockets, 1);
  const overview = (await ask('/metrics/overview')).body;
  assert.deepEqual([overview.turns.completed, overview.dead_letters, overview.crashes], [1, 0, 0]);

  const { text, headers } = await ask('/metrics', { tenant: null });
  assert.match(headers.get('content-type') ?? '', /^text\/plain/);
  for (const wanted of [
    'nooble_turns_total{tier="professional",outcome="completed"} 1',
    'nooble_tokens_total{tier="professional"}',
    'nooble_time_to_first_token_seconds_bucket',
    'nooble_turn_seconds_bucket',
    'nooble_executions_running{tier="professional"} 0',
    'nooble_executions_queued{tier="professional"} 0',
    'nooble_sockets 1',
    'nooble_mailbox_depth{kind="session"}',
    'nooble_dead_letters_total',
    'nooble_event_loop_delay_p99_seconds',
    'process_resident_memory_bytes',
  ])
    assert.ok(text.includes(wanted), `no ${wanted}`);
  assert.ok(!/acme|s1"/.test(text), 'a label names a tenant or a session');
});

test('the OpenAPI document has every route', async (t) => {
  const { ask } = await startTestNode(t);
  const { body } = await ask('/openapi.json', { tenant: null });
  assert.match(body.openapi, /^3\.1/);
  for (const path of [
    '/api/chat/send',
    '/api/chat/status',
    '/api/chat/tasks/{task_id}',
    '/api/chat/cancel',
    '/api/sessions/{session_id}/messages',
    '/api/sessions/{session_id}',
    '/health',
    '/health/detailed',
    '/ready',
    '/ws/stats',
    '/metrics',
    '/metrics/overview',
  ])
    assert.ok(body.paths[path], `no ${path}`);
});

test('a message sent again without a session is the same turn, while it runs and after', async (t) => {
  const { stub, ask } = await startScene(t, { busy: true });
  stub.next(stallAfter('Part '));
  const send = { body: { message: 'Go.', task_id: 't1' } };
  const first = await ask('/api/chat/send', send);
  await stub.request(0);
  const again = await ask('/api/chat/send', send);
  assert.deepEqual(
    [again.status, again.body.deduplicated, again.body.session_id],
    [202, true, first.body.session_id],
  );
  await ask('/api/chat/cancel', { body: { task_id: 't1' } });
  const later = await ask('/api/chat/send', send);
  assert.deepEqual(
    [later.status, later.body.deduplicated, later.body.session_id, later.body.status],
    [202, true, first.body.session_id, 'cancelled'],
  );
  assert.equal(stub.requests.length, 1);
});
