/**
 * A session: one conversation, its turns in line, its clients. It decides; effects.ts does.
 * A turn is said, claimed from the tenant, kept in the store (only then accepted), run by an execution, and
 * ended; its end is kept before anybody hears of it.
 */
import { CLOSE, refusal } from '../../src/domain/errors.ts';
import type { SessionId, TenantId } from '../../src/domain/ids.ts';
import type { Bucket } from '../../src/domain/rate-limit.ts';
import type { CancelReply } from '../../src/domain/turn.ts';
import { type Behaviour, unreachable } from '../runtime/actor.ts';
import { accepted, advance, duplicate, say, withNewerAgent } from './admission.ts';
import { forget, forgotten, leaveAll, thenForget, thenTell, unforgotten } from './lifecycle.ts';
import {
  type KeepFailed,
  type Kept,
  recordOf,
  type SessionConfig,
  type SessionEffect,
  type SessionMessage,
  type SessionState,
  type SessionStep,
  type Turn,
  turnOf,
  withTurn,
} from './protocol.ts';
import { runNext } from './queue.ts';
import { answerUnhandled, failLoad, lostRelease } from './recovery.ts';
import { breakTurn, closeTurn, closeUnkept, end, noTask, refuse, stopTurn, storeRefusal } from './turn.ts';

/**
 * A session that has loaded nothing yet; `bucket` is what it had left of its rate when it was here last. One that is a
 * turn's `own` leaves with it.
 */
export function newSession(
  tenantId: TenantId,
  sessionId: SessionId,
  config: SessionConfig,
  { bucket = null, own = false }: { readonly bucket?: Bucket | null; readonly own?: boolean } = {},
): SessionState {
  return {
    tenantId,
    sessionId,
    config,
    stash: [],
    history: null,
    untold: [],
    tier: null,
    tierFixed: false,
    bucket,
    turns: [],
    recent: [],
    clients: [],
    ephemeral: own,
    draining: false,
    forgetting: null,
  };
}

/** Messages that wait for a session's history to load. */
const MAX_STASH = 1_000;

export const session: Behaviour<SessionState, SessionMessage, SessionEffect> = (state, message) =>
  thenLeave(thenForget(handle(state, message)));

/** Nobody comes back to it, so that thousands a second need not stay until they are idle. */
function thenLeave(step: SessionStep): SessionStep {
  const [state, effects] = step;
  return state.ephemeral && !isNeeded(state) ? [state, [...effects, { type: 'leave' }]] : step;
}

const isNeeded = ({ clients, turns, forgetting, stash }: SessionState): boolean =>
  clients.length > 0 || turns.length > 0 || forgetting !== null || stash !== null;

const handle: Behaviour<SessionState, SessionMessage, SessionEffect> = (state, message) =>
  thenTell(decide(state, message), message);

const decide: Behaviour<SessionState, SessionMessage, SessionEffect> = (state, message) => {
  if (state.stash && isFromEdge(message)) return stash(state, state.stash, message);
  const turn = turnOf(state, message);
  switch (message.type) {
    case 'loaded':
      return goLive({ ...state, history: message.history, untold: message.interrupted });
    case 'entered':
      return goLive({ ...state, tier: message.tier, tierFixed: message.fixed });
    case 'loadFailed':
      return failLoad(state, storeRefusal(), message.atMs);
    case 'said':
      return say(state, turn, message);
    case 'agentFound':
      if (!turn) return [state, []];
      return advance(withTurn(state, turn.taskId, { agent: message.agent }), turn, message.atMs);
    case 'agentChanged':
      return [withNewerAgent(state, message.agent), []];
    case 'agentRefused':
      return turn ? refuse(state, turn, message.error, message.atMs) : [state, []];
    case 'claimed':
      return claimed(state, turn, message);
    case 'claimRefused':
      return turn?.claim === 'asked' ? refuse(state, turn, message.error, message.atMs) : [state, []];
    case 'granted':
      if (turn?.claim !== 'held' || turn.slot !== 'asked' || turn.dropped)
        return [state, [{ type: 'release', ...lostRelease(message) }]];
      return runNext(withTurn(state, turn.taskId, { slot: 'granted' }));
    case 'moved':
      return moved(state, turn, message);
    case 'kept':
      return kept(state, turn, message);
    case 'keepFailed':
      return keepFailed(state, turn, message);
    case 'ended':
      return turn
        ? end(state, turn, { outcome: message.outcome, text: message.text, atMs: message.atMs })
        : [state, []];
    case 'executionLost':
      return turn?.executing ? breakTurn(state, turn, message.text, message.atMs) : [state, []];
    case 'cancel':
      return cancel(state, turn, message.taskId, message.replyTo, message.atMs);
    case 'inquire':
      return [
        state,
        [{ type: 'reply', replyTo: message.replyTo, value: turn ? recordOf(state, turn) : null }],
      ];
    case 'attach':
      return attach(state, message);
    case 'detach':
      return [
        { ...state, clients: state.clients.filter((id) => id !== message.clientId) },
        [{ type: 'detachClient', clientId: message.clientId }],
      ];
    case 'forget':
      return forget(state, message.replyTo, message.atMs);
    case 'drain':
      return [
        { ...state, draining: true },
        [
          {
            type: 'notice',
            notice: { type: 'server.draining', data: { reconnect_after_ms: message.reconnectAfterMs } },
            atMs: message.atMs,
          },
        ],
      ];
    case 'drainExpired':
      return leaveAll(state, message.atMs);
    case 'drained':
      return [
        state,
        [
          { type: 'closeClients', close: CLOSE.restart, told: null },
          { type: 'reply', replyTo: message.replyTo, value: null },
        ],
      ];
    case 'idle':
      return [state, isNeeded(state) ? [] : [{ type: 'leave' }]];
    default:
      return unreachable(message);
  }
};

