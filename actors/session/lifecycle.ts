/**
 * A session as a whole: how it fails to load, is left behind by a node that goes, is deleted, leaves memory, notifies
 * clients of turns that an earlier process left unfinished, and answers what it can not handle. Pure.
 */
import { CLOSE, type ErrorData, type Reply, refusal } from '../../src/domain/errors.ts';
import type { TurnRecord } from '../../src/domain/turn.ts';
import { isGuest } from '../../src/ports/cluster.ts';
import type { Epoch } from '../../src/ports/store.ts';
import type { ReplyTo } from '../runtime/actor.ts';
import { isGrant, type Release, releaseOf } from '../tenant/protocol.ts';
import { drop, refuse, stop } from './ending.ts';
import {
  atOf,
  findTurn,
  reply,
  type SessionEffect,
  type SessionMessage,
  type SessionState,
  type SessionStep,
} from './protocol.ts';
import { isStored, type Turn } from './turn.ts';

export function forget(state: SessionState, replyTo: ReplyTo<Reply<null>>, atMs: number): SessionStep {
  const { forgetting } = state;
  if (forgetting) {
    const waiting = [...forgetting.replyTo, replyTo];
    return [{ ...state, forgetting: { ...forgetting, replyTo: waiting } }, []];
  }
  return stopAll({ ...state, forgetting: { replyTo: [replyTo], writing: false } }, atMs);
}

/** Ends every turn early, the last one first, so that none begins to run meanwhile. */
const stopAll = (state: SessionState, atMs: number): SessionStep =>
  eachTurn(state, (current, turn) => stop(current, turn, atMs));

/**
 * The node goes, and its turns have had their time. One that may go on elsewhere is left as if the node had died over
 * it: whoever takes it next goes on with it. The others end as cancelled, and so does one of which the store is just
 * being told.
 */
export const leaveAll = (state: SessionState, atMs: number): SessionStep =>
  eachTurn(state, (current, turn) => {
    if (!turn.request.resumable || turn.phase === 'ending' || turn.phase === 'withdrawn')
      return stop(current, turn, atMs);
    if (turn.phase === 'admitting') return refuse(current, turn, refusal('DRAINING'));
    return isStored(turn) ? drop(current, turn, []) : stop(current, turn, atMs);
  });

function eachTurn(
  state: SessionState,
  change: (current: SessionState, turn: Turn) => SessionStep,
): SessionStep {
  const effects: SessionEffect[] = [];
  const next = state.turns.reduceRight<SessionState>((current, { taskId }) => {
    const turn = findTurn(current, taskId);
    if (!turn) return current;
    const [changed, more] = change(current, turn);
    effects.push(...more);
    return changed;
  }, state);
  return [next, effects];
}

/** A session that is to be forgotten is deleted as soon as its last turn has ended. */
export function thenForget(step: SessionStep): SessionStep {
  const [state, effects] = step;
  const { forgetting, tenantId, sessionId, epoch } = state;
  if (!forgetting || forgetting.writing || state.turns.length > 0 || state.stash) return step;
  const write = { type: 'session-deleted', tenantId, sessionId, epoch } as const;
  return [
    { ...state, forgetting: { ...forgetting, writing: true } },
    [...effects, { type: 'store', step: 'deleted', taskId: undefined, write, wait: true }],
  ];
}

export function forgotten(state: SessionState): SessionStep {
  const [next, replies] = forgetAnswered(state, { ok: true, value: null });
  return [next, [...replies, { type: 'closeClients', close: CLOSE.goingAway, told: null }, { type: 'stop' }]];
}

export const unforgotten = (state: SessionState, error: ErrorData): SessionStep =>
  forgetAnswered(state, { ok: false, error });

const forgetAnswered = (state: SessionState, answer: Reply<null>): SessionStep => [
  { ...state, forgetting: null },
  (state.forgetting?.replyTo ?? []).map((replyTo) => reply(replyTo, answer)),
];

