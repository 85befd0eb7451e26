/**
 * A tenant: its tier, what it has used of its rates and quotas, and who of its sessions may run now.
 * It decides; effects.ts does. Its sessions live under a nursery, so a thousand of them cost its messages nothing.
 */
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import { emptyFifo, type Fifo, items, pushed, shifted, without } from '../../src/domain/fifo.ts';
import type { SessionId } from '../../src/domain/ids.ts';
import { countDay, fullBucket, type Rate, rateOf, take } from '../../src/domain/rate-limit.ts';
import type { Tier, TierLimits } from '../../src/domain/tiers.ts';
import type { TenantRecord } from '../../src/ports/store.ts';
import { type Behaviour, unreachable } from '../runtime/actor.ts';
import type { SessionMessage } from '../session/protocol.ts';
import type { TenantEffect, TenantMessage, TenantState, WaitingTurn } from './protocol.ts';

type TenantStep = readonly [TenantState, readonly TenantEffect[]];

/** How often those who wait hear of their position, and how many of the first in line do. */
const ANNOUNCE_MS = 250;
const ANNOUNCED = 100;
const MINUTE_MS = 60_000;

/** Messages that wait for a tenant's record. */
const MAX_STASH = 10_000;

export const tenant: Behaviour<TenantState, TenantMessage, TenantEffect> = (state, message) => {
  if (state.stash && message.type !== 'loaded' && message.type !== 'loadFailed')
    return stash(state, state.stash, message);
  switch (message.type) {
    case 'loaded':
      return goLive(state, message.record);
    case 'loadFailed':
      return [
        { ...state, stash: emptyFifo, loading: false },
        [{ type: 'tellAllSessions', message: { type: 'loadFailed', atMs: message.atMs } }],
      ];
    case 'enter': {
      const [next, effects] = named(state, message.tier);
      return [
        next,
        [...effects, tell(message.sessionId, { type: 'entered', tier: next.tier, fixed: next.fixed })],
      ];
    }
    case 'claim': {
      const [next, started] = named(state, message.tier);
      const [claimed, effects] = claim(next, message);
      return [claimed, started.length > 0 ? [...started, ...effects] : effects];
    }
    case 'acquire':
      return acquire(state, waitingOf(message));
    case 'release':
      return release(state, message);
    case 'tierSet': {
      const { tier } = message;
      const [next, effects] = startWaiting({ ...state, tier, fixed: true });
      return [
        next,
        [...effects, { type: 'tellAllSessions', message: { type: 'entered', tier, fixed: true } }],
      ];
    }
    case 'announce':
      return announce(state, message.atMs);
    case 'idle':
      return [state, state.running + state.queued === 0 ? [{ type: 'leaveNode' }] : []];
    default:
      return unreachable(message);
  }
};

const tell = (sessionId: SessionId, message: SessionMessage): TenantEffect => ({
  type: 'tellSession',
  sessionId,
  message,
});

/** Access named a tier: where the header or the token is trusted, the last word counts. A higher one lets more run. */
const named = (state: TenantState, tier: Tier | undefined): TenantStep =>
  tier && tier !== state.tier && !state.fixed ? startWaiting({ ...state, tier }) : [state, []];

/** What comes before the tenant's record waits for it; the first such message asks for it. */
function stash(state: TenantState, waiting: Fifo<TenantMessage>, message: TenantMessage): TenantStep {
  if (message.type === 'idle') return [state, waiting.size === 0 ? [{ type: 'leaveNode' }] : []];
  if (waiting.size >= MAX_STASH)
    return [
      state,
      'sessionId' in message ? [tell(message.sessionId, { type: 'loadFailed', atMs: message.atMs })] : [],
    ];
  return [
    { ...state, stash: pushed(waiting, message), loading: true },
    state.loading ? [] : [{ type: 'loadTenant' }],
  ];
}

function goLive(state: TenantState, record: TenantRecord | null): TenantStep {
  const effects: TenantEffect[] = [];
  const loaded: TenantState = {
    ...state,
    stash: null,
    tier: record?.tier ?? state.tier,
    fixed: record?.tier !== undefined,
    day: record ? { day: record.day, used: record.used } : state.day,
  };
  const live = items(state.stash ?? emptyFifo).reduce<TenantState>((current, message) => {
    const [next, more] = tenant(current, message);
    effects.push(...more);
    return next;
  }, loaded);
  return [live, effects];
}

/** How fast the tenant's requests of the minute come back; null: without limit. */
export const minuteRate = ({ tiers, tier }: TenantState): Rate | null =>
  rateOf(tiers[tier].requests_per_minute, MINUTE_MS);

