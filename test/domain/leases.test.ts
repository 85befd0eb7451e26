/** What a node leases of a limit that many share: chunks, what is held and for how long, and that it is never over. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  answeredLease,
  askFor,
  capacityOf,
  giveBack,
  heldOf,
  type Lease,
  type LeaseAnswer,
  type LeaseQuestion,
  type LeaseTerms,
  lookedAt,
  NO_LEASE,
  occupied,
  slotTerms,
  spent,
  surplusOf,
  tokenTerms,
  vacated,
} from '../../src/domain/leases.ts';

const given = (count: number, more: Partial<LeaseAnswer> = {}): LeaseAnswer => ({
  ...{ given: count, retryAfterMs: null, share: null },
  ...more,
});
const holding = (free: number, more: Partial<Lease> = {}): Lease => ({
  ...NO_LEASE,
  free,
  idle: free,
  ...more,
});

test('a chunk is an eighth of a limit, never more than five seconds of a rate bring, and at least one', () => {
  const chunks = (limits: readonly number[]) => limits.map((most) => tokenTerms(most, 60_000).chunk);
  assert.deepEqual(chunks([0, 1, 10, 50, 200, 6_000]), [1, 1, 1, 4, 16, 500]);
  assert.deepEqual(
    [2, 8, 10, 50, 500].map((most) => slotTerms(most).chunk),
    [1, 1, 1, 6, 62],
  );
  assert.deepEqual(
    [7, 8].map((most) => slotTerms(most).keeps),
    [false, true],
  );
  assert.deepEqual(
    [10, 50].map((most) => tokenTerms(most, 60_000).keeps),
    [false, true],
  );
});

test('it asks for a chunk, or for what is needed where that is more, once at a time, and slots only up to the limit', () => {
  const terms = slotTerms(50);
  const [asking, question] = askFor(NO_LEASE, terms, 1);
  assert.deepEqual(question, { most: 50, perMs: null, held: 0, back: 0, want: 6, spends: 0 });
  assert.equal(askFor(asking, terms, 1)[1], null);
  assert.equal(askFor(holding(3), terms, 9)[1]?.want, 9);
  assert.equal(askFor(holding(3, { used: 45 }), terms, 9)[1]?.want, 2);
  assert.equal(askFor(holding(0, { used: 50 }), terms, 9)[1], null);
  assert.equal(askFor(NO_LEASE, tokenTerms(10, 60_000), 3)[1]?.spends, 3);
  assert.equal(askFor(NO_LEASE, tokenTerms(0, 60_000), 1)[1]?.want, 1, 'whoever may have none is told so');
});

test('an answer that was lost leaves what is held, and the next question may come', () => {
  const lost = answeredLease(holding(2, { asking: true }), null);
  assert.deepEqual([lost.free, lost.asking], [2, false]);
});

test('what nobody used goes back; while some are used a chunk is held, and tokens are filled up', () => {
  const slots = slotTerms(50);
  assert.deepEqual(lookedAt(holding(6), slots)[1], {
    most: 50,
    perMs: null,
    held: 0,
    back: 6,
    want: 0,
    spends: 0,
  });
  const busy = occupied(holding(20));
  // Nineteen were idle: a chunk stays, beside the one in use.
  assert.deepEqual(lookedAt(busy, slots)[1], {
    most: 50,
    perMs: null,
    held: 7,
    back: 13,
    want: 0,
    spends: 0,
  });
  assert.equal(lookedAt(holding(0, { used: 3 }), slots)[1], null);
  const rate = tokenTerms(200, 60_000);
  assert.equal(lookedAt(holding(16), rate)[1]?.back, 16);
  const [after, question] = lookedAt(spent(spent(holding(16))), rate);
  assert.deepEqual([question?.back, question?.want, question?.held], [0, 2, 14]);
  assert.deepEqual([after.taken, after.idle], [0, 14]);
  const [, small] = lookedAt(spent(holding(2)), tokenTerms(10, 60_000));
  assert.deepEqual([small?.back, small?.want], [1, 0]);
});

test('while other nodes want some in vain, what is beyond its share is not used and goes back', () => {
  const lease = answeredLease(holding(1, { used: 7, asking: true }), given(0, { retryAfterMs: 0, share: 4 }));
  assert.deepEqual([surplusOf(lease), capacityOf(lease)], [1, 7]);
  const two = vacated(lease);
  assert.deepEqual([surplusOf(two), capacityOf(two)], [2, 6]);
  assert.equal(giveBack(two, slotTerms(8), surplusOf(two))[1]?.held, 6);
  // Of a single slot two nodes want, each has it in turn.
  assert.equal(surplusOf(holding(1, { share: 0.5 })), 1);
});

/** The table as it answers: what nodes say they hold, and a bucket that has room for what they do not hold. */
function table(most: number, perMs: number | null) {
  const held = new Map<number, number>();
  let tokens = most;
  let lost = 0;
  let atMs = 0;
  return {
    ask(node: number, question: LeaseQuestion, nowMs: number): LeaseAnswer {
      let others = 0;
      for (const [other, count] of held) if (other !== node) others += count;
      const room = most - others - question.held;
      if (perMs === null) {
        const more = Math.max(0, Math.min(question.want, room));
        held.set(node, question.held + more);
        return given(more, { retryAfterMs: more < question.want ? 0 : null });
      }
      // Since the last question it has filled up to what nobody was known to hold then, the dead included.
      const full = Math.max(tokens, most - others - lost - (held.get(node) ?? 0));
      lost = 0;
      tokens = Math.min(full, tokens + (nowMs - atMs) * perMs);
      tokens = Math.max(0, Math.min(room, tokens + question.back));
      atMs = nowMs;
      const more = Math.min(question.want, Math.floor(tokens + 1e-6));
      tokens = Math.max(0, tokens - more);
      held.set(node, question.held + more - Math.min(more, question.spends));
      return given(more, { retryAfterMs: more < question.want ? 1 : null });
    },
    forget(node: number): void {
      lost += held.get(node) ?? 0;
      held.delete(node);
    },
  };
}

