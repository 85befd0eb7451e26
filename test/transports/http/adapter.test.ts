/** The uWS adapter against raw sockets: body bounds, aborts, keep-alive, pipelining, big answers, and what it leaves behind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tenantIdSchema } from '../../../src/domain/ids.ts';
import { type HttpHandler, mountHttp, openServer } from '../../../transports/http/adapter.ts';
import { bodyOf, dechunk, rawConnection, refused, requestText } from '../../support/http-client.ts';
import { openHttpNode } from '../../support/http-node.ts';
import { gate } from '../../support/transport.ts';
import { loopTurns } from '../../support/until.ts';

const ACME = tenantIdSchema.parse('acme');

async function withServer(
  handler: HttpHandler,
  use: (port: number, pending: () => number) => Promise<void>,
): Promise<void> {
  const server = openServer();
  const mount = mountHttp(server.app, handler);
  const port = await server.listen('127.0.0.1', 0);
  try {
    await use(port, mount.pending);
  } finally {
    server.close();
    server.close();
  }
  assert.equal(mount.pending(), 0);
}

const POST = (path: string, ...headers: string[]) =>
  requestText('POST', path, ['X-Tenant-ID: acme', 'Content-Type: application/json', ...headers]);

test('a port that is taken is refused in words', async () => {
  await withServer(
    () => new Response(null),
    async (port) => {
      const second = openServer();
      await assert.rejects(
        second.listen('127.0.0.1', port),
        /Cannot listen on 127\.0\.0\.1:\d+: the port is taken/,
      );
      second.close();
    },
  );
});

test('method, path, query, headers and body arrive as they were sent; several Set-Cookie leave', async () => {
  const seen: string[] = [];
  const handler: HttpHandler = async (request, { body }) => {
    const { pathname, search } = new URL(request.url);
    const text = await body.read(ACME, (bytes) => Buffer.from(bytes).toString());
    seen.push(request.method, pathname, search, request.headers.get('x-a') ?? '', text);
    const headers = new Headers([
      ['set-cookie', 'a=1'],
      ['set-cookie', 'b=2'],
      ['x-b', 'ü'],
    ]);
    return new Response('made', { status: 201, headers });
  };
  await withServer(handler, async (port) => {
    const response = await fetch(`http://127.0.0.1:${port}/a%20b/c?d=e&d=f`, {
      method: 'PUT',
      headers: { 'x-a': 'ü' },
      body: 'grüße',
    });
    assert.equal(response.status, 201);
    assert.deepEqual(response.headers.getSetCookie(), ['a=1', 'b=2']);
    assert.equal(await response.text(), 'made');
    assert.deepEqual(seen.slice(0, 3), ['PUT', '/a%20b/c', '?d=e&d=f']);
    assert.equal(seen[4], 'grüße');
  });
});

test('a body of any size up to the limit is taken, and one byte more is refused, declared or not', async (t) => {
  const node = await openHttpNode(t);
  const limit = 256 * 1024;
  const sized = (bytes: number) => {
    const shell = JSON.stringify({ message: 'hi', context: { a: '' } });
    return shell.replace('"a":""', `"a":"${'x'.repeat(bytes - shell.length)}"`);
  };
  const post = (body: string | ReadableStream) =>
    fetch(`${node.url}/api/chat/send`, {
      method: 'POST',
      headers: { 'x-tenant-id': 'acme', 'content-type': 'application/json' },
      body,
      duplex: 'half',
    });
  const chunked = (text: string) => ReadableStream.from([Buffer.from(text)]);
  assert.equal((await post(sized(limit))).status, 202);
  assert.equal((await post(chunked(sized(limit)))).status, 202);
  for (const size of [limit + 1, 2 * 1024 * 1024]) {
    await refused(await post(sized(size)), 413, 'TOO_LARGE');
    await refused(await post(chunked(sized(size))), 413, 'TOO_LARGE');
  }
  assert.equal((await post(sized(100))).status, 202, 'the node still answers');
});

test('a body declared far too large is refused before it is sent, and the connection closed', async (t) => {
  const node = await openHttpNode(t);
  const raw = rawConnection(node.port);
  raw.write(POST('/api/chat/send', 'Content-Length: 99999999999'));
  assert.match((await raw.closed).toString(), /^HTTP\/1\.1 413 [\s\S]*"TOO_LARGE"/);
});

test('a chunked body without end is cut off', async (t) => {
  const node = await openHttpNode(t, { limits: { maxDiscardedBytes: 64 * 1024 } });
  const raw = rawConnection(node.port);
  raw.write(POST('/api/chat/send', 'Transfer-Encoding: chunked'));
  const chunk = `4000\r\n${'x'.repeat(0x4000)}\r\n`;
  let over = false;
  raw.closed.then(() => {
    over = true;
  });
  while (!over) {
    raw.write(chunk);
    await loopTurns();
  }
  assert.equal(node.mount.pending(), 0);
  const patient = await openHttpNode(t, { limits: { discardMs: 5 } });
  const silent = rawConnection(patient.port);
  silent.write(POST('/api/chat/send', 'Transfer-Encoding: chunked') + chunk.repeat(17));
  assert.match((await silent.closed).toString(), /^HTTP\/1\.1 413 /);
});

test('a body that does not come in time closes the connection', async (t) => {
  const node = await openHttpNode(t, { limits: { bodyTimeoutMs: 20 } });
  const raw = rawConnection(node.port);
  raw.write(`${POST('/api/chat/send', 'Content-Length: 50')}{"message`);
  assert.equal((await raw.closed).length, 0);
  assert.equal(node.mount.pending(), 0);
});

test('a client that leaves in the middle of its body leaves nothing behind', async (t) => {
  const node = await openHttpNode(t);
  const raws = Array.from({ length: 20 }, () => rawConnection(node.port));
  for (const raw of raws) raw.write(`${POST('/api/chat/send', 'Content-Length: 50')}{"message`);
  while (node.mount.pending() < raws.length) await loopTurns();
  for (const raw of raws) raw.destroy();
  while (node.mount.pending() > 0) await loopTurns();
  assert.equal(node.script.said.length, 0);
});

test('a client that leaves aborts the signal of its request and the body it was given', async () => {
  const heard = gate();
  const cancelled = gate();
  const body = new ReadableStream({ cancel: () => cancelled.open() });
  const handler: HttpHandler = (_request, { signal }) => {
    const gone = new Promise<Response>((resolve) => {
      signal.addEventListener('abort', () => resolve(new Response(body)));
    });
    heard.open();
    return gone;
  };
  await withServer(handler, async (port, pending) => {
    const raw = rawConnection(port);
    raw.write(requestText('GET', '/'));
    await heard.opened;
    raw.destroy();
    await cancelled.opened;
    assert.equal(pending(), 0);
  });
});

test('one connection carries one request after the other', async (t) => {
  const node = await openHttpNode(t);
  const raw = rawConnection(node.port);
  const body = JSON.stringify({ message: 'hi', session_id: 's1', task_id: 'k' });
  for (let round = 1; round <= 3; round += 1) {
    raw.write(requestText('GET', '/health'));
    await raw.until('{"status":"ok"}', round);
    raw.write(POST('/api/chat/send', `Content-Length: ${body.length}`) + body);
    await raw.until('"status":"processing"}', round);
    raw.write(requestText('HEAD', '/health'));
    await raw.until('\r\n\r\n', round * 3);
    raw.write(requestText('DELETE', '/api/sessions/s1', ['X-Tenant-ID: acme']));
    await raw.until('404 Not Found', round);
    await raw.untilEnd('}}');
  }
  raw.destroy();
});

test('pipelined requests are answered in order while answers are quick; where one is not, uWS closes', async (t) => {
  const node = await openHttpNode(t);
  const quick = rawConnection(node.port);
  quick.write(requestText('GET', '/health').repeat(5));
  await quick.until('{"status":"ok"}', 5);
  quick.destroy();

  const held = gate();
  node.script.gate = held.opened;
  const slow = rawConnection(node.port);
  const body = JSON.stringify({ message: 'hi' });
  slow.write(POST('/api/chat/send', `Content-Length: ${body.length}`) + body + requestText('GET', '/health'));
  assert.equal((await slow.closed).length, 0);
  held.open();
  while (node.mount.pending() > 0) await loopTurns();
  assert.equal((await node.ask('/health')).status, 200);
});

test('WebSocket upgrades pass by HTTP, whichever was mounted first; the same address without one does not', async () => {
  for (const first of ['http', 'ws']) {
    const server = openServer();
    const mountWs = () =>
      server.app.ws('/ws/:tenant/:session', {
        upgrade: (res) => {
          res.writeStatus('418 Teapot').end('upgrade');
        },
      });
    if (first === 'ws') mountWs();
    mountHttp(server.app, () => new Response('plain'));
    if (first === 'http') mountWs();
    const port = await server.listen('127.0.0.1', 0);
    const raw = rawConnection(port);
    const key = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==';
    raw.write(requestText('GET', '/ws/acme/s1', ['Upgrade: websocket', 'Connection: Upgrade', key]));
    await raw.untilEnd('upgrade');
    raw.write(requestText('GET', '/ws/acme/s1'));
    await raw.untilEnd('plain');
    raw.destroy();
    server.close();
  }
});

test('HEAD answers the headers of GET without a body, OPTIONS answers, other methods are refused', async (t) => {
  const node = await openHttpNode(t);
  const head = await node.ask('/health', { method: 'HEAD' });
  assert.equal(head.status, 200);
  assert.equal(head.headers.get('content-type'), 'application/json');
  assert.equal(await head.text(), '');
  assert.equal((await node.ask('/health', { method: 'OPTIONS' })).status, 204);
  await refused(await node.ask('/health', { method: 'PUT' }), 405, 'INVALID_REQUEST');
  for (const method of ['TRACE', 'BREW']) {
    const raw = rawConnection(node.port);
    raw.write(requestText(method, '/health'));
    await raw.until('INVALID_REQUEST');
    raw.destroy();
  }
});

test('framing that two servers could read in two ways is refused', async (t) => {
  const node = await openHttpNode(t);
  for (const headers of [
    ['Content-Length: 2', 'Transfer-Encoding: chunked'],
    ['Content-Length: 2', 'Content-Length: 3'],
    ['Content-Length: +2'],
    ['Content-Length: 0x2'],
    ['Transfer-Encoding: gzip, chunked'],
    ['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'],
  ]) {
    const raw = rawConnection(node.port);
    raw.write(`${POST('/api/chat/send', ...headers)}2\r\n{}\r\n0\r\n\r\n`);
    assert.match((await raw.closed).toString(), /^HTTP\/1\.1 (400|505) /, headers.join());
  }
  assert.equal(node.script.said.length, 0);
});

test('a big answer reaches a reader that stops in between, whole', async () => {
  const big = Buffer.alloc(8 * 1024 * 1024);
  for (let at = 0; at < big.length; at += 4) big.writeUInt32LE(at, at);
  await withServer(
    () => new Response(big),
    async (port) => {
      const raw = rawConnection(port);
      raw.write(requestText('GET', '/'));
      await raw.until('\r\n\r\n');
      raw.pause();
      await loopTurns(50);
      raw.resume();
      await raw.untilEnd(big.subarray(-16).toString('latin1'));
      raw.destroy();
      assert.ok(bodyOf(await raw.closed).equals(big));
    },
  );
});

test('a stream that fell silent while its reader was slow still arrives to its last byte', async () => {
  // One write each: whatever the socket does not take of the last one must leave without another write.
  const part = Buffer.alloc(12_000, 'abcdefghijklmnopqrstuvwxyz0123456789');
  let parts = 0;
  let silent = false;
  const body = new ReadableStream(
    {
      pull(controller) {
        if (silent) return;
        parts += 1;
        controller.enqueue(part);
      },
    },
    { highWaterMark: 0 },
  );
  const headers = { 'content-type': 'text/event-stream' };
  await withServer(
    () => new Response(body, { headers }),
    async (port) => {
      const raw = rawConnection(port);
      raw.write(requestText('GET', '/'));
      await raw.until('\r\n\r\n');
      raw.pause();
      // The adapter asks for no more once the socket is full.
      for (let before = -1; before !== parts; ) {
        before = parts;
        await loopTurns(20);
      }
      silent = true;
      raw.resume();
      await raw.bytes(parts * part.length);
      raw.destroy();
      const whole = Buffer.concat([bodyOf(await raw.closed), Buffer.from('\r\n0\r\n\r\n')]);
      assert.ok(dechunk(whole).equals(Buffer.concat(Array.from({ length: parts }, () => part))));
    },
  );
});

test('an answer that breaks off in an error does not look complete', async () => {
  const body = new ReadableStream({
    start(controller) {
      controller.enqueue(Buffer.from('part'));
    },
    pull() {
      throw new Error('broken');
    },
  });
  const headers = { 'content-type': 'text/event-stream' };
  await withServer(
    () => new Response(body, { headers }),
    async (port, pending) => {
      const raw = rawConnection(port);
      raw.write(requestText('GET', '/'));
      const all = (await raw.closed).toString();
      assert.ok(!all.endsWith('0\r\n\r\n'));
      assert.equal(pending(), 0);
    },
  );
});

test('large answers that nobody reads are bounded for each tenant; who reads has the whole, and others have theirs', async () => {
  const whole = Buffer.alloc(12 * 1024 * 1024, 'abcdefghijklmnopqrstuvwxyz');
  const handler: HttpHandler = (request, { refused: no, belongsTo }) => {
    if (no) return new Response(no.code, { status: 503 });
    belongsTo?.(tenantIdSchema.parse(new URL(request.url).pathname.slice(1)));
    return new Response(whole);
  };
  await withServer(handler, async (port, pending) => {
    const ask = (tenant: string) => fetch(`http://127.0.0.1:${port}/${tenant}`);
    const unread = await Promise.all(Array.from({ length: 20 }, () => ask('acme')));
    const refusedOnes = unread.filter(({ status }) => status === 503);
    assert.ok(refusedOnes.length >= 10, `${refusedOnes.length} were refused`);
    assert.equal(await refusedOnes[0]?.text(), 'OVERLOADED');
    assert.ok(pending() <= 8, `${pending()} wait to be read`);

    // What has changed something is answered all the same: refused, it would be done once more.
    const done = await fetch(`http://127.0.0.1:${port}/acme`, { method: 'POST' });
    assert.deepEqual([done.status, (await done.arrayBuffer()).byteLength], [200, whole.length]);
    const others = await ask('globex');
    assert.ok(whole.equals(Buffer.from(await others.arrayBuffer())));
    // Once they are read there is room again.
    for (const response of unread)
      if (response.status === 200) assert.ok(whole.equals(Buffer.from(await response.arrayBuffer())));
    assert.equal((await ask('acme').then((again) => again.arrayBuffer())).byteLength, whole.length);
  });
});
