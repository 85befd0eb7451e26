/** The one look over JSON text before it is parsed: strings, escapes, numbers and brackets as JSON has them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MAX_DEPTH } from '../../../src/domain/frames.ts';
import { decodeJson } from '../../../transports/wire/codec.ts';
import { afterText, MAX_WEIGHT, scanJson } from '../../../transports/wire/depth-limit.ts';

const bytesOf = (text: string): Uint8Array => Buffer.from(text);
const problemOf = (text: string): string | null => scanJson(bytesOf(text)).problem;
const isLarge = (text: string): boolean => scanJson(bytesOf(text)).hasLargeNumbers;

const depthOf = (value: unknown): number =>
  typeof value === 'object' && value !== null
    ? 1 + Math.max(0, ...Object.values(value).map((each) => depthOf(each)))
    : 0;

test('texts of any length and escapes hide their brackets, and nothing behind them is hidden', () => {
  const hostile = fc.string({
    unit: fc.constantFrom('\\', '"', '[', '{', ':', ',', 'a', 'é', '9', '\u2028'),
    maxLength: 200,
  });
  fc.assert(
    fc.property(hostile, hostile, fc.nat(MAX_DEPTH + 4), (before, name, depth) => {
      const inner: unknown = JSON.parse(`${'['.repeat(depth)}${']'.repeat(depth)}` || '0');
      const value = [before, { [name]: inner }, 7];
      const text = JSON.stringify(value);
      const isTaken = depthOf(value) <= MAX_DEPTH;
      assert.equal(problemOf(text) === null, isTaken, text);
      assert.equal(isLarge(text), false);
      assert.equal(isLarge(text.replace(/7\]$/, '12345678901234567]')), isTaken);
    }),
  );
});

test('where a text ends is where its first unescaped quote stands, however far', () => {
  const parts = fc.array(fc.constantFrom('\\\\', '\\"', 'x', 'x'.repeat(40), '\\'.repeat(64)), {
    maxLength: 60,
  });
  fc.assert(
    fc.property(parts, (list) => {
      const text = `${list.join('')}"[`;
      assert.equal(afterText(bytesOf(text), 0), text.length - 1);
      assert.ok(afterText(bytesOf(text.slice(0, -2)), 0) > text.length - 2);
    }),
  );
  assert.ok(afterText(bytesOf('abc\\'), 0) > 4);
});

test('numbers that a double rounds are found in any place and spelling, and no others', () => {
  const large = [
    '1234567890123456',
    '-9007199254740993',
    '1e400',
    '1E+400',
    '1.5e309',
    '0.5e999',
    '1e0000000005',
  ];
  for (const number of large)
    for (const text of [number, `[${number}]`, `{"a":${number}}`, `{"a":[1,\n ${number} ]}`])
      assert.equal(isLarge(text), true, text);
  const exact = [
    '0',
    '123456789012345',
    '0.12345678901234567',
    '1e99',
    '1e-400',
    '-1.25E-7',
    '"1234567890123456"',
  ];
  for (const number of exact)
    for (const text of [number, `[${number}]`, `{"1234567890123456":${number}}`, `{"a":[1e5, ${number}]}`])
      assert.equal(isLarge(text), false, text);
});

test('any JSON number comes back as it was written, or as the double that it is', () => {
  fc.assert(
    fc.property(fc.oneof(fc.double({ noDefaultInfinity: true, noNaN: true }), fc.integer()), (number) => {
      const text = JSON.stringify([number]);
      const read = decodeJson(bytesOf(text));
      assert.ok(read.ok);
      const [value] = Array.isArray(read.value) ? read.value : [];
      assert.equal(Number(value), JSON.parse(text)[0]);
    }),
  );
  fc.assert(
    fc.property(fc.bigInt({ min: -(10n ** 38n), max: 10n ** 38n }), (number) => {
      const read = decodeJson(bytesOf(`{"n":${number}}`));
      assert.ok(read.ok);
      assert.equal(JSON.stringify(read.value), `{"n":${number}}`);
    }),
  );
});

test('what is too heavy is refused at the first value beyond the limit', () => {
  const numbers = (count: number): string => `[${new Array(count).fill('1').join(',')}]`;
  assert.equal(problemOf(numbers(MAX_WEIGHT - 8)), null);
  assert.match(problemOf(numbers(MAX_WEIGHT)) ?? '', /more values/);
  assert.match(problemOf(`[${new Array(5_000).fill('{"a":[]}').join(',')}]`) ?? '', /more values/);
});

test('a mark before JSON is skipped once, and what is no UTF-8 is refused', () => {
  assert.deepEqual(decodeJson(Buffer.from('\ufeff{"a":1}')), { ok: true, value: { a: 1 } });
  assert.equal(decodeJson(Buffer.from('\ufeff\ufeff{"a":1}')).ok, false);
  assert.equal(decodeJson(Buffer.from('{"a":"caf\xe9"}', 'latin1')).ok, false);
  assert.equal(decodeJson(Buffer.from([])).ok, false);
});
