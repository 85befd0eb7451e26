/** A frame that came from another node: its text goes to sockets as it is, and is read only where another form is wanted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { unpack } from 'msgpackr';
import type { Frame } from '../../../src/domain/frames.ts';
import type { CrossingFrame } from '../../../src/ports/links.ts';
import { crossedFrame, encodeFrame } from '../../../transports/wire/codec.ts';

const crossing = (data: unknown): { readonly frame: Frame; readonly crossing: CrossingFrame } => {
  const frame = { type: 'chat.delta', seq: 7, atMs: 1_700_000_000_000, taskId: 't1', data };
  const { type, seq, atMs, taskId } = frame;
  return { frame, crossing: { type, seq, atMs, taskId, text: encodeFrame(frame, 'json') } };
};

test('it is on the wire what it would be at its owner, as JSON and as msgpack', () => {
  const { frame, crossing: given } = crossing({ content: 'héllo', n: [1, 2.5, null] });
  const crossed = crossedFrame(given);
  assert.equal(encodeFrame(crossed, 'json'), given.text);
  assert.deepEqual(unpack(encodeFrame(crossed, 'msgpack')), unpack(encodeFrame(frame, 'msgpack')));
  assert.deepEqual(crossed.data, frame.data);
});

test('numbers beyond 2^53 stay what they are', () => {
  const { crossing: given } = crossing({});
  const crossed = crossedFrame({ ...given, text: '{"type":"x","data":{"n":12345678901234567890}}' });
  assert.deepEqual(crossed.data, { n: 12345678901234567890n });
});

test('a snapshot may be longer than anything that a client may say', () => {
  const messages = Array.from({ length: 20_000 }, (_, n) => ({
    role: 'user',
    content: `${n}`,
    task_id: `t${n}`,
  }));
  const crossed = crossedFrame(crossing({ messages }).crossing);
  assert.deepEqual(crossed.data, { messages });
});

test('clients that are given it one after the other share it', () => {
  const { crossing: given } = crossing({ a: 1 });
  assert.equal(crossedFrame(given), crossedFrame(given));
  assert.notEqual(crossedFrame({ ...given }), crossedFrame(given));
});
