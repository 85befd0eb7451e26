/** How all of a session ends: left behind by a node that goes, or deleted, when everybody is told. Pure. */
import { CLOSE, type ErrorData, type Reply, refusal } from '../../src/domain/errors.ts';
import type { TurnRecord } from '../../src/domain/turn.ts';
import {
  atOf,
  findTurn,
  type ReplyTo,
  type SessionEffect,
  type SessionMessage,
  type SessionState,
  type SessionStep,
  type Turn,
} from './protocol.ts';
import { drop, refuse, stopTurn } from './turn.ts';

export function forget(state: SessionState, replyTo: ReplyTo, atMs: number): SessionStep {
  if (state.forgetting)
    return [
      { ...state, forgetting: { ...state.forgetting, replyTo: [...state.forgetting.replyTo, replyTo] } },
      [],
    ];
  return cancelAll({ ...state, forgetting: { replyTo: [replyTo], writing: false } }, atMs);
}

/** Ends every turn early, the last one first, so that none begins to run meanwhile. */
const cancelAll = (state: SessionState, atMs: number): SessionStep =>
  eachTurn(state, (current, turn) => stopTurn(current, turn, atMs));

/**
 * The node goes, and its turns have had their time. One that may run again is left as if the node had died over it:
 * whoever takes it next goes on with it. The others end as cancelled, and so does one of which the store is just
 * being told.
 */
export const leaveAll = (state: SessionState, atMs: number): SessionStep =>
  eachTurn(state, (current, turn) => {
    const isLeft = turn.resumable && !turn.ended && !turn.dropped && turn.kept !== 'writing';
    if (!isLeft) return stopTurn(current, turn, atMs);
    if (turn.kept === 'no') return refuse(current, turn, refusal('DRAINING'), atMs);
    return drop(current, turn, [], atMs);
  });

function eachTurn(
  state: SessionState,
  stop: (current: SessionState, turn: Turn) => SessionStep,
): SessionStep {
  const effects: SessionEffect[] = [];
  const next = state.turns.reduceRight<SessionState>((current, turn) => {
    const [stopped, more] = stop(current, turn);
    effects.push(...more);
    return stopped;
  }, state);
  return [next, effects];
}

/** A session that is to be forgotten is deleted as soon as its last turn has ended. */
export function thenForget(step: SessionStep): SessionStep {
  const [state, effects] = step;
  const { forgetting, tenantId, sessionId } = state;
  if (!forgetting || forgetting.writing || state.turns.length > 0 || state.stash) return step;
  const write = { type: 'session-deleted', tenantId, sessionId } as const;
  return [
    { ...state, forgetting: { ...forgetting, writing: true } },
    [...effects, { type: 'keep', step: 'deleted', taskId: undefined, write, wait: true }],
  ];
}

export function forgotten(state: SessionState): SessionStep {
  const [next, replies] = answered(state, { ok: true, value: null });
  return [next, [...replies, { type: 'closeClients', close: CLOSE.goingAway, told: null }, { type: 'stop' }]];
}

export const unforgotten = (state: SessionState, error: ErrorData): SessionStep =>
  answered(state, { ok: false, error });

function answered(state: SessionState, value: Reply<null>): SessionStep {
  const replies = (state.forgetting?.replyTo ?? []).map(
    (replyTo): SessionEffect => ({ type: 'reply', replyTo, value }),
  );
  return [{ ...state, forgetting: null }, replies];
}

/**
 * Tells what is untold as soon as a client is there. A turn that may run again keeps its clients waiting until the
 * store has said so: it would end twice for them.
 */
export function thenTell(step: SessionStep, message: SessionMessage): SessionStep {
  const [state, effects] = step;
  if (state.untold.length === 0 || state.clients.length === 0) return step;
  const waits = ({ taskId }: TurnRecord): boolean => findTurn(state, taskId) !== undefined;
  const due = state.untold.filter((turn) => !waits(turn));
  if (due.length === 0) return step;
  const atMs = atOf(message);
  const next: SessionState = { ...state, untold: state.untold.filter(waits) };
  return [next, [...effects, ...due.flatMap((turn) => tellInterrupted(turn, atMs))]];
}

/** It ends for its clients too, once. */
function tellInterrupted({ tenantId, taskId, error }: TurnRecord, atMs: number): SessionEffect[] {
  const event = { type: 'error', data: error ?? refusal('INTERRUPTED') } as const;
  const write = { type: 'turn-told', tenantId, taskId } as const;
  return [
    { type: 'event', taskId, event, atMs },
    { type: 'keep', step: 'told', taskId, write, wait: true },
  ];
}
