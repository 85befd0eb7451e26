/** Those that compete, tenants or queues, are served by weight, and nobody saves up or games anything. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  dequeued,
  emptyFairQueue,
  enqueued,
  enrolled,
  type FairQueue,
  nextSubscription,
  noTurns,
  removed,
  served,
  shares,
  type WaitingQueue,
} from '../../src/domain/fair-queue.ts';
import {
  nodeSubscriptions,
  queueNameSchema,
  type Subscription,
  tierSubscription,
} from '../../src/domain/queues.ts';
import { TIERS } from '../../src/domain/tiers.ts';

interface Job {
  readonly tenant: string;
  readonly number: number;
}

const empty: FairQueue<Job> = emptyFairQueue;

function flood(queue: FairQueue<Job>, tenant: string, weight: number, count: number): FairQueue<Job> {
  let next = queue;
  for (let number = 0; number < count; number += 1) next = enqueued(next, tenant, weight, { tenant, number });
  return next;
}

function serve(queue: FairQueue<Job>, count: number): { jobs: readonly Job[]; rest: FairQueue<Job> } {
  const jobs: Job[] = [];
  let rest = queue;
  for (let number = 0; number < count; number += 1) {
    const next = dequeued(rest);
    if (!next) break;
    jobs.push(next.item);
    rest = next.rest;
  }
  return { jobs, rest };
}

const share = (jobs: readonly Job[], tenant: string): number =>
  jobs.filter((job) => job.tenant === tenant).length;

test('over a busy period tenants are served in proportion to their weights', () => {
  const queue = flood(flood(flood(empty, 'free', 1, 500), 'pro', 4, 500), 'big', 8, 500);
  const { jobs } = serve(queue, 130);

  assert.deepEqual([share(jobs, 'free'), share(jobs, 'pro'), share(jobs, 'big')], [10, 40, 80]);
});

test('over any stretch of a busy period nobody is more than one service off the share', () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(1, 2, 4, 8), { minLength: 2, maxLength: 8 }),
      fc.integer({ min: 1, max: 200 }),
      (weights, count) => {
        let queue = empty;
        weights.forEach((weight, index) => {
          queue = flood(queue, `t${index}`, weight, 200);
        });
        const { jobs } = serve(queue, count);
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        return weights.every((weight, index) => {
          const fair = (count * weight) / total;
          return Math.abs(share(jobs, `t${index}`) - fair) <= weights.length;
        });
      },
    ),
  );
});

test('a tenant that floods does not delay the first turn of a quiet one by more than a round', () => {
  const { rest } = serve(flood(empty, 'loud', 1, 1_000), 100);
  const { jobs } = serve(enqueued(rest, 'quiet', 1, { tenant: 'quiet', number: 0 }), 2);

  assert.equal(share(jobs, 'quiet'), 1);
});

test('idleness saves nothing up: who comes back shares from then on', () => {
  const { rest } = serve(
    flood(enqueued(empty, 'idle', 1, { tenant: 'idle', number: 0 }), 'busy', 1, 1_000),
    500,
  );
  const { jobs } = serve(flood(rest, 'idle', 1, 100), 20);

  assert.deepEqual([share(jobs, 'idle'), share(jobs, 'busy')], [10, 10]);
});

test('coming one by one gets no more than coming all at once', () => {
  let queue = flood(empty, 'many', 1, 100);
  queue = enqueued(queue, 'single', 1, { tenant: 'single', number: 0 });
  const jobs: Job[] = [];
  for (let step = 0; step < 40; step += 1) {
    const next = dequeued(queue);
    assert.ok(next);
    jobs.push(next.item);
    queue = next.rest;
    if (next.item.tenant === 'single')
      queue = enqueued(queue, 'single', 1, { tenant: 'single', number: step + 1 });
  }

  assert.ok(Math.abs(share(jobs, 'single') - 20) <= 1, `${share(jobs, 'single')} of 40`);
});

test("a tenant's own items leave in the order they came", () => {
  const { jobs } = serve(flood(flood(empty, 'a', 2, 50), 'b', 3, 50), 100);

  for (const tenant of ['a', 'b']) {
    const numbers = jobs.filter((job) => job.tenant === tenant).map((job) => job.number);
    assert.deepEqual(
      numbers,
      numbers.toSorted((one, other) => one - other),
    );
  }
});

type Step =
  | { readonly type: 'join'; readonly tenant: string; readonly weight: number }
  | { readonly type: 'serve' }
  | { readonly type: 'leave'; readonly tenant: string; readonly number: number };

const tenant = fc.constantFrom('a', 'b', 'c');
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ type: fc.constant('join' as const), tenant, weight: fc.integer({ min: 1, max: 8 }) }),
  fc.record({ type: fc.constant('serve' as const) }),
  fc.record({ type: fc.constant('leave' as const), tenant, number: fc.nat(20) }),
);

test('whatever joins, leaves and is served: nothing is lost, doubled or reordered, and the size is right', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 150 }), (script) => {
      let queue = empty;
      const model = new Map<string, number[]>([
        ['a', []],
        ['b', []],
        ['c', []],
      ]);
      script.forEach((action, number) => {
        if (action.type === 'join') {
          queue = enqueued(queue, action.tenant, action.weight, { tenant: action.tenant, number });
          model.get(action.tenant)?.push(number);
        } else if (action.type === 'leave') {
          const waiting = model.get(action.tenant) ?? [];
          queue = removed(queue, action.tenant, (job) => job.number % 21 === action.number);
          model.set(
            action.tenant,
            waiting.filter((waits) => waits % 21 !== action.number),
          );
        } else {
          const next = dequeued(queue);
          const waiting = [...model.values()].flat().length;
          assert.equal(next === null, waiting === 0, 'serves whenever something waits');
          if (!next) return;
          assert.equal(next.item.number, model.get(next.item.tenant)?.shift());
          queue = next.rest;
        }
        assert.equal(queue.size, [...model.values()].flat().length);
      });
    }),
  );
});

test('removing what is not there gives back the same queue', () => {
  const queue = flood(empty, 'a', 1, 3);

  assert.equal(
    removed(queue, 'a', () => false),
    queue,
  );
  assert.equal(
    removed(queue, 'nobody', () => true),
    queue,
  );
});

test('cancelling and coming again does not move a tenant forward', () => {
  let queue = flood(flood(empty, 'steady', 1, 50), 'jumpy', 1, 1);
  const jobs: Job[] = [];
  for (let round = 0; round < 20; round += 1) {
    queue = removed(queue, 'jumpy', () => true);
    queue = enqueued(queue, 'jumpy', 1, { tenant: 'jumpy', number: round });
    const next = dequeued(queue);
    assert.ok(next);
    jobs.push(next.item);
    queue = next.rest;
  }

  assert.ok(share(jobs, 'jumpy') <= 10);
});

// --- Whose turn it is: the queue reader's

const named = (name: string) => queueNameSchema.parse(name);
const full = (subscriptions: readonly Subscription[], length = 1_000): readonly WaitingQueue[] =>
  subscriptions.map((subscription) => ({ subscription, length }));

/** The queues served one by one, `count` times, while the same queues go on waiting. */
function order(waiting: readonly WaitingQueue[], count: number, from = noTurns): readonly string[] {
  let turns = from;
  return Array.from({ length: count }, () => {
    turns = enrolled(turns, waiting);
    const next = nextSubscription(turns);
    if (!next) return '';
    turns = served(turns, next);
    return next.queue;
  });
}

