/**
 * What a tenant has leased of the limits that it shares with itself on other nodes, who waits for a token, and when it
 * asks. Pure. Nobody in the mailbox waits for an answer: the question is an effect, its answer a message.
 */
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import { emptyFifo, items, pushed } from '../../src/domain/fifo.ts';
import {
  answeredLease,
  askFor,
  capacityOf,
  giveBack,
  heldOf,
  LEASE_KEEP_MS,
  type Lease,
  type LeaseQuestion,
  type LeaseTerms,
  lookedAt,
  NO_LEASE,
  slotTerms,
  surplusOf,
  tokenTerms,
  unspent,
} from '../../src/domain/leases.ts';
import type { Tier, TierTable } from '../../src/domain/tiers.ts';
import type {
  LeaseDue,
  Leased,
  RequestAdmission,
  TenantEffect,
  TenantLeases,
  TenantState,
} from './protocol.ts';

export const MINUTE_MS = 60_000;
/** Who waits for a slot that other nodes hold asks again after this long. */
const ASK_AGAIN_MS = 250;
/** Requests that wait for a token. */
const MAX_PENDING = 10_000;

type TenantStep = readonly [TenantState, readonly TenantEffect[]];

/** Nothing is leased yet; `tiers`: the limits over all nodes. */
export const newLeases = (tiers: TierTable): TenantLeases => ({
  tiers,
  minute: NO_LEASE,
  executions: NO_LEASE,
  pending: emptyFifo,
  paused: false,
  looking: false,
});

/** Null: the tier has no such limit. */
function minuteTerms({ tiers }: TenantLeases, tier: Tier): LeaseTerms | null {
  const { requests_per_minute: most } = tiers[tier];
  return most === null ? null : tokenTerms(most, MINUTE_MS);
}

/** Of tokens that are left from a tier that had a limit: they go back. */
const UNLIMITED: LeaseTerms = { most: 1_000_000, perMs: 0, chunk: 1, keeps: false };

const executionTerms = ({ tiers }: TenantLeases, tier: Tier): LeaseTerms => slotTerms(tiers[tier].executions);

/** How many of a tenant's turns may run on this node, which allows so many. */
export const executionsOf = ({ leases }: TenantState, onNode: number): number =>
  leases ? Math.min(onNode, capacityOf(leases.executions)) : onNode;

/** Whether a request has to wait for a token; behind those that wait it always does. */
export const awaitsToken = ({ leases, tier }: TenantState): boolean =>
  leases !== null &&
  minuteTerms(leases, tier) !== null &&
  (leases.pending.size > 0 || leases.minute.free < 1);

/** It waits behind those that wait already, and keeps its place among those that arrive. */
export function waitForToken(state: TenantState, message: RequestAdmission): TenantStep {
  const { leases } = state;
  if (!leases || leases.pending.size >= MAX_PENDING)
    return [state, [notAdmitted(message, refusal('OVERLOADED', { retryAfterMs: 1_000 }), message.atMs)]];
  const pending = pushed<RequestAdmission>(leases.pending, message);
  return [{ ...state, leases: { ...leases, pending } }, []];
}

const notAdmitted = (
  { sessionId, taskId, attempt }: RequestAdmission,
  error: ErrorData,
  atMs: number,
): TenantEffect => ({
  type: 'tellSession',
  sessionId,
  message: { type: 'notAdmitted', taskId, attempt, error, atMs },
});

export const minuteUsedUp = (retryAfterMs: number): ErrorData =>
  refusal('RATE_LIMITED', { message: "The tenant's requests of this minute are used up.", retryAfterMs });

export const withExecutions = (state: TenantState, change: (lease: Lease) => Lease): TenantState =>
  state.leases
    ? { ...state, leases: { ...state.leases, executions: change(state.leases.executions) } }
    : state;

/** A request did not become a turn: its token is there again. */
export function tokenBack(state: TenantState): TenantState {
  const { leases, tier } = state;
  if (!leases || !minuteTerms(leases, tier)) return state;
  return { ...state, leases: { ...leases, minute: unspent(leases.minute) } };
}

/**
 * An answer has come. Who waited for a token is taken in by `takeIn`, is told why not, or waits for the next question where
 * more came than were asked for.
 */
