/** A turn that a stopped process left behind and that runs anew: nothing of it is kept, read or told twice. */

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SessionEffect, SessionMessage, SessionState } from '../../../actors/session/protocol.ts';
import { recoverSession } from '../../../actors/session/recovery.ts';
import { newSession } from '../../../actors/session/session.ts';
import type { Message } from '../../../src/domain/conversation.ts';
import { refusal } from '../../../src/domain/errors.ts';
import { DEFAULT_AGENT_ID } from '../../../src/domain/ids.ts';
import { TIER_TABLE, type TierTable } from '../../../src/domain/tiers.ts';
import type { TurnRecord, TurnStatus } from '../../../src/domain/turn.ts';
import {
  AGENT,
  aborted,
  answered,
  CONFIG,
  eventTypes,
  only,
  play,
  SESSION,
  said,
  TENANT,
  taskId,
} from '../fixtures.ts';

const T = taskId('t');
const message = (id: string, role: Message['role'], content: string): Message => ({
  role,
  content,
  taskId: taskId(id),
  atMs: 1,
});
const HISTORY = [
  message('t', 'user', 'message t'),
  message('u', 'user', 'message u'),
  message('u', 'assistant', 'answer u'),
];
const interrupted = (id: string): TurnRecord => ({
  taskId: taskId(id),
  tenantId: TENANT,
  sessionId: SESSION,
  agentId: DEFAULT_AGENT_ID,
  status: 'failed',
  createdAtMs: 1,
  finishedAtMs: 2,
  error: refusal('INTERRUPTED'),
});
const loaded = (tiers: TierTable = TIER_TABLE): SessionState =>
  play(
    newSession(TENANT, SESSION, { ...CONFIG, tiers }, 1),
    { type: 'loaded', history: HISTORY, interrupted: [interrupted('t'), interrupted('x')] },
    { type: 'joined', tier: 'professional', fixed: false },
  )[0];

const sayAgain = said('t', { resumable: true });
const found: SessionMessage = { type: 'agentFound', taskId: T, attempt: 1, agent: AGENT, atMs: 20 };
const claimed: SessionMessage = {
  type: 'admitted',
  taskId: T,
  attempt: 1,
  tier: 'professional',
  slot: 'requested',
  ahead: 0,
  atMs: 21,
};
const granted: SessionMessage = { type: 'slotGranted', taskId: T, attempt: 1, atMs: 22 };
const kept = (step: 'accepted' | 'ended', duplicate?: TurnStatus): SessionMessage => ({
  type: 'stored',
  step,
  taskId: T,
  duplicate,
  atMs: 23,
});
const ended: SessionMessage = {
  type: 'ended',
  taskId: T,
  outcome: answered('answer t'),
  text: 'answer t',
  atMs: 30,
};
const attach: SessionMessage = {
  type: 'attach',
  clientId: 'c',
  tier: undefined,
  resume: undefined,
  atMs: 24,
};

const [writing, writes] = play(loaded(), sayAgain, found, claimed);
const contents = (messages: readonly Message[] | null | undefined) =>
  messages?.map(({ content }) => content) ?? [];
const toldTasks = (effects: readonly SessionEffect[]) =>
  only(effects, 'event').flatMap(({ event, taskId: id }) => (event.type === 'error' ? [id] : []));
const unnotified = ({ unnotified: records }: SessionState) => records.map(({ taskId: id }) => id);

test('the store is asked whether the turn may run again, also where the tier does not wait for it', () => {
  const [keep] = only(writes, 'store');
  assert.ok(keep?.write.type === 'turn-accepted' && keep.write.resumable === true);
  const hasty = {
    ...TIER_TABLE,
    professional: { ...TIER_TABLE.professional, wait_for_persistence: false },
  };
  const [, effects] = play(loaded(hasty), sayAgain, found, claimed);
  assert.equal(only(effects, 'store')[0]?.wait, true);
  const [plain] = only(play(loaded(hasty), said('v'), { ...found, taskId: taskId('v') })[1], 'store');
  assert.equal(plain, undefined, 'a turn without a claim keeps nothing yet');
  const [, others] = play(
    loaded(hasty),
    said('v'),
    { ...found, taskId: taskId('v') },
    { ...claimed, taskId: taskId('v') },
  );
  const [other] = only(others, 'store');
  assert.ok(other?.write.type === 'turn-accepted' && other.write.resumable === undefined && !other.wait);
});

test('its model is asked once the store has agreed, and reads the question once', () => {
  const [early, none] = play(writing, granted);
  assert.deepEqual(only(none, 'execute'), []);
  const inTime = only(play(early, kept('accepted'))[1], 'execute');
  const late = only(play(writing, kept('accepted'), granted)[1], 'execute');
  for (const executes of [inTime, late])
    assert.deepEqual(
      executes.map(({ plan }) => contents(plan.history)),
      [['message u', 'answer u', 'message t']],
    );
});

