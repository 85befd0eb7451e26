/** A turn's way into its session: said, admitted, stored and accepted, or found to be said before. Pure. */
import { type AgentConfig, refuseAgent, windowOf } from '../../src/domain/agent.ts';
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import type { EventData } from '../../src/domain/frames.ts';
import { type Bucket, fullAtMs, fullBucket, type Rate, rateOf, take } from '../../src/domain/rate-limit.ts';
import {
  contextOf,
  isEndStatus,
  type SayReply,
  type TurnRequest,
  type TurnStatus,
} from '../../src/domain/turn.ts';
import { promptProblem } from '../../src/llm/prompts.ts';
import { type Admitted, releaseOf } from '../tenant/protocol.ts';
import { drop, end, refuse, stop, storeAccepted, storeEnd } from './ending.ts';
import {
  limitsOf,
  reply,
  type Said,
  type SessionEffect,
  type SessionMessage,
  type SessionState,
  type SessionStep,
  withTurn,
} from './protocol.ts';
import { agentQuery } from './queue.ts';
import { type Admitting, isStored, lostEnd, newTurn, type Queued, type Turn, UNRUN } from './turn.ts';

/** Turns one session may have waiting; the tenant's own bound usually comes first. */
const MAX_TURNS = 1_000;
const HOUR_MS = 3_600_000;
/** After this long a client may try again when the session is busy or full. */
const BUSY_RETRY_MS = 1_000;
/** After this long a client may try again when its task is just being taken back. */
const WITHDRAWN_RETRY_MS = 100;

/** `known` is the turn of that task id, where one lives here. */
export function say(state: SessionState, known: Turn | undefined, message: Said): SessionStep {
  const { request, replyTo, atMs } = message;
  const { taskId, onBusy } = request;
  if (known) return saidAgain(state, known, message);
  const ended = state.recent.find((each) => each.taskId === taskId);
  if (ended) {
    const data = saidBefore(ended.status);
    return [
      state,
      [
        acceptedEvent(taskId, data, atMs),
        reply(replyTo, { ok: true, taskId, accepted: data }),
        { type: 'untrack', taskId },
      ],
    ];
  }
  const refused = refusalOf(state, message);
  if (refused) return [state, refusedSay(state, message, refused)];
  const paid = pay(state, atMs);
  if ('error' in paid) return [state, refusedSay(state, message, paid.error)];

  const ahead = onBusy === 'interrupt' ? state.turns.slice(0, 1) : state.turns;
  const behind = state.turns.slice(ahead.length);
  const turn = {
    ...newTurn(request, message, state.epoch),
    overtaken: ahead.some(({ overtaken }) => overtaken),
  };
  const overtaken = behind.map((one) => ({ ...one, overtaken: true }));
  const queued = { ...paid, turns: [...ahead, turn, ...overtaken] };
  const effects: SessionEffect[] = [
    { type: 'track', taskId, tier: state.tier ?? 'free' },
    { type: 'findAgent', ...agentQuery(turn) },
  ];
  const interrupted = onBusy === 'interrupt' ? ahead[0] : undefined;
  if (!interrupted) return [queued, effects];
  const [next, more] = stop(queued, interrupted, atMs);
  return [next, [...effects, ...more]];
}

/** Why the session itself does not take the turn; null: it does. */
function refusalOf(state: SessionState, { request }: Said): ErrorData | null {
  if (state.draining) return refusal('DRAINING', { retryAfterMs: BUSY_RETRY_MS });
  if (state.forgetting) return refusal('CONFLICT', { message: 'The session is being deleted.' });
  const isBusy = state.turns.length > 0;
  if (isBusy && request.onBusy === 'reject') return refusal('BUSY', { retryAfterMs: BUSY_RETRY_MS });
  return state.turns.length >= MAX_TURNS ? refusal('OVERLOADED', { retryAfterMs: BUSY_RETRY_MS }) : null;
}

function refusedSay(state: SessionState, { request, replyTo }: Said, error: ErrorData): SessionEffect[] {
  const { taskId } = request;
  return [
    reply(replyTo, { ok: false, taskId, error }),
    { type: 'refused', tier: state.tier ?? 'free', code: error.code },
    { type: 'untrack', taskId },
  ];
}

/** How fast the session's requests of the hour come back; null: without limit. */
export function hourRate(state: SessionState): Rate | null {
  const perHour = state.config.requestsPerHour;
  return rateOf(perHour === undefined ? limitsOf(state).requests_per_session_hour : perHour, HOUR_MS);
}

/**
 * What is left of the hour to a session that comes to life, where it may have been on another node since it was here: what
 * its stored turns leave of it, or what this node remembers, whichever is less.
 */
