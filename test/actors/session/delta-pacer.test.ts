/** Held-back deltas go out with their loop turn or their window, and never so many at once that the loop stands still. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPacer } from '../../../actors/session/delta-pacer.ts';
import { loopTurns } from '../../support/until.ts';

test('what is due soon goes out with the next loop turn, in order', async (t) => {
  const pacer = createPacer();
  t.after(() => pacer.close());
  const out: number[] = [];
  for (const at of [1, 2, 3]) pacer.soon(() => out.push(at));
  assert.deepEqual(out, []);
  await loopTurns();
  assert.deepEqual(out, [1, 2, 3]);
});

test('one window serves all that have its length, and closing ends it', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const pacer = createPacer();
  const out: string[] = [];
  pacer.later(() => out.push('a'), 15);
  t.mock.timers.tick(10);
  pacer.later(() => out.push('b'), 15);
  t.mock.timers.tick(5);
  assert.deepEqual(out, ['a', 'b']);
  pacer.later(() => out.push('c'), 15);
  pacer.close();
  t.mock.timers.tick(15);
  assert.deepEqual(out, ['a', 'b']);
});

test('between the flushes of many sessions the loop turns', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const pacer = createPacer();
  t.after(() => pacer.close());
  const out: number[] = [];
  for (let at = 0; at < 100; at += 1) pacer.later(() => out.push(at), 15);
  t.mock.timers.tick(15);
  const first = out.length;
  assert.ok(first > 0 && first < 100, `${first} at once`);
  let turns = 0;
  while (out.length < 100 && turns < 100) {
    await loopTurns();
    turns += 1;
  }
  assert.ok(turns > 1, 'something else may run in between more than once');
  assert.deepEqual(
    out,
    Array.from({ length: 100 }, (_, at) => at),
  );
});
