/** A turn's way into its session: said, admitted, stored and accepted, or found to be a resend. Pure. */
import { type AgentConfig, refuseAgent } from '../../src/domain/agent.ts';
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import type { EventData } from '../../src/domain/frames.ts';
import { fullBucket, type Rate, rateOf, take } from '../../src/domain/rate-limit.ts';
import type { SayReply } from '../../src/domain/turn.ts';
import {
  findTurn,
  type Said,
  type SessionEffect,
  type SessionState,
  type SessionStep,
  type Turn,
  withTurn,
} from './protocol.ts';
import { limitsOf, positions, runNext } from './queue.ts';
import { drop, keepAccepted, refuse, settle, stopTurn } from './turn.ts';

/** Turns one session may have in line; the tenant's own bound usually comes first. */
const MAX_TURNS = 1_000;

const HOUR_MS = 3_600_000;

/** After this long a client may try again when the session is busy or full. */
const BUSY_RETRY_MS = 1_000;

/** `known` is the turn of that task id, where one lives here. */
export function say(state: SessionState, known: Turn | undefined, message: Said): SessionStep {
  const reply = (value: SayReply): SessionEffect => ({ type: 'reply', replyTo: message.replyTo, value });
  const no = (error: ErrorData): SessionStep => [
    state,
    [
      reply({ ok: false, taskId: message.taskId, error }),
      { type: 'refused', tier: state.tier ?? 'free', code: error.code },
      { type: 'untrack', taskId: message.taskId },
    ],
  ];
  if (known) return resent(state, known, message.replyTo, message.atMs);
  if (state.recent.includes(message.taskId)) {
    const data = { status: 'processing', position: 0, deduplicated: true } as const;
    const event = { type: 'chat.accepted', data } as const;
    return [
      state,
      [
        { type: 'event', taskId: message.taskId, event, atMs: message.atMs },
        reply({ ok: true, taskId: message.taskId, accepted: data }),
        { type: 'untrack', taskId: message.taskId },
      ],
    ];
  }
  if (state.draining) return no(refusal('DRAINING', { retryAfterMs: BUSY_RETRY_MS }));
  if (state.forgetting) return no(refusal('CONFLICT', { message: 'The session is being deleted.' }));
  const busy = state.turns.length > 0;
  if (busy && message.onBusy === 'reject') return no(refusal('BUSY', { retryAfterMs: BUSY_RETRY_MS }));
  if (state.turns.length >= MAX_TURNS) return no(refusal('OVERLOADED', { retryAfterMs: BUSY_RETRY_MS }));
  const paid = pay(state, message.atMs);
  if ('retryAfterMs' in paid)
    return no(
      refusal('RATE_LIMITED', {
        message: "The session's requests of this hour are used up.",
        retryAfterMs: paid.retryAfterMs,
      }),
    );
  const turn = newTurn(message, busy ? 'none' : 'asked');
  const first = message.onBusy === 'interrupt' ? state.turns.slice(0, 1) : state.turns;
  const queued = { ...paid.state, turns: [...first, turn, ...state.turns.slice(first.length)] };
  const { taskId, attempt, agentId, agentVersion } = turn;
  const effects: SessionEffect[] = [
    { type: 'track', taskId, tier: state.tier ?? 'free' },
    { type: 'claim', taskId, attempt, slot: turn.slot, tier: message.tier, atMs: message.atMs },
    { type: 'findAgent', taskId, attempt, agentId, ...(agentVersion === undefined ? {} : { agentVersion }) },
  ];
  const running = first[0];
  if (message.onBusy !== 'interrupt' || !running) return [queued, effects];
  const [next, more] = stopTurn(queued, running, message.atMs);
  const [moved, moves] = positions(next, message.atMs);
  return [moved, [...effects, ...more, ...moves]];
}

function newTurn(message: Said, slot: Turn['slot']): Turn {
  return {
    taskId: message.taskId,
    attempt: message.replyTo,
    agentId: message.agentId,
    ...(message.agentVersion === undefined ? {} : { agentVersion: message.agentVersion }),
    said: { role: 'user', content: message.message, taskId: message.taskId, atMs: message.atMs },
    context: message.context,
    ...(message.overrides === undefined ? {} : { overrides: message.overrides }),
    stream: message.stream,
    ...(message.resumable ? { resumable: true } : {}),
    callers: [{ replyTo: message.replyTo, duplicate: false }],
    cancellers: [],
    agent: null,
    claim: 'asked',
    slot,
    executing: false,
    kept: 'no',
    position: 0,
    stopAtMs: null,
    ended: null,
    dropped: false,
  };
}

