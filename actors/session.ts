/**
 * A session: one conversation, its turns in line, its clients. It decides; effects.ts does.
 * A turn is said, claimed from the tenant, kept in the store (only then accepted), run by an execution, and
 * ended; its end is kept before anybody hears of it.
 */
import { CLOSE, refusal } from '../src/domain/errors.ts';
import type { CancelReply, Reply } from '../src/ports.ts';
import type { Behaviour } from './actor.ts';
import { say } from './session-say.ts';
import {
  findTurn,
  type KeepFailed,
  type Kept,
  recordOf,
  type SessionEffect,
  type SessionMessage,
  type SessionState,
  type SessionStep,
  type Turn,
  unreachable,
  withTurn,
} from './session-state.ts';
import {
  accepted,
  advance,
  closeTurn,
  duplicate,
  end,
  noInfo,
  refuse,
  runNext,
  stopTurn,
  storeRefusal,
} from './session-turns.ts';

/** Messages that wait for a session's history to load. */
const MAX_STASH = 1_000;

export const session: Behaviour<SessionState, SessionMessage, SessionEffect> = (state, message) =>
  thenForget(handle(state, message));

const handle: Behaviour<SessionState, SessionMessage, SessionEffect> = (state, message) => {
  if (state.stash && isFromEdge(message)) return stash(state, state.stash, message);
  const turn =
    'taskId' in message && message.taskId !== undefined ? findTurn(state, message.taskId) : undefined;
  switch (message.type) {
    case 'loaded':
      return goLive({ ...state, history: message.history });
    case 'entered':
      return goLive({ ...state, tier: message.tier });
    case 'loadFailed':
      return fail(state, message.atMs);
    case 'said':
      return say(state, turn, message);
    case 'agentFound':
      if (!turn) return [state, []];
      return step(withTurn(state, turn.taskId, { agent: message.agent }), turn, message.atMs);
    case 'agentRefused':
      return turn ? refuse(state, turn, message.error) : [state, []];
    case 'claimed': {
      if (!turn)
        return [state, [{ type: 'release', taskId: message.taskId, slot: message.slot, refund: true }]];
      const position = Math.max(state.turns.indexOf(turn), message.ahead);
      const claimed = withTurn({ ...state, tier: message.tier }, turn.taskId, { claimed: true, position });
      return step(claimed, turn, message.atMs);
    }
    case 'claimRefused':
      return turn ? refuse(state, turn, message.error) : [state, []];
    case 'granted':
      if (!turn || turn.ended || turn.dropped)
        return [state, [{ type: 'release', taskId: message.taskId, slot: 'granted', refund: false }]];
      return runNext(withTurn(state, turn.taskId, { slot: 'granted' }), message.atMs);
    case 'moved': {
      if (!turn || turn.executing || turn.kept !== 'yes' || turn.position === message.ahead)
        return [state, []];
      const event = { type: 'chat.queued', data: { position: message.ahead } } as const;
      return [
        withTurn(state, turn.taskId, { position: message.ahead }),
        [{ type: 'event', taskId: turn.taskId, event, atMs: message.atMs }],
      ];
    }
    case 'kept':
      return kept(state, turn, message);
    case 'keepFailed':
      return keepFailed(state, turn, message);
    case 'ended':
      return turn
        ? end(state, turn, { outcome: message.outcome, text: message.text, atMs: message.atMs })
        : [state, []];
    case 'executionLost':
      return turn?.executing ? lose(state, turn, message.text, message.atMs) : [state, []];
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
      return cancelAll(state, message.atMs);
    case 'idle':
      return [
        state,
        state.clients.length === 0 && state.turns.length === 0 && !state.stash ? [{ type: 'leave' }] : [],
      ];
    default:
      return unreachable(message);
  }
};

/** What a session goes on with after it crashed over a message: the turn it was about ends, all else stays. */
export const recoverSession: Behaviour<SessionState, SessionMessage, SessionEffect> = (state, message) => {
  const turn =
    'taskId' in message && message.taskId !== undefined ? findTurn(state, message.taskId) : undefined;
  const effects = answerUnhandled(message);
  if (message.type === 'said' && !turn)
    return [state, [...effects, { type: 'untrack', taskId: message.taskId }]];
  if (!turn || message.type === 'said') return [state, effects];
  const [next, more] =
    turn.kept === 'yes' ? lose(state, turn, '', atOf(message)) : refuse(state, turn, refusal('INTERNAL'));
  const abort: SessionEffect[] = turn.executing ? [{ type: 'abort', taskId: turn.taskId }] : [];
  return [next, [...effects, ...abort, ...more]];
};

/** Who waits for an answer to a message that will not be handled gets one. */
export function answerUnhandled(message: SessionMessage, error = refusal('INTERNAL')): SessionEffect[] {
  if (!('replyTo' in message)) return [];
  const value = 'taskId' in message ? { ok: false, taskId: message.taskId, error } : { ok: false, error };
  return [{ type: 'reply', replyTo: message.replyTo, value }];
}

const atOf = (message: SessionMessage): number => ('atMs' in message ? message.atMs : 0);

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

