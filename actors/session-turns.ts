/** A turn's way through its session: prepared, kept, run, ended. Pure steps that `session.ts` chooses between. */
import { allowedTools, historyTokens, refuseAgent } from '../src/domain/agent.ts';
import { type Message, type TurnRecord, trimHistory } from '../src/domain/conversation.ts';
import { type ErrorData, refusal } from '../src/domain/errors.ts';
import type { EventData, ExecutionInfo, TurnEvent } from '../src/domain/frames.ts';
import { dayOf } from '../src/domain/rate-limit.ts';
import { capped, type TierLimits } from '../src/domain/tiers.ts';
import type { CancelReply, ExecutionPlan, SayReply } from '../src/ports.ts';
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
} from './session-state.ts';

/** After this long a client may try again when the store did not answer. */
const STORE_RETRY_MS = 1_000;

export const limitsOf = (state: SessionState): TierLimits => state.config.tiers[state.tier ?? 'free'];

/** Goes on with a turn whose agent or claim came in: once both are there it is checked, kept, and run. */
export function advance(state: SessionState, turn: Turn, atMs: number): SessionStep {
  if (!turn.agent || !turn.claimed) return [state, []];
  if (turn.ended || turn.dropped) return settle(state, turn);
  const refused = refuseAgent(turn.agent, limitsOf(state));
  if (refused) return refuse(state, turn, refused);
  const effects: SessionEffect[] = [];
  let next = state;
  if (turn.kept === 'no') {
    next = withTurn(next, turn.taskId, { kept: 'writing' });
    effects.push(keepAccepted(state, turn));
  }
  const [started, more] = runNext(next, atMs);
  return [started, [...effects, ...more]];
}

/** Gives the first turn what it needs to run: it asks for a slot, or starts on the one it was granted. */
export function runNext(state: SessionState, atMs: number): SessionStep {
  const first = state.turns[0];
  if (!first?.claimed || first.executing || first.ended || first.dropped) return [state, []];
  if (first.slot === 'none')
    return [withTurn(state, first.taskId, { slot: 'asked' }), [{ type: 'acquire', taskId: first.taskId }]];
  if (first.slot === 'asked' || !first.agent) return [state, []];
  const plan = planOf(state, first, atMs);
  return [
    withTurn(state, first.taskId, { executing: true }),
    [{ type: 'execute', plan, options: { stream: first.stream, accepted: first.kept === 'yes' } }],
  ];
}

function planOf(state: SessionState, turn: Turn, atMs: number): ExecutionPlan {
  const limits = limitsOf(state);
  const { config } = state;
  const agent = turn.agent;
  if (!agent) throw new Error('a turn without an agent can not be planned');
  const said: Message = { role: 'user', content: turn.message, taskId: turn.taskId, atMs };
  const history = [...(state.history ?? []), said];
  return {
    taskId: turn.taskId,
    tenantId: state.tenantId,
    sessionId: state.sessionId,
    tier: state.tier ?? 'free',
    agent,
    history: trimHistory(history, limits.history_messages, historyTokens(agent, limits)),
    context: turn.context,
    limits: {
      timeoutMs: capped(limits.execution_timeout_s * 1000, config.maxTimeMs),
      maxIterations: capped(
        capped(limits.max_iterations, config.maxIterations),
        agent.maxIterations ?? undefined,
      ),
      maxTokens: limits.tokens_per_run,
      tools: allowedTools(agent.tools, limits),
    },
  };
}

function keepAccepted(state: SessionState, turn: Turn): SessionEffect {
  return {
    type: 'keep',
    step: 'accepted',
    taskId: turn.taskId,
    write: {
      type: 'turn-accepted',
      turn: recordOf(state, turn),
      message: { role: 'user', content: turn.message, taskId: turn.taskId, atMs: turn.createdAtMs },
      day: dayOf(turn.createdAtMs),
    },
  };
}

