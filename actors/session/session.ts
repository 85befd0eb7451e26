/**
 * A session: one conversation, its turns in the order in which they run, its clients. Pure; effects.ts performs what
 * it decides. A turn is received, admitted by the tenant, stored (only then accepted), run by an execution, ended, and
 * its end is stored before anybody is notified of it.
 */
import { CLOSE, refusal } from '../../src/domain/errors.ts';
import type { SessionId, TenantId } from '../../src/domain/ids.ts';
import type { Bucket } from '../../src/domain/rate-limit.ts';
import type { Epoch } from '../../src/ports/store.ts';
import { type Behaviour, unreachable } from '../runtime/actor.ts';
import { releaseOf, type SlotGranted } from '../tenant/protocol.ts';
import { accepted, admitted, agentFound, agentRefused, bucketAtStart, duplicate, say } from './admission.ts';
import { close, closeUnstored, end, fail, noTask, refuse, remove, stop, storeRefusal } from './ending.ts';
import {
  answerUnhandled,
  disown,
  failLoad,
  forget,
  forgotten,
  giveUp,
  isNeeded,
  leaveAll,
  thenForget,
  thenLeave,
  thenNotify,
  unforgotten,
} from './lifecycle.ts';
import {
  type Attach,
  atOf,
  type Cancel,
  isFromEdge,
  reply,
  type SessionConfig,
  type SessionEffect,
  type SessionMessage,
  type SessionState,
  type SessionStep,
  type Stored,
  type StoreFailed,
  turnOf,
  withTurn,
} from './protocol.ts';
import { agentChanged, moved, thenRun } from './queue.ts';
import { endOf, isStored, recordOf, type Turn } from './turn.ts';

/**
 * A session that has loaded nothing yet, which its node owns by `epoch`; `bucket` is what is left of its rate from when
 * it was here last. An `ephemeral` one leaves memory with its turn.
 */
export function newSession(
  tenantId: TenantId,
  sessionId: SessionId,
  config: SessionConfig,
  epoch: Epoch,
  {
    bucket = null,
    ephemeral = false,
  }: { readonly bucket?: Bucket | null; readonly ephemeral?: boolean } = {},
): SessionState {
  return {
    tenantId,
    sessionId,
    epoch,
    config,
    stash: [],
    history: null,
    unnotified: [],
    tier: null,
    tierFixed: false,
    bucket,
    turns: [],
    recent: [],
    clients: [],
    ephemeral,
    draining: false,
    forgetting: null,
  };
}

/** Messages that wait for a session's history to load. */
const MAX_STASH = 1_000;

export const session: Behaviour<SessionState, SessionMessage, SessionEffect> = (state, message) =>
  thenLeave(thenForget(handle(state, message)));

const handle: Behaviour<SessionState, SessionMessage, SessionEffect> = (state, message) => {
  if (state.stash && isFromEdge(message)) return stash(state, state.stash, message);
  const decided = decide(state, message, turnOf(state, message));
  return thenNotify(thenRun(decided, atOf(message)), message);
};

