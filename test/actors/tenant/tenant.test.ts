/** The tenant's decisions: tier, rates, quotas, bounds, and who of its turns may run. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  newTenant,
  type TenantEffect,
  type TenantMessage,
  type TenantState,
} from '../../../actors/tenant/protocol.ts';
import { recoverTenant, tenant } from '../../../actors/tenant/tenant.ts';
import { items } from '../../../src/domain/fifo.ts';
import { TIER_TABLE, type Tier } from '../../../src/domain/tiers.ts';
import { SESSION, sessionId, TENANT, taskId } from '../fixtures.ts';

const DAY_MS = 86_400_000;

function play(
  state: TenantState,
  ...messages: readonly TenantMessage[]
): readonly [TenantState, readonly TenantEffect[]] {
  const effects: TenantEffect[] = [];
  const end = messages.reduce((current, message) => {
    const [next, more] = tenant(current, message);
    effects.push(...more);
    return next;
  }, state);
  return [end, effects];
}

const live = (tier: Tier): TenantState =>
  tenant(newTenant(TENANT, tier, TIER_TABLE), { type: 'loaded', record: null })[0];

const claim = (
  id: string,
  more: Partial<Extract<TenantMessage, { type: 'requestAdmission' }>> = {},
): Extract<TenantMessage, { type: 'requestAdmission' }> => ({
  type: 'requestAdmission',
  attempt: 1,
  sessionId: SESSION,
  taskId: taskId(id),
  arrival: 1,
  slot: 'requested',
  tier: undefined,
  atMs: 1_000,
  ...more,
});
const release = (
  id: string,
  slot: 'none' | 'requested' | 'granted',
  refund = false,
  attempt = 1,
): TenantMessage => ({
  type: 'release',
  taskId: taskId(id),
  attempt,
  slot,
  refund,
});
const enter = (tier?: Tier): TenantMessage => ({ type: 'join', sessionId: SESSION, tier, atMs: 1 });
const many = (count: number, prefix = 't'): TenantMessage[] =>
  Array.from({ length: count }, (_, index) => claim(`${prefix}${index}`));

const told = (effects: readonly TenantEffect[]) =>
  effects.flatMap((effect) => (effect.type === 'tellSession' ? [effect.message] : []));
const wanted = (effects: readonly TenantEffect[]): readonly string[] =>
  effects.flatMap((effect) => (effect.type === 'requestSlot' ? [effect.taskId] : []));
const refusals = (effects: readonly TenantEffect[]): readonly string[] =>
  told(effects).flatMap((message) => (message.type === 'notAdmitted' ? [message.error.code] : []));
const books = ({ running, queued, waiting }: TenantState): readonly number[] => [
  running,
  queued,
  waiting.size,
];

test('what comes before the record waits for it, and the record is asked for once', () => {
  const fresh = newTenant(TENANT, 'professional', TIER_TABLE);
  const [waiting, effects] = play(fresh, enter(), claim('t'));
  assert.deepEqual(effects, [{ type: 'loadTenant' }]);
  const record = { tenantId: TENANT, tier: 'free', day: '1970-01-01', used: 99 } as const;
  const [after, more] = play(waiting, { type: 'loaded', record });
  assert.deepEqual(
    told(more).map(({ type }) => type),
    ['joined', 'admitted'],
  );
  assert.deepEqual([after.tier, after.day.used, after.stash], ['free', 100, null]);
});

test('a record that can not be loaded fails the sessions that wait, and the next message asks again', () => {
  const [waiting] = play(newTenant(TENANT, 'free', TIER_TABLE), enter());
  const [after, effects] = play(waiting, { type: 'loadFailed', atMs: 5 });
  assert.deepEqual(effects, [{ type: 'tellAllSessions', message: { type: 'loadFailed', atMs: 5 } }]);
  assert.deepEqual(play(after, enter())[1], [{ type: 'loadTenant' }]);
});

test('who enters while too many wait for the record is told to come back', () => {
  let state = newTenant(TENANT, 'free', TIER_TABLE);
  for (let index = 0; index < 10_000; index += 1) [state] = play(state, enter());
  const [after, effects] = play(state, enter());
  assert.deepEqual(told(effects), [{ type: 'loadFailed', atMs: 1 }]);
  assert.equal(after, state);
});

test("turns run up to the tier's executions; the others wait, are told how many are ahead, and run in order", () => {
  const [busy, effects] = play(live('free'), ...many(4));
  assert.deepEqual(wanted(effects), ['t0', 't1']);
  assert.deepEqual(
    told(effects).map((message) => (message.type === 'admitted' ? message.ahead : -1)),
    [0, 0, 2, 3],
  );
  assert.deepEqual(books(busy), [2, 2, 2]);
  const [next, more] = play(busy, release('t1', 'granted'));
  assert.deepEqual(more, [
    { type: 'slotReleased' },
    { type: 'requestSlot', sessionId: SESSION, taskId: 't2', attempt: 1, weight: TIER_TABLE.free.weight },
  ]);
  assert.deepEqual(books(next), [2, 1, 1]);
});

test("a claim beyond the tier's waiting turns is OVERLOADED and counts nothing", () => {
  const tiers = { ...TIER_TABLE, free: { ...TIER_TABLE.free, requests_per_minute: null } };
  const [empty] = tenant(newTenant(TENANT, 'free', tiers), { type: 'loaded', record: null });
  const [full] = play(empty, ...many(12));
  assert.deepEqual(books(full), [2, 10, 10]);
  const [after, effects] = play(full, claim('over'));
  assert.deepEqual(refusals(effects), ['OVERLOADED']);
  assert.equal(after, full);
});

test("a claim beyond the minute's requests is RATE_LIMITED, says when to come back, and counts nothing", () => {
  const [used] = play(live('free'), ...many(10));
  const [after, effects] = play(used, claim('over', { atMs: 4_000 }));
  const [refused] = told(effects);
  assert.ok(refused?.type === 'notAdmitted' && refused.error.code === 'RATE_LIMITED');
  assert.equal(refused.error.retry_after_ms, 3_000);
  assert.equal(after, used);
  assert.deepEqual(refusals(play(used, claim('later', { atMs: 7_000 }))[1]), []);
});

test("a claim beyond the day's requests is QUOTA_EXCEEDED until midnight UTC", () => {
  const record = { tenantId: TENANT, tier: undefined, day: '1970-01-01', used: 100 };
  const [used] = tenant(newTenant(TENANT, 'free', TIER_TABLE), { type: 'loaded', record });
  assert.deepEqual(refusals(play(used, claim('over', { atMs: DAY_MS - 1 }))[1]), ['QUOTA_EXCEEDED']);
  const [next, effects] = play(used, claim('tomorrow', { atMs: DAY_MS }));
  assert.deepEqual([refusals(effects), next.day], [[], { day: '1970-01-02', used: 1 }]);
});

test('a turn that was refused after all is refunded: minute, day, and its place', () => {
  const before = live('free');
  const [claimed] = play(before, claim('t', { slot: 'none' }));
  const [after] = play(claimed, release('t', 'none', true));
  assert.deepEqual(books(after), [0, 0, 0]);
  assert.deepEqual([after.minute?.tokens, after.day.used], [10, 0]);
});

test('a turn that is only in line in its session holds a place, and asks to run when it is first', () => {
  const [inLine, effects] = play(live('free'), claim('t', { slot: 'none' }));
  assert.deepEqual([wanted(effects), books(inLine)], [[], [0, 1, 0]]);
  const [running, more] = play(inLine, {
    type: 'requestSlot',
    sessionId: SESSION,
    taskId: taskId('t'),
    attempt: 1,
    arrival: 1,
  });
  assert.deepEqual([wanted(more), books(running)], [['t'], [1, 0, 0]]);
});

test('a turn that waits here and gives up leaves the line; one that has gone on gives its grant back later', () => {
  const [busy] = play(live('free'), ...many(3));
  const [left, none] = play(busy, release('t2', 'requested'));
  assert.deepEqual([books(left), none], [[2, 0, 0], []]);
  const [same] = play(busy, release('t0', 'requested'));
  assert.deepEqual(books(same), books(busy), 'its slot is with the node until it is granted');
  assert.deepEqual(books(play(same, release('t0', 'granted'))[0]), [2, 0, 0]);
});

test('a task that was refused and said again gives back its first place, not its second', () => {
  const [busy] = play(live('free'), ...many(2), claim('twice'), claim('twice', { attempt: 2 }));
  assert.deepEqual(books(busy), [2, 2, 2]);
  const [once] = play(busy, release('twice', 'requested', true, 1));
  assert.deepEqual(
    items(once.waiting).map(({ attempt }) => attempt),
    [2],
  );
  const [running] = play(live('free'), ...many(2), claim('t1', { attempt: 2 }));
  const [same] = play(running, release('t1', 'requested', false, 1));
  assert.deepEqual(books(same), [2, 1, 1], 'the first has gone on to the node; the second waits');
});

test('a higher tier lets those who wait run at once; a lower one takes nothing away', () => {
  const [busy] = play(live('free'), ...many(5));
  const [raised, effects] = play(busy, enter('advance'));
  assert.deepEqual(
    [wanted(effects), books(raised)],
    [
      ['t2', 't3', 't4'],
      [5, 0, 0],
    ],
  );
  const [lowered] = play(raised, enter('free'), claim('more', { atMs: 60_000 }));
  assert.deepEqual(books(lowered), [5, 1, 1]);
  const [still, more] = play(lowered, release('t0', 'granted'));
  assert.deepEqual([wanted(more), still.running], [[], 4]);
});

test('those who wait hear of their position only when it has changed, and the first hundred of them', () => {
  const [busy] = play(live('professional'), ...many(160, 'p'));
  const announce: TenantMessage = { type: 'announce', atMs: 9 };
  const [announced, effects] = play(busy, announce);
  const ahead = told(effects).flatMap((message) => (message.type === 'moved' ? [message.ahead] : []));
  assert.deepEqual([ahead.length, ahead[0], ahead[99]], [100, 50, 149]);
  assert.deepEqual(told(play(announced, announce)[1]), []);
  const [, moved] = play(announced, release('p0', 'granted'), announce);
  const first = told(moved).find((message) => message.type === 'moved');
  assert.ok(first?.type === 'moved' && first.taskId === 'p51' && first.ahead === 50);
  assert.equal(items(announced.waiting).length, 110);
});

test('announcing stops when nobody waits', () => {
  const [busy] = play(live('free'), ...many(3));
  assert.equal(busy.announcing, true);
  const [quiet, effects] = play(busy, release('t2', 'requested'), { type: 'announce', atMs: 9 });
  assert.deepEqual([quiet.announcing, effects], [false, []]);
});

test('an idle tenant leaves the node only when no turn holds anything', () => {
  const leave = [{ type: 'leaveNode' }];
  assert.deepEqual(play(newTenant(TENANT, 'free', TIER_TABLE), { type: 'idle' })[1], leave);
  assert.deepEqual(play(live('free'), { type: 'idle' })[1], leave);
  const [busy] = play(live('free'), claim('t'));
  assert.deepEqual(play(busy, { type: 'idle' })[1], []);
});

test('a claim that crashed the tenant is refused, and a session that entered is let in', () => {
  const state = live('free');
  const [after, effects] = recoverTenant(state, claim('t', { sessionId: sessionId('s9') }));
  assert.equal(after, state);
  assert.deepEqual(refusals(effects), ['INTERNAL']);
  assert.deepEqual(told(recoverTenant(state, enter())[1]), [{ type: 'joined', tier: 'free', fixed: false }]);
  assert.deepEqual(recoverTenant(state, release('t', 'none'))[1], []);
});

test('a turn that waits starts before those that arrived after it, whichever asked first', () => {
  const [busy] = play(live('free'), ...many(2));
  const late = [5, 3, 4].map((arrival) => claim(`a${arrival}`, { arrival }));
  const [waiting, effects] = play(busy, ...late);
  assert.deepEqual(
    told(effects).map((message) => message.type === 'admitted' && message.ahead),
    [2, 2, 3],
    'each hears how many run and arrived before it',
  );
  const [, starts] = play(
    waiting,
    release('t0', 'granted'),
    release('t1', 'granted'),
    release('a3', 'granted'),
  );
  assert.deepEqual(wanted(starts), ['a3', 'a4', 'a5']);
});

test('a turn that is still looked up is passed by fewer than run at once, and not for ever', () => {
  const arrived = (arrival: number): TenantMessage => ({ type: 'arrived', arrival });
  const [arriving] = play(live('free'), ...[1, 2, 3, 4, 5].map(arrived));
  const asks = [3, 2, 4, 5].map((arrival) => claim(`a${arrival}`, { arrival }));
  const [one, first] = play(arriving, ...asks);
  assert.deepEqual(wanted(first), ['a2'], 'a3 would have passed two');
  const [blocked, none] = play(one, release('a2', 'granted'));
  assert.deepEqual(wanted(none), [], 'one has passed it');
  assert.deepEqual(wanted(play(blocked, claim('a1', { arrival: 1 }))[1]), ['a1', 'a3']);
  const [gone, freed] = play(blocked, { type: 'departed', arrival: 1 });
  assert.deepEqual([wanted(freed), gone.arriving], [['a3', 'a4'], []]);
});

test('whatever is looked up, and however long, no turn starts as far from its place as turns run at once', () => {
  const executions = TIER_TABLE.free.executions;
  const tiers = { ...TIER_TABLE, free: { ...TIER_TABLE.free, requests_per_minute: null, waiting: 100 } };
  fc.assert(
    fc.property(fc.infiniteStream(fc.nat(1_000)), fc.integer({ min: 1, max: 30 }), (chance, count) => {
      let [state] = tenant(newTenant(TENANT, 'free', tiers), { type: 'loaded', record: null });
      const looked = new Set<number>();
      const started: number[] = [];
      const running: string[] = [];
      const pick = (size: number): number => (chance.next().value ?? 0) % size;
      const apply = (...messages: readonly TenantMessage[]): void => {
        const [next, effects] = play(state, ...messages);
        state = next;
        for (const id of wanted(effects)) {
          started.push(Number(id.slice(1)));
          running.push(id);
        }
      };
      let next = 0;
      while (next < count || looked.size + running.length > 0) {
        const does = pick(3);
        if (does === 0 && next < count) {
          apply({ type: 'arrived', arrival: next });
          looked.add(next);
          next += 1;
        } else if (does === 1 && looked.size > 0) {
          const arrival = [...looked][pick(looked.size)] ?? 0;
          looked.delete(arrival);
          apply(claim(`a${arrival}`, { arrival }));
        } else if (running.length > 0) apply(release(running.shift() ?? '', 'granted'));
      }
      assert.equal(started.length, count);
      started.forEach((arrival, place) => {
        assert.ok(Math.abs(arrival - place) < executions, started.join(' '));
      });
      assert.deepEqual([state.arriving, state.running, state.queued], [[], 0, 0]);
    }),
  );
});
