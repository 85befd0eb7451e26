/** The codec: round trips, exact wire shapes, and hostile bytes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Packr, pack, unpack } from 'msgpackr';
import type { DomainAction } from '../../../src/domain/domain-action.ts';
import { parseDomainAction } from '../../../src/domain/domain-action.ts';
import { type Frame, MAX_DEPTH, MAX_FRAME_BYTES, wireFrameSchema } from '../../../src/domain/frames.ts';
import {
  createPeerCodec,
  decodeAction,
  decodeClientFrame,
  encodeAction,
  encodeFrame,
  type Format,
} from '../../../transports/wire/codec.ts';

const AT = Date.UTC(2025, 0, 2, 3, 4, 5, 6);
const newId = () => 'made-up';

const text = (value: string) => Buffer.from(value);
const json = (value: unknown) => text(JSON.stringify(value));
// msgpackr's own default would write records; strangers write plain maps.
const strangers = new Packr({ useRecords: false, variableMapSize: true });
const encoded = (value: unknown, format: Format) => (format === 'json' ? json(value) : strangers.pack(value));

const frame = (more: Partial<Frame> = {}): Frame => ({
  type: 'chat.delta',
  seq: 7,
  atMs: AT,
  taskId: 't-1',
  data: { content: 'hé' },
  ...more,
});

function refused(bytes: Uint8Array, format: Format) {
  const reply = decodeClientFrame(bytes, format);
  assert.ok(!reply.ok, 'was accepted');
  assert.equal(reply.error.code, 'INVALID_REQUEST');
  return reply;
}

for (const format of ['json', 'msgpack'] as const) {
  test(`client frames are read from ${format}, with defaults filled in`, () => {
    const given = { type: 'chat.send', message: 'hi', task_id: 't-1', context: { a: [1, { b: null }] } };
    const reply = decodeClientFrame(encoded(given, format), format);
    assert.deepEqual(reply, { ok: true, frame: { ...given, stream: true, on_busy: 'enqueue' } });
    assert.deepEqual(decodeClientFrame(encoded({ type: 'ping' }, format), format), {
      ok: true,
      frame: { type: 'ping' },
    });
  });

  test(`a frame refused from ${format} carries its task id where that is valid`, () => {
    assert.equal(
      refused(encoded({ type: 'chat.send', message: '', task_id: 't-1' }, format), format).taskId,
      't-1',
    );
    assert.equal(
      refused(encoded({ type: 'chat.send', message: 'x', task_id: 'a b' }, format), format).taskId,
      undefined,
    );
    assert.equal(refused(encoded({ type: 'chat.cancel', task_id: 5 }, format), format).taskId, undefined);
  });

  test(`frames of wrong shapes are refused from ${format}`, () => {
    const values: unknown[] = [
      null,
      1,
      'text',
      true,
      [],
      {},
      { type: 'chat.nothing' },
      { type: 1 },
      { type: 'chat.send' },
      { type: 'chat.send', message: 5 },
      { type: 'chat.send', message: 'x'.repeat(32_001) },
      { type: 'chat.send', message: 'x', task_id: 'x'.repeat(129) },
      { type: 'chat.send', message: 'x', agent_id: '../etc' },
      { type: 'chat.send', message: 'x', context: [] },
      { type: 'chat.send', message: 'x', context: 'text' },
      { type: 'chat.send', message: 'x', stream: 'yes' },
      { type: 'chat.send', message: 'x', on_busy: 'explode' },
      { type: 'chat.cancel' },
      { type: 'chat.cancel', task_id: '' },
    ];
    for (const value of values) refused(encoded(value, format), format);
  });

  test(`nesting is bounded in ${format}`, () => {
    const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)]);
    const send = (depth: number) => ({ type: 'chat.send', message: 'x', context: { a: nested(depth - 2) } });
    assert.ok(decodeClientFrame(encoded(send(MAX_DEPTH), format), format).ok);
    assert.match(
      refused(encoded(send(MAX_DEPTH + 1), format), format).error.message,
      /nested deeper than 32/,
    );
  });

  test(`any JSON value survives as context through ${format}`, () => {
    fc.assert(
      fc.property(
        fc.dictionary(
          fc.string().filter((key) => key !== '__proto__'),
          fc.jsonValue({ maxDepth: 8 }),
        ),
        (value) => {
          // msgpackr renames that key; nothing may be lost by it but the key itself.
          const context = JSON.parse(JSON.stringify(value).replaceAll('"__proto__":', '"__proto_":'));
          const reply = decodeClientFrame(
            encoded({ type: 'chat.send', message: 'x', context }, format),
            format,
          );
          assert.ok(reply.ok && reply.frame.type === 'chat.send');
          assert.deepEqual(
            JSON.parse(JSON.stringify(reply.frame.context)),
            JSON.parse(JSON.stringify(context)),
          );
        },
      ),
      { numRuns: 200 },
    );
  });

  test(`random bytes and cut or changed frames never throw as ${format}`, () => {
    const good = encoded({ type: 'chat.send', message: 'hello', context: { a: [1, 'b'] } }, format);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        decodeClientFrame(bytes, format);
      }),
      { numRuns: 500 },
    );
    for (let at = 0; at < good.length; at += 1) {
      refused(good.subarray(0, at), format);
      const changed = Buffer.from(good);
      changed[at] = (changed[at] ?? 0) ^ 0xff;
      decodeClientFrame(changed, format);
    }
  });

  test(`frames go out as ${format} in the wire's shape, absent fields left out`, () => {
    const read = (value: string | Uint8Array): unknown =>
      typeof value === 'string' ? JSON.parse(value) : unpack(value);
    const full = read(encodeFrame(frame(), format));
    assert.deepEqual(full, {
      type: 'chat.delta',
      seq: 7,
      ts: '2025-01-02T03:04:05.006Z',
      task_id: 't-1',
      data: { content: 'hé' },
    });
    wireFrameSchema.parse(full);
    const bare = read(
      encodeFrame(frame({ seq: undefined, taskId: undefined, data: { a: undefined } }), format),
    );
    assert.deepEqual(bare, { type: 'chat.delta', ts: '2025-01-02T03:04:05.006Z', data: {} });
    assert.deepEqual(
      read(encodeFrame(frame({ seq: undefined, taskId: undefined, data: undefined }), format)),
      bare,
    );
  });

  test(`one frame for many sockets is encoded once as ${format}`, () => {
    const one = frame();
    assert.equal(encodeFrame(one, format), encodeFrame(one, format));
    assert.notDeepEqual(encodeFrame(one, format), encodeFrame(frame({ seq: 8 }), format));
    assert.deepEqual(encodeFrame(one, format), encodeFrame(frame(), format));
  });
}

test('types and task ids that need quoting are quoted', () => {
  const odd = frame({ type: 'a"b\n', taskId: 't"\\' });
  assert.deepEqual(JSON.parse(encodeFrame(odd, 'json')).type, 'a"b\n');
  assert.deepEqual(JSON.parse(encodeFrame(odd, 'json')).task_id, 't"\\');
});

test('msgpack to strangers is plain: no extension bytes, small maps', () => {
  const bytes = encodeFrame(frame({ seq: undefined, data: { list: [undefined, 1] } }), 'msgpack');
  assert.equal(bytes[0], 0x84);
  assert.deepEqual(unpack(bytes).data, { list: [null, 1] });
});

test('lone surrogates and NUL are text like any other', () => {
  const reply = decodeClientFrame(text('{"type":"chat.send","message":"a\\u0000\\ud800b"}'), 'json');
  assert.ok(reply.ok && reply.frame.type === 'chat.send');
  assert.equal(reply.frame.message, 'a\u0000\ud800b');
  assert.equal(
    JSON.parse(encodeFrame(frame({ data: { content: '\ud800' } }), 'json')).data.content,
    '\ud800',
  );
});

test('of duplicated keys the last one counts, and brackets in strings are no depth', () => {
  const reply = decodeClientFrame(
    text(`{"type":"chat.send","message":"a","message":"${'[{'.repeat(100)}\\"[["}`),
    'json',
  );
  assert.ok(reply.ok && reply.frame.type === 'chat.send' && reply.frame.message.endsWith('"[['));
});

test('many brackets side by side are no depth, and one level too deep among them is found', () => {
  const nested = (depth: number): unknown => (depth === 0 ? 1 : [nested(depth - 1)]);
  const sent = (deepest: number) => {
    const context = { flat: Array.from({ length: 100 }, () => [{}]), deep: nested(deepest - 2) };
    return { type: 'chat.send', message: '[{'.repeat(50), context };
  };
  for (const format of ['json', 'msgpack'] as const) {
    assert.ok(decodeClientFrame(encoded(sent(MAX_DEPTH), format), format).ok);
    assert.match(refused(encoded(sent(MAX_DEPTH + 1), format), format).error.message, /nested deeper/);
    // What a refusal left behind is nothing to the next.
    assert.ok(decodeClientFrame(encoded(sent(3), format), format).ok);
  }
});

test('a key __proto__ pollutes nothing', () => {
  for (const bytes of [
    text('{"type":"chat.send","message":"x","context":{"__proto__":{"polluted":1},"constructor":{"a":1}}}'),
    text('{"__proto__":{"type":"ping"}}'),
  ])
    decodeClientFrame(bytes, 'json');
  const proto = Buffer.from([0x81, 0xa9, ...text('__proto__'), 0x81, 0xa1, 0x61, 0x01]);
  refused(proto, 'msgpack');
  assert.equal(Object.hasOwn(Object.prototype, 'polluted'), false);
  assert.equal(Reflect.get({}, 'polluted'), undefined);
});

test('nesting of 100,000 is refused before it is parsed, in any spelling', () => {
  for (const [bytes, format] of [
    [text('['.repeat(131_000) + ']'.repeat(131_000)), 'json'],
    [text('{"a":'.repeat(50_000)), 'json'],
    [text(`{"type":"ping","x":${'['.repeat(100_000)}${']'.repeat(100_000)}}`), 'json'],
    [Buffer.alloc(200_000, 0x91), 'msgpack'],
    [Buffer.concat(Array.from({ length: 60_000 }, () => Buffer.from([0x81, 0xa1, 0x61]))), 'msgpack'],
  ] as const) {
    const start = performance.now();
    assert.match(refused(bytes, format).error.message, /nested deeper/);
    assert.ok(performance.now() - start < 20);
  }
});

test('msgpack that lies about its lengths costs neither time nor memory', () => {
  const lies = [
    [0xdd, 0xff, 0xff, 0xff, 0xff],
    [0xdf, 0xff, 0xff, 0xff, 0xff],
    [0xdb, 0xff, 0xff, 0xff, 0xff, 0x61],
    [0xdc, 0xff, 0xff, 0x01],
    [0xde, 0xff, 0xff, 0xa1],
    [0xd9, 0xff],
    [0xda],
    [0x92, 0x01],
    [0x9f, ...Array.from({ length: 15 }, () => 0xdd)],
  ];
  const before = process.memoryUsage().heapUsed;
  const start = performance.now();
  for (const lie of lies) assert.match(refused(Buffer.from(lie), 'msgpack').error.message, /ends too early/);
  assert.ok(performance.now() - start < 50);
  assert.ok(process.memoryUsage().heapUsed - before < 8e6);
});

test('msgpack beyond JSON is refused: extensions, timestamps, binaries, odd keys, two values', () => {
  const cases: [number[], RegExp][] = [
    [[0xd6, 0xff, 0, 0, 0, 1], /extensions/],
    [[0xc7, 0x01, 0x05, 0x00], /extensions/],
    [[0xd4, 0x72, 0x40, 0x91, 0xa1, 0x61, 0x01], /extensions/],
    [[0xc4, 0x01, 0x00], /binaries/],
    [[0xc6, 0xff, 0xff, 0xff, 0xff], /binaries/],
    [[0xc1], /extensions/],
    [[0x81, 0x01, 0x01], /keys must be strings/],
    [[0x81, 0x90, 0x01], /keys must be strings/],
    [[0x80, 0x80], /more than one value/],
    [[], /ends too early/],
  ];
  for (const [bytes, problem] of cases)
    assert.match(refused(Buffer.from(bytes), 'msgpack').error.message, problem);
  // A Date in a context could not be written as JSON afterwards; a bigint is written as its digits.
  const big = strangers.pack({ type: 'chat.send', message: 'x', context: { n: 2n ** 60n } });
  const reply = decodeClientFrame(big, 'msgpack');
  assert.ok(reply.ok && reply.frame.type === 'chat.send');
  assert.equal(JSON.stringify(reply.frame.context), '{"n":1152921504606846976}');
});

test('a frame over the size limit is refused unread', () => {
  assert.match(refused(Buffer.alloc(MAX_FRAME_BYTES + 1, 0x20), 'json').error.message, /larger than 262144/);
});

test('a refusal names the field and never quotes the input', () => {
  const { error } = refused(json({ type: 'chat.send', message: 'x', on_busy: 'secret-canary' }), 'json');
  assert.match(error.message, /on_busy/);
  assert.doesNotMatch(JSON.stringify(error), /canary/);
  assert.doesNotMatch(JSON.stringify(refused(text('{"secret-canary'), 'json').error), /canary/);
});

// --- Actions -----------------------------------------------------------------------------------------------

const action = (): DomainAction => {
  const parsed = parseDomainAction(
    {
      action_id: 'a-1',
      action_type: 'chat.process',
      task_id: 't-1',
      tenant_id: 'acme',
      tenant_tier: 'free',
      session_id: 's-1',
      correlation_id: 'c-1',
      data: { message: 'hé', context: { deep: [1, { x: null }], when: 1.5 } },
      callback_queue: 'orchestrator:acme:callback',
      timeout: 30,
      timestamp: '2025-01-02T03:04:05.006Z',
    },
    AT,
    newId,
  );
  assert.ok(parsed.ok);
  return parsed.action;
};

test('actions go round in JSON and in msgpack, told apart by the first byte', () => {
  for (const format of ['json', 'msgpack'] as const) {
    const reply = decodeAction(encodeAction(action(), format), AT, newId);
    assert.deepEqual(reply, { ok: true, action: action(), idGiven: true, format });
  }
  assert.equal(
    decodeAction(text(` \n${JSON.stringify({ action_type: 'x', tenant_id: 't' })}`), AT, newId).format,
    'json',
  );
});

test('msgpack written by another library with map16 and str8 headers is read', () => {
  const reply = decodeAction(pack(new Map(Object.entries(action()))), AT, newId);
  assert.deepEqual(reply.ok && reply.action, action());
});

test('hostile actions are refused cleanly', () => {
  for (const bytes of [
    Buffer.alloc(0),
    text('['.repeat(100_000)),
    text('{"action_type":"x","tenant_id":"t","data":"\\ud8'),
    Buffer.alloc(100_000, 0x91),
    Buffer.from([0xdf, 0xff, 0xff, 0xff, 0xff]),
    Buffer.from([0xc7, 0xff, 0x01]),
    text('[]'),
    text('null'),
    Buffer.alloc(5 * 1024 * 1024, 0x20),
  ]) {
    const reply = decodeAction(bytes, AT, newId);
    assert.ok(!reply.ok);
    assert.equal(reply.error.code, 'INVALID_REQUEST');
  }
});

test('two peers share the structure of the envelope and nothing else', () => {
  const [ours, theirs] = [createPeerCodec(), createPeerCodec()];
  const bytes = ours.encode(action());
  assert.equal(bytes[0], 0x40);
  assert.deepEqual(theirs.decode(bytes, AT, newId), { ok: true, action: action(), idGiven: true });
  assert.ok(bytes.length < encodeAction(action(), 'msgpack').length * 0.7);
  const grown = {
    ...action(),
    data: Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`k${i}`, i])),
  };
  assert.deepEqual(theirs.decode(ours.encode(grown), AT, newId), { ok: true, action: grown, idGiven: true });
  assert.equal(Buffer.from(ours.encode(action())).toString('hex'), Buffer.from(bytes).toString('hex'));
});

test('what is no record of a peer is refused', () => {
  const codec = createPeerCodec();
  const good = codec.encode(action());
  for (let at = 0; at < good.length; at += 1) assert.ok(!codec.decode(good.subarray(0, at), AT, newId).ok);
  assert.ok(!codec.decode(Buffer.from([0xd4, 0x72, 0x41, 0x91, 0xa1, 0x61, 0x01]), AT, newId).ok);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      codec.decode(Buffer.from([0x40, ...bytes]), AT, newId);
    }),
    { numRuns: 300 },
  );
});