/** How fast the session's requests of the hour come back; null: without limit. */
export function hourRate(state: SessionState): Rate | null {
  const perHour = state.config.requestsPerHour;
  return rateOf(perHour === undefined ? limitsOf(state).requests_per_session_hour : perHour, HOUR_MS);
}

/** Takes one of the session's requests of the hour. */
function pay(
  state: SessionState,
  atMs: number,
): { readonly state: SessionState } | { readonly retryAfterMs: number } {
  const rate = hourRate(state);
  if (!rate) return { state };
  const taken = take(state.bucket ?? fullBucket(rate, atMs), atMs, rate);
  return taken.ok ? { state: { ...state, bucket: taken.bucket } } : taken;
}

/** After this long a client may try again when its task is just being taken back. */
const TAKEN_BACK_RETRY_MS = 100;

/** Goes on with a turn whose agent or claim came in: once both are there it is checked, kept, and run. */
export function advance(state: SessionState, { taskId }: Turn, atMs: number): SessionStep {
  const turn = findTurn(state, taskId);
  if (!turn?.agent || turn.claim === 'asked') return [state, []];
  if (turn.ended || turn.dropped) return settle(state, turn, atMs);
  const refused = refuseAgent(turn.agent, limitsOf(state), state.tier ?? 'free');
  if (refused) return refuse(state, turn, refused, atMs);
  const [kept, effects] = turn.kept === 'no' ? keepAccepted(state, turn) : ([state, []] as const);
  const [started, more] = runNext(kept);
  return [started, [...effects, ...more]];
}

/** Turns that wait will run the newer version, those aside that asked for one of their own. */
export function withNewerAgent(state: SessionState, agent: AgentConfig): SessionState {
  const outdated = (turn: Turn): boolean =>
    turn.agentId === agent.id &&
    turn.agentVersion === undefined &&
    !turn.executing &&
    turn.agent !== null &&
    turn.agent.version < agent.version;
  if (!state.turns.some(outdated)) return state;
  return { ...state, turns: state.turns.map((turn) => (outdated(turn) ? { ...turn, agent } : turn)) };
}

/** The store holds the turn: everybody is told, and what its execution has written so far goes out. */
export function accepted(state: SessionState, turn: Turn, atMs: number): SessionStep {
  const data = acceptedData(turn);
  const next = resumed(withTurn(state, turn.taskId, { kept: 'yes', callers: [] }), turn);
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
  const [settled, more] = kept?.ended ? settle(next, kept, atMs) : runNext(next);
  return [settled, [...effects, ...more]];
}

/** A turn that runs again brings its question anew, and nobody is to be told any more that it was interrupted. */
function resumed(state: SessionState, { resumable: again, taskId }: Turn): SessionState {
  if (!again) return state;
  return {
    ...state,
    history: state.history?.filter((message) => message.taskId !== taskId) ?? null,
    untold: state.untold.filter((record) => record.taskId !== taskId),
  };
}

/** One object for all: every session's log keeps one for each of its turns. */
const PROCESSING: EventData['chat.accepted'] = { status: 'processing', position: 0 };

function acceptedData(turn: Turn): EventData['chat.accepted'] {
  const position = turn.executing ? 0 : turn.position;
  return position === 0 ? PROCESSING : { status: 'queued', position };
}

const sayReply = (turn: Turn, data: EventData['chat.accepted']): SayReply => ({
  ok: true,
  taskId: turn.taskId,
  accepted: data,
});

/** A resend of a task that lives here: told again where it stands, and nothing else happens. */
export function resent(state: SessionState, turn: Turn, replyTo: number, atMs: number): SessionStep {
  const { taskId } = turn;
  if (turn.dropped) {
    const error = refusal('BUSY', { retryAfterMs: TAKEN_BACK_RETRY_MS });
    return [state, [{ type: 'reply', replyTo, value: { ok: false, taskId, error } satisfies SayReply }]];
  }
  if (turn.kept !== 'yes')
    return [withTurn(state, taskId, { callers: [...turn.callers, { replyTo, duplicate: true }] }), []];
  const data = { ...acceptedData(turn), deduplicated: true as const };
  return [
    state,
    [
      { type: 'event', taskId, event: { type: 'chat.accepted', data }, atMs },
      { type: 'reply', replyTo, value: sayReply(turn, data) },
    ],
  ];
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
  return drop(state, turn, effects, atMs);
}
