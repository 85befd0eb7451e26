/** A turn as server-sent events over a real server: order, end, resends, disconnects, and slow readers. */
import assert from 'node:assert/strict';
import { after, afterEach, before, test } from 'node:test';
import { refusal } from '../../../src/domain/errors.ts';
import { bodyOf, dechunk, rawConnection, readEvents, requestText } from '../../support/http-client.ts';
import { answeredTurn, openHttpNode } from '../../support/http-node.ts';
import { gate } from '../../support/transport.ts';
import { loopTurns } from '../../support/until.ts';

let node: Awaited<ReturnType<typeof openHttpNode>>;
before(async () => {
  node = await openHttpNode(undefined, {
    deps: { timing: { heartbeatMs: 20, maxBufferedBytes: 256 * 1024 } },
  });
});
after(() => node.close());
afterEach(() => {
  assert.deepEqual(node.script.attached('acme', 's1'), [], 'a client was left attached');
});

const stream = (body: object, init: RequestInit = {}) =>
  fetch(`${node.url}/api/chat/send`, {
    method: 'POST',
    headers: {
      'x-tenant-id': 'acme',
      'content-type': 'application/json',
      accept: 'text/event-stream',
    },
    body: JSON.stringify({ message: 'hi', session_id: 's1', ...body }),
    ...init,
  });
const emit = (taskId: string, type: string, data: unknown) =>
  node.script.emit('acme', 's1', taskId, type, data);
const finish = (taskId: string) =>
  emit(taskId, 'chat.response', {
    content: 'done',
    role: 'assistant',
    execution_info: answeredTurn('x').info,
  });

test('the frames of the turn come in order, whole and numbered, and the stream ends after the terminal one', async () => {
  const said = node.next('said');
  const pending = stream({ task_id: 't1' });
  await said;
  const response = await pending;
  assert.equal(response.status, 200);
  assert.match(response.headers.get('content-type') ?? '', /^text\/event-stream/);
  assert.equal(response.headers.get('x-session-id'), 's1');
  assert.equal(response.headers.get('x-task-id'), 't1');
  assert.equal(response.headers.get('cache-control'), 'no-cache, no-transform');
  emit('t1', 'chat.delta', { content: 'one\ntwo' });
  emit('another', 'chat.delta', { content: 'not mine' });
  emit('t1', 'chat.delta', { content: '…' });
  finish('t1');
  emit('t1', 'chat.delta', { content: 'late' });

  const events = await readEvents(response).rest();
  assert.deepEqual(
    events.map(({ event }) => event),
    ['chat.accepted', 'chat.delta', 'chat.delta', 'chat.response'],
  );
  const frame = JSON.parse(events[1]?.data ?? '');
  assert.deepEqual(frame, {
    type: 'chat.delta',
    seq: Number(events[1]?.id),
    ts: '2026-01-02T03:04:05.006Z',
    task_id: 't1',
    data: { content: 'one\ntwo' },
  });
  const numbers = events.map(({ id }) => Number(id));
  assert.deepEqual(
    numbers,
    [...numbers].sort((a, b) => a - b),
  );
});

test('frames that come before the acceptance returns are not lost', async () => {
  const held = gate();
  node.script.gate = held.opened;
  const said = node.next('said');
  const pending = stream({ task_id: 't2' });
  await said;
  emit('t2', 'chat.delta', { content: 'early' });
  held.open();
  const reader = readEvents(await pending);
  assert.equal((await reader.next())?.event, 'chat.delta');
  assert.equal((await reader.next())?.event, 'chat.accepted');
  finish('t2');
  assert.equal((await reader.rest()).length, 1);
});

test('a silent stream is kept alive by comments', async () => {
  const response = await stream({ task_id: 't3' });
  const reader = readEvents(response);
  assert.equal((await reader.next())?.event, 'chat.accepted');
  const next = reader.next();
  while (reader.comments.length < 2) await loopTurns();
  finish('t3');
  assert.equal((await next)?.event, 'chat.response');
});

test('a client that goes away is detached, and its turn goes on', async () => {
  const leaving = new AbortController();
  const response = await stream({ task_id: 't4' }, { signal: leaving.signal });
  assert.equal((await readEvents(response).next())?.event, 'chat.accepted');
  const detached = node.next('detached');
  leaving.abort();
  await detached;
  assert.equal(node.mount.pending(), 0);
});

test('a client that goes away while its message is taken is detached too', async () => {
  const held = gate();
  node.script.gate = held.opened;
  const said = node.next('said');
  const leaving = rawStream(node.port, 't5');
  await said;
  leaving.destroy();
  await leaving.closed;
  while (node.mount.pending() > 0) await loopTurns();
  const detached = node.next('detached');
  held.open();
  await detached;
});

test('a refused message leaves no client behind', async () => {
  node.script.refusal = refusal('BUSY');
  const response = await stream({ task_id: 't6' });
  node.script.refusal = undefined;
  assert.equal(response.status, 409);
  await response.arrayBuffer();
});

test('a session that closes its clients ends the stream', async () => {
  const response = await stream({ task_id: 't7' });
  const reader = readEvents(response);
  await reader.next();
  node.script.attached('acme', 's1')[0]?.close({ code: 1012, reason: 'restart, reconnect' });
  assert.deepEqual(await reader.rest(), []);
});

