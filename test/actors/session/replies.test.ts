/** The replies that requests ask for go with the turn, and with the write of its end, whoever said it how often. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SessionMessage, SessionState } from '../../../actors/session/protocol.ts';
import { newSession } from '../../../actors/session/session.ts';
import type { ReplySpec } from '../../../src/domain/reply-spec.ts';
import { AGENT, answered, CONFIG, only, play, SESSION, said, TENANT, taskId } from '../fixtures.ts';

const T = taskId('t');
const spec = (id: string): ReplySpec => ({ id, format: 'json', request: { tenant_id: TENANT } });
const asked = (replyTo: number, ...ids: readonly string[]): SessionMessage =>
  said('t', { replyTo, ...(ids.length > 0 ? { replies: ids.map(spec) } : {}) });

const [idle] = play(
  newSession(TENANT, SESSION, CONFIG, 1),
  { type: 'loaded', history: [], interrupted: [] },
  { type: 'joined', tier: 'professional', fixed: false },
);
const stored = (step: 'accepted' | 'ended'): SessionMessage => ({
  ...{ type: 'stored', step, taskId: T, duplicate: undefined, atMs: 23 },
});
const admitted: readonly SessionMessage[] = [
  { type: 'agentFound', taskId: T, attempt: 1, agent: AGENT, atMs: 20 },
  {
    ...{ type: 'admitted', taskId: T, attempt: 1, tier: 'professional', slot: 'requested', ahead: 0 },
    atMs: 21,
  },
];
const granted: SessionMessage = { type: 'slotGranted', taskId: T, attempt: 1, atMs: 22 };
const ended: SessionMessage = {
  ...{ type: 'ended', taskId: T, outcome: answered('hello'), text: '', atMs: 30 },
};

/** The ids of the replies that the end is written with, and who was told that its own is among them. */
function run(state: SessionState, ...messages: readonly SessionMessage[]) {
  const [next, effects] = play(state, ...messages);
  const ends = only(effects, 'store').flatMap(({ write }) => (write.type === 'turn-ended' ? [write] : []));
  const told = only(effects, 'reply').map(({ replyTo, value }) => [
    replyTo,
    typeof value === 'object' && value !== null && 'replying' in value,
  ]);
  return { next, ends: ends.map(({ replies }) => replies?.map(({ id }) => id)), told };
}

test('a reply is written with the end, once for all who ask for it; another one beside it', () => {
  const { ends, told } = run(
    idle,
    ...[asked(1, 'a'), ...admitted, asked(2, 'a'), stored('accepted'), asked(3, 'b'), asked(4)],
    ...[granted, asked(5, 'b'), ended],
  );
  assert.deepEqual(ends, [['a', 'b']]);
  assert.deepEqual(told, [
    [1, true],
    [2, true],
    [3, true],
    [4, false],
    [5, true],
  ]);
});

test('a turn that nobody wants a reply of has none, and who comes late is not told that there will be one', () => {
  const first = run(idle, asked(1), ...admitted, stored('accepted'), granted, ended);
  assert.deepEqual(first.ends, [undefined]);
  const late = run(first.next, asked(2, 'a'));
  assert.deepEqual(late.told, [[2, false]]);
  assert.deepEqual(run(late.next, stored('ended'), asked(3, 'a')).told, [[3, false]]);
});
