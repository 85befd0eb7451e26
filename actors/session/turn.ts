/** How a turn leaves its session: refused before it was accepted, or ended, kept and told. Pure. */
import type { Message } from '../../src/domain/conversation.ts';
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import type { ExecutionInfo, TurnEvent } from '../../src/domain/frames.ts';
import { dayOf } from '../../src/domain/rate-limit.ts';
import type { CancelReply, SayReply, TurnRecord } from '../../src/domain/turn.ts';
import type { Write } from '../../src/ports/store.ts';
import {
  type Ending,
  findTurn,
  recordOf,
  type SessionEffect,
  type SessionState,
  type SessionStep,
  type Turn,
  withoutTurn,
  withTurn,
} from './protocol.ts';
import { limitsOf, positions, runNext } from './queue.ts';

/** After this long a client may try again when the store did not answer. */
const STORE_RETRY_MS = 1_000;

/** The store did not take it. A beginning is refused; an end is told as an error, for it may be lost. */
export const storeRefusal = (): ErrorData => refusal('STORE_UNAVAILABLE', { retryAfterMs: STORE_RETRY_MS });

export const noTask = (): ErrorData => refusal('NOT_FOUND', { message: 'There is no such task.' });
export const taskTaken = (): ErrorData =>
  refusal('CONFLICT', { message: 'This task_id belongs to a turn of another session.' });

/** What a turn has in the tenant's books goes back; the caller marks its claim `returned`. */
const giveBack = (turn: Turn, refund: boolean): SessionEffect[] =>
  turn.claim === 'held'
    ? [{ type: 'release', taskId: turn.taskId, attempt: turn.attempt, slot: turn.slot, refund }]
    : [];

/** Takes a turn back before it was accepted: who sent it gets the reason, nobody else hears of it. */
export function refuse(state: SessionState, turn: Turn, error: ErrorData, atMs: number): SessionStep {
  const effects: SessionEffect[] = turn.callers.map(({ replyTo }) => ({
    type: 'reply',
    replyTo,
    value: { ok: false, taskId: turn.taskId, error } satisfies SayReply,
  }));
  effects.push({ type: 'refused', tier: state.tier ?? 'free', code: error.code });
  return drop(state, turn, effects, atMs);
}

/**
 * Undoes a turn of which nothing may be seen. One that runs is aborted first, in the same tick: what was waiting for
 * its acceptance (a tool) must find it aborted.
 */
export function drop(
  state: SessionState,
  turn: Turn,
  effects: readonly SessionEffect[],
  atMs: number,
): SessionStep {
  const { taskId } = turn;
  if (!turn.executing || turn.ended)
    return remove(state, turn, [...effects, { type: 'discard', taskId }], atMs);
  return [
    withTurn(state, taskId, { dropped: true, callers: [] }),
    [{ type: 'abort', taskId }, ...effects, { type: 'discard', taskId }],
  ];
}

/** Takes a dropped turn out, as if it had never been, and lets the next one run. */
function remove(
  state: SessionState,
  turn: Turn,
  effects: readonly SessionEffect[],
  atMs: number,
): SessionStep {
  const undo: SessionEffect[] = [
    ...effects,
    ...turn.cancellers.map(
      ({ replyTo }): SessionEffect => ({
        type: 'reply',
        replyTo,
        value: { ok: false, taskId: turn.taskId, error: noTask() } satisfies CancelReply,
      }),
    ),
    { type: 'untrack', taskId: turn.taskId },
    ...giveBack(turn, true),
  ];
  const bucket = state.bucket && { ...state.bucket, tokens: state.bucket.tokens + 1 };
  const [next, more] = runNext({ ...withoutTurn(state, turn.taskId, false), bucket });
  const [moved, moves] = positions(next, atMs);
  return [moved, [...undo, ...more, ...moves]];
}

/** A turn has an end: its slot is free, and once the end is kept, everybody hears of it. */
export function end(state: SessionState, turn: Turn, ending: Omit<Ending, 'writing'>): SessionStep {
  if (turn.ended) return [state, []];
  // A dropped turn gives back when it is removed, with a refund.
  const effects = turn.dropped ? [] : giveBack(turn, false);
  const next = withTurn(state, turn.taskId, {
    ended: { ...ending, writing: false },
    ...(effects.length > 0 ? { claim: 'returned' as const } : {}),
  });
  const ended = findTurn(next, turn.taskId);
  const [settled, more] = ended ? settle(next, ended, ending.atMs) : ([next, []] as const);
  return [settled, [...effects, ...more]];
}

/** Keeps an end as soon as the beginning is kept; keeps the beginning as soon as agent and claim are known. */
export function settle(state: SessionState, turn: Turn, atMs: number): SessionStep {
  if (turn.dropped) return remove(state, turn, [], atMs);
  if (!turn.ended || turn.ended.writing || turn.kept === 'writing') return [state, []];
  if (turn.kept === 'no')
    return turn.agent && turn.claim !== 'asked' ? keepAccepted(state, turn) : [state, []];
  const answer = answerOf(turn, turn.ended);
  const write = endWrite(state, turn, endedRecord(state, turn, turn.ended), answer);
  return [
    withTurn(state, turn.taskId, { ended: { ...turn.ended, writing: true, answer } }),
    [{ type: 'keep', step: 'ended', taskId: turn.taskId, write, wait: waits(state) }],
  ];
}

/** What the store is given of an end, with what is needed to tell others of it. */
export const endWrite = (
  state: SessionState,
  { said }: Turn,
  turn: TurnRecord,
  message: Message | undefined,
): Write => ({
  type: 'turn-ended',
  turn,
  message,
  asked: said,
  ...(state.tier ? { tier: state.tier } : {}),
});

