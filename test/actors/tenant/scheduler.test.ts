/** The node's decisions: capacity, fair share, starts per loop turn, and what a stopped tenant leaves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  newScheduler,
  type SchedulerEffect,
  type SchedulerMessage,
  type SchedulerState,
  scheduler,
} from '../../../actors/tenant/scheduler.ts';
import { SESSION, taskId, tenantId } from '../fixtures.ts';

const want = (tenant: string, task: string, weight = 1): SchedulerMessage => ({
  type: 'requestSlot',
  tenantId: tenantId(tenant),
  tenancy: 1,
  sessionId: SESSION,
  taskId: taskId(task),
  attempt: 1,
  weight,
});

function play(
  state: SchedulerState,
  messages: readonly SchedulerMessage[],
): readonly [SchedulerState, readonly SchedulerEffect[]] {
  const effects: SchedulerEffect[] = [];
  const end = messages.reduce((current, message) => {
    const [next, more] = scheduler(current, message);
    effects.push(...more);
    return next;
  }, state);
  return [end, effects];
}

const granted = (effects: readonly SchedulerEffect[]): readonly string[] =>
  effects.flatMap((effect) => (effect.type === 'slotGranted' ? [effect.taskId] : []));
const ticks = (effects: readonly SchedulerEffect[]): number =>
  effects.filter(({ type }) => type === 'tickSoon').length;

test('executions are granted up to the capacity; each one done lets another start', () => {
  const [full, effects] = play(newScheduler(2), [want('a', '1'), want('a', '2'), want('a', '3')]);
  assert.deepEqual([granted(effects), full.running, full.queue.size], [['1', '2'], 2, 1]);
  const [next, more] = play(full, [{ type: 'slotReleased' }]);
  assert.deepEqual([granted(more), next.running, next.queue.size], [['3'], 2, 0]);
  const [empty] = play(next, [{ type: 'slotReleased' }, { type: 'slotReleased' }]);
  assert.equal(empty.running, 0);
});

test('no more than eight start in one loop turn, and the tick that lets the rest start is asked for once', () => {
  const flood = Array.from({ length: 20 }, (_, index) => want('a', `${index}`));
  const [first, effects] = play(newScheduler(100), flood);
  assert.deepEqual([granted(effects).length, ticks(effects)], [8, 1]);
  const [second, more] = play(first, [{ type: 'tick' }]);
  assert.deepEqual([granted(more).length, ticks(more)], [8, 1]);
  const [third, rest] = play(second, [{ type: 'tick' }]);
  assert.deepEqual([granted(rest).length, ticks(rest)], [4, 1]);
  const [quiet, none] = play(third, [{ type: 'tick' }]);
  assert.deepEqual([none, quiet.ticking, quiet.started], [[], false, 0], 'ticking ends when nothing starts');
});

test('a quiet tenant is served next, however many executions another has asked for before it', () => {
  const flood = Array.from({ length: 50 }, (_, index) => want('loud', `loud${index}`));
  const [busy] = play(newScheduler(1), flood);
  const [, effects] = play(busy, [
    want('quiet', 'quiet0'),
    { type: 'slotReleased' },
    { type: 'slotReleased' },
  ]);
  assert.ok(granted(effects).includes('quiet0'));
});

test('while all want more than there is, tenants are served by their weights', () => {
  let [state] = play(newScheduler(1), [want('none', 'first')]);
  for (let index = 0; index < 90; index += 1)
    [state] = play(state, [want('light', `light${index}`, 1), want('heavy', `heavy${index}`, 8)]);
  const order: string[] = [];
  for (let index = 0; index < 45; index += 1) {
    const [next, effects] = play(state, [{ type: 'slotReleased' }, { type: 'tick' }]);
    order.push(...granted(effects));
    state = next;
  }
  const heavy = order.filter((task) => task.startsWith('heavy')).length;
  assert.ok(
    heavy >= 39 && heavy <= 41,
    `${heavy} of 45 went to the tenant of weight 8, beside one of weight 1`,
  );
});

test('a tenant that stops gives back what it was granted, and wants nothing more', () => {
  const wants = [want('gone', '1'), want('gone', '2'), want('stays', '3'), want('gone', '4')];
  const [busy] = play(newScheduler(2), wants);
  assert.deepEqual([busy.running, busy.queue.size], [2, 2]);
  const [after, effects] = play(busy, [{ type: 'tenantGone', tenantId: tenantId('gone'), held: 3 }]);
  assert.deepEqual([granted(effects), after.running, after.queue.size], [['3'], 1, 0]);
});
