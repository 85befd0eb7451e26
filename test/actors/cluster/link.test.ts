/** What a link does with what is sent over it, and what its other end makes of the numbers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  incoming,
  MANY_UNREAD,
  MAX_BUNDLE_BYTES,
  MAX_BUNDLE_ITEMS,
  mayAsk,
  newOutgoing,
  type OutgoingEffect,
  type OutgoingMessage,
  outgoing,
  TOO_MANY_UNREAD,
} from '../../../actors/cluster/link.ts';
import { tenantIdSchema } from '../../../src/domain/ids.ts';
import type { LinkItem } from '../../../src/ports/links.ts';

const TICK: LinkItem = { kind: 'tick' };
const FRAMES: LinkItem = { kind: 'frames', to: [['c', 1]], frames: [] };
const BROADCAST: LinkItem = {
  ...{ kind: 'broadcast', of: 'tier', tenantId: tenantIdSchema.parse('acme'), body: null },
};
const question = (id: number): LinkItem => ({ kind: 'request', id, of: 'say', body: null });

/** A way to a peer, and what it had done so far. */
function way() {
  let state = newOutgoing('L');
  const take = (message: OutgoingMessage): readonly OutgoingEffect[] => {
    const [next, effects] = outgoing(state, message);
    state = next;
    return effects;
  };
  return {
    state: () => state,
    send: (item: LinkItem, bytes = 10) => take({ type: 'sent', item, bytes }),
    pushed: (unread = 1) => take({ type: 'pushed', unread }),
    failed: () => take({ type: 'failed' }),
  };
}

const bundle = (n: number, ...items: readonly LinkItem[]): OutgoingEffect => ({ type: 'push', n, items });
const undelivered = (...items: readonly LinkItem[]): OutgoingEffect => ({ type: 'undelivered', items });

test('the first item goes at once, and what gathers meanwhile goes together', () => {
  const { send, pushed } = way();
  assert.deepEqual(send(question(1)), [bundle(1, question(1))]);
  assert.deepEqual([send(question(2)), send(question(3))], [[], []]);
  assert.deepEqual(pushed(), [bundle(2, question(2), question(3))]);
  assert.deepEqual(pushed(), []);
  assert.deepEqual(send(TICK), [bundle(3, TICK)]);
});

test('a bundle is bounded in items and bytes; what is larger goes alone', () => {
  const { send, pushed } = way();
  send(TICK);
  for (let n = 0; n < MAX_BUNDLE_ITEMS + 1; n += 1) send(question(n));
  const [first] = pushed();
  assert.ok(first?.type === 'push' && first.items.length === MAX_BUNDLE_ITEMS);
  send(FRAMES, MAX_BUNDLE_BYTES * 2);
  assert.deepEqual(pushed(), [bundle(3, question(MAX_BUNDLE_ITEMS))]);
  assert.deepEqual(pushed(), [bundle(4, FRAMES)]);
});

test('away: all that waited is given up at once, only ticks try, and the gap in the numbers tells', () => {
  const { send, failed, pushed, state } = way();
  send(question(1));
  send(FRAMES);
  assert.deepEqual(failed(), [undelivered(question(1), FRAMES)]);
  assert.equal(mayAsk(state()), 'away');
  assert.deepEqual(send(question(2)), [undelivered(question(2))]);
  assert.deepEqual(send(TICK), [bundle(3, TICK)]);
  assert.deepEqual(failed(), [undelivered(TICK)]);
  assert.deepEqual(send(TICK), [bundle(5, TICK)]);
  assert.deepEqual(pushed(), []);
  assert.equal(mayAsk(state()), 'yes');
  assert.deepEqual(send(FRAMES), [bundle(6, FRAMES)]);
});

test('a peer that does not read is asked nothing new, then is sent no frames, and then finds out that it missed some', () => {
  const { send, pushed, state } = way();
  send(TICK);
  pushed(MANY_UNREAD + 1);
  assert.equal(mayAsk(state()), 'full');
  assert.deepEqual(send(FRAMES), [bundle(2, FRAMES)]);
  pushed(TOO_MANY_UNREAD + 1);
  assert.deepEqual(send(FRAMES), [undelivered(FRAMES)]);
  assert.deepEqual(send(BROADCAST), [undelivered(BROADCAST)]);
  assert.deepEqual(send(TICK), [bundle(4, TICK)]);
  pushed(1);
  assert.equal(mayAsk(state()), 'yes');
  assert.deepEqual(send(FRAMES), [bundle(5, FRAMES)]);
});

test('what waits for a push that takes long is bounded', () => {
  const { send, pushed } = way();
  send(TICK);
  let dropped = 0;
  for (let n = 0; n < 20_000; n += 1) dropped += send(FRAMES).length;
  assert.equal(dropped, 20_000 - 8_192);
  const [after] = pushed();
  assert.ok(after?.type === 'push' && after.n === 3, 'the peer finds out');
});

test('numbers that follow, that skip, that come again, and under another id', () => {
  const hear = (before: readonly [string, number] | undefined, linkId: string, n: number): string =>
    incoming(before && { linkId: before[0], n: before[1] }, { linkId, n })[1];
  assert.equal(hear(undefined, 'A', 1), 'next');
  assert.equal(hear(undefined, 'A', 2), 'torn');
  assert.equal(hear(['A', 1], 'A', 2), 'next');
  assert.equal(hear(['A', 1], 'A', 3), 'torn');
  assert.equal(hear(['A', 3], 'A', 3), 'repeated');
  assert.equal(hear(['A', 3], 'A', 2), 'repeated');
  assert.equal(hear(['A', 3], 'B', 4), 'torn', 'by coincidence the number that was expected');
  assert.equal(hear(['A', 3], 'B', 1), 'torn');
});
