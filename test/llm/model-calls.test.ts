/** The pure parts around a model call: pieces of tool calls, Retry-After, what an error means. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { cut } from '../../src/domain/cut.ts';
import {
  classify,
  cutOff,
  errorUnder200,
  parseRetryAfter,
  refusedByStatus,
} from '../../src/llm/model-errors.ts';
import {
  addPieces,
  closeCalls,
  MAX_ARGS_UNITS,
  MAX_CALLS,
  type OpenCall,
  parseArgs,
  type ToolCallPiece,
} from '../../src/llm/tool-calls.ts';

const merged = (pieces: readonly ToolCallPiece[]) => {
  const calls: OpenCall[] = [];
  for (const piece of pieces) addPieces(calls, [piece]);
  return closeCalls(calls, 1, []);
};

test('calls cut anywhere and mixed at will come out whole, in the order they were opened', () => {
  const call = fc.record({ name: fc.stringMatching(/^[a-z_]{1,12}$/), args: fc.string({ maxLength: 60 }) });
  fc.assert(
    fc.property(
      fc.array(call, { minLength: 1, maxLength: MAX_CALLS }),
      fc.infiniteStream(fc.nat(9)),
      (calls, picks) => {
        const heads = calls.map(({ name }, index) => ({ index, id: `c${index}`, name, args: '' }));
        const left = calls.map(({ args }, index) => ({ index, args }));
        const tail: ToolCallPiece[] = [];
        while (left.some(({ args }) => args !== '')) {
          for (const rest of left) {
            const units = picks.next().value;
            tail.push({ index: rest.index, args: rest.args.slice(0, units) });
            rest.args = rest.args.slice(units);
          }
        }
        assert.deepEqual(
          merged([...heads, ...tail]),
          calls.map(({ name, args }, index) => ({ id: `c${index}`, name, args })),
        );
      },
    ),
  );
});

test('without indexes, an id or a name opens the next call', () => {
  assert.deepEqual(
    merged([{ id: 'a', name: 'one', args: '{' }, { args: '}' }, { id: 'b', name: 'two', args: '{}' }]),
    [
      { id: 'a', name: 'one', args: '{}' },
      { id: 'b', name: 'two', args: '{}' },
    ],
  );
});

test('missing, doubled and oversized ids are replaced', () => {
  const ids = merged([
    { index: 0, name: 'a' },
    { index: 1, id: 'x', name: 'b' },
    { index: 2, id: 'x', name: 'c' },
    { index: 3, id: 'y'.repeat(200), name: 'd' },
  ]).map(({ id }) => id);
  assert.deepEqual(ids, ['call_1_1', 'x', 'call_1_3', 'call_1_4']);
});

test('too many calls and too long arguments are refused', () => {
  const many = Array.from({ length: MAX_CALLS + 1 }, (_, index) => ({ index, name: 'a' }));
  assert.throws(() => merged(many), /MODEL_ERROR/);
  assert.throws(() => merged([{ index: 0, name: 'a', args: 'x'.repeat(MAX_ARGS_UNITS + 1) }]), /MODEL_ERROR/);
});

test('arguments are a JSON object or nothing', () => {
  assert.deepEqual(parseArgs('{"a":1}'), { a: 1 });
  assert.deepEqual(parseArgs(' '), {});
  assert.deepEqual(parseArgs('null'), {});
  assert.deepEqual(parseArgs('"{\\"a\\":1}"'), { a: 1 });
  for (const bad of ['[1]', '3', '{"a":', '"text"']) assert.equal(parseArgs(bad), undefined);
});

test('Retry-After comes in seconds, milliseconds or as a date', () => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  const read = (headers: Record<string, string>) => parseRetryAfter((name) => headers[name], now);
  assert.equal(read({ 'retry-after': '2' }), 2_000);
  assert.equal(read({ 'retry-after': '0.5' }), 500);
  assert.equal(read({ 'retry-after-ms': '70', 'retry-after': '9' }), 70);
  assert.equal(read({ 'retry-after': 'Thu, 01 Jan 2026 00:00:05 GMT' }), 5_000);
  assert.equal(read({ 'retry-after': 'Wed, 31 Dec 2025 00:00:05 GMT' }), 0);
  assert.equal(read({ 'retry-after': 'soon' }), undefined);
  assert.equal(read({}), undefined);
});

test('errors are told apart by status, and by the cause chain where there is none', () => {
  const reset = new Error('fetch failed', { cause: Object.assign(new Error('x'), { code: 'ECONNRESET' }) });
  const statuses: readonly [number, string, boolean][] = [
    [429, 'MODEL_RATE_LIMITED', true],
    [500, 'MODEL_UNAVAILABLE', true],
    [408, 'MODEL_UNAVAILABLE', true],
    [404, 'MODEL_ERROR', false],
    [302, 'MODEL_ERROR', false],
  ];
  for (const [status, code, transient] of statuses) {
    const failure = refusedByStatus({ status, header: () => undefined, body: undefined }, 0);
    assert.deepEqual([failure.data.code, failure.transient], [code, transient]);
  }
  const cases: readonly [unknown, string, boolean][] = [
    [reset, 'MODEL_UNAVAILABLE', true],
    [new Error('something else'), 'MODEL_ERROR', false],
    ['not even an error', 'MODEL_ERROR', false],
  ];
  for (const [error, code, transient] of cases) {
    const failure = classify(error);
    assert.deepEqual([failure.data.code, failure.transient], [code, transient]);
  }
});

test('no text of a provider reaches a refusal', () => {
  fc.assert(
    fc.property(fc.integer({ min: 400, max: 599 }), (status) => {
      const error = { code: 'Canary!', message: 'canary', failed_generation: 'canary' };
      const failures = [
        refusedByStatus({ status, header: () => 'canary', body: { error } }, 0),
        errorUnder200(error),
        cutOff(),
      ];
      const told = failures.map(({ data, diagnosis }) => ({ data, diagnosis }));
      assert.doesNotMatch(JSON.stringify(told), /canary/i);
    }),
  );
});

test('a cut never leaves half a character', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), fc.integer({ min: 1, max: 30 }), (text, units) => {
      const short = cut(text, units);
      assert.ok(text.startsWith(short) && short.length <= units);
      assert.doesNotMatch(short, /[\ud800-\udbff]$/);
    }),
  );
});