/** The store does not answer: nobody is kept waiting, and the next message tries afresh. */
function fail(state: SessionState, atMs: number): SessionStep {
  const error = storeRefusal();
  const effects = (state.stash ?? []).flatMap((message) => answerUnhandled(message, error));
  const notice = { type: 'error', data: error } as const;
  return [
    { ...state, stash: [] },
    [
      ...effects,
      { type: 'notice', notice, atMs },
      { type: 'closeClients', close: CLOSE.overloaded },
      { type: 'stop' },
    ],
  ];
}

function step(state: SessionState, { taskId }: Turn, atMs: number): SessionStep {
  const turn = findTurn(state, taskId);
  return turn ? advance(state, turn, atMs) : [state, []];
}

function kept(state: SessionState, turn: Turn | undefined, message: Kept): SessionStep {
  if (message.step === 'deleted') return deleted(state);
  if (!turn) return [state, []];
  if (message.step === 'ended')
    return turn.ended ? closeTurn(state, turn, turn.ended, message.atMs) : [state, []];
  return message.duplicate ? duplicate(state, turn, message.atMs) : accepted(state, turn, message.atMs);
}

function keepFailed(state: SessionState, turn: Turn | undefined, message: KeepFailed): SessionStep {
  const error = storeRefusal();
  if (message.step === 'deleted') {
    const value: Reply<null> = { ok: false, error };
    const effects = (state.forgetting?.replyTo ?? []).map(
      (replyTo): SessionEffect => ({ type: 'reply', replyTo, value }),
    );
    return [{ ...state, forgetting: null }, effects];
  }
  if (!turn) return [state, []];
  if (message.step === 'accepted') return refuse(state, turn, error);
  const info = turn.ended && 'info' in turn.ended.outcome ? turn.ended.outcome.info : noInfo(turn);
  const ending = {
    outcome: { type: 'failed', error, info },
    text: '',
    atMs: message.atMs,
    writing: true,
  } as const;
  return closeTurn(state, turn, ending, message.atMs);
}

/** The execution is gone without a word. */
function lose(state: SessionState, turn: Turn, text: string, atMs: number): SessionStep {
  const outcome = { type: 'failed', error: refusal('INTERNAL'), info: noInfo(turn) } as const;
  return end(state, turn, { outcome, text, atMs });
}

function cancel(
  state: SessionState,
  turn: Turn | undefined,
  taskId: Turn['taskId'],
  replyTo: number,
  atMs: number,
): SessionStep {
  if (!turn) {
    const error = refusal('NOT_FOUND', { message: 'There is no such task.' });
    return [state, [{ type: 'reply', replyTo, value: { ok: false, taskId, error } satisfies CancelReply }]];
  }
  return stopTurn(
    withTurn(state, taskId, { cancellers: [...turn.cancellers, { replyTo, atMs }] }),
    turn,
    atMs,
  );
}

function cancelAll(state: SessionState, atMs: number): SessionStep {
  const effects: SessionEffect[] = [];
  const next = state.turns.reduceRight<SessionState>((current, turn) => {
    const [stopped, more] = stopTurn(current, turn, atMs);
    effects.push(...more);
    return stopped;
  }, state);
  return [next, effects];
}

function attach(state: SessionState, message: Extract<SessionMessage, { type: 'attach' }>): SessionStep {
  const tier = message.tier ?? state.tier ?? 'free';
  const effects: SessionEffect[] =
    message.tier && message.tier !== state.tier ? [{ type: 'enter', tier }] : [];
  const said = state.turns
    .filter((turn) => turn.kept === 'yes')
    .map(
      (turn) =>
        ({ role: 'user', content: turn.message, taskId: turn.taskId, atMs: turn.createdAtMs }) as const,
    );
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

function forget(state: SessionState, replyTo: number, atMs: number): SessionStep {
  if (state.forgetting)
    return [
      { ...state, forgetting: { ...state.forgetting, replyTo: [...state.forgetting.replyTo, replyTo] } },
      [],
    ];
  return cancelAll({ ...state, forgetting: { replyTo: [replyTo], writing: false } }, atMs);
}

/** A session that is to be forgotten is deleted as soon as its last turn has ended. */
function thenForget(step: SessionStep): SessionStep {
  const [state, effects] = step;
  const { forgetting, tenantId, sessionId } = state;
  if (!forgetting || forgetting.writing || state.turns.length > 0 || state.stash) return step;
  const write = { type: 'session-deleted', tenantId, sessionId } as const;
  return [
    { ...state, forgetting: { ...forgetting, writing: true } },
    [...effects, { type: 'keep', step: 'deleted', taskId: undefined, write }],
  ];
}

function deleted(state: SessionState): SessionStep {
  const value: Reply<null> = { ok: true, value: null };
  const replies = (state.forgetting?.replyTo ?? []).map(
    (replyTo): SessionEffect => ({ type: 'reply', replyTo, value }),
  );
  return [state, [...replies, { type: 'closeClients', close: CLOSE.goingAway }, { type: 'stop' }]];
}
