/** An agent's behaviour: one load for all who ask, the newest version wins, older ones are kept for those who pinned them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ABSENT_MS,
  type AgentEffect,
  type AgentMessage,
  type AgentState,
  agent,
  LOAD_MS,
  newAgent,
} from '../../../actors/agent/agent.ts';
import type { Agent } from '../../../src/domain/agent-record.ts';
import { refusal } from '../../../src/domain/errors.ts';
import { TENANT } from '../fixtures.ts';
import { AGENT_ID, agentOf } from './agent-fixtures.ts';

const find = (replyTo: number, version: number | null = null, atMs = 0): AgentMessage => ({
  type: 'find',
  replyTo,
  version,
  atMs,
});
const loaded = (attempt: number, stored: Agent | null, atMs = 0): AgentMessage => ({
  type: 'loaded',
  attempt,
  agent: stored,
  atMs,
});
const changed = (stored: Agent, atMs = 0): AgentMessage => ({ type: 'changed', agent: stored, atMs });
const gone = '2026-01-02T00:00:00.000Z';

/** Handles messages one after the other; returns the state and, in short, the effects of the last one. */
function after(...messages: readonly AgentMessage[]) {
  let state: AgentState = newAgent(TENANT, AGENT_ID);
  let effects: readonly AgentEffect[] = [];
  for (const message of messages) [state, effects] = agent(state, message);
  return { state, effects, brief: effects.map(short) };
}

function short(effect: AgentEffect): string {
  switch (effect.type) {
    case 'load':
      return `load ${effect.version ?? 'newest'} as ${effect.attempt}`;
    case 'publish':
      return `publish ${effect.current.version} with ${effect.pins.map(({ version }) => version).join()}`;
    case 'publishAbsence':
      return `absent until ${effect.untilMs}`;
    case 'answer':
      return `${effect.replyTo}: ${effect.found.ok ? effect.found.value.version : effect.found.error.code}`;
    default:
      return effect.type;
  }
}

test('the first who asks has it loaded, others wait for the same load, and all are answered at once', () => {
  assert.deepEqual(after(find(1)).brief, ['load newest as 1']);
  assert.deepEqual(after(find(1), find(2)).brief, []);
  assert.deepEqual(after(find(1), find(2), loaded(1, agentOf(3))).brief, ['publish 3 with ', '1: 3', '2: 3']);
  assert.deepEqual(after(find(1), loaded(1, agentOf(3)), find(4)).brief, ['4: 3']);
});

test('a change while it loads answers those who wait, and the load that comes later is too old', () => {
  const { brief } = after(find(1), changed(agentOf(4)));
  assert.deepEqual(brief, ['publish 4 with ', '1: 4']);

  const { state, effects } = after(find(1), changed(agentOf(4)), loaded(1, agentOf(3)));
  assert.deepEqual(effects, []);
  assert.equal(state.current?.version, 4);
  assert.equal(after(find(1), changed(agentOf(4)), loaded(1, null)).state.current?.version, 4);
});

test('an older change never overwrites a newer one', () => {
  const { state, effects } = after(changed(agentOf(5)), changed(agentOf(4)));

  assert.equal(state.current?.version, 5);
  assert.deepEqual(effects, []);
});

test('what is not there is told so, remembered for a moment, and the actor leaves', () => {
  assert.deepEqual(after(find(1), loaded(1, null, 50)).brief, [
    `absent until ${50 + ABSENT_MS}`,
    '1: AGENT_NOT_FOUND',
    'leave',
  ]);
  assert.deepEqual(after(find(1), loaded(1, agentOf(2, { deleted_at: gone })), find(2)).brief, [
    'load newest as 2',
  ]);
});

test('a deleted agent is gone for those who wait, and an older load does not bring it back', () => {
  const messages = [find(1), loaded(1, agentOf(1)), changed(agentOf(2, { deleted_at: gone }), 7)];
  assert.deepEqual(after(...messages).brief, [`absent until ${7 + ABSENT_MS}`, 'leave']);
  assert.deepEqual(after(...messages, find(2), loaded(2, agentOf(1))).brief.at(1), '2: AGENT_NOT_FOUND');
  assert.deepEqual(after(...messages, changed(agentOf(3))).brief, ['publish 3 with ']);
});

test('a store that fails refuses all who wait, and the next one tries again', () => {
  const failed: AgentMessage = { type: 'loadFailed', attempt: 1, error: refusal('PEER_TIMEOUT'), atMs: 0 };
  assert.deepEqual(after(find(1), find(2), failed).brief, ['1: PEER_TIMEOUT', '2: PEER_TIMEOUT', 'leave']);
  assert.deepEqual(after(find(1), failed, find(3)).brief, ['load newest as 2']);
});

test('a load that takes too long is given up by the next who asks, and its late answer counts for nothing', () => {
  const late = [find(1), find(2, null, LOAD_MS)];
  assert.deepEqual(after(...late).brief, ['load newest as 2']);
  assert.deepEqual(after(...late, loaded(1, agentOf(1))).effects, []);
  assert.deepEqual(after(...late, loaded(2, agentOf(2))).brief, ['publish 2 with ', '2: 2']);
});

