/** Sessions that do not live here: claimed, asked for while another node has them, and given back where nobody waits any more. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createSeeking } from '../../../actors/cluster/seeking.ts';
import { createSolePlacement } from '../../../actors/cluster/sole-placement.ts';
import { RefusalError } from '../../../src/domain/errors.ts';
import type { Owned, Place, Placement, SessionKey } from '../../../src/ports/cluster.ts';
import { until } from '../../support/until.ts';
import { sessionId, TENANT } from '../fixtures.ts';

const KEY: SessionKey = { tenantId: TENANT, sessionId: sessionId('s1') };
const OPENING = { tier: undefined };
const HERE: Place = { at: 'here', epoch: 7, log: '7.a' };
const THERE: Place = { at: 'there', owner: 2, epoch: 6 };

/** Sessions that live here, and a placement that answers what the test says. */
function scene(answer: () => Place | Promise<Place>) {
  const alive = new Map<string, Owned>();
  const calls: string[] = [];
  let draining = false;
  const placement: Placement = {
    ...createSolePlacement(),
    find: () => answer(),
    want: async (_, owner) => void calls.push(`want ${owner}`),
    moved: () => void calls.push('moved'),
    release: async (_, epoch) => void calls.push(`release ${epoch}`),
  };
  const local = {
    has: ({ sessionId: id }: SessionKey) => alive.has(id),
    activate: ({ sessionId: id }: SessionKey, owned: Owned) => void alive.set(id, owned),
    isDraining: () => draining,
  };
  return {
    ...{ alive, calls, seeking: createSeeking({ local, placement }) },
    drain: () => {
      draining = true;
    },
  };
}

const refused = (code: string) => (error: unknown) =>
  error instanceof RefusalError && error.data.code === code;

test('a session that is had at once lives in the same tick; one that lives is not looked for', () => {
  let asked = 0;
  const { seeking, alive } = scene(() => {
    asked += 1;
    return HERE;
  });
  assert.equal(seeking.bring(KEY, OPENING, 100), undefined);
  assert.equal(alive.get('s1')?.epoch, 7);
  assert.equal(seeking.bring(KEY, OPENING, 100), undefined);
  assert.equal(asked, 1);
});

test('a run with a session of its own is not placed', () => {
  const { seeking, alive } = scene(() => assert.fail());
  assert.equal(seeking.bring(KEY, { tier: undefined, ephemeral: true }, 100), undefined);
  assert.equal(alive.size, 1);
});

test('all who ask for a session wait for one search, and go on in their order', async () => {
  const place = Promise.withResolvers<Place>();
  let asked = 0;
  const { seeking } = scene(() => {
    asked += 1;
    return place.promise;
  });
  const order: number[] = [];
  const all = [1, 2, 3].map((n) => seeking.bring(KEY, OPENING, 1_000)?.then(() => order.push(n)));
  place.resolve(HERE);
  await Promise.all(all);
  assert.deepEqual([order, asked], [[1, 2, 3], 1]);
});

test('a session of another node is asked for by its row, and taken once that gave it up', async () => {
  const places = [THERE, THERE, HERE];
  const { seeking, alive, calls } = scene(async () => places.shift() ?? HERE);
  await seeking.bring(KEY, OPENING, 5_000);
  assert.deepEqual(calls, ['want 2', 'moved', 'moved']);
  assert.equal(alive.get('s1')?.epoch, 7);
});

test('who waits too long is refused, each after its own patience, and then nothing is sought any more', async () => {
  let asked = 0;
  const { seeking, alive } = scene(async () => {
    asked += 1;
    return THERE;
  });
  const patient = seeking.bring(KEY, OPENING, 700);
  const hasty = seeking.bring(KEY, OPENING, 50);
  await assert.rejects(Promise.resolve(hasty), refused('TRANSPORT_UNAVAILABLE'));
  assert.ok(asked <= 1);
  await assert.rejects(Promise.resolve(patient), refused('TRANSPORT_UNAVAILABLE'));
  const before = asked;
  await new Promise((resolve) => setTimeout(resolve, 400));
  assert.equal(asked, before);
  assert.equal(alive.size, 0);
});

test('what is found when nobody waits any more, or the node drains, is given back', async () => {
  const late = Promise.withResolvers<Place>();
  const left = scene(() => late.promise);
  await assert.rejects(Promise.resolve(left.seeking.bring(KEY, OPENING, 10)));
  late.resolve(HERE);
  await until('it is given back', () => left.calls.includes('release 7'));
  assert.equal(left.alive.size, 0);

  const leaving = scene(async () => HERE);
  const coming = leaving.seeking.bring(KEY, OPENING, 1_000);
  leaving.drain();
  await assert.rejects(Promise.resolve(coming), refused('DRAINING'));
  assert.deepEqual(leaving.calls, ['release 7']);
});

test('of very many who wait for one session some are refused at once', async () => {
  const never = Promise.withResolvers<Place>();
  const { seeking } = scene(() => never.promise);
  const waiting = Array.from({ length: 1_000 }, () =>
    seeking.bring(KEY, OPENING, 5_000)?.catch(() => 'late'),
  );
  await assert.rejects(Promise.resolve(seeking.bring(KEY, OPENING, 5_000)), refused('OVERLOADED'));
  never.resolve(HERE);
  await Promise.all(waiting);
});