export function bucketAtStart(state: SessionState): Bucket | null {
  const rate = hourRate(state);
  if (!state.config.sharedTiers || !rate) return state.bucket;
  const asked = (state.history ?? []).filter(({ role }) => role === 'user').map(({ atMs }) => atMs);
  let bucket: Bucket | null = null;
  for (const atMs of asked.sort((one, other) => one - other)) {
    const taken = take(bucket ?? fullBucket(rate, atMs), atMs, rate);
    bucket = taken.ok ? taken.bucket : { tokens: 0, atMs };
  }
  if (!bucket || !state.bucket) return bucket ?? state.bucket;
  return fullAtMs(bucket, rate) > fullAtMs(state.bucket, rate) ? bucket : state.bucket;
}

/** Takes one of the session's requests of the hour. */
function pay(state: SessionState, atMs: number): SessionState | { readonly error: ErrorData } {
  const rate = hourRate(state);
  if (!rate) return state;
  const taken = take(state.bucket ?? fullBucket(rate, atMs), atMs, rate);
  if (taken.ok) return { ...state, bucket: taken.bucket };
  const { retryAfterMs } = taken;
  const message = "The session's requests of this hour are used up.";
  return { error: refusal('RATE_LIMITED', { message, retryAfterMs }) };
}

/** The tenant has counted the turn; where nobody waits for that any more, it is released. */
export function admitted(state: SessionState, turn: Turn | undefined, message: Admitted): SessionStep {
  const known = { ...state, tier: message.tier };
  if (turn?.phase !== 'admitting' || turn.admission !== 'requested') return [known, [releaseOf(message)]];
  const position = Math.max(state.turns.indexOf(turn), message.ahead);
  return advance(known, { ...turn, admission: 'granted', position }, message.atMs);
}

/** The turn's agent was looked up, at first or anew since it changed. */
export function agentFound(
  state: SessionState,
  turn: Turn | undefined,
  { agent, atMs }: Extract<SessionMessage, { type: 'agentFound' }>,
): SessionStep {
  // It may have been asked for by its slug.
  if (turn?.phase === 'admitting') return advance(state, { ...turn, agent, agentId: agent.id }, atMs);
  if (turn?.phase !== 'queued') return [state, []];
  const refused = refusedPlan(state, turn, agent);
  if (refused) return end(state, turn, lostEnd({ ...turn, agent }, refused), atMs);
  return [withTurn(state, { ...turn, agent }), []];
}

/** There is no such agent, or it can not be had. A turn that was accepted before ends in that. */
export function agentRefused(
  state: SessionState,
  turn: Turn | undefined,
  { error, atMs }: Extract<SessionMessage, { type: 'agentRefused' }>,
): SessionStep {
  if (turn?.phase === 'admitting') return refuse(state, turn, error);
  return turn?.phase === 'queued' ? end(state, turn, lostEnd(turn, error), atMs) : [state, []];
}

/**
 * The agent is there: the tenant is asked. Once that has admitted the turn it is stored, and waits for its place. One
 * after the other, so that turns ask for a slot in the order in which they arrived, whatever had to be looked up.
 */
function advance(state: SessionState, turn: Admitting, atMs: number): SessionStep {
  const next = withTurn(state, turn);
  if (!turn.agent || turn.admission === 'requested') return [next, []];
  const refused = refusedPlan(state, turn, turn.agent);
  if (refused) return refuse(next, turn, refused);
  return turn.admission === 'none' ? requestAdmission(state, turn, atMs) : store(state, turn);
}

/** Why this agent can not run this turn; null: it can. */
function refusedPlan(state: SessionState, { request }: Turn, agent: AgentConfig): ErrorData | null {
  const { models } = state.config;
  return (
    refuseAgent(agent, limitsOf(state), state.tier ?? 'free', models) ??
    promptProblem(agent.systemPrompt, windowOf(agent, models), () => contextOf(request))
  );
}

/** The first of the session wants to run as soon as it is admitted. */
function requestAdmission(state: SessionState, turn: Admitting, atMs: number): SessionStep {
  const slot = state.turns[0]?.taskId === turn.taskId ? 'requested' : 'none';
  const { taskId, attempt, arrival, request } = turn;
  const { tier } = request.caller;
  return [
    withTurn(state, { ...turn, admission: 'requested', slot }),
    [{ type: 'requestAdmission', taskId, attempt, arrival, slot, tier, atMs }],
  ];
}

