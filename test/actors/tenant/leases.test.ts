/** A tenant whose limits hold over several nodes: who waits for tokens and slots, what is asked, and who gets what. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newLeases } from '../../../actors/tenant/leases.ts';
import {
  newTenant,
  type TenantEffect,
  type TenantMessage,
  type TenantState,
} from '../../../actors/tenant/protocol.ts';
import { newScheduler, type SchedulerMessage, scheduler } from '../../../actors/tenant/scheduler.ts';
import { recoverTenant, tenant } from '../../../actors/tenant/tenant.ts';
import type { LeaseAnswer, LeaseQuestion } from '../../../src/domain/leases.ts';
import { TIER_TABLE, type TierTable } from '../../../src/domain/tiers.ts';
import { SESSION, TENANT, taskId, tenantId } from '../fixtures.ts';

const TIERS: TierTable = {
  ...TIER_TABLE,
  free: { ...TIER_TABLE.free, requests_per_day: 100, executions: 2 },
  professional: { ...TIER_TABLE.professional, requests_per_day: null },
};

const live = (tier: 'free' | 'professional' | 'enterprise', tiers = TIERS): TenantState =>
  tenant(newTenant(TENANT, tier, tiers, null, newLeases(tiers)), { type: 'loaded', record: null })[0];

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

const claim = (id: string, arrival = 1, atMs = 1_000): TenantMessage => ({
  type: 'requestAdmission',
  ...{
    attempt: 1,
    sessionId: SESSION,
    taskId: taskId(id),
    arrival,
    slot: 'requested',
    tier: undefined,
    atMs,
  },
});
const release = (id: string, slot: 'granted' | 'requested' = 'granted', refund = false): TenantMessage => ({
  ...{ type: 'release', taskId: taskId(id), attempt: 1, slot, refund },
});
const leased = (
  kind: 'minute' | 'executions',
  given: number,
  more: Partial<LeaseAnswer> = {},
): TenantMessage => ({
  type: 'leased',
  kind,
  answer: { given, retryAfterMs: null, share: null, ...more },
  atMs: 2_000,
});
const lost = (kind: 'minute' | 'executions'): TenantMessage => ({
  type: 'leased',
  kind,
  answer: null,
  atMs: 2_000,
});

const questions = (effects: readonly TenantEffect[]): readonly string[] =>
  effects.flatMap((effect) =>
    effect.type === 'askLease'
      ? [
          `${effect.kind}: held ${effect.question.held}, back ${effect.question.back}, want ${effect.question.want}`,
        ]
      : [],
  );
const told = (effects: readonly TenantEffect[]): readonly string[] =>
  effects.flatMap((effect) => {
    if (effect.type !== 'tellSession') return [];
    const { message } = effect;
    if (message.type === 'notAdmitted') return [`${message.taskId} ${message.error.code}`];
    return message.type === 'admitted' ? [`${message.taskId} admitted`] : [];
  });
const started = (effects: readonly TenantEffect[]): readonly string[] =>
  effects.flatMap((effect) => (effect.type === 'requestSlot' ? [effect.taskId] : []));

test('requests of one moment wait for one question, go on in their order, and the rest hear when there is a token', () => {
  const [waiting, asked] = play(live('free'), claim('a', 1), claim('b', 2), claim('c', 3));
  assert.deepEqual(told(asked), []);
  assert.deepEqual(questions(asked), [
    'minute: held 0, back 0, want 1',
    'executions: held 0, back 0, want 1',
  ]);
  const [more, again] = play(waiting, leased('minute', 1));
  assert.deepEqual([told(again), questions(again)], [['a admitted'], ['minute: held 0, back 0, want 2']]);
  const [done, effects] = play(more, leased('minute', 1, { retryAfterMs: 6_000 }));
  assert.deepEqual(told(effects), ['b admitted', 'c RATE_LIMITED']);
  assert.equal(done.leases?.pending.size, 0);
});

test('where the database does not say, those who wait for a token are refused, and the next one asks again', () => {
  const [waiting] = play(live('free'), claim('a'));
  const [refused, effects] = play(waiting, lost('minute'));
  assert.deepEqual(told(effects), ['a STORE_UNAVAILABLE']);
  assert.equal(questions(play(refused, claim('b'))[1])[0], 'minute: held 0, back 0, want 1');
});

test('a turn waits for a slot, asks again after a while where there is none, and a small limit gives it back at its end', () => {
  const [admitted, before] = play(live('free'), claim('a'), leased('minute', 1));
  assert.deepEqual([told(before), started(before)], [['a admitted'], []]);
  const [paused, none] = play(admitted, leased('executions', 0, { retryAfterMs: 0 }));
  assert.deepEqual(
    none.filter(({ type }) => type === 'leaseLater'),
    [{ type: 'leaseLater', what: 'again', afterMs: 250 }],
  );
  assert.deepEqual(questions(none), []);
  const [asking, again] = play(paused, { type: 'leaseDue', what: 'again' });
  assert.deepEqual(questions(again), ['executions: held 0, back 0, want 1']);
  const [running, start] = play(asking, leased('executions', 1));
  assert.deepEqual(started(start), ['a']);
  const [, end] = play(running, release('a'));
  assert.deepEqual(questions(end), ['executions: held 0, back 1, want 0']);
});

test('a larger limit is asked for a chunk, and then neither a turn nor its end asks anything', () => {
  const [ready] = play(
    live('professional'),
    claim('a'),
    leased('minute', 16),
    leased('executions', 6),
    release('a'),
  );
  let state = ready;
  for (let turn = 0; turn < 10; turn += 1) {
    const [next, effects] = play(state, claim(`t${turn}`), release(`t${turn}`));
    assert.deepEqual([told(effects), questions(effects)], [[`t${turn} admitted`], []]);
    state = next;
  }
  const [, looked] = play(state, { type: 'leaseDue', what: 'look' });
  assert.deepEqual(questions(looked), [
    'minute: held 5, back 0, want 11',
    'executions: held 6, back 0, want 0',
  ]);
  const [idle] = play(
    state,
    { type: 'leaseDue', what: 'look' },
    leased('minute', 11),
    leased('executions', 0),
  );
  const [, left] = play(idle, { type: 'leaseDue', what: 'look' });
  assert.deepEqual(questions(left), [
    'minute: held 0, back 16, want 0',
    'executions: held 0, back 6, want 0',
  ]);
});

test('a turn that was taken back leaves its token, and one that waits is no reason to leave the node', () => {
  const [ready] = play(live('professional'), claim('a'), leased('minute', 16), leased('executions', 6));
  const [back] = play(ready, release('a', 'granted', true));
  assert.deepEqual([back.leases?.minute.free, back.leases?.executions.used], [16, 0]);
  const [waiting] = play(live('free'), claim('a'));
  assert.deepEqual(tenant(waiting, { type: 'idle' })[1], []);
});

test('a day that the store found used up is refused early for five seconds, then the store is asked once more', () => {
  const [state] = play(live('free'), { type: 'daySpent', day: '1970-01-01', most: 100, atMs: 1_000 });
  const [after, effects] = play(state, claim('a', 1, 5_999));
  assert.deepEqual([told(effects), questions(effects)], [['a QUOTA_EXCEEDED'], []]);
  assert.deepEqual(questions(play(after, claim('b', 2, 6_000))[1])[0], 'minute: held 0, back 0, want 1');
  const [larger] = play({ ...state, tier: 'professional' }, claim('c'), leased('minute', 1));
  assert.equal(larger.queued, 1);
});

test('an answer over which the tenant crashed is taken for a lost one', () => {
  const [waiting] = play(live('free'), claim('a'));
  const [state, effects] = recoverTenant(waiting, leased('minute', 1));
  assert.deepEqual([told(effects), state.leases?.minute.asking], [['a STORE_UNAVAILABLE'], false]);
});

// --- Several nodes -----------------------------------------------------------------------------------------------

/** Slots as the table gives them: what all hold is never more than the limit, and who wants some in vain is heard of. */
function slotTable() {
  const held = new Map<string, Map<number, { held: number; wants: number }>>();
  return (name: string, node: number, { most, held: own, want }: LeaseQuestion): LeaseAnswer => {
    const all = held.get(name) ?? new Map<number, { held: number; wants: number }>();
    held.set(name, all);
    const others = [...all].filter(([other]) => other !== node).map(([, each]) => each);
    const room = most - own - others.reduce((sum, each) => sum + each.held, 0);
    const given = Math.max(0, Math.min(want, room));
    all.set(node, { held: own + given, wants: want - given });
    const share = others.some(({ wants }) => wants > 0) ? most / (others.length + 1) : null;
    return { given, retryAfterMs: given < want ? 0 : null, share };
  };
}