test('a resend of a turn that has ended hears the acceptance and the end again', async () => {
  const ends = [
    [answeredTurn('r1'), 'chat.response'],
    [answeredTurn('r2', { status: 'cancelled', content: 'par' }), 'chat.cancelled'],
    [answeredTurn('r3', { status: 'failed', error: refusal('MODEL_ERROR') }), 'error'],
    [answeredTurn('r4', { status: 'timeout' }), 'error'],
  ] as const;
  for (const [turn, end] of ends) {
    node.script.putTurn(turn);
    const response = await stream({ task_id: turn.taskId, session_id: undefined });
    assert.equal(response.headers.get('x-session-id'), 's1');
    const [accepted, terminal, ...more] = await readEvents(response).rest();
    assert.equal(JSON.parse(accepted?.data ?? '').data.deduplicated, true);
    assert.equal(accepted?.id, undefined);
    assert.equal(terminal?.event, end);
    assert.equal(terminal?.id, undefined);
    assert.deepEqual(more, []);
  }
});

test('a resend of a running turn hears what it still brings', async () => {
  node.script.putTurn(answeredTurn('r5', { status: 'processing' }));
  const attached = attachedTwice();
  const response = await stream({ task_id: 'r5', session_id: 's-other' });
  await attached;
  emit('r5', 'chat.delta', { content: 'rest' });
  finish('r5');
  const events = await readEvents(response).rest();
  assert.deepEqual(
    events.map(({ event }) => event),
    ['chat.accepted', 'chat.delta', 'chat.response'],
  );
});

/** Once with the message that turned out to be a resend, once with the session its turn is in. */
async function attachedTwice(): Promise<void> {
  await node.next('attached');
  await node.next('attached');
}

test('a turn that ends while a resend attaches is not waited for', async () => {
  node.script.putTurn(answeredTurn('r6', { status: 'processing' }));
  node.script.events.once('said', () => {
    queueMicrotask(() => queueMicrotask(() => node.script.putTurn(answeredTurn('r6'))));
  });
  const events = await readEvents(await stream({ task_id: 'r6' })).rest();
  assert.equal(events.at(-1)?.event, 'chat.response');
});

test('a server that closes detaches the clients of its streams', async () => {
  const closing = await openHttpNode(undefined);
  const raw = rawStream(closing.port, 't8');
  await raw.until('chat.accepted');
  const detached = closing.next('detached');
  closing.close();
  await detached;
  assert.deepEqual(closing.script.attached('acme', 's1'), []);
  await raw.closed;
});

const CONTENT = 'abcdefghijklmnopqrstuvwxyz…'.repeat(100);

function rawStream(port: number, taskId: string) {
  const raw = rawConnection(port);
  const body = JSON.stringify({ message: 'hi', session_id: 's1', task_id: taskId });
  const headers = ['X-Tenant-ID: acme', 'Content-Type: application/json', 'Accept: text/event-stream'];
  raw.write(requestText('POST', '/api/chat/send', [...headers, `Content-Length: ${body.length}`]) + body);
  return raw;
}

test('a reader that stops and goes on gets many megabytes intact, the last bytes without a push', async (t) => {
  const patient = await openHttpNode(t, { deps: { timing: { maxBufferedBytes: 64 * 1024 * 1024 } } });
  const raw = rawStream(patient.port, 'slow');
  await raw.until('chat.accepted');
  raw.pause();
  // More than the socket buffers of both ends hold, so that the server must wait for the reader.
  const frames = 5_000;
  for (let index = 0; index < frames; index += 1)
    patient.script.emit('acme', 's1', 'slow', 'chat.delta', { content: `${CONTENT} ${index}` });
  await loopTurns(50);
  raw.resume();
  await raw.untilEnd(` ${frames - 1}"}}\n\n`);
  patient.script.emit('acme', 's1', 'slow', 'chat.cancelled', { content: '', abort_ms: 0 });
  await raw.untilEnd('\r\n0\r\n\r\n');
  raw.destroy();
  const all = dechunk(bodyOf(await raw.closed)).toString();
  const contents = [...all.matchAll(/"content":"([^"]+)"/g)].map(([, content]) => content);
  assert.equal(contents.length, frames);
  for (const [index, content] of contents.entries())
    assert.ok(content === `${CONTENT} ${index}`, `frame ${index}`);
});

test('a reader that never reads is cut off at the bound, and its memory freed', async () => {
  const raw = rawStream(node.port, 'stuck');
  await raw.until('chat.accepted');
  raw.pause();
  let detached = false;
  node.script.events.once('detached', () => {
    detached = true;
  });
  let sent = 0;
  while (!detached && sent < 64 * 1024 * 1024) {
    emit('stuck', 'chat.delta', { content: CONTENT });
    sent += CONTENT.length;
    await loopTurns();
  }
  assert.ok(detached, 'it was never cut off');
  raw.resume();
  const all = (await raw.closed).toString('latin1');
  assert.ok(!all.endsWith('\r\n0\r\n\r\n'), 'a stream cut off must not look complete');
});

test('of many streams that nobody reads a tenant has a bounded part unsent: the one that holds most is cut off', async (t) => {
  const patient = await openHttpNode(t, { deps: { timing: { maxBufferedBytes: 64 * 1024 * 1024 } } });
  const names = Array.from({ length: 6 }, (_, at) => `unread-${at}`);
  const raws = names.map((name) => rawStream(patient.port, name));
  await Promise.all(raws.map((raw) => raw.until('chat.accepted')));
  for (const raw of raws) raw.pause();
  const left = () => patient.script.attached('acme', 's1').length;
  let sent = 0;
  while (left() === names.length && sent < 40 * 1024 * 1024) {
    for (const name of names) patient.script.emit('acme', 's1', name, 'chat.delta', { content: CONTENT });
    sent += CONTENT.length;
    await loopTurns();
  }
  // Each alone may hold as much; together they hold no more than twice the tenant's bound.
  assert.equal(left(), names.length - 1);
  assert.ok(sent < 24 * 1024 * 1024, `${sent} bytes for each`);
  for (const raw of raws) raw.destroy();
});
