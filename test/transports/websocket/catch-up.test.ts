/** Clients that come back together are brought up to date one after the other, each in steps, and hold the loop for none. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unpack } from 'msgpackr';
import type { Client } from '../../../src/ports/sessions.ts';
import { encodeFrame, encodeSnapshot, type SnapshotFrame } from '../../../transports/wire/codec.ts';
import { event, portPerTest } from '../../support/chat-port.ts';
import { until } from '../../support/until.ts';
import { connect } from '../../support/websocket-client.ts';

const open = portPerTest();

function snapshotOf(count: number, content: string): SnapshotFrame {
  const messages = Array.from({ length: count }, (_, at) => ({
    role: 'user',
    content: `${content}${at}`,
    task_id: `t-${at}`,
  }));
  return { ...event('session.snapshot', undefined, {}), data: { messages } };
}
const READY = event('session.ready', undefined, { recovered: false });

for (const messages of [0, 1, 15, 16, 300, 70_000])
  test(`a snapshot of ${messages} messages has the same bytes in steps`, () => {
    const frame: SnapshotFrame = snapshotOf(messages, 'Zoë "漢" ');
    for (const format of ['json', 'msgpack'] as const) {
      const whole = Buffer.from(encodeFrame(frame, format));
      const steps = Buffer.concat([...encodeSnapshot(frame, format)]);
      if (format === 'json') assert.equal(steps.toString(), whole.toString());
      // The head of a list may have another size than another packer would give it.
      else assert.deepEqual(unpack(steps), unpack(whole));
    }
  });

for (const format of ['json', 'msgpack'] as const)
  test(`${format}: sixty come back at once to long conversations, and are sent theirs in order, a step in each turn of the loop`, async () => {
    const { url, directory } = await open();
    const protocols = [format === 'json' ? 'nooble' : 'nooble.msgpack'];
    const clients = await Promise.all(
      Array.from({ length: 60 }, (_, at) =>
        connect(`${url}/ws/${at % 2 ? 'acme' : 'globex'}/s${at}`, { protocols }),
      ),
    );
    await Promise.all(clients.map((client) => client.next('session.ready')));
    const attached: Client[] = directory.attached.map(({ client }) => client);
    const text = 'x'.repeat(12_000);
    for (const [at, client] of attached.entries()) {
      client.send(READY);
      client.send(snapshotOf(20, `${at} ${text}`));
      client.send(event('chat.delta', 1, { content: 'then' }));
    }
    // What is sent meanwhile waits behind the snapshot.
    await new Promise((resolve) => setImmediate(resolve));
    for (const client of attached) client.send(event('chat.delta', 2, { content: 'and then' }));
    await Promise.all(clients.map((client) => client.next((frame) => frame.seq === 2)));
    for (const { frames } of clients) {
      const since = frames.slice(frames.findLastIndex(({ type }) => type === 'session.ready'));
      assert.deepEqual(
        since.map(({ type }) => type),
        ['session.ready', 'session.snapshot', 'chat.delta', 'chat.delta'],
      );
      assert.equal(since[1]?.data.messages.length, 20);
      assert.equal(since[1]?.data.messages[19].content.length, since[1]?.data.messages[18].content.length);
    }
    await until('they are let go', () => directory.detached.length === 0);
  });

test('turns of the loop stay short: while some are brought up to date, others are sent theirs at once', async () => {
  const { url, directory } = await open();
  const quiet = await connect(`${url}/ws/quiet/s1`);
  await quiet.next('session.ready');
  const watching = directory.attached[0]?.client;
  const clients = await Promise.all(Array.from({ length: 40 }, (_, at) => connect(`${url}/ws/acme/s${at}`)));
  await Promise.all(clients.map((client) => client.next('session.ready')));
  const snapshot = snapshotOf(60, 'y'.repeat(16_000));
  const storm = directory.attached.slice(1).map(({ client }) => client);
  let done = 0;
  for (const client of storm) {
    client.send(READY);
    client.send({ ...snapshot });
    client.send(event('chat.delta', 1, { content: 'end' }));
  }
  for (const client of clients) client.next((frame) => frame.seq === 1).then(() => done++);
  // A frame of the quiet one for every turn of the loop that the storm takes: there are many of them.
  let seq = 0;
  while (done < clients.length) {
    seq += 1;
    watching?.send(event('chat.delta', seq, { content: '.' }));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(seq > 40 * 10, `${seq} turns of the loop for ${clients.length} snapshots of fifteen steps`);
  await quiet.next((frame) => frame.seq === seq);
});

test('a client that goes while it is brought up to date holds up nobody', async () => {
  const { url, directory } = await open();
  const [gone, stays] = [await connect(`${url}/ws/acme/s1`), await connect(`${url}/ws/acme/s2`)];
  await Promise.all([gone.next('session.ready'), stays.next('session.ready')]);
  for (const { client } of directory.attached) {
    client.send(READY);
    client.send(snapshotOf(50, 'z'.repeat(20_000)));
  }
  gone.destroy();
  assert.equal((await stays.next('session.snapshot')).data.messages.length, 50);
});