interface Step {
  readonly node: number;
  readonly deed: 'take' | 'return' | 'ask' | 'look' | 'lose' | 'die';
  readonly count: number;
  readonly afterMs: number;
}
const steps = fc.array(
  fc.record<Step>({
    node: fc.integer({ min: 0, max: 2 }),
    deed: fc.constantFrom('take', 'take', 'return', 'ask', 'ask', 'look', 'lose', 'die'),
    count: fc.integer({ min: 1, max: 5 }),
    afterMs: fc.constantFrom(0, 0, 0, 0, 700, 60_000),
  }),
  { minLength: 20, maxLength: 200 },
);

/** Plays three nodes on one table, and is told of every step. Answers may be lost, nodes may die. */
function play(
  terms: LeaseTerms,
  all: readonly Step[],
  seen: (leases: readonly Lease[], nowMs: number) => void,
) {
  const limits = table(terms.most, terms.perMs);
  const leases: Lease[] = [NO_LEASE, NO_LEASE, NO_LEASE];
  let nowMs = 0;
  for (const { node, deed, count, afterMs } of all) {
    nowMs += afterMs;
    let lease = leases[node] ?? NO_LEASE;
    const settle = ([asking, question]: readonly [Lease, LeaseQuestion | null], isLost = false): void => {
      const answer = question && limits.ask(node, question, nowMs);
      lease = question ? answeredLease(asking, isLost ? null : answer) : asking;
    };
    if (deed === 'take' && terms.perMs === null && lease.free > 0) lease = occupied(lease);
    if (deed === 'take' && terms.perMs !== null) while (lease.free > 0) lease = spent(lease);
    if (deed === 'return' && lease.used > 0) lease = vacated(lease);
    if (deed === 'ask') {
      const asked = askFor(lease, terms, count);
      const before = lease.free;
      settle(asked);
      // Those who waited spend theirs at once.
      for (let left = asked[1]?.spends ?? 0; left > 0 && lease.free > before; left -= 1) lease = spent(lease);
    }
    if (deed === 'lose') settle(askFor(lease, terms, count), true);
    if (deed === 'look') settle(lookedAt(lease, terms));
    if (deed === 'die') {
      limits.forget(node);
      lease = NO_LEASE;
    }
    leases[node] = lease;
    seen(leases, nowMs);
  }
  return { limits, leases, nowMs };
}

test('slots of all nodes are never over, whatever answers are lost; those of dead nodes and what is given back are free', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 40 }), steps, (most, all) => {
      const terms = slotTerms(most);
      const { limits, leases, nowMs } = play(terms, all, (now) => {
        assert.ok(now.reduce((sum, lease) => sum + heldOf(lease), 0) <= most);
      });
      leases.forEach((_, node) => {
        limits.ask(node, { most, perMs: null, held: 0, back: 0, want: 0, spends: 0 }, nowMs);
      });
      assert.equal(
        limits.ask(0, { most, perMs: null, held: 0, back: 0, want: most, spends: 0 }, nowMs).given,
        most,
      );
    }),
  );
});

test('in any stretch of time no more tokens are spent over all nodes than the limit and what flows back meanwhile', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 30 }), steps, (most, all) => {
      const terms = tokenTerms(most, 60_000);
      const spentAtMs: number[] = [];
      const before = [0, 0, 0];
      play(terms, all, (leases, nowMs) => {
        leases.forEach(({ taken }, node) => {
          for (let count = before[node] ?? 0; count < taken; count += 1) spentAtMs.push(nowMs);
          before[node] = taken;
        });
      });
      spentAtMs.forEach((fromMs, first) => {
        for (let last = first; last < spentAtMs.length; last += 1) {
          const passedMs = (spentAtMs[last] ?? 0) - fromMs;
          const may = most + (passedMs * most) / 60_000;
          assert.ok(last - first + 1 <= may + 1e-6, `${last - first + 1} of ${may} in ${passedMs} ms`);
        }
      });
    }),
    { numRuns: 1_000 },
  );
});
