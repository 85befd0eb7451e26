/** How a turn leaves its session: refused before it was accepted, taken back, or ended, stored and told. Pure. */

import type { Message } from '../../src/domain/conversation.ts';
import { defined } from '../../src/domain/defined.ts';
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import { dayOf } from '../../src/domain/rate-limit.ts';
import { isRefusedByModel, type TurnEnd, type TurnRequest, terminalEvent } from '../../src/domain/turn.ts';
import type { Write } from '../../src/ports/store.ts';
import type { Release } from '../tenant/protocol.ts';
import {
  limitsOf,
  reply,
  type SessionEffect,
  type SessionState,
  type SessionStep,
  sharedDayOf,
  withoutTurn,
  withTurn,
} from './protocol.ts';
import type { TurnText } from './turn.ts';
import {
  answerOf,
  type Ending,
  endedRecord,
  lostEnd,
  mayBeKnown,
  type Queued,
  type Running,
  recordOf,
  type Turn,
  UNRUN,
} from './turn.ts';

/** After this long a client may try again when the store did not answer. */
const STORE_RETRY_MS = 1_000;

/** The store did not take it. A beginning is refused; an end is told as an error, for it may be lost. */
export const storeRefusal = (): ErrorData => refusal('STORE_UNAVAILABLE', { retryAfterMs: STORE_RETRY_MS });

export const noTask = (): ErrorData => refusal('NOT_FOUND', { message: 'There is no such task.' });
export const taskTaken = (): ErrorData =>
  refusal('CONFLICT', { message: 'This task_id belongs to a turn of another session.' });

/** Gives the tenant back what the turn has of it; `refund`: it does not count as a request. */
export function released(turn: Turn, refund: boolean): readonly Release[] {
  if (turn.phase === 'ending' || (turn.phase === 'admitting' && turn.admission !== 'granted')) return [];
  const slot = turn.phase === 'running' || turn.phase === 'withdrawn' ? 'granted' : turn.slot;
  return [{ type: 'release', taskId: turn.taskId, attempt: turn.attempt, slot, refund }];
}

/** Takes a turn back before it was accepted: who sent it gets the reason, nobody else hears of it. */
export function refuse(state: SessionState, turn: Turn, error: ErrorData): SessionStep {
  const { taskId } = turn;
  const effects: SessionEffect[] = turn.callers.map(({ replyTo }) =>
    reply(replyTo, { ok: false, taskId, error }),
  );
  effects.push({ type: 'refused', tier: state.tier ?? 'free', code: error.code });
  return drop(state, turn, effects);
}

/**
 * Undoes a turn of which nothing may be seen. One that runs is aborted first, in the same tick: what was waiting for
 * its acceptance (a tool) must find it aborted.
 */
export function drop(state: SessionState, turn: Turn, effects: readonly SessionEffect[]): SessionStep {
  const { taskId } = turn;
  const discard: SessionEffect = { type: 'discard', taskId };
  if (turn.phase !== 'running') return remove(state, turn, [...effects, discard]);
  const { stored: _, ...rest } = turn;
  return [
    withTurn(state, { ...rest, phase: 'withdrawn', callers: [] }),
    [{ type: 'abort', taskId }, ...effects, discard],
  ];
}

/** Takes a turn out, as if it had never been. */
export function remove(state: SessionState, turn: Turn, effects: readonly SessionEffect[]): SessionStep {
  const { taskId } = turn;
  const undo: SessionEffect[] = [
    ...effects,
    ...turn.cancellers.map(({ replyTo }) => reply(replyTo, { ok: false, taskId, error: noTask() })),
    { type: 'untrack', taskId },
    ...released(turn, true),
  ];
  const bucket = state.bucket && { ...state.bucket, tokens: state.bucket.tokens + 1 };
  return [{ ...withoutTurn(state, taskId), bucket }, undo];
}

/** A turn has an end: its slot is free, and once the store holds the end, everybody hears of it. */
export function end(
  state: SessionState,
  turn: Queued | Running,
  turnEnd: TurnEnd,
  endedAtMs: number,
): SessionStep {
  const ending: Ending = {
    ...withoutSlot(turn),
    phase: 'ending',
    ran: turn.phase === 'running',
    end: turnEnd,
    endedAtMs,
    writing: false,
  };
  const [next, effects] = storeEnd(withTurn(state, ending), ending);
  return [next, [...released(turn, false), ...effects]];
}

function withoutSlot(turn: Queued | Running): Running | Omit<Queued, 'slot'> {
  if (turn.phase === 'running') return turn;
  const { slot: _, ...rest } = turn;
  return rest;
}

/** Stores an end as soon as the beginning is stored. */
export function storeEnd(state: SessionState, turn: Ending): SessionStep {
  if (!turn.stored || turn.writing) return [state, []];
  const { taskId } = turn;
  return [
    withTurn(state, { ...turn, writing: true }),
    [{ type: 'store', step: 'ended', taskId, write: endWrite(state, turn), wait: waits(state) }],
  ];
}

const repliesOf = ({ request: { replies } }: Turn): Pick<TurnRequest, 'replies'> =>
  replies === undefined ? {} : { replies };