export function takeAnswer(
  state: TenantState,
  { kind, answer, atMs }: Leased,
  takeIn: (state: TenantState, message: RequestAdmission) => TenantStep,
): TenantStep {
  const { leases } = state;
  if (!leases) return [state, []];
  const lease = answeredLease(leases[kind], answer);
  const isShort = !answer || answer.retryAfterMs !== null;
  if (kind === 'executions') {
    const paused = isShort || leases.paused;
    return [{ ...state, leases: { ...leases, executions: lease, paused } }, isShort ? [askAgain] : []];
  }
  const error = answer ? minuteUsedUp(answer.retryAfterMs ?? 0) : storeAway();
  let next: TenantState = { ...state, leases: { ...leases, minute: lease, pending: emptyFifo } };
  const effects: TenantEffect[] = [];
  for (const message of items(leases.pending)) {
    if (!awaitsToken(next)) {
      const [taken, more] = takeIn(next, message);
      next = taken;
      effects.push(...more);
    } else if (isShort) effects.push(notAdmitted(message, error, atMs));
    else next = waitForToken(next, message)[0];
  }
  return [next, effects];
}

const storeAway = (): ErrorData => refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 });

const askAgain: TenantEffect = { type: 'leaseLater', what: 'again', afterMs: ASK_AGAIN_MS };

/** The time has come to ask again, or to look what was not used. */
export function takeDue(state: TenantState, { what }: LeaseDue): TenantStep {
  const { leases, tier } = state;
  if (!leases) return [state, []];
  if (what === 'again') return [{ ...state, leases: { ...leases, paused: false } }, []];
  const [minute, ofMinute] = lookedAt(leases.minute, minuteTerms(leases, tier) ?? UNLIMITED);
  const [executions, ofExecutions] = lookedAt(leases.executions, executionTerms(leases, tier));
  return [
    { ...state, leases: { ...leases, minute, executions, looking: false } },
    [...asked('minute', ofMinute), ...asked('executions', ofExecutions)],
  ];
}

const asked = (kind: Leased['kind'], question: LeaseQuestion | null): readonly TenantEffect[] =>
  question ? [{ type: 'askLease', kind, question }] : [];

/** After each message: what is lacking is asked for, and what is too much goes back. */
export function thenLease(step: TenantStep): TenantStep {
  const [state, effects] = step;
  const { leases } = state;
  if (!leases || state.stash) return step;
  const [minute, ofMinute] = minuteNeeds(leases, state.tier);
  const [executions, ofExecutions, paused] = executionNeeds(state, leases);
  const isHeld = heldOf(minute) + heldOf(executions) > 0;
  const more: TenantEffect[] = [...asked('minute', ofMinute), ...asked('executions', ofExecutions)];
  if (paused && !leases.paused) more.push(askAgain);
  if (isHeld && !leases.looking) more.push({ type: 'leaseLater', what: 'look', afterMs: LEASE_KEEP_MS });
  if (more.length === 0) return step;
  const next = { ...leases, minute, executions, paused, looking: leases.looking || isHeld };
  return [{ ...state, leases: next }, [...effects, ...more]];
}

function minuteNeeds(leases: TenantLeases, tier: Tier): readonly [Lease, LeaseQuestion | null] {
  const terms = minuteTerms(leases, tier);
  const { minute, pending } = leases;
  if (!terms) return [minute, null];
  if (pending.size > 0) return askFor(minute, terms, pending.size);
  return terms.keeps ? [minute, null] : giveBack(minute, terms, minute.free);
}

function executionNeeds(
  state: TenantState,
  leases: TenantLeases,
): readonly [Lease, LeaseQuestion | null, boolean] {
  const { executions, pending, paused } = leases;
  const terms = executionTerms(leases, state.tier);
  const surplus = surplusOf(executions);
  if (surplus > 0) {
    const [lease, question] = giveBack(executions, terms, surplus);
    return [lease, question, paused || question !== null];
  }
  const needed = state.waiting.size + pending.size;
  const room = state.tiers[state.tier].executions - heldOf(executions);
  if (needed > 0) {
    if (executions.free > 0 || paused || room <= 0) return [executions, null, paused];
    return [...askFor(executions, terms, Math.min(needed, room)), paused];
  }
  return terms.keeps ? [executions, null, paused] : [...giveBack(executions, terms, executions.free), paused];
}

/** What a tenant says when it stops: all that it held goes back. */
export function lastQuestions({ leases, tier }: TenantState): readonly AskLease[] {
  if (!leases) return [];
  const { minute, executions } = leases;
  const ofMinute = minuteTerms(leases, tier) ?? UNLIMITED;
  const ofExecutions = executionTerms(leases, tier);
  const last = ({ most, perMs }: LeaseTerms, back: number) => ({
    most,
    perMs,
    held: 0,
    back,
    want: 0,
    spends: 0,
  });
  const all: AskLease[] = [];
  if (heldOf(minute) > 0 || minute.asking)
    all.push({ type: 'askLease', kind: 'minute', question: last(ofMinute, minute.free) });
  if (heldOf(executions) > 0 || executions.asking)
    all.push({ type: 'askLease', kind: 'executions', question: last(ofExecutions, 0) });
  return all;
}

type AskLease = Extract<TenantEffect, { type: 'askLease' }>;