function store(state: SessionState, turn: Admitting): SessionStep {
  const { admission: _, ...rest } = turn;
  const queued: Queued = { ...rest, phase: 'queued', stored: false };
  const waiting = withTurn(state, queued);
  const effect = storeAccepted(state, queued);
  if (turn.stopAtMs === null) return [waiting, [effect]];
  const [stopped, effects] = end(waiting, queued, UNRUN, turn.stopAtMs);
  return [stopped, [effect, ...effects]];
}

/** The store holds the turn: everybody is told, and what its execution has written so far goes out. */
export function accepted(state: SessionState, turn: Turn, atMs: number): SessionStep {
  if (!('stored' in turn) || turn.stored) return [state, []];
  const { taskId } = turn;
  const data = acceptedData(turn);
  const effects: SessionEffect[] = [
    acceptedEvent(taskId, data, atMs),
    ...turn.callers.map(({ replyTo, duplicate }) =>
      reply(replyTo, {
        ...{ ok: true, taskId, accepted: duplicate ? { ...data, deduplicated: true } : data },
        ...replying(turn.request),
      }),
    ),
  ];
  const stored = { ...turn, stored: true, callers: [] };
  const next = resumed(withTurn(state, stored), stored);
  if (stored.phase !== 'ending') return [next, effects];
  const [ending, more] = storeEnd(next, stored);
  return [ending, [...effects, ...more]];
}

/** A turn that goes on from an earlier process brings its question anew, and nobody is notified of an interruption. */
function resumed(state: SessionState, { request, taskId }: Turn): SessionState {
  if (!request.resumable) return state;
  return {
    ...state,
    history: state.history?.filter((message) => message.taskId !== taskId) ?? null,
    unnotified: state.unnotified.filter((record) => record.taskId !== taskId),
  };
}

type Accepted = EventData['chat.accepted'];

/** One object for all: every session's log keeps one for each of its turns. */
const PROCESSING: Accepted = { status: 'processing', position: 0 };
/** Of a turn that is over, or that another process has. */
export const saidBefore = (status: TurnStatus): Accepted => ({
  status: isEndStatus(status) ? status : 'processing',
  position: 0,
  deduplicated: true,
});

function acceptedData({ phase, position }: Turn): Accepted {
  return phase === 'running' || position === 0 ? PROCESSING : { status: 'queued', position };
}

const acceptedEvent = (taskId: Turn['taskId'], data: Accepted, atMs: number): SessionEffect => ({
  type: 'event',
  taskId,
  event: { type: 'chat.accepted', data },
  atMs,
});

/** A turn that lives here is said again: whoever said it hears where it stands, and nothing else happens. */
function saidAgain(state: SessionState, known: Turn, { request, replyTo, atMs }: Said): SessionStep {
  const { taskId } = known;
  // An end that is being written has no room for more.
  const isLate = known.phase === 'ending' && known.writing;
  const turn = isLate ? known : withReplies(known, request.replies);
  if (turn.phase === 'withdrawn') {
    const error = refusal('BUSY', { retryAfterMs: WITHDRAWN_RETRY_MS });
    return [state, [reply<SayReply>(replyTo, { ok: false, taskId, error })]];
  }
  if (!isStored(turn))
    return [withTurn(state, { ...turn, callers: [...turn.callers, { replyTo, duplicate: true }] }), []];
  const data: Accepted = { ...acceptedData(turn), deduplicated: true };
  const answer: SayReply = { ok: true, taskId, accepted: data, ...(isLate ? {} : replying(request)) };
  return [withTurn(state, turn), [acceptedEvent(taskId, data, atMs), reply(replyTo, answer)]];
}

/** The turn, whose end brings these replies too. */
function withReplies(turn: Turn, more: TurnRequest['replies'] = []): Turn {
  const { replies = [] } = turn.request;
  const missing = more.filter(({ id }) => replies.every((each) => each.id !== id));
  if (missing.length === 0) return turn;
  return { ...turn, request: { ...turn.request, replies: [...replies, ...missing] } };
}

const replying = ({ replies }: TurnRequest): { readonly replying?: true } =>
  replies === undefined ? {} : { replying: true };

/** The store has a turn of this id from before: its callers are told how that stands, and what began here is undone. */
export function duplicate(state: SessionState, turn: Turn, status: TurnStatus, atMs: number): SessionStep {
  const { taskId } = turn;
  const data = saidBefore(status);
  const effects: SessionEffect[] = [
    { type: 'discard', taskId },
    acceptedEvent(taskId, data, atMs),
    ...turn.callers.map(({ replyTo }) => reply(replyTo, { ok: true, taskId, accepted: data })),
  ];
  return drop(state, turn, effects);
}
