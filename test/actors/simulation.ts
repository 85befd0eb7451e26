/**
 * A node in miniature for model tests: the pure behaviours of node, tenants and sessions, with their effects carried
 * out on plain data. One step is one message handled or one answer from outside; which one comes next is chosen at
 * random wherever the real system could reorder.
 */

import assert from 'node:assert/strict';
import { answerUnhandled, releaseUnheard } from '../../actors/session/lifecycle.ts';
import type { SessionEffect, SessionMessage, SessionState } from '../../actors/session/protocol.ts';
import { recoverSession } from '../../actors/session/recovery.ts';
import { newSession, session } from '../../actors/session/session.ts';
import { newTenant, type TenantMessage, type TenantState } from '../../actors/tenant/protocol.ts';
import {
  newScheduler,
  type SchedulerMessage,
  type SchedulerState,
  scheduler,
} from '../../actors/tenant/scheduler.ts';
import { tenant } from '../../actors/tenant/tenant.ts';
import type { Message } from '../../src/domain/conversation.ts';
import { refusal } from '../../src/domain/errors.ts';
import { isTerminal } from '../../src/domain/frames.ts';
import type { SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import { TIER_TABLE, type TierTable } from '../../src/domain/tiers.ts';
import type { TurnRecord } from '../../src/domain/turn.ts';
import type { Write } from '../../src/ports/store.ts';
import { AGENT, aborted, answered, CONFIG, taskId } from './fixtures.ts';

export const TIERS: TierTable = {
  ...TIER_TABLE,
  free: { ...TIER_TABLE.free, requests_per_minute: null, requests_per_day: null, waiting: 4 },
};

interface SessionBox {
  state: SessionState;
  readonly mail: SessionMessage[];
}
interface TenantBox {
  state: TenantState;
  readonly mail: TenantMessage[];
}
interface Told {
  readonly type: string;
  readonly deduplicated: boolean;
}

/** A turn as the store has it. */
interface Stored {
  ends: number;
  /** Left unfinished by an earlier process, and not running again. */
  interrupted: boolean;
  told: boolean;
  readonly sessionId: SessionId;
}

export interface Faults {
  /** Chance that the store refuses a write, that an agent is unknown, that a behaviour throws over a message. */
  readonly store: number;
  readonly agent: number;
  readonly behaviour: number;
}

export interface Simulation {
  /** Before anything else: a turn that an earlier process left unfinished. */
  interrupted(tenantId: TenantId, sessionId: SessionId, taskId: TaskId): void;
  say(tenantId: TenantId, sessionId: SessionId, message: Extract<SessionMessage, { type: 'said' }>): void;
  ask(tenantId: TenantId, sessionId: SessionId, message: SessionMessage & { readonly replyTo: number }): void;
  tell(tenantId: TenantId, sessionId: SessionId, message: SessionMessage): void;
  /** Handles one thing; false when nothing is left to do. */
  step(): boolean;
  nextReply(): number;
  /** Checks what must hold when all is quiet. */
  checkRest(): void;
}

export function createSimulation(random: () => number, capacity: number, faults: Faults): Simulation {
  let nodeState: SchedulerState = newScheduler(capacity);
  const nodeMail: SchedulerMessage[] = [];
  const tenants = new Map<TenantId, TenantBox>();
  const sessions = new Map<string, SessionBox>();
  const pending: (() => void)[] = [];
  const running = new Map<string, { stopped: boolean }>();
  const events = new Map<string, Told[]>();
  const replies = new Map<number, number>();
  const stored = new Map<string, Stored>();
  const before = new Set<string>();
  /** Turns that a node that goes has left behind: nobody is told of their end, and the store has none. */
  const left = new Set<string>();
  const tracked = new Set<string>();
  let numbers = 0;
  let refusedEnds = 0;
  let refusedTold = 0;
  let nowMs = 0;

  const chance = (of: number): boolean => random() < of;
  const later = (deed: () => void): void => void pending.push(deed);
  const now = (): number => {
    nowMs += 1;
    return nowMs;
  };

  function tenantBox(tenantId: TenantId): TenantBox {
    let box = tenants.get(tenantId);
    if (!box) {
      box = { state: newTenant(tenantId, 'free', TIERS), mail: [] };
      tenants.set(tenantId, box);
    }
    return box;
  }

  function sessionBox(tenantId: TenantId, sessionId: SessionId): SessionBox {
    const key = `${tenantId}/${sessionId}`;
    const found = sessions.get(key);
    if (found) return found;
    const box: SessionBox = {
      state: newSession(tenantId, sessionId, { ...CONFIG, tiers: TIERS }, 1),
      mail: [],
    };
    sessions.set(key, box);
    doSession(box, { type: 'load' });
    doSession(box, { type: 'join', tier: undefined });
    return box;
  }

  function doSession(box: SessionBox, effect: SessionEffect): void {
    const { tenantId, sessionId } = box.state;
    const mail = tenantBox(tenantId).mail;
    const key = (taskId: TaskId): string => `${tenantId}/${taskId}`;
    /** Answers go to this life of the session; where it is gone they are dead letters. */
    const back = (message: SessionMessage): void => {
      if (sessions.get(`${tenantId}/${sessionId}`) === box) box.mail.push(message);
      else dead(box, message);
    };
    switch (effect.type) {
      case 'load':
        return loaded(tenantId, sessionId, back);
      case 'join':
        return void mail.push({ type: 'join', sessionId, tier: effect.tier, atMs: now() });
      case 'findAgent': {
        const { taskId, attempt } = effect;
        const found = !chance(faults.agent);
        return later(() =>
          back(
            found
              ? { type: 'agentFound', taskId, attempt, agent: AGENT, atMs: now() }
              : { type: 'agentRefused', taskId, attempt, error: refusal('AGENT_NOT_FOUND'), atMs: now() },
          ),
        );
      }
      case 'requestAdmission':
        return void mail.push({ ...effect, sessionId });
      case 'requestSlot':
        return void mail.push({ ...effect, sessionId });
      case 'release':
        return void mail.push(effect);
      case 'store': {
        const { step, taskId } = effect;
        if (chance(faults.store)) {
          if (step === 'ended') refusedEnds += 1;
          if (step === 'notified') refusedTold += 1;
          return later(() => back({ type: 'storeFailed', step, taskId, atMs: now() }));
        }
        const duplicate = keep(effect.write) ? 'failed' : undefined;
        return later(() => back({ type: 'stored', step, taskId, duplicate, atMs: now() }));
      }
      case 'execute': {
        const { taskId, history } = effect.plan;
        const asked = history.filter((message) => message.taskId === taskId);
        assert.equal(asked.length, 1, 'the model reads the question once');
        assert.notEqual(stored.get(key(taskId))?.interrupted, true, 'what was said before is not run again');
        const run = { stopped: false };
        assert.equal(running.has(key(taskId)), false, 'a turn runs once');
        running.set(key(taskId), run);
        return later(() => {
          running.delete(key(taskId));
          // The abort may come too late; and the execution may break.
          const outcome = run.stopped && !chance(0.2) ? aborted : answered('hi');
          back(
            chance(0.1)
              ? { type: 'executionLost', taskId, text: '', atMs: now() }
              : { type: 'ended', taskId, outcome, text: 'h', atMs: now() },
          );
        });
      }
      case 'abort': {
        const run = running.get(key(effect.taskId));
        if (run) run.stopped = true;
        return;
      }
      case 'event': {
        const told = events.get(key(effect.taskId)) ?? [];
        const { type, data } = effect.event;
        told.push({ type, deduplicated: 'deduplicated' in data && data.deduplicated === true });
        events.set(key(effect.taskId), told);
        return;
      }
      case 'reply':
        return void replies.set(effect.replyTo, (replies.get(effect.replyTo) ?? 0) + 1);
      case 'track':
        return void tracked.add(key(effect.taskId));
      case 'untrack':
        return void tracked.delete(key(effect.taskId));
      case 'stop': {
        sessions.delete(`${tenantId}/${sessionId}`);
        assert.deepEqual(box.state.turns, [], 'a session stops by itself only without turns');
        for (const message of box.mail.splice(0)) dead(box, message);
        return;
      }
      default:
        return;
    }
  }

  function dead(box: SessionBox, message: SessionMessage): void {
    for (const effect of answerUnhandled(message)) doSession(box, effect);
    const release = releaseUnheard(message);
    if (release) tenantBox(box.state.tenantId).mail.push(release);
  }

  /** What the store has now is what comes, whenever it comes. */
  function loaded(tenantId: TenantId, sessionId: SessionId, back: (message: SessionMessage) => void): void {
    const kept = [...stored].filter(
      ([key, turn]) => key.startsWith(`${tenantId}/`) && turn.sessionId === sessionId && turn.interrupted,
    );
    const idOf = (key: string): TaskId => taskId(key.slice(tenantId.length + 1));
    const history = kept.map(([key]) => question(idOf(key)));
    const interrupted = kept
      .filter(([, { told }]) => !told)
      .map(([key]) => interruptedTurn(tenantId, sessionId, idOf(key)));
    later(() => back({ type: 'loaded', history, interrupted }));
  }

  /** True where the store has the turn already. */
  function keep(write: Write): boolean {
    if (write.type === 'turn-notified') {
      const told = stored.get(`${write.tenantId}/${write.taskId}`);
      if (told?.interrupted) told.told = true;
    }
    if (write.type !== 'turn-accepted' && write.type !== 'turn-ended') return false;
    const key = `${write.turn.tenantId}/${write.turn.taskId}`;
    const known = stored.get(key);
    if (write.type === 'turn-ended') {
      assert.ok(known, 'an end is kept after its beginning');
      known.ends += 1;
      return false;
    }
    if (known?.interrupted && !known.told && write.resumable) {
      known.interrupted = false;
      known.ends = 0;
      return false;
    }
    const { sessionId } = write.turn;
    if (!known) stored.set(key, { ends: 0, interrupted: false, told: false, sessionId });
    return known !== undefined;
  }

  function handleSession(box: SessionBox): void {
    const message = box.mail.shift();
    if (!message) return;
    if (message.type === 'drainExpired')
      for (const turn of box.state.turns)
        if (turn.request.resumable && turn.phase !== 'ending')
          left.add(`${box.state.tenantId}/${turn.taskId}`);
    const throws = box.state.stash === null && chance(faults.behaviour);
    const [state, effects] = (throws ? recoverSession : session)(box.state, message);
    box.state = state;
    for (const effect of effects) doSession(box, effect);
    const executing = state.turns.filter(({ phase }) => phase === 'running' || phase === 'withdrawn');
    assert.ok(executing.length <= 1, 'a session runs one turn at a time');
    const asked = (state.history ?? []).filter(({ role }) => role === 'user').map(({ taskId: id }) => id);
    assert.equal(new Set(asked).size, asked.length, 'a question is in the conversation once');
  }

  function handleTenant(box: TenantBox): void {
    const message = box.mail.shift();
    if (!message) return;
    const [state, effects] = tenant(box.state, message);
    box.state = state;
    const { tenantId } = state;
    assert.ok(state.running <= TIERS.free.executions && state.running >= 0, 'running keeps to the cap');
    assert.ok(state.queued >= 0, 'queued is never negative');
    for (const effect of effects)
      switch (effect.type) {
        case 'loadTenant':
          later(() => box.mail.push({ type: 'loaded', record: null }));
          break;
        case 'tellSession': {
          const found = sessions.get(`${tenantId}/${effect.sessionId}`);
          const release = found ? null : releaseUnheard(effect.message);
          if (found) found.mail.push(effect.message);
          if (release) box.mail.push(release);
          break;
        }
        case 'requestSlot':
          nodeMail.push({ ...effect, tenantId, tenancy: 1 });
          break;
        case 'slotReleased':
          nodeMail.push({ type: 'slotReleased' });
          break;
        case 'announceLater':
          later(() => box.mail.push({ type: 'announce', atMs: now() }));
          break;
        default:
          break;
      }
  }

  function handleNode(): void {
    const message = nodeMail.shift();
    if (!message) return;
    const [state, effects] = scheduler(nodeState, message);
    nodeState = state;
    assert.ok(state.running >= 0 && state.running <= capacity, 'the node keeps to its capacity');
    assert.ok(running.size <= capacity, 'no more executions than the node allows');
    for (const effect of effects) {
      if (effect.type === 'tickSoon') later(() => nodeMail.push({ type: 'tick' }));
      else {
        const { tenantId, sessionId, taskId, attempt } = effect;
        const found = sessions.get(`${tenantId}/${sessionId}`);
        if (found) found.mail.push({ type: 'slotGranted', taskId, attempt, atMs: now() });
        else
          tenantBox(tenantId).mail.push({
            type: 'release',
            taskId,
            attempt,
            slot: 'granted',
            refund: false,
          });
      }
    }
  }

  const tell: Simulation['tell'] = (tenantId, sessionId, message) =>
    void sessionBox(tenantId, sessionId).mail.push(message);

  return {
    interrupted(tenantId, sessionId, id) {
      const key = `${tenantId}/${id}`;
      before.add(key);
      stored.set(key, { ends: 1, interrupted: true, told: false, sessionId });
    },
    say(tenantId, sessionId, message) {
      tracked.add(`${tenantId}/${message.request.taskId}`);
      tell(tenantId, sessionId, message);
    },
    ask: tell,
    tell,
    nextReply() {
      numbers += 1;
      replies.set(numbers, 0);
      return numbers;
    },
    step() {
      const choices: (() => void)[] = [];
      for (const box of sessions.values()) if (box.mail.length > 0) choices.push(() => handleSession(box));
      for (const box of tenants.values()) if (box.mail.length > 0) choices.push(() => handleTenant(box));
      if (nodeMail.length > 0) choices.push(handleNode);
      const at = Math.floor(random() * pending.length);
      if (pending.length > 0) choices.push(() => pending.splice(at, 1)[0]?.());
      const choice = choices[Math.floor(random() * choices.length)];
      choice?.();
      return choice !== undefined;
    },
    checkRest() {
      for (const [key, told] of events) checkTurn(key, told);
      for (const [key, { ends }] of stored)
        assert.ok(ends === 1 || refusedEnds > 0 || left.has(key), `${key} ended in the store ${ends} times`);
      for (const [number, times] of replies) assert.equal(times, 1, `question ${number} has one answer`);
      for (const { state } of tenants.values()) {
        assert.deepEqual([state.running, state.queued, state.waiting.size], [0, 0, 0]);
        const own = [...stored.keys()].filter((key) => key.startsWith(`${state.tenantId}/`));
        const kept = own.filter((key) => !before.has(key) && !left.has(key)).length;
        assert.ok(state.day.used >= kept, 'every accepted turn was counted');
      }
      for (const { state } of sessions.values())
        assert.deepEqual([state.turns, state.forgetting], [[], null]);
      assert.deepEqual([nodeState.running, nodeState.queue.size, running.size], [0, 0, 0]);
      assert.deepEqual([...tracked], []);
    },
  };

  function checkTurn(key: string, told: readonly Told[]): void {
    const own = told.filter(({ deduplicated }) => !deduplicated).map(({ type }) => type);
    const story = `${key}: ${told.map(({ type }) => type).join(', ')}`;
    if (own.length === 0) return;
    if (before.has(key) && own[0] === 'error') {
      // It was told that it was interrupted; where the store was not told of that, it may be told, and run, again.
      assert.ok(own.length === 1 || refusedTold > 0, story);
      return;
    }
    if (left.has(key)) {
      assert.ok(own.filter(isTerminal).length <= 1, story);
      return;
    }
    assert.equal(own[0], 'chat.accepted', story);
    assert.equal(own.filter((type) => type === 'chat.accepted').length, 1, story);
    assert.equal(own.filter(isTerminal).length, 1, story);
    assert.ok(isTerminal(own.at(-1) ?? ''), story);
  }
}

const question = (id: TaskId): Message => ({ role: 'user', content: `message ${id}`, taskId: id, atMs: 0 });

const interruptedTurn = (tenantId: TenantId, sessionId: SessionId, id: TaskId): TurnRecord => ({
  taskId: id,
  tenantId,
  sessionId,
  agentId: AGENT.id,
  status: 'failed',
  createdAtMs: 0,
  finishedAtMs: 0,
  error: refusal('INTERRUPTED'),
});
