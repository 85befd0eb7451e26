/** What a node concludes of which sessions it has: claims joined, releases waited for, owners elsewhere remembered and forgotten. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  createPlacementRules,
  type PlacementEffect,
  type PlacementMessage,
} from '../../../actors/cluster/placement.ts';
import { refusal } from '../../../src/domain/errors.ts';
import type { SessionKey } from '../../../src/ports/cluster.ts';
import { sessionId, TENANT } from '../fixtures.ts';

const ME = 1;
const OTHER = 2;
const key = (session: string): SessionKey => ({ tenantId: TENANT, sessionId: sessionId(session) });

/** An effect in a word or two. */
function wordOf(effect: PlacementEffect): string {
  switch (effect.type) {
    case 'claimSoon':
      return 'soon';
    case 'claim':
      return `claim ${effect.keys.map(({ sessionId: id }) => id).join()}`;
    case 'found':
      return `${effect.key.sessionId} at ${effect.claimed.boot}`;
    case 'refused':
      return `${effect.key.sessionId} ${effect.error.code}`;
    case 'release':
      return `release ${effect.key.sessionId} ${effect.epoch}`;
    case 'tell':
      return `wanted ${effect.wanted.key.sessionId}`;
  }
}

function rules() {
  const { take, ...rest } = createPlacementRules();
  return { ...rest, take: (message: PlacementMessage) => take(message).map(wordOf) };
}

const seek = (session: string): PlacementMessage => ({ type: 'sought', key: key(session) });
const claimed = (boot: number, ...sessions: readonly string[]): PlacementMessage => ({
  ...{ type: 'claimed', boot: ME, keys: sessions.map(key) },
  found: sessions.map((_, n) => ({ boot, epoch: 10 + n })),
});
const DUE: PlacementMessage = { type: 'due' };

test('what is sought in one turn of the loop is one claim, and a session that many seek is claimed once', () => {
  const { take } = rules();
  assert.deepEqual([take(seek('a')), take(seek('b')), take(seek('a'))], [['soon'], [], []]);
  assert.deepEqual(take(DUE), ['claim a,b']);
  assert.deepEqual(take(seek('b')), [], 'its claim is under way');
  assert.deepEqual(take(claimed(ME, 'a', 'b')), ['a at 1', 'b at 1']);
});

test('two claims are under way at most; what is sought meanwhile follows them together', () => {
  const { take } = rules();
  take(seek('a'));
  take(DUE);
  take(seek('b'));
  assert.deepEqual(take(DUE), ['claim b']);
  assert.deepEqual([take(seek('c')), take(seek('d')), take(DUE)], [[], [], []]);
  assert.deepEqual(take(claimed(ME, 'a')), ['a at 1', 'claim c,d']);
});

test('ten thousand sessions are claimed by the hundred', () => {
  const { take } = rules();
  for (let n = 0; n < 10_000; n += 1) take(seek(`s${n}`));
  let open = take(DUE);
  let claims = 0;
  while (open.length > 0) {
    claims += open.length;
    const sessions = open.map((word) => word.slice('claim '.length).split(','));
    open = sessions.flatMap((some) => take(claimed(ME, ...some))).filter((word) => word.startsWith('claim'));
  }
  assert.equal(claims, 20);
});

test('a session that is being given up is claimed only when that is over', () => {
  const { take, isMoving } = rules();
  assert.deepEqual(take({ type: 'left', key: key('a'), epoch: 7 }), ['release a 7']);
  assert.deepEqual([take(seek('a')), take(seek('a')), take(DUE)], [[], [], []]);
  assert.ok(isMoving(key('a')));
  assert.deepEqual(take({ type: 'released', key: key('a') }), ['soon']);
  assert.deepEqual(take(DUE), ['claim a']);
  take(claimed(ME, 'a'));
  assert.ok(!isMoving(key('a')));
});

test('an owner elsewhere is remembered until it says that it is not, or is lost', () => {
  const { take, elsewhere } = rules();
  for (const session of ['a', 'b']) take(seek(session));
  take(DUE);
  assert.deepEqual(take(claimed(OTHER, 'a', 'b')), ['a at 2', 'b at 2']);
  assert.deepEqual(elsewhere(key('a')), { boot: OTHER, epoch: 10 });
  take({ type: 'moved', key: key('a') });
  take({ type: 'lost', boot: 3 });
  assert.deepEqual([elsewhere(key('a')), elsewhere(key('b'))?.boot], [undefined, OTHER]);
  take({ type: 'lost', boot: OTHER });
  assert.equal(elsewhere(key('b')), undefined);
});

test('a session that others want is told of while it rests here, and not while it comes or goes', () => {
  const { take } = rules();
  const wanted: PlacementMessage = {
    type: 'wanted',
    wanted: ['a', 'b', 'c'].map((session) => ({ key: key(session), epoch: 1, by: OTHER })),
  };
  assert.deepEqual(take(wanted), ['wanted a', 'wanted b', 'wanted c']);
  take({ type: 'left', key: key('a'), epoch: 1 });
  take(seek('b'));
  assert.deepEqual(take(wanted), ['wanted c']);
});

test('where the database is away who seeks is refused, and may seek again', () => {
  const { take } = rules();
  take(seek('a'));
  take(DUE);
  const error = refusal('STORE_UNAVAILABLE');
  assert.deepEqual(take({ type: 'unclaimed', keys: [key('a')], error }), ['a STORE_UNAVAILABLE']);
  assert.deepEqual(take(seek('a')), ['soon']);
});

test('a session that changes hands all the while is refused, to be asked for again', () => {
  const { take } = rules();
  take(seek('a'));
  take(DUE);
  const none: PlacementMessage = { type: 'claimed', boot: ME, keys: [key('a')], found: [undefined] };
  assert.deepEqual(take(none), ['a TRANSPORT_UNAVAILABLE']);
});

test('a node that was given up has no sessions, gets none, and gives none up', () => {
  const { take, elsewhere } = rules();
  for (const session of ['a', 'b']) take(seek(session));
  take(DUE);
  take(seek('c'));
  assert.deepEqual(take({ type: 'superseded' }), ['c STORE_UNAVAILABLE']);
  assert.deepEqual(take(claimed(ME, 'a', 'b')), ['a STORE_UNAVAILABLE', 'b STORE_UNAVAILABLE']);
  assert.deepEqual(take(seek('d')), ['d STORE_UNAVAILABLE']);
  assert.deepEqual(take({ type: 'left', key: key('a'), epoch: 10 }), []);
  assert.equal(elsewhere(key('a')), undefined);
});