/**
 * Nodes on which tenants always have turns that wait; each turn runs ten rounds, who was refused a slot asks again after
 * three. Returns how many turns of each tenant each node ran, and the most that a tenant had running in all.
 */
function saturate(
  places: readonly number[],
  tiers: TierTable,
  names: readonly ['free', 'professional'],
  rounds: number,
) {
  const ask = slotTable();
  const most = new Map<string, number>();
  const nodes = places.map((capacity, index) => ({
    index,
    scheduler: newScheduler(capacity),
    tenants: new Map(names.map((tier) => [tier as string, live(tier, tiers)])),
    ran: new Map<string, number>(),
    ends: [] as { atRound: number; tenant: string; task: string }[],
    later: [] as { atRound: number; tenant: string; message: TenantMessage }[],
  }));
  let tasks = 0;
  for (let round = 0; round < rounds; round += 1)
    for (const node of nodes) {
      const ofScheduler = (message: SchedulerMessage): void => {
        const [next, effects] = scheduler(node.scheduler, message);
        node.scheduler = next;
        for (const effect of effects)
          if (effect.type === 'slotGranted') {
            node.ran.set(effect.tenantId, (node.ran.get(effect.tenantId) ?? 0) + 1);
            node.ends.push({ atRound: round + 10, tenant: effect.tenantId, task: effect.taskId });
          }
      };
      const ofTenant = (name: string, message: TenantMessage): void => {
        const state = node.tenants.get(name);
        assert.ok(state);
        const [next, effects] = tenant(state, message);
        node.tenants.set(name, next);
        for (const effect of effects) {
          if (effect.type === 'requestSlot') ofScheduler({ ...effect, tenantId: tenantId(name), tenancy: 1 });
          if (effect.type === 'slotReleased') ofScheduler(effect);
          if (effect.type === 'leaseLater') {
            const atRound = round + (effect.what === 'again' ? 3 : 40);
            node.later.push({ atRound, tenant: name, message: { type: 'leaseDue', what: effect.what } });
          }
          if (effect.type === 'askLease') {
            const answer = ask(name, node.index, effect.question);
            node.later.push({
              ...{ atRound: round + 1, tenant: name },
              message: { type: 'leased', kind: effect.kind, answer, atMs: round },
            });
          }
        }
      };
      const due = node.later.filter(({ atRound }) => atRound <= round);
      node.later = node.later.filter(({ atRound }) => atRound > round);
      for (const each of due) ofTenant(each.tenant, each.message);
      const over = node.ends.filter(({ atRound }) => atRound <= round);
      node.ends = node.ends.filter(({ atRound }) => atRound > round);
      for (const { tenant: name, task } of over) ofTenant(name, release(task));
      ofScheduler({ type: 'tick' });
      for (const [name, state] of node.tenants)
        for (let waiting = state.waiting.size; waiting < 5; waiting += 1) {
          tasks += 1;
          ofTenant(name, claim(`t${tasks}`, tasks));
        }
      for (const name of names) {
        const running = nodes.reduce((sum, each) => sum + (each.tenants.get(name)?.running ?? 0), 0);
        most.set(name, Math.max(most.get(name) ?? 0, running));
      }
    }
  return { ran: nodes.map((node) => node.ran), most };
}

