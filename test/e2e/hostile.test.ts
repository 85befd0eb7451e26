/** What one client does wrong, on a socket or over HTTP, no other client notices. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deltas, last, types } from '../support/chatter.ts';
import { startScene, startTestNode } from '../support/node.ts';
import { say } from '../support/stub-model.ts';
import { masked } from '../support/websocket-client.ts';

const deep = (levels: number): string => `${'['.repeat(levels)}${']'.repeat(levels)}`;

/** Each is answered INVALID_REQUEST, and the socket stays open. */
const BAD_FRAMES: readonly (readonly [string, string | Uint8Array])[] = [
  ['no JSON', 'complete garbage'],
  ['half of JSON', '{"type":"chat.send","message":"'],
  ['nothing', ''],
  ['a number', '42'],
  ['null', 'null'],
  ['a list', '[]'],
  ['no type', '{}'],
  ['an unknown type', '{"type":"chat.destroy"}'],
  ['the type of a server frame', '{"type":"session.ready","data":{}}'],
  ['no message', '{"type":"chat.send"}'],
  ['an empty message', '{"type":"chat.send","message":""}'],
  ['a message that is no text', '{"type":"chat.send","message":{"a":1}}'],
  ['a message that is too long', JSON.stringify({ type: 'chat.send', message: 'x'.repeat(32_001) })],
  ['a task id with a slash', '{"type":"chat.send","message":"x","task_id":"../../etc"}'],
  ['a task id that is too long', JSON.stringify({ type: 'chat.cancel', task_id: 'x'.repeat(129) })],
  ['a wrong on_busy', '{"type":"chat.send","message":"x","on_busy":"explode"}'],
  ['a context that is no object', '{"type":"chat.send","message":"x","context":[1]}'],
  ['deep nesting', `{"type":"chat.send","message":"x","context":{"a":${deep(100)}}}`],
  ['very deep nesting', `{"type":"chat.send","message":"x","context":{"a":${deep(100_000)}}}`],
  ['a binary frame', new Uint8Array([0xde, 0xad, 0xbe, 0xef])],
];

test('bad frames in the middle of a stream are answered, and disturb neither it nor others', async (t) => {
  const { stub, chat, ask } = await startScene(t);
  const text = 'A long and healthy stream. '.repeat(40);
  stub.byDefault(() => say(text, { chunks: 60, everyMs: 5 }));
  const [healthy, hostile] = [await chat('acme', 's1'), await chat('acme', 's2')];
  const [task, own] = [healthy.say('Go.'), hostile.say('Go.')];
  await Promise.all([healthy.see('chat.delta'), hostile.see('chat.delta')]);

  let errors = 0;
  for (const [name, frame] of BAD_FRAMES) {
    hostile.send(frame);
    errors += 1;
    const bad = (): typeof hostile.frames =>
      hostile.frames.filter(({ type, seq }) => type === 'error' && seq === undefined);
    await hostile.see(() => bad().length >= errors);
    assert.equal(bad().at(-1)?.data.code, 'INVALID_REQUEST', name);
  }
  const [end, ownEnd] = await Promise.all([
    healthy.ended(task),
    hostile.see(({ task_id, type }) => task_id === own && type === 'chat.response'),
  ]);
  assert.deepEqual([end.data.content, ownEnd.data.content], [text, text]);
  assert.equal(deltas(hostile.of(own)), text);
  assert.ok(!types(healthy.frames).includes('error'));
  const { body } = await ask('/ws/stats');
  assert.deepEqual([body.sockets, body.bad_frames], [2, BAD_FRAMES.length]);
});

test('a frame that is too large closes its socket alone', async (t) => {
  const { stub, chat, ask } = await startScene(t);
  const text = 'Unharmed. '.repeat(30);
  stub.next(say(text, { chunks: 30, everyMs: 5 }));
  const [healthy, hostile] = [await chat('acme', 's1'), await chat('acme', 's1')];
  const task = healthy.say('Go.');
  await Promise.all([healthy.see('chat.delta'), hostile.see('chat.delta')]);
  hostile.send(JSON.stringify({ type: 'chat.send', message: 'x'.repeat(300 * 1024) }));
  assert.ok([1006, 1009].includes((await hostile.closed).code));

  assert.equal((await healthy.ended(task)).data.content, text);
  while ((await ask('/ws/stats')).body.sockets > 1);
});