/** Counts a turn against the rates, finds it a place in line, and lets it ask to run where it wants to. */
function claim(state: TenantState, message: Extract<TenantMessage, { type: 'claim' }>): TenantStep {
  const { sessionId, taskId, attempt, slot, atMs } = message;
  const limits = state.tiers[state.tier];
  const rate = minuteRate(state);
  const no = (error: ErrorData): TenantStep => [
    state,
    [tell(sessionId, { type: 'claimRefused', taskId, attempt, error, atMs })],
  ];
  const runsNow = slot === 'asked' && state.running < limits.executions && state.waiting.size === 0;
  if (!runsNow && state.queued >= limits.waiting)
    return no(
      refusal('OVERLOADED', {
        message: `${state.queued} turns of this tenant wait already, as many as its tier allows.`,
        retryAfterMs: 1_000,
      }),
    );
  const taken = rate && take(state.minute ?? fullBucket(rate, atMs), atMs, rate);
  if (taken && !taken.ok)
    return no(
      refusal('RATE_LIMITED', {
        message: "The tenant's requests of this minute are used up.",
        retryAfterMs: taken.retryAfterMs,
      }),
    );
  const counted = countDay(state.day, atMs, limits.requests_per_day);
  if (!counted.ok) return no(refusal('QUOTA_EXCEEDED', { retryAfterMs: counted.retryAfterMs }));
  const paid: TenantState = {
    ...state,
    minute: taken ? taken.bucket : state.minute,
    day: counted.count,
    queued: state.queued + 1,
  };
  const [next, effects] = slot === 'asked' ? acquire(paid, waitingOf(message)) : ([paid, []] as const);
  const ahead = slot === 'asked' && !runsNow ? state.running + state.waiting.size : 0;
  return [
    next,
    [tell(sessionId, { type: 'claimed', taskId, attempt, tier: state.tier, slot, ahead, atMs }), ...effects],
  ];
}

function acquire(state: TenantState, turn: WaitingTurn): TenantStep {
  const limits = state.tiers[state.tier];
  if (state.running >= limits.executions || state.waiting.size > 0) {
    const effects: TenantEffect[] = state.announcing ? [] : [{ type: 'announceLater', afterMs: ANNOUNCE_MS }];
    return [{ ...state, waiting: pushed(state.waiting, turn), announcing: true }, effects];
  }
  return start(state, turn, limits);
}

const waitingOf = ({ sessionId, taskId, attempt }: Omit<WaitingTurn, 'ahead'>): WaitingTurn => ({
  sessionId,
  taskId,
  attempt,
  ahead: -1,
});

const start = (state: TenantState, turn: WaitingTurn, { weight }: TierLimits): TenantStep => [
  { ...state, running: state.running + 1, queued: state.queued - 1 },
  [{ type: 'want', sessionId: turn.sessionId, taskId: turn.taskId, attempt: turn.attempt, weight }],
];

/**
 * A turn that asked and still waits here is taken out of the line. One that has gone on to the node will be
 * granted, and its session then gives the grant back: so each slot is returned exactly once.
 */
function release(
  state: TenantState,
  { taskId, attempt, slot, refund }: Extract<TenantMessage, { type: 'release' }>,
): TenantStep {
  const back = refund ? refunded(state) : state;
  if (slot === 'none') return [{ ...back, queued: back.queued - 1 }, []];
  if (slot === 'asked') {
    const waiting = without(back.waiting, (turn) => turn.taskId === taskId && turn.attempt === attempt);
    return [{ ...back, waiting, queued: back.queued - (back.waiting.size - waiting.size) }, []];
  }
  const [next, effects] = startWaiting({ ...back, running: back.running - 1 });
  return [next, [{ type: 'done' }, ...effects]];
}

const refunded = (state: TenantState): TenantState => ({
  ...state,
  minute: state.minute && { ...state.minute, tokens: state.minute.tokens + 1 },
  day: { ...state.day, used: Math.max(0, state.day.used - 1) },
});

/** Lets as many of those who wait run as the tier allows. */
function startWaiting(state: TenantState): TenantStep {
  const limits = state.tiers[state.tier];
  const effects: TenantEffect[] = [];
  let next = state;
  while (next.running < limits.executions) {
    const first = shifted(next.waiting);
    if (!first) break;
    const [started, more] = start({ ...next, waiting: first.rest }, first.item, limits);
    next = started;
    effects.push(...more);
  }
  return [next, effects];
}

/** Tells the first in line how many turns are ahead of them, where that has changed. */
function announce(state: TenantState, atMs: number): TenantStep {
  if (state.waiting.size === 0) return [{ ...state, announcing: false }, []];
  const effects: TenantEffect[] = [{ type: 'announceLater', afterMs: ANNOUNCE_MS }];
  const line = items(state.waiting).map((turn, index) => {
    const ahead = state.running + index;
    if (index >= ANNOUNCED || turn.ahead === ahead) return turn;
    const { sessionId, taskId, attempt } = turn;
    effects.push(tell(sessionId, { type: 'moved', taskId, attempt, ahead, atMs }));
    return { ...turn, ahead };
  });
  return [
    { ...state, waiting: line.reduce<Fifo<WaitingTurn>>(pushed, emptyFifo), announcing: true },
    effects,
  ];
}

/** What a tenant goes on with after it crashed over a message: a claim is refused, all else stays as it was. */
export const recoverTenant: Behaviour<TenantState, TenantMessage, TenantEffect> = (state, message) => {
  if (message.type === 'enter')
    return [state, [tell(message.sessionId, { type: 'entered', tier: state.tier, fixed: state.fixed })]];
  if (message.type !== 'claim') return [state, []];
  const { taskId, attempt, sessionId, atMs } = message;
  const error = refusal('INTERNAL');
  return [state, [tell(sessionId, { type: 'claimRefused', taskId, attempt, error, atMs })]];
};
