/** What a session does where limits hold over several nodes: the store has the last word on the day, stored turns on the hour. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SessionConfig, SessionMessage } from '../../../actors/session/protocol.ts';
import { newSession } from '../../../actors/session/session.ts';
import type { Message } from '../../../src/domain/conversation.ts';
import { refusal } from '../../../src/domain/errors.ts';
import { TIER_TABLE } from '../../../src/domain/tiers.ts';
import { AGENT, CONFIG, only, play, SESSION, said, TENANT, taskId } from '../fixtures.ts';

const ALONE: SessionConfig = { ...CONFIG, requestsPerHour: undefined };
const SHARED: SessionConfig = { ...ALONE, sharedTiers: TIER_TABLE };
const HOUR_MS = 3_600_000;
const asked = (id: string, atMs: number): Message => ({
  role: 'user',
  content: 'Hi.',
  taskId: taskId(id),
  atMs,
});

const alive = (history: readonly Message[], tier: 'free' | 'enterprise' = 'free', config = SHARED) =>
  play(
    newSession(TENANT, SESSION, config, 1),
    { type: 'loaded', history, interrupted: [] },
    { type: 'joined', tier, fixed: false },
  )[0];

const upToStore = (tier: 'free' | 'enterprise'): readonly SessionMessage[] => [
  { type: 'agentFound', taskId: taskId('t'), attempt: 1, agent: { ...AGENT, tools: [] }, atMs: 20 },
  { type: 'admitted', ...{ taskId: taskId('t'), attempt: 1, tier, slot: 'requested', ahead: 0, atMs: 21 } },
  { type: 'slotGranted', taskId: taskId('t'), attempt: 1, atMs: 22 },
];

test('a turn of a limited day is stored within it, and nothing begins before the store has it', () => {
  const [state, effects] = play(alive([]), said('t'), ...upToStore('free'));
  const [store] = only(effects, 'store');
  assert.ok(store?.write.type === 'turn-accepted' && store.wait);
  assert.equal(store.write.most, 100);
  assert.equal(only(effects, 'execute').length, 0);
  const error = refusal('QUOTA_EXCEEDED', { retryAfterMs: 5 });
  const over: SessionMessage = {
    type: 'storeFailed',
    step: 'accepted',
    taskId: taskId('t'),
    error,
    atMs: 30,
  };
  const [after, refused] = play(state, over);
  assert.deepEqual(after.turns, []);
  assert.deepEqual(
    only(refused, 'reply').map(({ value }) => value),
    [{ ok: false, taskId: taskId('t'), error }],
  );
  assert.equal(only(refused, 'execute').length, 0);
  assert.equal(only(refused, 'release').length, 1);
});

test('without a limit, or alone, it runs while the store writes', () => {
  for (const [tier, config] of [
    ['enterprise', SHARED],
    ['free', ALONE],
  ] as const) {
    const [, effects] = play(alive([], tier, config), said('t'), ...upToStore(tier));
    const [store] = only(effects, 'store');
    assert.ok(store?.write.type === 'turn-accepted' && store.write.most === undefined);
    assert.equal(only(effects, 'execute').length, 1);
  }
});

test('a session that comes from another node has of its hour what its stored turns leave', () => {
  const nowMs = 10 * HOUR_MS;
  const history = Array.from({ length: 49 }, (_, index) => asked(`h${index}`, nowMs - 49 + index));
  const atStart = alive([...history].reverse());
  assert.ok(atStart.bucket && Math.abs(atStart.bucket.tokens - 1) < 0.01);
  const old = alive([asked('h', nowMs - 2 * HOUR_MS)]);
  assert.equal(old.bucket?.tokens, 49);
  assert.equal(alive(history, 'free', ALONE).bucket, null, 'alone it remembers by itself');
  const [, effects] = play(atStart, said('a', { atMs: nowMs }), said('b', { atMs: nowMs }));
  const [refused] = only(effects, 'refused');
  assert.equal(refused?.code, 'RATE_LIMITED');
});
