/** What a session does about messages that it can not handle: who waits is answered, nothing is left half done. Pure. */
import { refusal } from '../../src/domain/errors.ts';
import type { Behaviour } from '../runtime/actor.ts';
import { releaseOf } from '../tenant/protocol.ts';
import { accepted } from './admission.ts';
import { close, closeUnstored, fail, refuse } from './ending.ts';
import { answerUnhandled, failLoad, thenForget, thenNotify, unforgotten } from './lifecycle.ts';
import {
  atOf,
  type SessionEffect,
  type SessionMessage,
  type SessionState,
  type SessionStep,
  type Stored,
  type StoreFailed,
  turnOf,
} from './protocol.ts';
import { thenRun } from './queue.ts';
import type { Turn } from './turn.ts';

/**
 * What a session does about a message that its behaviour threw over: the turn it was about ends, all else stays. A
 * turn that runs ends only with what its execution reports.
 */
export const recoverSession: Behaviour<SessionState, SessionMessage, SessionEffect> = (state, message) =>
  thenForget(thenNotify(thenRun(recover(state, message), atOf(message)), message));

function recover(state: SessionState, message: SessionMessage): SessionStep {
  const turn = turnOf(state, message);
  switch (message.type) {
    case 'loaded':
    case 'joined':
    case 'loadFailed':
      return failLoad(state, refusal('INTERNAL'), atOf(message));
    case 'admitted':
    case 'slotGranted': {
      const release = releaseOf(message);
      const isAwaited = turn?.phase === 'admitting' || turn?.phase === 'queued';
      if (!isAwaited) return [state, [release]];
      // What the message brought is all that the turn has of its tenant.
      const [next, effects] = fail(state, turn, message.atMs);
      return [next, [release, ...effects.filter(({ type }) => type !== 'release')]];
    }
    case 'stored':
    case 'storeFailed':
      if (message.step === 'deleted') return unforgotten(state, refusal('INTERNAL'));
      return turn ? recoverStored(state, turn, message) : [state, []];
    case 'agentFound':
    case 'agentRefused':
    case 'notAdmitted':
    case 'ended':
    case 'executionLost':
      return turn ? fail(state, turn, atOf(message), 'text' in message ? message : undefined) : [state, []];
    default:
      // Saying a turn again that could not be handled tells nothing of that turn.
      return [state, answerUnhandled(message).filter(({ type }) => !turn || type !== 'untrack')];
  }
}

/** The store's word is not lost with the message that brought it. */
function recoverStored(state: SessionState, turn: Turn, message: Stored | StoreFailed): SessionStep {
  const { atMs } = message;
  if (message.step === 'ended') {
    if (turn.phase !== 'ending') return [state, []];
    return message.type === 'stored' ? close(state, turn, atMs) : closeUnstored(state, turn, atMs);
  }
  if (message.step !== 'accepted') return [state, []];
  if (message.type === 'storeFailed' || message.duplicate) return refuse(state, turn, refusal('INTERNAL'));
  // The turn goes on: to end it here would free the slot of a run that has yet to stop.
  return accepted(state, turn, atMs);
}