/** The store holds the turn: everybody is told, and what its execution has written so far goes out. */
export function accepted(state: SessionState, turn: Turn, atMs: number): SessionStep {
  const data = acceptedData(turn);
  const next = withTurn(state, turn.taskId, { kept: 'yes', callers: [] });
  const effects: SessionEffect[] = [
    { type: 'event', taskId: turn.taskId, event: { type: 'chat.accepted', data }, atMs },
    ...turn.callers.map(
      ({ replyTo, duplicate }): SessionEffect => ({
        type: 'reply',
        replyTo,
        value: sayReply(turn, duplicate ? { ...data, deduplicated: true } : data),
      }),
    ),
  ];
  const kept = findTurn(next, turn.taskId);
  if (!kept?.ended) return [next, effects];
  const [settled, more] = settle(next, kept);
  return [settled, [...effects, ...more]];
}

const acceptedData = (turn: Turn): EventData['chat.accepted'] => ({
  status: turn.position === 0 ? 'processing' : 'queued',
  position: turn.position,
});

const sayReply = (turn: Turn, data: EventData['chat.accepted']): SayReply => ({
  ok: true,
  taskId: turn.taskId,
  accepted: data,
});

/** A resend of a task that lives here: told again where it stands, and nothing else happens. */
export function again(state: SessionState, turn: Turn, replyTo: number, atMs: number): SessionStep {
  if (turn.kept !== 'yes')
    return [withTurn(state, turn.taskId, { callers: [...turn.callers, { replyTo, duplicate: true }] }), []];
  const data = { ...acceptedData(turn), deduplicated: true as const };
  return [
    state,
    [
      { type: 'event', taskId: turn.taskId, event: { type: 'chat.accepted', data }, atMs },
      { type: 'reply', replyTo, value: sayReply(turn, data) },
    ],
  ];
}

/** Takes a turn back before it was accepted: who sent it gets the reason, nobody else hears of it. */
export function refuse(state: SessionState, turn: Turn, error: ErrorData): SessionStep {
  const effects: SessionEffect[] = turn.callers.map(({ replyTo }) => ({
    type: 'reply',
    replyTo,
    value: { ok: false, taskId: turn.taskId, error } satisfies SayReply,
  }));
  effects.push({ type: 'refused', tier: state.tier ?? 'free', code: error.code });
  return drop(state, turn, effects);
}

/** The store has a turn of this id from before: the caller is told so, and what began here is undone. */
export function duplicate(state: SessionState, turn: Turn, atMs: number): SessionStep {
  const data = { status: 'processing', position: 0, deduplicated: true } as const;
  const effects: SessionEffect[] = [
    { type: 'discard', taskId: turn.taskId },
    { type: 'event', taskId: turn.taskId, event: { type: 'chat.accepted', data }, atMs },
    ...turn.callers.map(
      ({ replyTo }): SessionEffect => ({ type: 'reply', replyTo, value: sayReply(turn, data) }),
    ),
  ];
  return drop(state, turn, effects);
}

function drop(state: SessionState, turn: Turn, effects: readonly SessionEffect[]): SessionStep {
  const undo: SessionEffect[] = [...effects, { type: 'discard', taskId: turn.taskId }];
  if (turn.executing && !turn.ended)
    return [
      withTurn(state, turn.taskId, { dropped: true, callers: [] }),
      [...undo, { type: 'abort', taskId: turn.taskId }],
    ];
  return remove(state, turn, undo);
}

/** Takes a dropped turn out and lets the next one run. */
export function remove(state: SessionState, turn: Turn, effects: readonly SessionEffect[]): SessionStep {
  const undo: SessionEffect[] = [...effects, { type: 'untrack', taskId: turn.taskId }];
  if (turn.claimed) undo.push({ type: 'release', taskId: turn.taskId, slot: turn.slot, refund: true });
  const bucket = state.bucket && { ...state.bucket, tokens: state.bucket.tokens + 1 };
  const [next, more] = runNext({ ...withoutTurn(state, turn.taskId, false), bucket }, turn.createdAtMs);
  return [next, [...undo, ...more]];
}