const unmetered = (executions: number, weight: number) => ({
  ...TIER_TABLE.enterprise,
  ...{ executions, weight, waiting: 100, requests_per_day: null },
});

test('tenants on several nodes share their places by weight, within a fifth, whatever their number', () => {
  const tiers: TierTable = { ...TIER_TABLE, free: unmetered(200, 1), professional: unmetered(200, 4) };
  for (const places of [
    [10, 10],
    [4, 12, 7],
  ]) {
    const { ran } = saturate(places, tiers, ['free', 'professional'], 1_500);
    const sum = (name: string) => ran.reduce((total, each) => total + (each.get(name) ?? 0), 0);
    const share = sum('professional') / (sum('free') + sum('professional'));
    assert.ok(
      Math.abs(share - 0.8) <= 0.16,
      `${share} of the places went to the tenant of weight 4 beside 1`,
    );
    assert.ok(Math.abs(sum('professional') / sum('free') - 4) <= 0.8);
  }
});

test('a tenant that wants more than its limit on every node never runs more, and each node has its share of them', () => {
  for (const executions of [1, 2, 7, 12]) {
    const tiers: TierTable = {
      ...TIER_TABLE,
      free: unmetered(executions, 1),
      professional: unmetered(executions, 1),
    };
    const { ran, most } = saturate([40, 40], tiers, ['free', 'professional'], 3_000);
    for (const name of ['free', 'professional']) {
      assert.ok((most.get(name) ?? 0) <= executions);
      const [one = 0, two = 0] = ran.map((each) => each.get(name) ?? 0);
      assert.ok(
        Math.min(one, two) / (one + two) >= 0.35,
        `${one} and ${two} turns of ${name}, ${executions} at once`,
      );
      const possible = (3_000 / 10) * executions;
      assert.ok((one + two) / possible > 0.6, `${one + two} turns of ${possible}`);
    }
  }
});