test('what was over before never reaches the model', () => {
  const [after, effects] = play(writing, granted, kept('accepted', 'failed'));
  assert.deepEqual([only(effects, 'execute'), after.turns], [[], []]);
});

test('a node that goes leaves it behind unended, wherever it stands; other turns it cancels', () => {
  const expired = { type: 'drainExpired', atMs: 40 } as const;
  const [unsaid, refused] = play(loaded(), sayAgain, expired);
  assert.deepEqual(unsaid.turns, []);
  assert.partialDeepStrictEqual(only(refused, 'reply')[0]?.value, { ok: false, error: { code: 'DRAINING' } });

  const [running] = play(writing, granted, kept('accepted'));
  const [dropped, stops] = play(running, expired);
  assert.equal(only(stops, 'abort').length, 1);
  const [left, over] = play(dropped, { ...ended, outcome: aborted, text: 'answ' });
  assert.deepEqual([left.turns, only([...stops, ...over], 'store')], [[], []]);
  assert.deepEqual(eventTypes([...stops, ...over]), []);
  assert.equal(only(over, 'release').length, 1);

  const ending = play(running, { ...ended, atMs: 39 }, expired)[1];
  assert.deepEqual(
    only(ending, 'store').map(({ write }) => write.type),
    ['turn-ended'],
    'one whose end is being kept has its end',
  );
});

test('nothing of the session changes before the store has agreed', () => {
  const [running] = play(writing, granted);
  for (const state of [writing, running]) {
    assert.deepEqual(contents(state.history), contents(HISTORY));
    assert.deepEqual(unnotified(state), ['t', 'x']);
  }
});

test('once it runs again its question is in the conversation once, and nobody is told that it was interrupted', () => {
  const [running] = play(writing, granted, kept('accepted'));
  assert.deepEqual(unnotified(running), ['x']);
  const [watched, effects] = play(running, attach);
  assert.deepEqual(toldTasks(effects), ['x']);
  assert.deepEqual(contents(only(effects, 'attachClient')[0]?.ready.messages), [
    'message u',
    'answer u',
    'message t',
  ]);
  const [done, over] = play(watched, ended, kept('ended'));
  assert.deepEqual(contents(done.history), ['message u', 'answer u', 'message t', 'answer t']);
  assert.deepEqual([eventTypes(over, 't'), unnotified(done)], [['chat.response'], []]);
});

test('a client that comes while the store is asked is told of it only where the turn does not run again', () => {
  const [asked, effects] = play(writing, granted, attach);
  assert.deepEqual([toldTasks(effects), unnotified(asked)], [['x'], ['t']]);
  const [, agreed] = play(asked, kept('accepted'));
  assert.deepEqual(eventTypes(agreed), ['chat.accepted']);

  const [dropped, refused] = play(asked, kept('accepted', 'failed'));
  assert.deepEqual(eventTypes(refused), ['chat.accepted', 'error']);
  assert.deepEqual([toldTasks(refused), unnotified(dropped)], [['t'], []]);
  assert.deepEqual(
    only(refused, 'store').map(({ write }) => write.type),
    ['turn-notified'],
  );
  assert.deepEqual(contents(dropped.history), contents(HISTORY));
});

test('a store that does not answer leaves all as it was, and who is there is told', () => {
  const failed = { type: 'storeFailed', step: 'accepted', taskId: T, atMs: 25 } as const;
  const [quiet] = play(writing, failed);
  assert.deepEqual(
    [quiet.turns, unnotified(quiet), contents(quiet.history)],
    [[], ['t', 'x'], contents(HISTORY)],
  );
  const [, effects] = play(writing, attach, failed);
  assert.deepEqual(toldTasks(effects), ['x', 't']);
  const times = only(effects, 'event').map(({ atMs }) => atMs);
  assert.deepEqual(times, [24, 25]);
});

test('a crash over what the store said loses none of it', () => {
  const [begun] = recoverSession(writing, kept('accepted'));
  assert.deepEqual([unnotified(begun), contents(begun.history)], [['x'], ['message u', 'answer u']]);
  const [asked] = play(writing, attach);
  const [, effects] = recoverSession(asked, kept('accepted', 'failed'));
  assert.deepEqual(toldTasks(effects), ['t']);
});

test('a crash over the note that clients were told says nothing of a resend that is just being kept', () => {
  const told = { type: 'stored', step: 'notified', taskId: T, duplicate: undefined, atMs: 26 } as const;
  const [asked] = play(loaded(), attach, said('t'), found, claimed);
  assert.deepEqual(recoverSession(asked, told), [asked, []]);
});

test('an end tells who makes what is sent for it what was asked, and in which tier', () => {
  const [, effects] = play(writing, granted, kept('accepted'), ended);
  const write = only(effects, 'store').at(-1)?.write;
  assert.ok(write?.type === 'turn-ended');
  assert.deepEqual([write.asked?.content, write.tier], ['message t', 'professional']);
});
