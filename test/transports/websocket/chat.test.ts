/** The chat WebSocket over a real uWS app: frames in and out, hostile input, closing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { refusal } from '../../../src/domain/errors.ts';
import { MAX_FRAME_BYTES } from '../../../src/domain/frames.ts';
import { event, portPerTest } from '../../support/chat-port.ts';
import { connect, masked } from '../../support/websocket-client.ts';

const open = portPerTest();

test('a client is attached to its session with what path and query say', async () => {
  const { url, directory } = await open();
  const client = await connect(
    `${url}/ws/acme/s%3A1?agent_id=helper&last_seq=12&epoch=e-1&tier=free&user_id=ann&delta_window_ms=0`,
  );
  await client.next('session.ready');
  const [attached] = directory.attached;
  assert.deepEqual(attached?.caller, { tenantId: 'acme', tier: 'free', userId: 'ann' });
  assert.equal(attached?.sessionId, 's:1');
  assert.deepEqual(attached?.resume, { lastSeq: 12, epoch: 'e-1' });
  assert.equal(attached?.client.deltaWindowMs, 0);
  assert.equal((await client.close()).code, 1000);
  await directory.detachedClients(1);
});

test('without a query there is nothing to resume and the default window', async () => {
  const { url, directory } = await open();
  await (await connect(`${url}/ws/acme/s1`)).next('session.ready');
  assert.deepEqual(
    [
      directory.attached[0]?.resume,
      directory.attached[0]?.client.deltaWindowMs,
      directory.attached[0]?.caller.tier,
    ],
    [undefined, 15, undefined],
  );
});

for (const protocols of [[], ['nooble.msgpack']]) {
  const name = protocols[0] ?? 'JSON';

  test(`frames go both ways in ${name}`, async () => {
    const { url, directory } = await open();
    const client = await connect(`${url}/ws/acme/s1?agent_id=from-query`, { protocols });
    client.send({ type: 'chat.send', message: 'hi', task_id: 't-1', context: { a: 1 }, on_busy: 'reject' });
    client.send({ type: 'chat.send', message: 'again', agent_id: 'own', stream: false });
    client.send({ type: 'ping' });
    const pong = await client.next('pong');
    assert.deepEqual(Object.keys(pong).sort(), ['data', 'ts', 'type']);
    const [first, second] = directory.said;
    assert.deepEqual(first, {
      caller: { tenantId: 'acme', tier: undefined, userId: undefined },
      sessionId: 's1',
      taskId: 't-1',
      taskIdGiven: true,
      agentId: 'from-query',
      message: 'hi',
      context: { a: 1 },
      stream: true,
      onBusy: 'reject',
      requestId: undefined,
    });
    assert.deepEqual(
      [second?.taskId, second?.taskIdGiven, second?.agentId, second?.stream],
      ['made-1', false, 'own', false],
    );
  });

  test(`everything sent arrives, in order, in ${name}`, async () => {
    const { url, directory } = await open();
    const clients = await Promise.all(
      Array.from({ length: 3 }, () => connect(`${url}/ws/acme/s1`, { protocols })),
    );
    await Promise.all(clients.map((client) => client.next('session.ready')));
    const send = (from: number, to: number) => {
      for (let seq = from; seq <= to; seq += 1) {
        const frame = event('chat.delta', seq, { content: `ü${'x'.repeat(seq % 700)}` });
        for (const { client } of directory.attached) client.send(frame);
      }
    };
    send(1, 500);
    setImmediate(() => send(501, 1000));
    await Promise.all(clients.map((client) => client.next((frame) => frame.seq === 1000)));
    for (const client of clients) {
      const seqs = client.frames.flatMap((frame) => frame.seq ?? []);
      assert.deepEqual(
        seqs,
        Array.from({ length: 1000 }, (_, index) => index + 1),
      );
      assert.equal(client.frames.find((frame) => frame.seq === 699)?.data.content.length, 700);
    }
  });

  test(`a bad frame in ${name} is answered to its socket alone, and the socket stays open`, async () => {
    const { url, chat } = await open();
    const client = await connect(`${url}/ws/acme/s1`, { protocols });
    const other = await connect(`${url}/ws/acme/s1`, { protocols });
    const bad: (object | string | Uint8Array)[] = [
      { type: 'chat.send', message: '', task_id: 't-9' },
      { type: 'chat.send', message: 'x'.repeat(32_001) },
      { type: 'chat.send', message: 5 },
      { type: 'chat.send', message: 'x', task_id: '../../etc' },
      { type: 'chat.send', message: 'x', agent_id: 'x'.repeat(129) },
      { type: 'chat.send', message: 'x', context: [] },
      { type: 'chat.send', message: 'x', stream: 1 },
      { type: 'chat.send', message: 'x', on_busy: 'maybe' },
      { type: 'chat.cancel' },
      { type: 'chat.cancel', task_id: 7 },
      { type: 'nothing' },
      [],
      protocols.length > 0 ? new Uint8Array([0xdd, 0xff, 0xff, 0xff, 0xff]) : '{"type":',
      protocols.length > 0 ? new Uint8Array(100_000).fill(0x91) : `{"type":"ping","x":${'['.repeat(100_000)}`,
      // The other kind of frame than was agreed on.
      protocols.length > 0 ? '{"type":"ping"}' : new Uint8Array([0x81, 0xa4, 0x74]),
      protocols.length > 0 ? '' : new Uint8Array(0),
    ];
    for (const frame of bad) {
      client.send(frame);
      const answer = await client.next();
      const error = answer.type === 'session.ready' ? await client.next() : answer;
      assert.equal(error.type, 'error');
      assert.equal(error.data.code, 'INVALID_REQUEST');
      assert.equal(error.seq, undefined);
    }
    assert.equal(client.frames.find((frame) => frame.type === 'error')?.task_id, 't-9');
    client.send({ type: 'ping' });
    await client.next('pong');
    other.send({ type: 'ping' });
    await other.next('pong');
    assert.deepEqual(
      other.frames.map((frame) => frame.type),
      ['session.ready', 'pong'],
    );
    assert.equal(chat.stats().bad_frames, bad.length);
  });
}

test('a refused send carries its task id, unnumbered, to that socket alone', async () => {
  const { url, directory } = await open();
  directory.onSay = ({ taskId }) => ({
    ok: false,
    taskId,
    error: refusal('RATE_LIMITED', { retryAfterMs: 5 }),
  });
  const client = await connect(`${url}/ws/acme/s1`);
  const other = await connect(`${url}/ws/acme/s1`);
  client.send({ type: 'chat.send', message: 'hi' });
  const { seq, task_id, data } = await client.next('error');
  assert.deepEqual([seq, task_id, data.code, data.retry_after_ms], [undefined, 'made-1', 'RATE_LIMITED', 5]);
  other.send({ type: 'ping' });
  await other.next('pong');
  assert.equal(
    other.frames.some((frame) => frame.type === 'error'),
    false,
  );
});

test('a directory that breaks is answered as INTERNAL and logged without the text', async () => {
  const { url, directory, logged } = await open();
  directory.onSay = () => {
    throw new Error('boom');
  };
  const client = await connect(`${url}/ws/acme/s1`);
  client.send({ type: 'chat.send', message: 'canary-text', task_id: 't-1' });
  const error = await client.next('error');
  assert.deepEqual([error.task_id, error.data.code], ['t-1', 'INTERNAL']);
  assert.match(logged(), /the directory failed/);
  assert.doesNotMatch(logged(), /canary/);
});

test('cancel: silent when it works, told when there is nothing to cancel', async () => {
  const { url, directory } = await open();
  const client = await connect(`${url}/ws/acme/s1`);
  await client.next('session.ready');
  client.send({ type: 'chat.cancel', task_id: 't-1' });
  client.send({ type: 'ping' });
  assert.equal((await client.next()).type, 'pong');
  assert.deepEqual(directory.cancelled, [{ tenantId: 'acme', taskId: 't-1' }]);

  directory.onCancel = (taskId) => ({ ok: false, taskId, error: refusal('NOT_FOUND') });
  client.send({ type: 'chat.cancel', task_id: 't-2' });
  const unknown = await client.next('error');
  assert.deepEqual([unknown.task_id, unknown.data.code, unknown.seq], ['t-2', 'NOT_FOUND', undefined]);

  directory.onCancel = (taskId) => ({ ok: true, taskId, status: 'completed', abortMs: 0 });
  client.send({ type: 'chat.cancel', task_id: 't-3' });
  const over = await client.next('error');
  assert.deepEqual([over.data.code, over.data.details], ['CONFLICT', { status: 'completed' }]);
});

test('a frame over the size limit ends the socket, and no other', async () => {
  const { url } = await open();
  const client = await connect(`${url}/ws/acme/s1`);
  const other = await connect(`${url}/ws/acme/s1`);
  client.send('x'.repeat(MAX_FRAME_BYTES + 1));
  assert.ok([1006, 1009].includes((await client.closed).code));
  other.send(
    JSON.stringify({ type: 'chat.send', message: 'x'.repeat(32_000), context: { a: 'y'.repeat(200_000) } }),
  );
  other.send({ type: 'ping' });
  await other.next('pong');
});

test('what is no WebSocket frame ends the socket, and no other', async () => {
  const { url } = await open();
  const garbage = [
    'GET / HTTP/1.1\r\n\r\n',
    Buffer.alloc(64, 0xff),
    masked(3, Buffer.from('reserved opcode')),
    masked(1, Buffer.from([0xc3, 0x28, 0xff])),
    Buffer.from([0xc1, 0x80, 0, 0, 0, 0]),
    // A length of 2^63 and more, then a mask.
    Buffer.concat([Buffer.from([0x81]), Buffer.alloc(13, 0xff)]),
  ];
  const other = await connect(`${url}/ws/acme/s1`);
  for (const bytes of garbage) {
    const client = await connect(`${url}/ws/acme/s1`);
    client.raw(bytes);
    await client.closed;
  }
  other.send({ type: 'ping' });
  await other.next('pong');
});

test('the directory can close a client: what was sent before arrives first', async () => {
  const { url, directory, closeCodes } = await open();
  const client = await connect(`${url}/ws/acme/s1`);
  await client.next('session.ready');
  const attached = directory.attached[0]?.client;
  attached?.send(event('chat.delta', 1, { content: 'last words' }));
  attached?.close({ code: 4409, reason: 'owned elsewhere' });
  attached?.send(event('chat.delta', 2, { content: 'too late' }));
  attached?.close({ code: 4409, reason: 'owned elsewhere' });
  assert.deepEqual(await client.closed, { code: 4409, reason: 'owned elsewhere' });
  assert.deepEqual(
    client.frames.map((frame) => frame.seq),
    [undefined, 1],
  );
  assert.deepEqual(closeCodes, [4409]);
});

test('closeAll sends what was gathered and closes everybody', async () => {
  const { url, directory, chat } = await open();
  const clients = await Promise.all([1, 2, 3].map((n) => connect(`${url}/ws/acme/s${n}`)));
  await Promise.all(clients.map((client) => client.next('session.ready')));
  assert.equal(chat.count(), 3);
  for (const { client } of directory.attached)
    client.send(event('server.draining', undefined, { reconnect_after_ms: 1 }));
  chat.closeAll({ code: 1012, reason: 'restart, reconnect' });
  for (const client of clients) {
    assert.equal((await client.closed).code, 1012);
    assert.equal(client.frames.at(-1)?.type, 'server.draining');
  }
});

test('pings go out every interval, and a client that answers stays', async () => {
  const { url, chat } = await open({ sockets: { pingIntervalMs: 30, pingTimeoutMs: 200 } });
  const client = await connect(`${url}/ws/acme/s1`);
  const start = performance.now();
  while (client.pings() < 5) {
    client.send({ type: 'ping' });
    await client.next('pong');
  }
  assert.ok(performance.now() - start >= 100);
  assert.equal(chat.count(), 1);
});

test('a silent socket is closed after the timeout, and not before', async () => {
  const { url, closeCodes } = await open({ sockets: { pingIntervalMs: 60, pingTimeoutMs: 60 } });
  const start = performance.now();
  const client = await connect(`${url}/ws/acme/s1`, { pong: false });
  const { code } = await client.closed;
  const tookMs = performance.now() - start;
  assert.equal(code, 1001);
  assert.ok(client.pings() >= 1);
  assert.ok(tookMs >= 115 && tookMs < 2_000, `${tookMs} ms`);
  assert.deepEqual(closeCodes, [1001]);
});
