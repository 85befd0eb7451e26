/** What a node concludes from the beats of the others, over a time that the test makes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type MembershipEffect,
  type MembershipState,
  membership,
  newMembership,
} from '../../../actors/cluster/membership.ts';
import type { Look, Member } from '../../../src/ports/cluster.ts';

const CONFIG = { beatMs: 1_000, lostMs: 5_000 };
const ME = 1;

const member = (boot: number, beat: number, more: Partial<Member> = {}): Member => ({
  ...{ boot, beat, nodeId: `n${boot}`, state: 'live', version: '1', connected: true },
  ...more,
});

/** A node that looks, and remembers what it did. */
function observer(start: MembershipState = newMembership(CONFIG, ME, 'n1')) {
  let state = start;
  const done: MembershipEffect[] = [];
  const take = (step: ReturnType<typeof membership>): readonly string[] => {
    state = step[0];
    done.push(...step[1]);
    return step[1].map(({ type }) => type);
  };
  return {
    done,
    phase: () => state.phase,
    /** The look of that second; it took `tookMs`. */
    look: (second: number, members: readonly Member[], more: Partial<Look> & { tookMs?: number } = {}) => {
      const { tookMs = 0, ...rest } = more;
      const look: Look = {
        mine: 'live',
        adopted: 0,
        wanted: [],
        members: [member(ME, second), ...members],
        ...rest,
      };
      const askedAtMs = second * 1_000;
      return take(membership(state, { type: 'looked', look, askedAtMs, answeredAtMs: askedAtMs + tookMs }));
    },
    buried: (boot: number, outcome: 'buried' | 'renewed' | 'dead already') =>
      take(membership(state, { type: 'buried', boot, outcome })),
    superseded: () => take(membership(state, { type: 'superseded' })),
  };
}

test('a node whose beat stands still for five seconds and three looks is buried, as it was seen', () => {
  const { look, done } = observer();
  assert.deepEqual(look(0, [member(2, 7)]), ['joined']);
  for (const second of [1, 2, 3, 4]) assert.deepEqual(look(second, [member(2, 7)]), []);
  assert.deepEqual(look(5, [member(2, 7)]), ['bury']);
  assert.deepEqual(done.at(-1), { type: 'bury', boot: 2, seen: 7 });
});

test('a beat that moves in between, even back, is a sign of life', () => {
  const { look } = observer();
  for (const [second, beat] of [7, 7, 7, 7, 8, 8, 8, 8, 3, 3].entries())
    assert.deepEqual(look(second, [member(2, beat)]), second === 0 ? ['joined'] : []);
});

test('an observer that slept itself begins anew, so that it buries nobody for its own sleep', () => {
  const { look } = observer();
  look(0, [member(2, 7)]);
  look(1, [member(2, 7)]);
  assert.deepEqual(look(9, [member(2, 7)]), []);
  for (const second of [10, 11, 12, 13]) assert.deepEqual(look(second, [member(2, 7)]), []);
  assert.deepEqual(look(14, [member(2, 7)]), ['bury']);
});

test('slow answers shorten nothing: five seconds pass between an answer and a later question', () => {
  const { look } = observer();
  look(0, [member(2, 7)], { tookMs: 900 });
  for (const second of [1, 2, 3, 4, 5]) assert.deepEqual(look(second, [member(2, 7)], { tookMs: 900 }), []);
  assert.deepEqual(look(6, [member(2, 7)]), ['bury']);
});

test('looks that are far apart never make a death, however long it stands still', () => {
  const { look, done } = observer();
  for (const second of [0, 3, 6, 9, 12, 15]) look(second, [member(2, 7)]);
  assert.deepEqual(done, [{ type: 'joined' }]);
});

test('one whose connection is gone is buried after two and a half seconds, or five where it comes back', () => {
  const gone = observer();
  for (const second of [0, 1, 2])
    assert.deepEqual(gone.look(second, [member(2, 7, { connected: false })]), []);
  assert.equal(gone.phase(), 'joining', 'it may have left turns that look as if they ran');
  assert.deepEqual(gone.look(3, [member(2, 7, { connected: false })]), ['bury']);
  assert.deepEqual(gone.buried(2, 'buried'), ['lost', 'joined']);
  const back = observer();
  for (const second of [0, 1, 2]) back.look(second, [member(2, 7, { connected: second !== 2 })]);
  assert.deepEqual(back.look(3, [member(2, 7)]), []);
});

test('an earlier start under the same name is buried as early; one that lives is a rival', () => {
  const same = { nodeId: 'n1' };
  const after = observer();
  for (const second of [0, 1, 2]) assert.deepEqual(after.look(second, [member(2, 7, same)]), []);
  assert.deepEqual(after.look(3, [member(2, 7, same)]), ['bury']);
  const beside = observer();
  beside.look(0, [member(2, 7, same)]);
  assert.deepEqual(beside.look(1, [member(2, 8, same)]), [], 'the last beat of a dead one may come late');
  assert.deepEqual(beside.look(2, [member(2, 9, same)]), ['rivalled']);
  assert.deepEqual(beside.look(3, [member(2, 9, same)]), []);
  const joined = observer();
  assert.deepEqual(joined.look(0, []), ['joined']);
  joined.look(1, [member(2, 7, same)]);
  assert.deepEqual(joined.look(2, [member(2, 8, same)]), [], 'the newer one goes, not this one');
});

test('who was renewed under the lock lives; who is gone was buried by another', () => {
  const { look, buried, done } = observer();
  for (const second of [0, 1, 2, 3, 4, 5]) look(second, [member(2, 7), member(3, second)]);
  assert.deepEqual(buried(2, 'renewed'), []);
  assert.deepEqual(look(6, [member(2, 8), member(3, 6)]), []);
  assert.deepEqual(look(7, [member(3, 7)]), ['lost']);
  assert.deepEqual(done.at(-1), { type: 'lost', member: member(2, 8), buriedHere: false });
  assert.deepEqual(buried(2, 'dead already'), []);
});

test('a node that is dead itself does nothing more', () => {
  const beaten = observer();
  beaten.look(0, [member(2, 7)]);
  assert.deepEqual(beaten.look(1, [], { mine: null }), ['superseded']);
  assert.deepEqual(beaten.superseded(), []);
  const refused = observer();
  refused.look(0, [member(2, 7)]);
  assert.deepEqual(refused.superseded(), ['superseded']);
  for (const second of [1, 2, 3, 4, 5, 6]) assert.deepEqual(refused.look(second, [member(2, 7)]), []);
});

test('what nobody had to send is told of', () => {
  assert.deepEqual(observer().look(0, [], { adopted: 3 }), ['adopted', 'joined']);
});
