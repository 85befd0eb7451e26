/** The immutable queue behaves as an array would. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { emptyFifo, type Fifo, items, pushed, shifted, without } from '../../src/domain/fifo.ts';

const steps = fc.array(
  fc.oneof(fc.integer({ min: 0, max: 9 }), fc.constant('shift'), fc.constant('drop odd')),
  {
    maxLength: 200,
  },
);

test('whatever is pushed, shifted and removed, the queue holds what an array would hold', () => {
  fc.assert(
    fc.property(steps, (script) => {
      let queue: Fifo<number> = emptyFifo;
      let model: readonly number[] = [];
      for (const step of script) {
        if (typeof step === 'number') {
          queue = pushed(queue, step);
          model = [...model, step];
        } else if (step === 'shift') {
          const taken = shifted(queue);
          assert.equal(taken?.item, model[0]);
          queue = taken ? taken.rest : queue;
          model = model.slice(1);
        } else {
          queue = without(queue, (item) => item % 2 === 1);
          model = model.filter((item) => item % 2 === 0);
        }
        assert.deepEqual(items(queue), model);
        assert.equal(queue.size, model.length);
      }
    }),
  );
});

test('an older version of a queue stays what it was', () => {
  const two = pushed(pushed<string>(emptyFifo, 'a'), 'b');
  shifted(two);
  pushed(two, 'c');

  assert.deepEqual(items(two), ['a', 'b']);
});

test('removing nothing gives back the same queue', () => {
  const queue = pushed<string>(emptyFifo, 'a');

  assert.equal(
    without(queue, () => false),
    queue,
  );
});

test('an empty queue gives nothing', () => {
  assert.equal(shifted(emptyFifo), null);
  assert.deepEqual(items(emptyFifo), []);
});

test('a hundred thousand items go through without the stack or the time growing', () => {
  let queue: Fifo<number> = emptyFifo;
  for (let item = 0; item < 100_000; item += 1) queue = pushed(queue, item);
  let taken = 0;
  for (let next = shifted(queue); next; next = shifted(next.rest)) taken += 1;

  assert.equal(taken, 100_000);
});
