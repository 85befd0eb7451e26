/** What is kept of the rates of those who left: until it has flowed back, and never too much of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createRateMemory } from '../../../actors/tenant/rate-memory.ts';
import { fullAtMs, rateOf } from '../../../src/domain/rate-limit.ts';

const HOUR_MS = 3_600_000;
const TEN_AN_HOUR = rateOf(10, HOUR_MS);
const used = (tokens: number, atMs = 0) => ({ tokens, atMs });

test('a bucket is found until it is full again, and not after', () => {
  const book = createRateMemory();
  book.keep('a', used(7), TEN_AN_HOUR, 0);
  assert.deepEqual(book.find('a', 0.3 * HOUR_MS - 1), used(7));
  assert.equal(book.find('a', 0.3 * HOUR_MS), null);
  assert.equal(book.find('b', 0), null);
});

test('what is full, was never used, or has no limit is not kept, and what was kept before is gone', () => {
  const book = createRateMemory();
  for (const [bucket, rate] of [
    [used(10), TEN_AN_HOUR],
    [used(11), TEN_AN_HOUR],
    [null, TEN_AN_HOUR],
    [used(0), null],
    [used(0), rateOf(0, HOUR_MS)],
  ] as const) {
    book.keep('a', used(0), TEN_AN_HOUR, 0);
    book.keep('a', bucket, rate, 0);
    assert.deepEqual([book.size(), book.find('a', 0)], [0, null]);
  }
});

test('the last word on a bucket holds', () => {
  const book = createRateMemory();
  book.keep('a', used(3), TEN_AN_HOUR, 0);
  book.keep('a', used(2, 5), TEN_AN_HOUR, 5);
  assert.deepEqual([book.find('a', 5), book.size()], [used(2, 5), 1]);
});

test('past its bound the book forgets the oldest, and what is full by now makes room first', () => {
  const book = createRateMemory(3);
  for (const key of ['a', 'b', 'c', 'd', 'e']) book.keep(key, used(9), TEN_AN_HOUR, 0);
  assert.deepEqual([book.size(), book.find('a', 0), book.find('b', 0)], [3, null, null]);
  assert.deepEqual(book.find('c', 0), used(9));
  book.keep('late', used(9, HOUR_MS), TEN_AN_HOUR, HOUR_MS);
  assert.equal(book.size(), 1);
});

test('a flood of sessions is bounded', () => {
  const book = createRateMemory();
  for (let index = 0; index < 200_000; index += 1) book.keep(`acme/s${index}`, used(0), TEN_AN_HOUR, 0);
  assert.equal(book.size(), 50_000);
});

test('a bucket is full when what was used of it has flowed back', () => {
  const rate = { perMs: 0.5, burst: 4 };
  assert.equal(fullAtMs(used(1, 100), rate), 106);
  assert.equal(fullAtMs(used(4, 100), rate), 100);
  assert.equal(fullAtMs(used(5, 100), rate), 100);
  assert.equal(fullAtMs(used(0, 100), { perMs: 0, burst: 1 }), Number.POSITIVE_INFINITY);
});
