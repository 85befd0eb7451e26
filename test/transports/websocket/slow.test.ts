/** Clients that read slowly or not at all: memory stays bounded, they learn why where they can, and may come back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Client } from '../../../src/ports/sessions.ts';
import {
  createSocketClients,
  MAX_BUFFERED_BYTES,
  type RawSocket,
  SLOW_GRACE_MS,
} from '../../../transports/websocket/connection.ts';
import { createKeepAlive } from '../../../transports/websocket/keep-alive.ts';
import { event, portPerTest } from '../../support/chat-port.ts';
import { loopTurns, until } from '../../support/until.ts';
import { connect } from '../../support/websocket-client.ts';

const open = portPerTest();

const delta = (seq: number, bytes: number) => event('chat.delta', seq, { content: 'x'.repeat(bytes) });

/** Sends until `stop`, a loop turn at a time; the number of frames sent. */
async function flood(client: Client, stop: () => boolean): Promise<number> {
  let seq = 0;
  for (; seq < 2_000 && !stop(); seq += 1) {
    client.send(delta(seq + 1, 64 * 1024));
    await loopTurns();
  }
  return seq;
}

test('a client that stops reading is detached at once; what it does read ends in 4408, and it can come back', async () => {
  const { url, directory, chat, closeCodes } = await open();
  const slow = await connect(`${url}/ws/acme/s1`);
  const other = await connect(`${url}/ws/acme/s1`);
  await Promise.all([slow.next('session.ready'), other.next('session.ready')]);
  slow.pause();
  const client = directory.attached[0]?.client;
  assert.ok(client);
  const sent = await flood(client, () => directory.detached.length > 0);
  assert.ok(sent < 2_000, 'the flood ended by itself');
  assert.deepEqual(directory.detached, [client.id]);
  assert.equal(chat.stats().too_slow, 1);

  other.send({ type: 'ping' });
  await other.next('pong');
  slow.resume();
  assert.equal((await slow.closed).code, 4408);
  const seqs = slow.frames.flatMap((frame) => frame.seq ?? []);
  assert.deepEqual(
    seqs,
    Array.from(seqs, (_, index) => index + 1),
    'no hole in what arrived',
  );
  assert.deepEqual(closeCodes, [4408]);

  const back = await connect(`${url}/ws/acme/s1?last_seq=${seqs.length}&epoch=e-1`);
  await back.next('session.ready');
  assert.deepEqual(directory.attached.at(-1)?.resume, { lastSeq: seqs.length, epoch: 'e-1' });
});

test('what is held for a hundred clients that never read is bounded', async () => {
  const { url, directory } = await open();
  const clients = await Promise.all(Array.from({ length: 100 }, () => connect(`${url}/ws/acme/s1`)));
  await Promise.all(clients.map((client) => client.next('session.ready')));
  for (const client of clients) client.pause();
  const before = process.memoryUsage().rss;
  for (let seq = 1; seq < 400 && directory.detached.length < 100; seq += 1) {
    const frame = delta(seq, 64 * 1024);
    for (const { client } of directory.attached) client.send(frame);
    await loopTurns();
  }
  assert.equal(directory.detached.length, 100);
  // One MiB of limit, a frame above it, the kernel's share on both ends not counted.
  assert.ok(process.memoryUsage().rss - before < 100 * 2.5 * 1024 * 1024);
  for (const client of clients) client.destroy();
});

test('a large snapshot to a healthy client does not count as slowness', async () => {
  const { url, directory, chat } = await open();
  const client = await connect(`${url}/ws/acme/s1`);
  const attached = directory.attached[0]?.client;
  await client.next('session.ready');
  client.pause();
  attached?.send(event('session.ready', undefined, {}));
  attached?.send(event('session.snapshot', undefined, { messages: 'x'.repeat(10 * 1024 * 1024) }));
  await loopTurns();
  for (let seq = 1; seq <= 10; seq += 1) {
    attached?.send(delta(seq, 1024));
    await loopTurns();
  }
  client.resume();
  await client.next((frame) => frame.seq === 10);
  assert.equal(chat.stats().too_slow, 0);
});

const MIB = 1024 * 1024;
const SNAPSHOT = event('session.snapshot', undefined, { messages: 'x'.repeat(10 * MIB) });