/** Whether the tier has clients wait until the store holds what they are told. */
const waits = (state: SessionState): boolean => limitsOf(state).wait_for_persistence;

export function keepAccepted(state: SessionState, turn: Turn): SessionStep {
  const write: Write = {
    type: 'turn-accepted',
    turn: recordOf(state, turn),
    message: turn.said,
    day: dayOf(turn.said.atMs),
    ...(turn.resumable ? { resumable: true } : {}),
  };
  // Whether a turn runs again is the store's to say, whatever the tier.
  const wait = turn.resumable === true || waits(state);
  return [
    withTurn(state, turn.taskId, { kept: 'writing' }),
    [{ type: 'keep', step: 'accepted', taskId: turn.taskId, write, wait }],
  ];
}

function answerOf(turn: Turn, { outcome, text, atMs }: Ending): Message | undefined {
  const content = outcome.type === 'answered' ? outcome.content : text;
  if (outcome.type === 'failed' || (outcome.type === 'aborted' && content === '')) return undefined;
  return { role: 'assistant', content, taskId: turn.taskId, atMs };
}

function endedRecord(state: SessionState, turn: Turn, ending: Ending): TurnRecord {
  const { outcome, atMs, text } = ending;
  const base = { ...recordOf(state, turn), finishedAtMs: atMs };
  if (outcome.type === 'answered')
    return { ...base, status: 'completed', content: outcome.content, info: outcome.info };
  if (outcome.type === 'failed')
    return {
      ...base,
      status: outcome.error.code === 'EXECUTION_TIMEOUT' ? 'timeout' : 'failed',
      error: outcome.error,
      info: outcome.info,
    };
  return {
    ...base,
    status: 'cancelled',
    content: text,
    ...('info' in outcome ? { info: outcome.info } : {}),
  };
}

/** The end is kept: the terminal event goes out, who cancelled is answered, and the next turn runs. */
export function closeTurn(state: SessionState, turn: Turn, ending: Ending, atMs: number): SessionStep {
  const record = endedRecord(state, turn, ending);
  const effects: SessionEffect[] = [
    { type: 'event', taskId: turn.taskId, event: terminalEvent(turn, ending), atMs },
    { type: 'untrack', taskId: turn.taskId },
    { type: 'measure', turn: record, tier: state.tier ?? 'free' },
    ...turn.cancellers.map(
      ({ replyTo, atMs: askedAtMs }): SessionEffect => ({
        type: 'reply',
        replyTo,
        value: {
          ok: true,
          taskId: turn.taskId,
          status: record.status,
          abortMs: Math.max(0, ending.atMs - askedAtMs),
        } satisfies CancelReply,
      }),
    ),
  ];
  const keep = Math.max(2, limitsOf(state).history_messages);
  const history = [...(state.history ?? []), turn.said, ...(ending.answer ? [ending.answer] : [])].slice(
    -keep,
  );
  const [next, more] = runNext({ ...withoutTurn(state, turn.taskId, true), history });
  const [moved, moves] = positions(next, atMs);
  return [moved, [...effects, ...more, ...moves]];
}

/** The store did not keep the end: that is what its clients hear, for the answer may be lost. */
export function closeUnkept(state: SessionState, turn: Turn, atMs: number): SessionStep {
  const info = turn.ended && 'info' in turn.ended.outcome ? turn.ended.outcome.info : noInfo(turn);
  const outcome = { type: 'failed', error: storeRefusal(), info } as const;
  return closeTurn(state, turn, { outcome, text: '', atMs, writing: true }, atMs);
}

function terminalEvent(turn: Turn, ending: Ending): TurnEvent {
  const { outcome, text, atMs } = ending;
  if (outcome.type === 'answered')
    return {
      type: 'chat.response',
      data: { content: outcome.content, role: 'assistant', execution_info: outcome.info },
    };
  if (outcome.type === 'failed') return { type: 'error', data: outcome.error };
  return {
    type: 'chat.cancelled',
    data: { content: text, abort_ms: Math.max(0, atMs - (turn.stopAtMs ?? atMs)) },
  };
}

/** Ends a turn early: one that runs is aborted and reports, one that waits has ended at once. */
export function stopTurn(state: SessionState, { taskId }: Turn, atMs: number): SessionStep {
  const turn = findTurn(state, taskId);
  if (!turn || turn.ended || turn.dropped) return [state, []];
  const stopping = turn.stopAtMs === null ? withTurn(state, taskId, { stopAtMs: atMs }) : state;
  if (turn.executing) return [stopping, [{ type: 'abort', taskId }]];
  return end(stopping, turn, { outcome: { type: 'aborted' }, text: '', atMs });
}

/** Something of ours broke under a turn: it ends with INTERNAL, or is refused where it was not being kept yet. */
export function breakTurn(state: SessionState, turn: Turn, text: string, atMs: number): SessionStep {
  const error = refusal('INTERNAL');
  if (turn.kept === 'no') return refuse(state, turn, error, atMs);
  return end(state, turn, { outcome: { type: 'failed', error, info: noInfo(turn) }, text, atMs });
}

/** What an ending tells of an execution that reported nothing. */
const noInfo = (turn: Turn): ExecutionInfo => ({
  execution_time_ms: 0,
  time_to_first_token_ms: null,
  iterations: 0,
  tools_used: [],
  tokens_used: 0,
  model: turn.agent?.model ?? 'none',
});