test('broken WebSocket framing closes its socket alone', async (t) => {
  const { chat } = await startTestNode(t);
  const healthy = await chat('acme', 's1');
  const broken: readonly (Uint8Array | string)[] = [
    new Uint8Array([0xf1, 0x80, 0, 0, 0, 0]), // reserved bits
    new Uint8Array([0x83, 0x80, 0, 0, 0, 0]), // an unknown opcode
    masked(1, new Uint8Array([0xff, 0xfe, 0xfd])), // text that is no UTF-8
    masked(9, new Uint8Array(126)), // a ping that is too long
    new Uint8Array([0x81, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 1, 2, 3, 4]), // far too long
  ];
  for (const bytes of broken) {
    const hostile = await chat('acme', 's1');
    hostile.raw(bytes);
    await hostile.closed;
  }
  last(await healthy.turn('Still there?'), 'chat.response');
});

test('hostile msgpack is refused, and the socket goes on', async (t) => {
  const { chat } = await startTestNode(t);
  const client = await chat('acme', 's1', { protocols: ['nooble.msgpack'] });
  const hostile = [
    new Uint8Array([0xdf, 0xff, 0xff, 0xff, 0xff]), // a map of four thousand million entries
    new Uint8Array([0xdd, 0xff, 0xff, 0xff, 0xff]),
    new Uint8Array([0xc6, 0xff, 0xff, 0xff, 0xff]),
    new Uint8Array(10_000).fill(0x91), // nested ten thousand deep
    new Uint8Array([0xc1]),
    new Uint8Array(0),
  ];
  for (const bytes of hostile) client.send(bytes);
  await client.see(() => client.frames.filter(({ type }) => type === 'error').length === hostile.length);
  assert.ok(client.frames.every(({ type, data }) => type !== 'error' || data.code === 'INVALID_REQUEST'));
  last(await client.turn('And now?'), 'chat.response');
});

test('hostile bodies are refused on every route that takes one', async (t) => {
  const { ask } = await startTestNode(t);
  const bodies: readonly (readonly [string, string, number])[] = [
    ['garbage', 'complete garbage', 400],
    ['nothing', '', 400],
    ['null', 'null', 400],
    ['a list', '[]', 400],
    ['deep nesting', deep(100_000), 400],
    ['a prototype', '{"__proto__":{"message":"x"},"constructor":1}', 400],
    ['too much', JSON.stringify({ message: 'x'.repeat(300 * 1024) }), 413],
  ];
  for (const path of ['/api/chat/send', '/api/chat/status', '/api/chat/cancel'])
    for (const [name, body, status] of bodies) {
      const answer = await ask(path, { method: 'POST', body });
      assert.equal(answer.status, status, `${name} on ${path}`);
      const code = status === 413 ? 'TOO_LARGE' : 'INVALID_REQUEST';
      assert.equal(answer.body.error.code, code, `${name} on ${path}`);
      assert.ok(answer.body.error.request_id);
    }
  for (const path of [
    '/api/chat/tasks/a%2Fb',
    '/api/sessions/a%20b/messages',
    `/api/sessions/${'x'.repeat(129)}/messages`,
  ])
    assert.equal((await ask(path)).status, 400, path);
  for (const headers of [
    { 'x-tenant-id': 'a/b' },
    { 'x-tenant-id': 'x'.repeat(129) },
    { 'x-user-id': '<script>' },
  ])
    assert.equal((await ask('/api/chat/tasks/t', { headers })).status, 400);
  assert.equal((await ask('/api/chat/tasks/t', { tenant: null })).status, 400);
});

test('a path that names nobody is told why and closed with 4400', async (t) => {
  const { chat } = await startTestNode(t);
  for (const [tenant, session] of [
    ['a%20b', 's1'],
    ['acme', 'x'.repeat(129)],
    ['acme', '%2e%2e%2f'],
  ] as const)
    await assert.rejects(chat(tenant, session), /4400/);
  await assert.rejects(chat('acme', 's1', { query: { last_seq: '-1' } }), /4400/);
});
