/**
 * A tenant: its tier, what it has used of its rates and quotas, and which of its turns may run now.
 * Pure; effects.ts performs what it decides. Its sessions are children of a quiet supervisor, so that a thousand of
 * them cost its messages nothing.
 */
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import { emptyFifo, type Fifo, inserted, items, pushed, shifted, without } from '../../src/domain/fifo.ts';
import type { SessionId } from '../../src/domain/ids.ts';
import { occupied, spent, vacated } from '../../src/domain/leases.ts';
import {
  countDay,
  dayOf,
  fullBucket,
  msToMidnight,
  type Rate,
  rateOf,
  take,
} from '../../src/domain/rate-limit.ts';
import type { Tier, TierLimits } from '../../src/domain/tiers.ts';
import type { TenantRecord } from '../../src/ports/store.ts';
import { type Behaviour, unreachable } from '../runtime/actor.ts';
import {
  awaitsToken,
  executionsOf,
  MINUTE_MS,
  minuteUsedUp,
  takeAnswer,
  takeDue,
  thenLease,
  tokenBack,
  waitForToken,
  withExecutions,
} from './leases.ts';
import type {
  Release,
  RequestAdmission,
  TenantAnswer,
  TenantEffect,
  TenantMessage,
  TenantState,
  TurnPlace,
} from './protocol.ts';

type TenantStep = readonly [TenantState, readonly TenantEffect[]];

/** How often those who wait hear of their position, and how many of the first ones do. */
const ANNOUNCE_MS = 250;
const ANNOUNCED = 100;

/** So long the store is not asked again whether a day is used up: a turn of it may have been taken back. */
const SPENT_MS = 5_000;

/** Messages that wait for a tenant's record. */
const MAX_STASH = 10_000;

export const tenant: Behaviour<TenantState, TenantMessage, TenantEffect> = (state, message) =>
  state.leases ? thenLease(decide(state, message)) : decide(state, message);

function decide(state: TenantState, message: TenantMessage): TenantStep {
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
    case 'join': {
      const [next, effects] = startWaiting(named(state, message.tier));
      const { tier, fixed } = next;
      return [next, [...effects, tell(message.sessionId, { type: 'joined', tier, fixed })]];
    }
    case 'arrived':
      return [arrived(state, message.arrival), []];
    case 'departed':
      return startWaiting(departed(state, message.arrival));
    case 'requestAdmission': {
      const known = named(state, message.tier);
      return known.leases && awaitsToken(known) && !refusalOf(known, message)
        ? waitForToken(known, message)
        : takeIn(known, message);
    }
    case 'leased':
      return startedAfter(takeAnswer(state, message, takeIn));
    case 'leaseDue':
      return takeDue(state, message);
    case 'daySpent': {
      const { day, most, atMs } = message;
      return [{ ...state, spent: { day, most, atMs } }, []];
    }
    case 'requestSlot':
      return requestSlot(state, message);
    case 'release':
      return release(state, message);
    case 'tierSet': {
      const { tier } = message;
      const [next, effects] = startWaiting({ ...state, tier, fixed: true });
      return [
        next,
        [...effects, { type: 'tellAllSessions', message: { type: 'joined', tier, fixed: true } }],
      ];
    }
    case 'announce':
      return announce(state, message.atMs);
    case 'idle':
      return [
        state,
        state.running + state.queued + state.arriving.length + (state.leases?.pending.size ?? 0) === 0
          ? [{ type: 'leaveNode' }]
          : [],
      ];
    default:
      return unreachable(message);
  }
}

const tell = (sessionId: SessionId, message: TenantAnswer): TenantEffect => ({
  type: 'tellSession',
  sessionId,
  message,
});

/** Access named a tier: where the header or the token is trusted, the last word counts. A higher one lets more run. */
const named = (state: TenantState, tier: Tier | undefined): TenantState =>
  tier && tier !== state.tier && !state.fixed ? { ...state, tier } : state;

/** What comes before the tenant's record waits for it; the first such message asks for it. */
function stash(state: TenantState, waiting: Fifo<TenantMessage>, message: TenantMessage): TenantStep {
  if (message.type === 'idle') return [state, waiting.size === 0 ? [{ type: 'leaveNode' }] : []];
  if (waiting.size >= MAX_STASH) return [state, turnedAway(message)];
  return [
    { ...state, stash: pushed(waiting, message), loading: true },
    state.loading ? [] : [{ type: 'loadTenant' }],
  ];
}

/** Only a session that joins is told: it asks for nothing else before it has. */
const turnedAway = (message: TenantMessage): readonly TenantEffect[] =>
  message.type === 'join' || message.type === 'requestAdmission'
    ? [tell(message.sessionId, { type: 'loadFailed', atMs: message.atMs })]
    : [];

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