/** Nobody comes back to an ephemeral session, so that thousands a second need not stay until they are idle. */
export function thenLeave(step: SessionStep): SessionStep {
  const [state, effects] = step;
  return state.ephemeral && !isNeeded(state) ? [state, [...effects, { type: 'leave' }]] : step;
}

export const isNeeded = (state: SessionState): boolean => state.clients.length > 0 || isBusy(state);

const isBusy = ({ turns, forgetting, stash }: SessionState): boolean =>
  turns.length > 0 || forgetting !== null || stash !== null;

/** Another node asks for it. Where nothing needs it, it leaves; whoever asked looks whether mail kept it after all. */
export function giveUp(state: SessionState, guestsToo: boolean, replyTo: ReplyTo<boolean>): SessionStep {
  const kept = isBusy(state) || state.clients.some((id) => guestsToo || !isGuest(id));
  if (kept) return [state, [reply(replyTo, false)]];
  return [state, [{ type: 'leave' }, reply(replyTo, true)]];
}

/** It is another's by now, or nobody's: what this one still holds counts nowhere, and its clients look for the owner. */
export const disown = (state: SessionState): SessionStep => [
  state,
  [{ type: 'closeClients', close: CLOSE.ownedElsewhere, told: null }, { type: 'stop' }],
];

/**
 * Notifies of interrupted turns as soon as a client is there. A turn that may go on keeps its clients waiting until
 * the store has said so: it would end twice for them.
 */
export function thenNotify(step: SessionStep, message: SessionMessage): SessionStep {
  const [state, effects] = step;
  if (state.unnotified.length === 0 || state.clients.length === 0) return step;
  const waits = ({ taskId }: TurnRecord): boolean => findTurn(state, taskId) !== undefined;
  const due = state.unnotified.filter((turn) => !waits(turn));
  if (due.length === 0) return step;
  const atMs = atOf(message);
  const next: SessionState = { ...state, unnotified: state.unnotified.filter(waits) };
  return [next, [...effects, ...due.flatMap((turn) => interruptedNotice(turn, state.epoch, atMs))]];
}

/** It ends for its clients too, once. */
function interruptedNotice(
  { tenantId, taskId, error }: TurnRecord,
  epoch: Epoch,
  atMs: number,
): SessionEffect[] {
  const event = { type: 'error', data: error ?? refusal('INTERRUPTED') } as const;
  const write = { type: 'turn-notified', tenantId, taskId, epoch } as const;
  return [
    { type: 'event', taskId, event, atMs },
    { type: 'store', step: 'notified', taskId, write, wait: true },
  ];
}

/** Whoever waits for an answer to a message that will not be handled gets one. */
export function answerUnhandled(message: SessionMessage, error = refusal('INTERNAL')): SessionEffect[] {
  switch (message.type) {
    case 'attach':
      return [{ type: 'turnAway', clientId: message.clientId, error, atMs: message.atMs }];
    case 'said': {
      const { taskId } = message.request;
      return [reply(message.replyTo, { ok: false, taskId, error }), { type: 'untrack', taskId }];
    }
    case 'cancel':
      return [reply(message.replyTo, { ok: false, taskId: message.taskId, error })];
    case 'forget':
      return [reply(message.replyTo, { ok: false, error })];
    case 'inquire':
    case 'drained':
      return [reply(message.replyTo, null)];
    case 'yield':
      return [reply(message.replyTo, false)];
    default:
      return [];
  }
}

/** What is released for a message that its session never hears of; null: nothing. */
export const releaseUnheard = (message: SessionMessage): Release | null =>
  isGrant(message) ? releaseOf(message) : null;

/** History or tier can not be had: nobody is kept waiting, and the next message tries afresh. */
export function failLoad(state: SessionState, error: ErrorData, atMs: number): SessionStep {
  if (!state.stash) return [state, []];
  const effects = state.stash.flatMap((message) => answerUnhandled(message, error));
  return [
    { ...state, stash: [] },
    [...effects, { type: 'closeClients', close: CLOSE.overloaded, told: { error, atMs } }, { type: 'stop' }],
  ];
}