test('under full load tiers share by weight: 8, 4, 2, 1', () => {
  const heard = order(full(nodeSubscriptions()), 150);
  const of = (tier: string) => heard.filter((name) => name.includes(`:${tier}:`)).length;
  assert.deepEqual([...TIERS].reverse().map(of), [80, 40, 20, 10]);
});

test('high priority comes first and does not starve the rest of its tier', () => {
  const heard = order(full(nodeSubscriptions().filter(({ group }) => group === 'free')), 33);
  const of = (end: string) => heard.filter((name) => name.endsWith(end)).length;
  assert.equal(heard[0], 'execution_service:free:high_priority');
  assert.deepEqual([of('high_priority'), of('callbacks'), of('default')], [16, 16, 1]);
});

test("a thousand queues of one tier get no more than the tier's share", () => {
  const many = Array.from({ length: 1_000 }, (_, n) => tierSubscription(named(`free-${n}`), 'free'));
  const heard = order(full([...many, tierSubscription(named('one'), 'enterprise')]), 90);
  assert.equal(heard.filter((name) => name === 'one').length, 80);
});

test('a queue that was empty for long has saved nothing up', () => {
  const [busy, idle] = [tierSubscription(named('busy'), 'free'), tierSubscription(named('idle'), 'advance')];
  let turns = noTurns;
  const alone = full([busy]);
  for (let n = 0; n < 100; n += 1) turns = served(enrolled(turns, alone), busy);
  const heard = order(full([busy, idle]), 30, turns);
  const share = heard.filter((name) => name === 'idle').length;
  assert.ok(share === 20 || share === 21, `two thirds, not all: ${share}`);
});

test('shares give out what is free, and no more than there is', () => {
  const [a, b] = [tierSubscription(named('a'), 'enterprise'), tierSubscription(named('b'), 'free')];
  const some = [
    { subscription: a, length: 3 },
    { subscription: b, length: Number.POSITIVE_INFINITY },
  ];
  assert.deepEqual(
    [...shares(noTurns, some, 10)],
    [
      [a, 3],
      [b, 7],
    ],
  );
  assert.deepEqual([...shares(noTurns, full([a, b], 0), 10)], []);
  assert.deepEqual([...shares(noTurns, some, 0)], []);
});

test('a queue that holds nothing more is no part of the turns', () => {
  const [a, b] = [tierSubscription(named('a'), 'free'), tierSubscription(named('b'), 'advance')];
  const both = enrolled(noTurns, full([a, b]));
  assert.deepEqual(nextSubscription(both), b);
  assert.deepEqual(nextSubscription(served(both, b, true)), a);
  assert.equal(nextSubscription(served(served(both, b, true), a, true)), undefined);
  assert.deepEqual(enrolled(both, []).waiting, []);
});