/** A turn has an end: its slot is free, and once the end is kept, everybody hears of it. */
export function end(state: SessionState, turn: Turn, ending: Omit<Ending, 'writing'>): SessionStep {
  if (turn.ended) return [state, []];
  const effects: SessionEffect[] = [];
  if (turn.claimed && !turn.dropped)
    effects.push({ type: 'release', taskId: turn.taskId, slot: turn.slot, refund: false });
  const next = withTurn(state, turn.taskId, { ended: { ...ending, writing: false } });
  const ended = findTurn(next, turn.taskId);
  const [settled, more] = ended ? settle(next, ended) : ([next, []] as const);
  return [settled, [...effects, ...more]];
}

/** Keeps an end as soon as the beginning is kept. */
function settle(state: SessionState, turn: Turn): SessionStep {
  if (turn.dropped) return remove(state, turn, []);
  if (!turn.ended || turn.ended.writing || turn.kept !== 'yes') {
    if (turn.ended && turn.kept === 'no' && turn.agent && turn.claimed)
      return [withTurn(state, turn.taskId, { kept: 'writing' }), [keepAccepted(state, turn)]];
    return [state, []];
  }
  const record = endedRecord(state, turn, turn.ended);
  const message = answerOf(turn, turn.ended);
  return [
    withTurn(state, turn.taskId, { ended: { ...turn.ended, writing: true } }),
    [
      {
        type: 'keep',
        step: 'ended',
        taskId: turn.taskId,
        write: { type: 'turn-ended', turn: record, message },
      },
    ],
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
  const answer = answerOf(turn, ending);
  const said: Message = { role: 'user', content: turn.message, taskId: turn.taskId, atMs: turn.createdAtMs };
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
  const history = [...(state.history ?? []), said, ...(answer ? [answer] : [])].slice(-keep);
  const [next, more] = runNext({ ...withoutTurn(state, turn.taskId, true), history }, atMs);
  const [moved, moves] = positions(next, atMs);
  return [moved, [...effects, ...more, ...moves]];
}

function terminalEvent(turn: Turn, ending: Ending): TurnEvent {
  const { outcome, text, atMs } = ending;
  if (outcome.type === 'answered')
    return {
      type: 'chat.response',
      data: { content: outcome.content, role: 'assistant', execution_info: outcome.info },
    };
  if (outcome.type === 'failed') return { type: 'error', data: outcome.error };
  const askedAtMs = turn.cancellers[0]?.atMs ?? atMs;
  return { type: 'chat.cancelled', data: { content: text, abort_ms: Math.max(0, atMs - askedAtMs) } };
}

/** Tells the turns that wait behind others in this session how many are ahead of them now. */
export function positions(state: SessionState, atMs: number): SessionStep {
  const effects: SessionEffect[] = [];
  const turns = state.turns.map((turn, ahead) => {
    if (ahead === 0 || turn.kept !== 'yes' || turn.ended || turn.position === ahead) return turn;
    effects.push({
      type: 'event',
      taskId: turn.taskId,
      event: { type: 'chat.queued', data: { position: ahead } },
      atMs,
    });
    return { ...turn, position: ahead };
  });
  return effects.length === 0 ? [state, effects] : [{ ...state, turns }, effects];
}

/** The store did not take it. A beginning is refused; an end is told as an error, for it may be lost. */
export const storeRefusal = (): ErrorData => refusal('STORE_UNAVAILABLE', { retryAfterMs: STORE_RETRY_MS });

/** Ends a turn early: one that runs is aborted and reports, one that waits has ended at once. */
export function stopTurn(state: SessionState, { taskId }: Turn, atMs: number): SessionStep {
  const turn = findTurn(state, taskId);
  if (!turn || turn.ended || turn.dropped) return [state, []];
  if (turn.executing) return [state, [{ type: 'abort', taskId }]];
  const [next, effects] = end(state, turn, { outcome: { type: 'aborted' }, text: '', atMs });
  const [moved, moves] = positions(next, atMs);
  return [moved, [...effects, ...moves]];
}

/** What an ending tells of an execution that reported nothing. */
export const noInfo = (turn: Turn): ExecutionInfo => ({
  execution_time_ms: 0,
  time_to_first_token_ms: null,
  iterations: 0,
  tools_used: [],
  tokens_used: 0,
  model: turn.agent?.model ?? 'none',
});
