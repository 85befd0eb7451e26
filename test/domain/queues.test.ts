/** Names of queues and whose turn it is, as rules. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  afterFailure,
  callbackQueue,
  deadQueue,
  enrolled,
  isReplyQueue,
  managementQueue,
  nextSubscription,
  nodeSubscriptions,
  noTurns,
  orchestratorQueue,
  queueNameSchema,
  responseQueue,
  type Subscription,
  served,
  serviceOf,
  serviceQueue,
  shares,
  tierSubscription,
  type WaitingQueue,
  workQueue,
} from '../../src/domain/queues.ts';
import { TIERS } from '../../src/domain/tiers.ts';

const named = (name: string) => queueNameSchema.parse(name);
const full = (lanes: readonly Subscription[], length = 1_000): readonly WaitingQueue[] =>
  lanes.map((subscription) => ({ subscription, length }));

/** The queues served one by one, `count` times, while the same queues go on waiting. */
function order(waiting: readonly WaitingQueue[], count: number, from = noTurns): readonly string[] {
  let turns = from;
  return Array.from({ length: count }, () => {
    turns = enrolled(turns, waiting);
    const lane = nextSubscription(turns, waiting);
    if (!lane) return '';
    turns = served(turns, lane);
    return lane.queue;
  });
}

test('queues are named as the protocol says', () => {
  assert.equal(workQueue('free', 'high_priority'), 'execution_service:free:high_priority');
  assert.equal(callbackQueue('advance'), 'agent_execution_service:advance:callbacks');
  assert.equal(orchestratorQueue('acme'), 'orchestrator:acme:callback');
  assert.equal(managementQueue('tasks', 'acme'), 'agent-management.tasks.acme');
  assert.equal(serviceQueue('tool_registry', 'enterprise'), 'tool_registry_service:enterprise:default');
  assert.equal(
    responseQueue('execution_service', 'query.request', 'c1'),
    'execution_service:responses:query.request:c1',
  );
  assert.equal(deadQueue('a:b'), 'a:b:dead');
  assert.throws(() => orchestratorQueue('two words'));
});

test('replies are known by their queue, and services by theirs', () => {
  assert.ok(isReplyQueue('a:responses:b:c'));
  assert.ok(!isReplyQueue('orchestrator:acme:callback'));
  assert.equal(serviceOf('query_service:free:default'), 'query_service');
  assert.equal(serviceOf('agent-management.tasks.acme'), 'agent-management');
  assert.equal(serviceOf('nooble:inbox:a'), 'nooble:inbox:a');
});

test('an action that fails is delivered three times', () => {
  assert.deepEqual([1, 2, 3, 4].map(afterFailure), ['again', 'again', 'dead', 'dead']);
});

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
