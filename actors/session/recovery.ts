/** What a session does about messages that it can not handle: who waits is answered, nothing is left half done. Pure. */
import { CLOSE, type ErrorData, refusal } from '../../src/domain/errors.ts';
import type { Behaviour } from '../runtime/actor.ts';
import type { TenantMessage } from '../tenant/protocol.ts';
import { accepted } from './admission.ts';
import { thenForget, thenTell, unforgotten } from './lifecycle.ts';
import {
  atOf,
  findTurn,
  type SessionEffect,
  type SessionMessage,
  type SessionState,
  type SessionStep,
  type Turn,
  turnOf,
  withTurn,
} from './protocol.ts';
import { breakTurn, closeTurn, closeUnkept, refuse } from './turn.ts';

/**
 * What a session does about a message that its behaviour threw over: the turn it was about ends, all else stays. A
 * turn that runs ends only with what its execution reports.
 */
export const recoverSession: Behaviour<SessionState, SessionMessage, SessionEffect> = (state, message) =>
  thenForget(thenTell(recover(state, message), message));

function recover(state: SessionState, message: SessionMessage): SessionStep {
  const turn = turnOf(state, message);
  switch (message.type) {
    case 'loaded':
    case 'entered':
    case 'loadFailed':
      return failLoad(state, refusal('INTERNAL'), atOf(message));
    case 'claimed':
    case 'granted': {
      const release: SessionEffect = { type: 'release', ...lostRelease(message) };
      if (!turn) return [state, [release]];
      const [next, effects] = broken(withTurn(state, turn.taskId, { claim: 'returned' }), turn, message.atMs);
      return [next, [release, ...effects]];
    }
    case 'kept':
    case 'keepFailed':
      if (message.step === 'deleted') return unforgotten(state, refusal('INTERNAL'));
      return turn && message.step !== 'told' ? recoverKept(state, turn, message) : [state, []];
    case 'agentFound':
    case 'agentRefused':
    case 'claimRefused':
    case 'ended':
    case 'executionLost':
      return turn ? broken(state, turn, atOf(message)) : [state, []];
    default:
      // A resend that could not be handled says nothing about the turn that it repeats.
      return [state, answerUnhandled(message).filter(({ type }) => !turn || type !== 'untrack')];
  }
}

/** The store's word is not lost with the message that brought it. */
function recoverKept(
  state: SessionState,
  turn: Turn,
  message: Extract<SessionMessage, { type: 'kept' | 'keepFailed' }>,
): SessionStep {
  const { atMs } = message;
  if (message.step === 'ended' && turn.ended)
    return message.type === 'kept'
      ? closeTurn(state, turn, turn.ended, atMs)
      : closeUnkept(state, turn, atMs);
  if (message.type === 'keepFailed' || message.duplicate)
    return refuse(state, turn, refusal('INTERNAL'), atMs);
  // The turn goes on: to end it here would free the slot of a run that has yet to stop.
  return accepted(state, turn, atMs);
}

function broken(state: SessionState, { taskId }: Turn, atMs: number): SessionStep {
  const turn = findTurn(state, taskId);
  return turn ? breakTurn(state, turn, '', atMs) : [state, []];
}

/** Whoever waits for an answer to a message that will not be handled gets one. */
export function answerUnhandled(message: SessionMessage, error = refusal('INTERNAL')): SessionEffect[] {
  if (message.type === 'attach')
    return [{ type: 'turnAway', clientId: message.clientId, error, atMs: message.atMs }];
  if (!('replyTo' in message)) return [];
  const { replyTo } = message;
  if (message.type === 'inquire' || message.type === 'drained')
    return [{ type: 'reply', replyTo, value: null }];
  const value = 'taskId' in message ? { ok: false, taskId: message.taskId, error } : { ok: false, error };
  const reply: SessionEffect = { type: 'reply', replyTo, value };
  return message.type === 'said' ? [reply, { type: 'untrack', taskId: message.taskId }] : [reply];
}

/** Nobody answers for a claim or a grant that its session never hears of: the tenant is given it back. */
export function returned(message: SessionMessage): TenantMessage | null {
  return message.type === 'claimed' || message.type === 'granted'
    ? { type: 'release', ...lostRelease(message) }
    : null;
}

/** What a claim or a grant that no turn here waits for gives back. */
export function lostRelease(message: Extract<SessionMessage, { type: 'claimed' | 'granted' }>) {
  const { taskId, attempt } = message;
  return message.type === 'claimed'
    ? ({ taskId, attempt, slot: message.slot, refund: true } as const)
    : ({ taskId, attempt, slot: 'granted', refund: false } as const);
}

/** History or tier can not be had: nobody is kept waiting, and the next message tries afresh. */
export function failLoad(state: SessionState, error: ErrorData, atMs: number): SessionStep {
  if (!state.stash) return [state, []];
  const effects = state.stash.flatMap((message) => answerUnhandled(message, error));
  return [
    { ...state, stash: [] },
    [...effects, { type: 'closeClients', close: CLOSE.overloaded, told: { error, atMs } }, { type: 'stop' }],
  ];
}