/** Why a request is refused before it is counted: too many wait, or the day is used up. */
function refusalOf(state: TenantState, message: RequestAdmission): ErrorData | null {
  const limits = state.tiers[state.tier];
  if (!runsAtOnce(state, message) && state.queued >= limits.waiting) return tooManyWait(state.queued);
  const { spent: over } = state;
  const { requests_per_day: most } = limits;
  const isSpent =
    over !== null &&
    most !== null &&
    most <= over.most &&
    over.day === dayOf(message.atMs) &&
    message.atMs - over.atMs < SPENT_MS;
  return isSpent ? dayUsedUp(msToMidnight(message.atMs)) : null;
}

const runsAtOnce = (state: TenantState, message: RequestAdmission): boolean =>
  message.slot === 'requested' &&
  state.waiting.size === 0 &&
  mayStart(state, message, state.tiers[state.tier]);

/** It takes its place before those that it kept waiting go on. */
const takeIn = (state: TenantState, message: RequestAdmission): TenantStep =>
  startedAfter(admit(departed(state, message.arrival), message));

function startedAfter([state, effects]: TenantStep): TenantStep {
  const [next, starts] = startWaiting(state);
  return [next, [...effects, ...starts]];
}

/** Counts a request against the rate of the minute. A number: refused, and in how many ms there is one again. */
function payMinute(state: TenantState, atMs: number): TenantState | number {
  const rate = minuteRate(state);
  if (!rate) return state;
  const { leases } = state;
  if (leases) return { ...state, leases: { ...leases, minute: spent(leases.minute) } };
  const taken = take(state.minute ?? fullBucket(rate, atMs), atMs, rate);
  return taken.ok ? { ...state, minute: taken.bucket } : taken.retryAfterMs;
}

/** Counts a turn against the rates, and lets it wait for a slot where it wants to run at once. */
function admit(state: TenantState, message: RequestAdmission): TenantStep {
  const { sessionId, taskId, attempt, slot, atMs } = message;
  const no = (error: ErrorData): TenantStep => [
    state,
    [tell(sessionId, { type: 'notAdmitted', taskId, attempt, error, atMs })],
  ];
  const refused = refusalOf(state, message);
  if (refused) return no(refused);
  const runsNow = runsAtOnce(state, message);
  const counted = countDay(state.day, atMs, state.tiers[state.tier].requests_per_day);
  const metered = counted.ok ? payMinute(state, atMs) : state;
  if (typeof metered === 'number') return no(minuteUsedUp(metered));
  if (!counted.ok) return no(dayUsedUp(counted.retryAfterMs));
  const paid: TenantState = { ...metered, day: counted.count, queued: state.queued + 1 };
  const waits = slot === 'requested' && !runsNow;
  const ahead = waits ? state.running + aheadOf(state, message) : 0;
  const admitted = tell(sessionId, {
    type: 'admitted',
    taskId,
    attempt,
    tier: state.tier,
    slot,
    ahead,
    atMs,
  });
  if (slot === 'none') return [paid, [admitted]];
  const [next, effects] = requestSlot(paid, message);
  return [next, [admitted, ...effects]];
}

/** Turns that are looked after while they arrive; there are more only where a tier runs so many that order is no matter. */
const MAX_ARRIVING = 1_000;

/** Arrivals grow, but for turns of a batch, which arrived with it. */
function arrived(state: TenantState, arrival: number): TenantState {
  if (state.arriving.length >= MAX_ARRIVING) return state;
  const at = state.arriving.findIndex((turn) => turn.arrival > arrival);
  const turn = { arrival, passed: 0 };
  return { ...state, arriving: state.arriving.toSpliced(at < 0 ? state.arriving.length : at, 0, turn) };
}

function departed(state: TenantState, arrival: number): TenantState {
  const at = state.arriving.findIndex((turn) => turn.arrival === arrival);
  return at < 0 ? state : { ...state, arriving: state.arriving.toSpliced(at, 1) };
}

/**
 * Whether a turn may start now. One that arrived before it and is still looked up is passed by fewer than run at once,
 * and it passes fewer of them: those that run at once may change places once more on their way to the model.
 */
function mayStart(state: TenantState, { arrival }: TurnPlace, limits: TierLimits): boolean {
  const executions = state.leases ? executionsOf(state, limits.executions) : limits.executions;
  if (state.running >= executions) return false;
  const older = state.arriving.filter((turn) => turn.arrival < arrival);
  return older.length < executions && older.every(({ passed }) => passed < executions - 1);
}