const isFromEdge = ({ type }: SessionMessage): boolean =>
  type === 'said' ||
  type === 'cancel' ||
  type === 'attach' ||
  type === 'detach' ||
  type === 'inquire' ||
  type === 'forget';

function stash(
  state: SessionState,
  waiting: readonly SessionMessage[],
  message: SessionMessage,
): SessionStep {
  if (waiting.length < MAX_STASH) return [{ ...state, stash: [...waiting, message] }, []];
  return [state, answerUnhandled(message, refusal('OVERLOADED', { retryAfterMs: 1_000 }))];
}

/** Once history and tier are both there, what came meanwhile is handled in the order it came. */
function goLive(state: SessionState): SessionStep {
  if (!state.stash || !state.history || !state.tier) return [state, []];
  const effects: SessionEffect[] = [];
  const live = state.stash.reduce<SessionState>(
    (current, message) => {
      const [next, more] = handle(current, message);
      effects.push(...more);
      return next;
    },
    { ...state, stash: null },
  );
  return [live, effects];
}

/** The tenant has counted the turn. One that ended meanwhile, or that nobody knows here, gives its place back. */
function claimed(
  state: SessionState,
  turn: Turn | undefined,
  message: Extract<SessionMessage, { type: 'claimed' }>,
): SessionStep {
  const { taskId, attempt, slot, atMs } = message;
  const known = { ...state, tier: message.tier };
  if (turn?.claim !== 'asked') return [known, [{ type: 'release', ...lostRelease(message) }]];
  if (turn.ended) {
    const [next, effects] = advance(withTurn(known, taskId, { claim: 'returned' }), turn, atMs);
    return [next, [{ type: 'release', taskId, attempt, slot, refund: false }, ...effects]];
  }
  const position = Math.max(state.turns.indexOf(turn), message.ahead);
  return advance(withTurn(known, taskId, { claim: 'held', position }), turn, atMs);
}

/** Turns of other sessions before it have ended; before it is accepted it hears of that with its acceptance. */
function moved(
  state: SessionState,
  turn: Turn | undefined,
  message: Extract<SessionMessage, { type: 'moved' }>,
): SessionStep {
  const { ahead: position, atMs } = message;
  if (!turn || turn.executing || turn.ended || turn.position === position) return [state, []];
  const event = { type: 'chat.queued', data: { position } } as const;
  return [
    withTurn(state, turn.taskId, { position }),
    turn.kept === 'yes' ? [{ type: 'event', taskId: turn.taskId, event, atMs }] : [],
  ];
}

function kept(state: SessionState, turn: Turn | undefined, message: Kept): SessionStep {
  if (message.step === 'deleted') return forgotten(state);
  if (message.step === 'told' || !turn) return [state, []];
  if (message.step === 'ended')
    return turn.ended ? closeTurn(state, turn, turn.ended, message.atMs) : [state, []];
  return message.duplicate ? duplicate(state, turn, message.atMs) : accepted(state, turn, message.atMs);
}

function keepFailed(state: SessionState, turn: Turn | undefined, message: KeepFailed): SessionStep {
  if (message.step === 'deleted') return unforgotten(state, storeRefusal());
  if (message.step === 'told' || !turn) return [state, []];
  if (message.step === 'accepted') return refuse(state, turn, message.error ?? storeRefusal(), message.atMs);
  return closeUnkept(state, turn, message.atMs);
}

function cancel(
  state: SessionState,
  turn: Turn | undefined,
  taskId: Turn['taskId'],
  replyTo: number,
  atMs: number,
): SessionStep {
  if (!turn) {
    const value: CancelReply = { ok: false, taskId, error: noTask() };
    return [state, [{ type: 'reply', replyTo, value }]];
  }
  return stopTurn(
    withTurn(state, taskId, { cancellers: [...turn.cancellers, { replyTo, atMs }] }),
    turn,
    atMs,
  );
}

function attach(state: SessionState, message: Extract<SessionMessage, { type: 'attach' }>): SessionStep {
  const named = state.tierFixed ? undefined : message.tier;
  const tier = named ?? state.tier ?? 'free';
  const effects: SessionEffect[] = named && named !== state.tier ? [{ type: 'enter', tier }] : [];
  const said = state.turns.filter((turn) => turn.kept === 'yes').map((turn) => turn.said);
  effects.push({
    type: 'attachClient',
    clientId: message.clientId,
    ready: {
      tenantId: state.tenantId,
      sessionId: state.sessionId,
      tier,
      running: state.turns.filter((turn) => turn.kept === 'yes').map((turn) => turn.taskId),
      resume: message.resume,
      messages: [...(state.history ?? []), ...said],
      atMs: message.atMs,
    },
  });
  return [{ ...state, tier, clients: [...state.clients, message.clientId] }, effects];
}