function decide(state: SessionState, message: SessionMessage, turn: Turn | undefined): SessionStep {
  switch (message.type) {
    case 'loaded':
      return goLive({ ...state, history: message.history, unnotified: message.interrupted });
    case 'joined':
      return goLive({ ...state, tier: message.tier, tierFixed: message.fixed });
    case 'loadFailed':
      return failLoad(state, storeRefusal(), message.atMs);
    case 'said':
      return say(
        state,
        state.turns.find(({ taskId }) => taskId === message.request.taskId),
        message,
      );
    case 'agentFound':
      return agentFound(state, turn, message);
    case 'agentRefused':
      return agentRefused(state, turn, message);
    case 'agentChanged':
      return agentChanged(state, message.agentId);
    case 'admitted':
      return admitted(state, turn, message);
    case 'notAdmitted':
      return turn?.phase === 'admitting' ? refuse(state, turn, message.error) : [state, []];
    case 'slotGranted':
      return slotGranted(state, turn, message);
    case 'moved': {
      if (!turn) return [state, []];
      const effects: SessionEffect[] = [];
      const next = moved(turn, message.ahead, message.atMs, effects);
      return next === turn ? [state, []] : [withTurn(state, next), effects];
    }
    case 'stored':
      return stored(state, turn, message);
    case 'storeFailed':
      return storeFailed(state, turn, message);
    case 'ended':
      if (turn?.phase === 'withdrawn') return remove(state, turn, []);
      if (turn?.phase !== 'running') return [state, []];
      return end(state, turn, endOf(message.outcome, message), message.atMs);
    case 'executionLost':
      return turn?.phase === 'running' || turn?.phase === 'withdrawn'
        ? fail(state, turn, message.atMs, message)
        : [state, []];
    case 'cancel':
      return cancel(state, turn, message);
    case 'inquire': {
      const record = turn ? recordOf(turn, state.tenantId, state.sessionId) : null;
      return [state, [reply(message.replyTo, record)]];
    }
    case 'attach':
      return attach(state, message);
    case 'detach': {
      const { clientId } = message;
      const clients = state.clients.filter((id) => id !== clientId);
      return [{ ...state, clients }, [{ type: 'detachClient', clientId }]];
    }
    case 'forget':
      return forget(state, message.replyTo, message.atMs);
    case 'fenced':
      return disown(state);
    case 'owned':
      return [{ ...state, epoch: message.epoch, ephemeral: false }, []];
    case 'yield':
      return giveUp(state, message.guestsToo, message.replyTo);
    case 'drain': {
      const data = { reconnect_after_ms: message.reconnectAfterMs };
      const notice = { type: 'server.draining', data } as const;
      return [{ ...state, draining: true }, [{ type: 'notice', notice, atMs: message.atMs }]];
    }
    case 'drainExpired':
      return leaveAll(state, message.atMs);
    case 'drained': {
      const closing: SessionEffect = { type: 'closeClients', close: CLOSE.restart, told: null };
      return [state, [closing, reply(message.replyTo, null)]];
    }
    case 'idle':
      return [state, isNeeded(state) ? [] : [{ type: 'leave' }]];
    default:
      return unreachable(message);
  }
}

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
    { ...state, stash: null, bucket: state.config.sharedTiers ? bucketAtStart(state) : state.bucket },
  );
  return [live, effects];
}

/** A slot for a turn that waits for none goes back. */
function slotGranted(state: SessionState, turn: Turn | undefined, message: SlotGranted): SessionStep {
  const waits = turn?.phase === 'queued' || (turn?.phase === 'admitting' && turn.admission === 'granted');
  if (!waits || turn.slot !== 'requested') return [state, [releaseOf(message)]];
  return [withTurn(state, { ...turn, slot: 'granted' }), []];
}

function stored(state: SessionState, turn: Turn | undefined, message: Stored): SessionStep {
  const { step, atMs } = message;
  if (step === 'deleted') return forgotten(state);
  if (step === 'ended' && turn?.phase === 'ending') return close(state, turn, atMs);
  if (step !== 'accepted' || !turn) return [state, []];
  const { duplicate: before } = message;
  return before ? duplicate(state, turn, before, atMs) : accepted(state, turn, atMs);
}

function storeFailed(state: SessionState, turn: Turn | undefined, message: StoreFailed): SessionStep {
  const { step, atMs, error = storeRefusal() } = message;
  if (step === 'deleted') return unforgotten(state, storeRefusal());
  if (step === 'accepted' && turn) return refuse(state, turn, error);
  return step === 'ended' && turn?.phase === 'ending' ? closeUnstored(state, turn, atMs) : [state, []];
}

function cancel(state: SessionState, turn: Turn | undefined, { taskId, replyTo, atMs }: Cancel): SessionStep {
  if (!turn) return [state, [reply(replyTo, { ok: false, taskId, error: noTask() })]];
  const cancelled = { ...turn, cancellers: [...turn.cancellers, { replyTo, atMs }] };
  return stop(withTurn(state, cancelled), cancelled, atMs);
}

function attach(state: SessionState, message: Attach): SessionStep {
  const { clientId, resume, atMs } = message;
  const named = state.tierFixed ? undefined : message.tier;
  const tier = named ?? state.tier ?? 'free';
  const effects: SessionEffect[] = named && named !== state.tier ? [{ type: 'join', tier }] : [];
  const live = state.turns.filter(isStored);
  effects.push({
    type: 'attachClient',
    clientId,
    ready: {
      tenantId: state.tenantId,
      sessionId: state.sessionId,
      tier,
      running: live.map(({ taskId }) => taskId),
      resume,
      messages: [...(state.history ?? []), ...live.map(({ said }) => said)],
      atMs,
    },
  });
  return [{ ...state, tier, clients: [...state.clients, clientId] }, effects];
}
