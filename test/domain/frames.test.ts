/** What clients may send, what the node sends, and the alphabet of ids. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { refusal } from '../../src/domain/errors.ts';
import {
  clientFrameSchema,
  eventData,
  isTerminal,
  MAX_MESSAGE_UNITS,
  noticeData,
  wireFrameSchema,
} from '../../src/domain/frames.ts';
import { taskIdSchema } from '../../src/domain/ids.ts';

const accepts = (frame: unknown): boolean => clientFrameSchema.safeParse(frame).success;

test('the shortest chat.send gets the promised defaults', () => {
  assert.deepEqual(clientFrameSchema.parse({ type: 'chat.send', message: 'hi' }), {
    type: 'chat.send',
    message: 'hi',
    stream: true,
    on_busy: 'enqueue',
  });
});

test('a full chat.send is taken as it stands, nulls are absent, and unknown fields are refused', () => {
  const frame = {
    type: 'chat.send',
    message: '\u0000 \ud800 lone and nul',
    agent_id: 'a',
    task_id: 'T:1@x.y_z-',
    context: { deep: [1, { two: null }] },
    stream: false,
    on_busy: 'interrupt',
  };

  assert.deepEqual(clientFrameSchema.parse({ ...frame, images: null, agent_version: null }), frame);
  assert.equal(accepts({ ...frame, extra: 1 }), false);
  assert.equal(accepts({ ...frame, extra: null }), true);
});

test('a message has 1 to 32,000 UTF-16 units', () => {
  assert.equal(accepts({ type: 'chat.send', message: '' }), false);
  assert.equal(accepts({ type: 'chat.send', message: 'x'.repeat(MAX_MESSAGE_UNITS) }), true);
  assert.equal(accepts({ type: 'chat.send', message: '😀'.repeat(MAX_MESSAGE_UNITS / 2) }), true);
  assert.equal(accepts({ type: 'chat.send', message: `${'😀'.repeat(MAX_MESSAGE_UNITS / 2)}x` }), false);
});

test('what is no frame is refused, whatever it is', () => {
  for (const wrong of [
    ...[null, undefined, 1, 'ping', [], {}, { type: 'chat' }, { type: ['ping'] }, { type: 'chat.cancel' }],
    { type: 'chat.send' },
    { type: 'chat.send', message: 5 },
    { type: 'chat.send', message: 'x', task_id: '' },
    { type: 'chat.send', message: 'x', task_id: 7 },
    { type: 'chat.send', message: 'x', agent_id: 'a b' },
    { type: 'chat.send', message: 'x', context: [] },
    { type: 'chat.send', message: 'x', context: 'y' },
    { type: 'chat.send', message: 'x', stream: 'true' },
    { type: 'chat.send', message: 'x', on_busy: 'wait' },
    { type: 'chat.cancel', task_id: '../x' },
  ])
    assert.equal(accepts(wrong), false, JSON.stringify(wrong));
});

test('a context with a __proto__ key poisons nothing', () => {
  const hostile: unknown = JSON.parse(
    '{"type":"chat.send","message":"x","context":{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}}}}',
  );
  const parsed = clientFrameSchema.parse(hostile);

  assert.equal(Reflect.get({}, 'polluted'), undefined);
  assert.ok(parsed.type === 'chat.send');
  assert.equal(Reflect.get(parsed.context ?? {}, 'polluted'), undefined);
});

test('parsing never throws anything but its own refusal, whatever comes', () => {
  fc.assert(
    fc.property(fc.anything({ withNullPrototype: true }), (value) => typeof accepts(value) === 'boolean'),
  );
});

test('ids are 1 to 128 characters of the alphabet, and nothing is cleaned up', () => {
  for (const good of ['a', 'A-Z_a.z:0@9', 'x'.repeat(128), '-', '...', '.a'])
    assert.equal(taskIdSchema.parse(good), good);
  for (const wrong of [
    '',
    ' ',
    'a ',
    'a\n',
    'ä',
    'a/b',
    'a\u0000',
    'x'.repeat(129),
    '😀',
    'a%20b',
    '*',
    '.',
    '..',
    null,
    1,
  ])
    assert.equal(taskIdSchema.safeParse(wrong).success, false, JSON.stringify(wrong));
});

test('an id is accepted exactly if every character is in the alphabet', () => {
  const alphabet = new Set('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-');
  fc.assert(
    fc.property(fc.string({ maxLength: 8, unit: 'grapheme' }), (text) => {
      const isNamed = text.length > 0 && text !== '.' && text !== '..';
      const allowed = isNamed && [...text].every((character) => alphabet.has(character));
      return taskIdSchema.safeParse(text).success === allowed;
    }),
  );
});

test('a turn ends in a response, a cancellation or an error, and in nothing else', () => {
  assert.deepEqual(Object.keys(eventData).filter(isTerminal), ['chat.response', 'chat.cancelled', 'error']);
});

test('the frames of the protocol all have a schema, numbered or not', () => {
  assert.deepEqual(Object.keys(eventData).sort(), [
    ...['chat.accepted', 'chat.cancelled', 'chat.delta', 'chat.queued', 'chat.response', 'error'],
    ...['execution.started', 'tool.finished', 'tool.started'],
  ]);
  assert.deepEqual(Object.keys(noticeData).sort(), [
    ...['chat.reasoning', 'error', 'pong', 'server.draining', 'session.ready', 'session.snapshot'],
  ]);
});

test('a frame on the wire has a type, a time in UTC, and a positive seq if any', () => {
  const frame = { type: 'error', seq: 1, ts: '2024-01-01T00:00:00.000Z', data: refusal('BUSY') };

  assert.equal(wireFrameSchema.safeParse(frame).success, true);
  assert.equal(wireFrameSchema.safeParse({ ...frame, seq: 0 }).success, false);
  assert.equal(wireFrameSchema.safeParse({ ...frame, ts: 'yesterday' }).success, false);
});
