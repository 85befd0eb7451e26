/** Two boots that ask one another over a medium that the test holds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createLinks, type LinkOutcome, type Links, MAX_QUESTIONS } from '../../../actors/cluster/links.ts';
import type { Bundle, LinkAnswer, LinkItem } from '../../../src/ports/links.ts';

interface Push {
  readonly to: number;
  readonly bundle: Bundle;
  readonly done: (unread: number | undefined) => void;
}

/** Boots 1 and 2. Bundles wait until they are delivered or lost, timers until they are due. */
function pair() {
  const wire: Push[] = [];
  const timers: (() => void)[] = [];
  const heard: [number, LinkItem | 'torn'][] = [];
  const asked: ((answer: LinkAnswer) => void)[] = [];
  let counted = 0;
  const make = (boot: number): Links =>
    createLinks({
      boot,
      push: (to, bundle, done) => void wire.push({ to, bundle, done }),
      after: (_ms, act) => void timers.push(act),
      now: () => 0,
      newLinkId: () => {
        counted += 1;
        return `${boot}-${counted}`;
      },
      onTorn: () => void heard.push([boot, 'torn']),
      onItem: (_from, item) => void heard.push([boot, item]),
      onRequest: (_from, { of }, answer) => of === 'say' && asked.push(answer) > 0,
    });
  const links = { 1: make(1), 2: make(2) };
  const take = (): Push => {
    const push = wire.shift();
    assert.ok(push);
    return push;
  };
  return {
    ...{ links, heard, asked, timers, wire },
    deliver(): void {
      const { to, bundle, done } = take();
      (to === 1 ? links[1] : links[2]).heard(bundle);
      done(1);
    },
    swallow: () => take().done(1),
    fail: () => take().done(undefined),
  };
}

const DETACH = { kind: 'close', to: [['c', 1]], code: 1012 } as const satisfies LinkItem;
const isLost = (outcome: LinkOutcome | undefined): string | undefined =>
  outcome?.type === 'lost' ? outcome.why : undefined;

test('a question is answered by whom it was put to, once', () => {
  const { links, asked, deliver } = pair();
  const answers: LinkOutcome[] = [];
  links[1].ask(2, 'say', 'hello', (outcome) => answers.push(outcome));
  deliver();
  asked[0]?.({ type: 'ok', value: 7 });
  const stranger: LinkItem = { kind: 'reply', id: 1, answer: { type: 'notMine' } };
  links[1].heard({ from: 3, linkId: 'x', n: 1, items: [stranger] });
  assert.deepEqual(answers, []);
  deliver();
  asked[0]?.({ type: 'ok', value: 8 });
  deliver();
  assert.deepEqual(answers, [{ type: 'ok', value: 7 }]);
});

test('a kind of question that the other does not know is answered so', () => {
  const { links, deliver } = pair();
  const answers: LinkOutcome[] = [];
  links[1].ask(2, 'sing', null, (outcome) => answers.push(outcome));
  deliver();
  deliver();
  assert.deepEqual(answers, [{ type: 'unsupported' }]);
});

test('questions that can not be put, or are not answered, are lost, and it is said why', () => {
  const { links, fail, swallow, timers } = pair();
  const why: (string | undefined)[] = [];
  const ask = (): void => links[1].ask(2, 'say', null, (outcome) => why.push(isLost(outcome)));
  ask();
  swallow();
  for (const due of timers) due();
  ask();
  fail();
  ask();
  assert.deepEqual(why, ['silent', 'away', 'away']);
  links[1].tick([2]);
  swallow();
  for (let n = 0; n <= MAX_QUESTIONS; n += 1) ask();
  assert.deepEqual(why.slice(3), ['full']);
  links[1].lose(2);
  assert.equal(why.filter((each) => each === 'gone').length, MAX_QUESTIONS);
  assert.equal(links[1].stats().questions, 0);
});

test('what was lost is noticed before the first item after it, at the latest with a tick', () => {
  const { links, heard, deliver, swallow } = pair();
  links[1].send(2, DETACH);
  deliver();
  links[1].send(2, DETACH);
  swallow();
  links[1].send(2, DETACH);
  deliver();
  assert.deepEqual(heard, [
    [2, DETACH],
    [2, 'torn'],
    [2, DETACH],
  ]);
  links[1].send(2, DETACH);
  swallow();
  links[1].tick([2]);
  deliver();
  assert.deepEqual(heard.at(-1), [2, 'torn']);
});

test('a bundle that comes twice is taken once', () => {
  const { links, heard, wire } = pair();
  links[1].send(2, DETACH);
  const [push] = wire;
  assert.ok(push);
  links[2].heard(push.bundle);
  links[2].heard(push.bundle);
  assert.deepEqual(heard, [[2, DETACH]]);
  assert.equal(links[2].stats().repeated, 1);
});

test('a peer that was taken for dead is counted anew under another id, and notices', () => {
  const { links, heard, deliver, wire } = pair();
  links[1].send(2, DETACH);
  deliver();
  links[1].lose(2);
  links[1].send(2, DETACH);
  assert.equal(wire[0]?.bundle.n, 1);
  deliver();
  assert.deepEqual(heard, [
    [2, DETACH],
    [2, 'torn'],
    [2, DETACH],
  ]);
});

test('a peer that could not be reached is tried until it can, though nobody counts on it', () => {
  const { links, wire, fail, deliver } = pair();
  links[1].send(2, DETACH);
  fail();
  links[1].tick([]);
  assert.equal(wire.length, 1);
  deliver();
  links[1].tick([]);
  assert.equal(wire.length, 0);
  links[1].ask(2, 'say', null, () => {});
  assert.equal(wire.length, 1);
});

test('a peer that owes an answer is ticked, one that owes nothing is not', () => {
  const { links, wire, deliver } = pair();
  links[1].tick([]);
  assert.equal(wire.length, 0);
  links[1].ask(2, 'say', null, () => {});
  deliver();
  links[1].tick([]);
  assert.deepEqual(wire[0]?.bundle.items, [{ kind: 'tick' }]);
});