const tooManyWait = (queued: number): ErrorData =>
  refusal('OVERLOADED', {
    message: `${queued} turns of this tenant wait already, as many as its tier allows.`,
    retryAfterMs: 1_000,
  });

const dayUsedUp = (retryAfterMs: number): ErrorData => refusal('QUOTA_EXCEEDED', { retryAfterMs });

/** Turns that wait and arrived before this one. */
const aheadOf = (state: TenantState, { arrival }: TurnPlace): number =>
  items(state.waiting).filter((turn) => turn.arrival <= arrival).length;

/**
 * Starts a turn, or lets it wait. Those who wait start by arrival: what looked something up, or stood behind another
 * turn of its session, comes before what arrived after it.
 */
function requestSlot(state: TenantState, place: TurnPlace): TenantStep {
  const limits = state.tiers[state.tier];
  if (state.waiting.size === 0 && mayStart(state, place, limits)) return start(state, place, limits);
  const { sessionId, taskId, attempt, arrival } = place;
  const turn = { sessionId, taskId, attempt, arrival, ahead: -1 };
  const waiting = inserted(state.waiting, turn, (other) => other.arrival > arrival);
  const effects: TenantEffect[] = state.announcing ? [] : [{ type: 'announceLater', afterMs: ANNOUNCE_MS }];
  return [{ ...state, waiting, announcing: true }, effects];
}

const start = (
  state: TenantState,
  { sessionId, taskId, attempt, arrival }: TurnPlace,
  { weight }: TierLimits,
): TenantStep => [
  {
    ...(state.leases ? withExecutions(state, occupied) : state),
    running: state.running + 1,
    queued: state.queued - 1,
    arriving: state.arriving.some((turn) => turn.arrival < arrival)
      ? state.arriving.map((turn) => (turn.arrival < arrival ? { ...turn, passed: turn.passed + 1 } : turn))
      : state.arriving,
  },
  [{ type: 'requestSlot', sessionId, taskId, attempt, weight }],
];

/**
 * A turn that requested a slot and still waits here is taken out. One that has gone on to the scheduler will be
 * granted its slot, and its session then releases that: so each slot is released exactly once.
 */
function release(state: TenantState, { taskId, attempt, slot, refund }: Release): TenantStep {
  const back = refund ? refunded(state) : state;
  if (slot === 'none') return [{ ...back, queued: back.queued - 1 }, []];
  if (slot === 'requested') {
    const waiting = without(back.waiting, (turn) => turn.taskId === taskId && turn.attempt === attempt);
    return [{ ...back, waiting, queued: back.queued - (back.waiting.size - waiting.size) }, []];
  }
  const [next, effects] = startWaiting({
    ...(back.leases ? withExecutions(back, vacated) : back),
    running: back.running - 1,
  });
  return [next, [{ type: 'slotReleased' }, ...effects]];
}

const refunded = (state: TenantState): TenantState => ({
  ...(state.leases ? tokenBack(state) : state),
  minute: state.minute && { ...state.minute, tokens: state.minute.tokens + 1 },
  day: { ...state.day, used: Math.max(0, state.day.used - 1) },
});

/** Lets as many of those who wait run as the tier allows. */
function startWaiting(state: TenantState): TenantStep {
  const limits = state.tiers[state.tier];
  const effects: TenantEffect[] = [];
  let next = state;
  for (let first = shifted(next.waiting); first; first = shifted(next.waiting)) {
    if (!mayStart(next, first.item, limits)) break;
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
  const waiting = items(state.waiting).map((turn, index) => {
    const ahead = state.running + index;
    if (index >= ANNOUNCED || turn.ahead === ahead) return turn;
    const { sessionId, taskId, attempt } = turn;
    effects.push(tell(sessionId, { type: 'moved', taskId, attempt, ahead, atMs }));
    return { ...turn, ahead };
  });
  return [
    { ...state, waiting: waiting.reduce<TenantState['waiting']>(pushed, emptyFifo), announcing: true },
    effects,
  ];
}

/** What a tenant goes on with after it crashed over a message: an admission is refused, all else stays as it was. */
export const recoverTenant: Behaviour<TenantState, TenantMessage, TenantEffect> = (state, message) => {
  if (message.type === 'join')
    return [state, [tell(message.sessionId, { type: 'joined', tier: state.tier, fixed: state.fixed })]];
  // Nobody waits for an answer that could not be handled: what was given is said not to be held by the next question.
  if (message.type === 'leased') return decide(state, { ...message, answer: null });
  if (message.type !== 'requestAdmission') return [state, []];
  const { taskId, attempt, sessionId, atMs } = message;
  const error = refusal('INTERNAL');
  return [state, [tell(sessionId, { type: 'notAdmitted', taskId, attempt, error, atMs })]];
};