test('snapshots are written as sockets take them: of thirty that nobody reads a tenant has a bounded part unsent', async () => {
  const { url, directory, chat } = await open();
  const clients = await Promise.all(Array.from({ length: 30 }, () => connect(`${url}/ws/acme/s1`)));
  await Promise.all(clients.map((client) => client.next('session.ready')));
  for (const client of clients) client.pause();
  for (const { client } of directory.attached) {
    client.send(event('session.ready', undefined, {}));
    client.send(SNAPSHOT);
  }
  await until('there is no more room', () => chat.stats().unsent_bytes > 32 * MIB);
  await loopTurns(3);
  const { unsent_bytes: unsent } = chat.stats();
  assert.ok(unsent < 43 * MIB, `${unsent / MIB} MiB`);

  // Another tenant has room of its own.
  const other = await connect(`${url}/ws/globex/s1`);
  await other.next('session.ready');
  const theirs = directory.attached.at(-1)?.client;
  theirs?.send(event('session.ready', undefined, {}));
  theirs?.send(SNAPSHOT);
  await other.next('session.snapshot');

  // Who reads gets its own in its turn, and then what came meanwhile, in order.
  const last = clients.at(-1);
  directory.attached.at(-2)?.client.send(delta(1, 10));
  for (const client of clients) client.resume();
  await last?.next('session.snapshot');
  await last?.next((frame) => frame.seq === 1);
  await until('all is taken', () => chat.stats().unsent_bytes === 0);
  assert.equal(chat.stats().too_slow, 0);
});

test('who takes nothing while others wait for its room is cut off', async () => {
  const { url, directory, chat } = await open();
  const clients = await Promise.all(Array.from({ length: 20 }, () => connect(`${url}/ws/acme/s1`)));
  await Promise.all(clients.map((client) => client.next('session.ready')));
  for (const client of clients.slice(0, -1)) client.pause();
  for (const { client } of directory.attached) {
    client.send(event('session.ready', undefined, {}));
    client.send(SNAPSHOT);
  }
  await clients.at(-1)?.next('session.snapshot');
  const { too_slow, unsent_bytes: unsent } = chat.stats();
  assert.ok(too_slow > 0 && too_slow < 20, `${too_slow}`);
  assert.ok(unsent < 80 * MIB, `${unsent / MIB} MiB`);
});

// --- Without a network -------------------------------------------------------------------------------------

/** A socket whose buffer the test sets. */
function fakeSocket() {
  const wire = { buffered: 0, writes: 0, corks: 0, ended: 0, cut: false };
  const port: RawSocket = {
    send: () => (wire.writes += 1),
    getBufferedAmount: () => wire.buffered,
    ping: () => 1,
    cork: (write) => {
      wire.corks += 1;
      write();
    },
    end: (code) => {
      wire.ended = code;
    },
    close: () => {
      wire.cut = true;
    },
  };
  return { wire, port };
}

const newClient = (port: RawSocket, onStalled = () => {}) =>
  createSocketClients()(port, { id: 'c', format: 'json', deltaWindowMs: 15, reasoning: false, onStalled });

test('the frames of one loop turn are written in one cork, none inside send', async () => {
  const { wire, port: rawSocket } = fakeSocket();
  const client = newClient(rawSocket);
  for (let seq = 1; seq <= 50; seq += 1) client.send(delta(seq, 10));
  assert.equal(wire.writes, 0);
  await loopTurns();
  assert.deepEqual([wire.corks, wire.writes], [1, 50]);
});

test('more than is good for one turn is written before the turn ends', () => {
  const { wire, port: rawSocket } = fakeSocket();
  const client = newClient(rawSocket);
  for (let seq = 1; seq <= 10; seq += 1) client.send(delta(seq, 64 * 1024));
  assert.ok(wire.writes >= 8);
});

test('a stalled client is cut off after the grace time, and nothing more is written to it', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  let atMs = 1_000;
  t.mock.method(performance, 'now', () => atMs);
  const { wire, port: rawSocket } = fakeSocket();
  let stalls = 0;
  const client = newClient(rawSocket, () => {
    stalls += 1;
  });
  const keepAlive = createKeepAlive({ pingIntervalMs: 30_000, pingTimeoutMs: 10_000 }, { now: () => 0 });
  const monitored = keepAlive.add(client, undefined);
  client.send(delta(1, 10));
  await loopTurns();
  wire.buffered = MAX_BUFFERED_BYTES + 1;
  client.send(delta(2, 10));
  await loopTurns();
  client.send(delta(3, 10));
  await loopTurns();
  assert.deepEqual([stalls, wire.writes, client.stalledAtMs], [1, 2, 1_000]);
  atMs += SLOW_GRACE_MS;
  t.mock.timers.tick(1_000);
  assert.equal(wire.cut, false);
  atMs += 1;
  t.mock.timers.tick(1_000);
  assert.equal(wire.cut, true);
  keepAlive.remove(monitored);
  assert.equal(keepAlive.size(), 0);
});
