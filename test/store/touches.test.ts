/** Which sessions need no touch: those touched lately, and of those no more than there is room for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SESSION_TOUCH_MS } from '../../src/store/schema.ts';
import { createTouches } from '../../src/store/sqlite/touches.ts';

test('a session is fresh for as long as its row may lag behind', () => {
  const touches = createTouches();
  assert.equal(touches.fresh('acme', 's1', 5), false);
  touches.note('acme', 's1', 1_000);

  assert.equal(touches.fresh('acme', 's1', 1_000 + SESSION_TOUCH_MS), true);
  assert.equal(touches.fresh('acme', 's1', 1_001 + SESSION_TOUCH_MS), false);
  assert.equal(touches.fresh('acme', 's1', 0), true, 'a clock that went back touches nothing');
  assert.equal(touches.fresh('umbrella', 's1', 1_000), false);
});

test('what was dropped is not fresh, nor is anything once all is forgotten', () => {
  const touches = createTouches();
  for (const session of ['s1', 's2', 's3']) touches.note('acme', session, 1);
  touches.drop('acme', 's1');
  assert.equal(touches.fresh('acme', 's1', 1), false);
  assert.equal(touches.fresh('acme', 's2', 1), true);
  touches.clear();
  assert.equal(touches.fresh('acme', 's2', 1), false);
});

test('those touched longest ago make room', () => {
  const touches = createTouches(2);
  for (const session of ['s1', 's2', 's1', 's3']) touches.note('acme', session, 1);

  assert.deepEqual(
    ['s1', 's2', 's3'].map((session) => touches.fresh('acme', session, 1)),
    [true, false, true],
  );
});
