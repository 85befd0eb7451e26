/** Held-back deltas go out with their loop turn or their window, tenants in turn, and never so many that the loop stands still. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPacer } from '../../../actors/session/delta-pacer.ts';
import { tenantIdSchema } from '../../../src/domain/ids.ts';
import { loopTurns } from '../../support/until.ts';

const ACME = tenantIdSchema.parse('acme');
const LOUD = tenantIdSchema.parse('loud');

test('what is due soon goes out with the next loop turn, in order', async (t) => {
  const pacer = createPacer();
  t.after(() => pacer.close());
  const out: number[] = [];
  for (const at of [1, 2, 3]) pacer.soon(ACME, () => out.push(at));
  assert.deepEqual(out, []);
  await loopTurns();
  assert.deepEqual(out, [1, 2, 3]);
});

test('one window serves all that have its length, and closing ends it', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const pacer = createPacer();
  const out: string[] = [];
  pacer.later(ACME, () => out.push('a'), 15);
  t.mock.timers.tick(10);
  pacer.later(ACME, () => out.push('b'), 15);
  t.mock.timers.tick(5);
  await loopTurns();
  assert.deepEqual(out, ['a', 'b']);
  pacer.later(ACME, () => out.push('c'), 15);
  pacer.close();
  t.mock.timers.tick(15);
  await loopTurns();
  assert.deepEqual(out, ['a', 'b']);
});

test('between the flushes of many sessions the loop turns, whatever made them due', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const pacer = createPacer();
  t.after(() => pacer.close());
  const out: number[] = [];
  const most: number[] = [];
  for (let at = 0; at < 100; at += 1) pacer.later(ACME, () => out.push(at), 15);
  t.mock.timers.tick(15);
  for (let at = 100; at < 200; at += 1) pacer.soon(ACME, () => out.push(at));
  while (out.length < 200 && most.length < 100) {
    const before = out.length;
    await loopTurns();
    most.push(out.length - before);
  }
  assert.ok(Math.max(...most) <= 32, `${most} at once`);
  assert.deepEqual(
    out,
    Array.from({ length: 200 }, (_, at) => at),
  );
});

test('a tenant whose hundreds of sessions stream keeps nobody else waiting', async (t) => {
  const pacer = createPacer();
  t.after(() => pacer.close());
  const out: string[] = [];
  for (let at = 0; at < 500; at += 1) pacer.soon(LOUD, () => out.push('loud'));
  pacer.soon(ACME, () => out.push('acme'));
  await loopTurns();
  assert.equal(out.indexOf('acme'), 1);
  pacer.soon(ACME, () => out.push('acme'));
  await loopTurns();
  assert.equal(out.lastIndexOf('acme') < out.length - 10, true, 'again within one loop turn, and not last');
});

test('a flush that makes another due does not keep the loop', async (t) => {
  const pacer = createPacer();
  t.after(() => pacer.close());
  let flushes = 0;
  const again = (): void => {
    flushes += 1;
    if (flushes < 1_000) pacer.soon(ACME, again);
  };
  pacer.soon(ACME, again);
  await loopTurns();
  assert.ok(flushes <= 32, `${flushes} in one loop turn`);
});