test('a pinned version is loaded beside the newest and kept', () => {
  const pinned = [find(1, 2), loaded(1, agentOf(5)), loaded(2, agentOf(2))];
  assert.deepEqual(after(...pinned.slice(0, 2)).brief, ['publish 5 with ', 'load 2 as 2']);
  assert.deepEqual(after(...pinned).brief, ['publish 5 with 2', '1: 2']);
  assert.deepEqual(after(...pinned, find(3, 2)).brief, ['3: 2']);
  assert.deepEqual(after(...pinned, find(3, 5)).brief, ['3: 5']);
  assert.deepEqual(after(find(1, 9), loaded(1, agentOf(5)), loaded(2, null)).brief, ['1: NOT_FOUND']);
});

test('an agent that is switched off or deleted is so in its older versions too', () => {
  const pinned = [find(1, 2), loaded(1, agentOf(5)), loaded(2, agentOf(2))];
  const [answer] = after(...pinned, changed(agentOf(6, { is_active: false })), find(3, 2)).effects;
  assert.ok(answer?.type === 'answer' && answer.found.ok);
  assert.deepEqual([answer.found.value.version, answer.found.value.isActive], [2, false]);
  const deleted = after(...pinned, changed(agentOf(6, { deleted_at: gone })), find(3, 2), loaded(3, null));
  assert.equal(deleted.brief.at(1), '3: AGENT_NOT_FOUND');
});

test('it holds a bounded number of older versions', () => {
  const pins = Array.from({ length: 20 }, (_, index) => index + 1).flatMap((version) => [
    find(version, version),
    loaded(version + 1, agentOf(version)),
  ]);
  const { state } = after(find(0), loaded(1, agentOf(30)), ...pins);

  assert.deepEqual(
    state.pins.map(({ version }) => version),
    [13, 14, 15, 16, 17, 18, 19, 20],
  );
});

test('after an invalidation nothing known counts any more, and who waits gets what is stored now', () => {
  const known = [find(1), loaded(1, agentOf(3))];
  assert.deepEqual(after(...known, { type: 'invalidated', atMs: 0 }).brief, ['withdraw']);
  assert.deepEqual(after(find(1), { type: 'invalidated', atMs: 0 }).brief, ['withdraw', 'load newest as 2']);
  assert.deepEqual(after(find(1), { type: 'invalidated', atMs: 0 }, loaded(1, agentOf(3))).effects, []);
  assert.deepEqual(after(...known, { type: 'invalidated', atMs: 0 }, find(2), loaded(2, agentOf(2))).brief, [
    'publish 2 with ',
    '2: 2',
  ]);
});

test('an idle agent leaves where nobody waits for it', () => {
  assert.deepEqual(after({ type: 'idle' }).brief, ['leaveIfUnused']);
  assert.deepEqual(after(find(1), { type: 'idle' }).brief, []);
});

test('whatever the order of changes, loads and failures, nobody gets an older version than one before, or no answer', () => {
  const steps = fc.array(
    fc.oneof(
      fc.constant('find' as const),
      fc.constant('pin' as const),
      fc.constant('change' as const),
      fc.constant('late change' as const),
      fc.constant('load' as const),
      fc.constant('fail' as const),
    ),
    { maxLength: 40 },
  );
  fc.assert(
    fc.property(steps, (script) => {
      let state = newAgent(TENANT, AGENT_ID);
      let stored = 1;
      let seen = 0;
      let asked = 0;
      const answers = new Map<number, number>();
      const pins = new Set<number>();
      const loads: { attempt: number; found: Agent }[] = [];
      const handle = (message: AgentMessage): void => {
        const [next, effects] = agent(state, message);
        state = next;
        for (const effect of effects) {
          if (effect.type === 'load')
            loads.push({ attempt: effect.attempt, found: agentOf(effect.version ?? stored) });
          if (effect.type !== 'answer') continue;
          answers.set(effect.replyTo, (answers.get(effect.replyTo) ?? 0) + 1);
          if (!effect.found.ok || pins.has(effect.replyTo)) continue;
          assert.ok(effect.found.value.version >= seen);
          seen = effect.found.value.version;
        }
      };
      const act = (step: (typeof script)[number]): void => {
        if (step === 'find' || step === 'pin') {
          asked += 1;
          if (step === 'pin') pins.add(asked);
          return handle(find(asked, step === 'pin' ? 1 : null));
        }
        if (step === 'change') {
          stored += 1;
          return handle(changed(agentOf(stored)));
        }
        if (step === 'late change') return handle(changed(agentOf(Math.max(1, stored - 1))));
        const load = loads.pop();
        if (!load) return;
        const { attempt, found } = load;
        const error = refusal('STORE_UNAVAILABLE');
        handle(step === 'load' ? loaded(attempt, found) : { type: 'loadFailed', attempt, error, atMs: 0 });
      };
      for (const step of script) act(step);
      while (loads.length > 0) act('load');
      assert.equal(answers.size, asked);
      assert.ok([...answers.values()].every((count) => count === 1));
    }),
  );
});
