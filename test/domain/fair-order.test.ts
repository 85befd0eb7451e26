/** The order of many that wait is that of the rounds, whoever comes and goes, and does not grow dearer with them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FairOrder } from '../../src/domain/fair-order.ts';
import { enrolled, nextSubscription, noTurns, served, type Turns } from '../../src/domain/fair-queue.ts';
import { queueNameSchema, type Subscription } from '../../src/domain/queues.ts';

const line = (group: string, weight: number, share: number, name: number | string): Subscription => ({
  queue: queueNameSchema.parse(`${group}:${share}:${name}`),
  group,
  weight,
  share,
});
/** Shares and weights whose parts add up without rounding. */
const LINES = (
  [
    ['free', 1],
    ['pro', 4],
    ['big', 8],
  ] as const
).flatMap(([group, weight]) =>
  [1, 16].flatMap((share) => [0, 1, 2].map((name) => line(group, weight, share, name))),
);
const any = (): boolean => true;
/** When the next service of a subscription's group would end. */
const due = ({ waiting }: Turns, { group }: Subscription): number | undefined => {
  const found = waiting.find(({ name }) => name === group);
  return found && found.start + 1 / found.weight;
};

test('it is the order of the rounds, whoever comes and goes', () => {
  const step = fc.oneof(
    fc.record({ type: fc.constantFrom('toggle'), at: fc.nat(LINES.length - 1) }),
    fc.record({ type: fc.constantFrom('serve'), at: fc.constant(0) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const order = new FairOrder<Subscription>();
      const there: Subscription[] = [];
      let turns: Turns = noTurns;
      for (const { type, at } of steps) {
        const one = LINES[at];
        if (type === 'toggle' && one) {
          if (order.has(one)) {
            order.delete(one);
            there.splice(there.indexOf(one), 1);
          } else {
            order.add(one, one);
            there.push(one);
          }
        }
        turns = enrolled(
          turns,
          there.map((subscription) => ({ subscription, length: 1 })),
        );
        const next = nextSubscription(turns);
        const found = order.next(any);
        if (!next || !found) {
          assert.equal(found, next);
          continue;
        }
        // Which of two groups that are due at once comes first is no rule.
        if (found.group !== next.group) assert.equal(due(turns, found), due(turns, next), 'the group');
        if (type !== 'serve') continue;
        if (found.group === next.group) assert.equal(found.queue, next.queue);
        turns = served(turns, found);
        order.served(found);
      }
      assert.equal(order.size, there.length);
    }),
    { numRuns: 300 },
  );
});

test('one that can not be served now is passed by, and keeps its turn', () => {
  const order = new FairOrder<string>();
  for (const name of ['a', 'b', 'c']) order.add(name, line('free', 1, 1, name));
  assert.equal(
    order.next((item) => item !== 'a'),
    'b',
  );
  order.served('b');
  assert.equal(order.next(any), 'a');
  order.delete('a');
  assert.equal(order.next(any), 'c');
  assert.equal(
    order.next(() => false),
    undefined,
  );
  assert.equal(order.next(any), 'c');
});

test('a group that has had services is behind one that has had none', () => {
  const order = new FairOrder<string>();
  order.add('old', line('big', 8, 1, 'x'), 8);
  order.add('new', line('free', 1, 1, 'x'));
  const heard: string[] = [];
  for (let n = 0; n < 10; n += 1) {
    const next = order.next(any) ?? '';
    heard.push(next);
    order.served(next);
  }
  assert.equal(heard[0], 'new');
  assert.equal(heard.filter((name) => name === 'old').length, 8);
});

test('of ten thousand that wait a service looks at a few', () => {
  const order = new FairOrder<number>();
  for (let name = 0; name < 10_000; name += 1) order.add(name, line('free', 1, 1, name));
  let looks = 0;
  const seen = new Set<number>();
  for (let n = 0; n < 10_000; n += 1) {
    const next = order.next(() => {
      looks += 1;
      return true;
    });
    assert.ok(next !== undefined);
    seen.add(next);
    order.served(next);
    if (n % 3 === 0) order.delete(next);
  }
  assert.ok(seen.size >= 6_000);
  assert.equal(looks, 10_000);
});
