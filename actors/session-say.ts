/** What a session does with something said: resent, refused, or put in line. Pure. */
import { type ErrorData, refusal } from '../src/domain/errors.ts';
import { fullBucket, type Rate, rateOf, take } from '../src/domain/rate-limit.ts';
import type { SayReply } from '../src/ports.ts';
import type { SessionEffect, SessionStep } from './session-effect.ts';
import { stopTurn } from './session-endings.ts';
import { limitsOf, positions } from './session-line.ts';
import type { Said, SessionState, Turn } from './session-state.ts';
import { resent } from './session-turns.ts';

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
    ...(message.again ? { again: true } : {}),
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