/** What the store is given of an end, with what is needed to tell others of it. */
const endWrite = (state: SessionState, turn: Ending): Write => ({
  type: 'turn-ended',
  epoch: turn.epoch,
  turn: endedRecord(turn, state.tenantId, state.sessionId),
  message: answerOf(turn),
  asked: turn.said,
  ...repliesOf(turn),
  ...(turn.ran ? {} : { unrun: true }),
  ...(state.tier ? { tier: state.tier } : {}),
});

/** What the store is given of a turn that its session took along: it ends in an error. */
export function abandonedWrite(state: SessionState, turn: Turn, error: ErrorData, atMs: number): Write {
  const record = recordOf(turn, state.tenantId, state.sessionId);
  return {
    type: 'turn-ended',
    epoch: turn.epoch,
    turn: { ...record, status: 'failed', finishedAtMs: atMs, error },
    message: undefined,
    asked: turn.said,
    ...repliesOf(turn),
    ...(record.status === 'queued' ? { unrun: true } : {}),
    ...(state.tier ? { tier: state.tier } : {}),
  };
}

/** Whether the tier has clients wait until the store holds what they are told. */
const waits = (state: SessionState): boolean => limitsOf(state).wait_for_persistence;

/** An admitted turn goes to the store; until that holds it nobody hears of it. */
export function storeAccepted(state: SessionState, turn: Turn): SessionEffect {
  const most = sharedDayOf(state);
  const write: Write = {
    type: 'turn-accepted',
    epoch: turn.epoch,
    turn: recordOf(turn, state.tenantId, state.sessionId),
    message: turn.said,
    day: dayOf(turn.said.atMs),
    ...(most === null ? {} : { most }),
    ...(turn.request.resumable ? { resumable: true } : {}),
  };
  // Whether it is new, may go on, or has its place in the day, is the store's to say, whatever the tier.
  const wait = mayBeKnown(turn) || waits(state) || most !== null;
  return { type: 'store', step: 'accepted', taskId: turn.taskId, write, wait };
}

/** The end is stored: the terminal event goes out, who cancelled is answered, and it leaves the session. */
export function close(state: SessionState, turn: Ending, atMs: number): SessionStep {
  const { taskId, end: turnEnd, endedAtMs } = turn;
  const abortMs = Math.max(0, endedAtMs - (turn.stopAtMs ?? endedAtMs));
  const effects: SessionEffect[] = [
    { type: 'event', taskId, event: terminalEvent(turnEnd, abortMs), atMs },
    { type: 'untrack', taskId },
    {
      type: 'measure',
      turn: endedRecord(turn, state.tenantId, state.sessionId),
      tier: state.tier ?? 'free',
    },
    ...turn.cancellers.map(({ replyTo, atMs: askedAtMs }) =>
      reply(replyTo, {
        ok: true,
        taskId,
        status: turnEnd.status,
        abortMs: Math.max(0, endedAtMs - askedAtMs),
      }),
    ),
  ];
  return [{ ...withoutTurn(state, taskId, turnEnd.status), history: historyWith(state, turn) }, effects];
}

/** What was said, as later turns find it. */
const askedIn = ({ said, end: { error } }: Ending): Message =>
  error && isRefusedByModel(error) ? { ...said, refused: true } : said;

/** The conversation with a turn that ran. What never ran was never said to a model, and is not read by the next turn. */
function historyWith(state: SessionState, turn: Ending): SessionState['history'] {
  if (!turn.ran) return state.history;
  const answer = answerOf(turn);
  const most = Math.max(2, limitsOf(state).history_messages);
  return [...(state.history ?? []), askedIn(turn), ...(answer ? [answer] : [])].slice(-most);
}

/** The store did not take the end: that is what its clients hear, for the answer may be lost. */
export function closeUnstored(state: SessionState, turn: Ending, atMs: number): SessionStep {
  const lost = lostEnd(turn, storeRefusal(), { text: turn.end.content ?? '' });
  const { info = lost.info } = turn.end;
  return close(state, { ...turn, end: defined({ ...lost, info }), endedAtMs: atMs }, atMs);
}

/** Ends a turn early: one that runs is aborted and reports, one that waits has ended at once. */
export function stop(state: SessionState, turn: Turn, atMs: number): SessionStep {
  if (turn.phase === 'ending' || turn.phase === 'withdrawn') return [state, []];
  const stopping = { ...turn, stopAtMs: turn.stopAtMs ?? atMs };
  const next = withTurn(state, stopping);
  switch (stopping.phase) {
    case 'admitting':
      // It ends once it is admitted, so that whoever sent it hears of its acceptance and of its end.
      return [next, []];
    case 'queued':
      return end(next, stopping, UNRUN, atMs);
    case 'running':
      return [next, [{ type: 'abort', taskId: turn.taskId }]];
  }
}

/**
 * A fault of the node's own: an accepted turn ends with INTERNAL, one that nobody has heard of is refused. `written`: what
 * its execution had written.
 */
export function fail(state: SessionState, turn: Turn, atMs: number, written?: TurnText): SessionStep {
  const error = refusal('INTERNAL');
  switch (turn.phase) {
    case 'admitting':
      return refuse(state, turn, error);
    case 'queued':
    case 'running':
      return end(state, turn, lostEnd(turn, error, written), atMs);
    case 'withdrawn':
      return remove(state, turn, []);
    case 'ending':
      return [state, []];
  }
}
