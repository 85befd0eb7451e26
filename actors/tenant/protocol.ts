/** What a tenant knows, is told, answers, and decides: plain data. */

import type { ErrorData } from '../../src/domain/errors.ts';
import { emptyFifo, type Fifo } from '../../src/domain/fifo.ts';
import type { SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import type { Lease, LeaseAnswer, LeaseQuestion } from '../../src/domain/leases.ts';
import type { Bucket, DayCount } from '../../src/domain/rate-limit.ts';
import type { Tier, TierTable } from '../../src/domain/tiers.ts';
import type { TenantRecord } from '../../src/ports/store.ts';

/** What a turn has of the tenant's capacity to run. */
export type Slot = 'none' | 'requested' | 'granted';

/**
 * One try of a turn to be admitted. `attempt` tells it from an earlier turn of the same task id that was refused:
 * answers to that one may still be on their way, and are not for this one.
 */
interface TurnAttempt {
  readonly taskId: TaskId;
  readonly attempt: number;
}

/** A turn's place: among the tenant's turns it runs in the order of `arrival`, from whichever session it comes. */
export interface TurnPlace extends TurnAttempt {
  readonly sessionId: SessionId;
  readonly arrival: number;
}

/** A turn that waits until one of the tenant's executions has ended. */
interface WaitingTurn extends TurnPlace {
  /** Turns ahead, as its session was last told. */
  readonly ahead: number;
}

/** A turn that was heard of and has not asked to be admitted yet: its session or its agent is being looked up. */
interface ArrivingTurn {
  readonly arrival: number;
  /** Turns that arrived later and have started all the same. */
  readonly passed: number;
}

export interface TenantState {
  readonly tenantId: TenantId;
  readonly tiers: TierTable;
  readonly tier: Tier;
  /** The tier was set by an operator: what requests name does not count. */
  readonly fixed: boolean;
  /** Messages that came before the tenant's record was there; null once it is. */
  readonly stash: Fifo<TenantMessage> | null;
  /** The record has been asked for. */
  readonly loading: boolean;
  readonly minute: Bucket | null;
  readonly day: DayCount;
  /** Turns that hold one of the tier's executions. */
  readonly running: number;
  /** Turns that were admitted and do not run yet, wherever they wait. */
  readonly queued: number;
  /** By arrival. */
  readonly arriving: readonly ArrivingTurn[];
  /** Turns that requested a slot, by arrival. */
  readonly waiting: Fifo<WaitingTurn>;
  /** The next look at the positions of those who wait is under way. */
  readonly announcing: boolean;
  /** What is leased of the limits that hold over all nodes; null: the node has its tenants to itself. */
  readonly leases: TenantLeases | null;
  /** The store said that the day has counted `most` requests; null: it has not. */
  readonly spent: { readonly day: string; readonly most: number; readonly atMs: number } | null;
}

export interface TenantLeases {
  /** The limits over all nodes. */
  readonly tiers: TierTable;
  /** Tokens: requests of the minute. */
  readonly minute: Lease;
  /** Slots: turns that run at once. */
  readonly executions: Lease;
  /** Requests that wait for a token. */
  readonly pending: Fifo<RequestAdmission>;
  /** Other nodes hold what is wanted: it is asked for again after a while. */
  readonly paused: boolean;
  /** The next look at what was not used is under way. */
  readonly looking: boolean;
}

/** A session asks which tier it is in. */
interface Join {
  readonly type: 'join';
  readonly sessionId: SessionId;
  readonly tier: Tier | undefined;
  readonly atMs: number;
}

/** A turn was heard of. It asks to be admitted, or departs. */
interface Arrived {
  readonly type: 'arrived' | 'departed';
  readonly arrival: number;
}

/** A turn asks to be counted and let in. `slot: 'requested'`: it wants to run as soon as it is in. */
export interface RequestAdmission extends TurnPlace {
  readonly type: 'requestAdmission';
  readonly slot: Exclude<Slot, 'granted'>;
  readonly tier: Tier | undefined;
  readonly atMs: number;
}

/** An admitted turn is the first of its session and wants to run. */
interface RequestSlot extends TurnPlace {
  readonly type: 'requestSlot';
}

/** A turn gives back its admission and the slot it had or had requested. `refund`: it does not count as a request. */
export interface Release extends TurnAttempt {
  readonly type: 'release';
  readonly slot: Slot;
  readonly refund: boolean;
}

/** What became of a question; null: the database does not say. */
export interface Leased {
  readonly type: 'leased';
  readonly kind: 'minute' | 'executions';
  readonly answer: LeaseAnswer | null;
  readonly atMs: number;
}

/** Slots may be asked for again, or it is looked what was not used. */
export interface LeaseDue {
  readonly type: 'leaseDue';
  readonly what: 'again' | 'look';
}

export type TenantMessage =
  | Leased
  | LeaseDue
  /** The store refused a turn, since its day has counted as many as it may. */
  | { readonly type: 'daySpent'; readonly day: string; readonly most: number; readonly atMs: number }
  | Arrived
  | Join
  | RequestAdmission
  | RequestSlot
  | Release
  | { readonly type: 'loaded'; readonly record: TenantRecord | null }
  | { readonly type: 'loadFailed'; readonly atMs: number }
  | { readonly type: 'tierSet'; readonly tier: Tier }
  | { readonly type: 'announce'; readonly atMs: number }
  | { readonly type: 'idle' };

export interface Admitted extends TurnAttempt {
  readonly type: 'admitted';
  readonly tier: Tier;
  /** What the request asked for. */
  readonly slot: Exclude<Slot, 'granted'>;
  /** The tenant's turns before it. */
  readonly ahead: number;
  readonly atMs: number;
}

interface NotAdmitted extends TurnAttempt {
  readonly type: 'notAdmitted';
  readonly error: ErrorData;
  readonly atMs: number;
}

export interface SlotGranted extends TurnAttempt {
  readonly type: 'slotGranted';
  readonly atMs: number;
}

/** Turns before it have ended. */
interface Moved extends TurnAttempt {
  readonly type: 'moved';
  readonly ahead: number;
  readonly atMs: number;
}

/** What a tenant answers its sessions. */
export type TenantAnswer =
  | { readonly type: 'joined'; readonly tier: Tier; readonly fixed: boolean }
  | { readonly type: 'loadFailed'; readonly atMs: number }
  | Admitted
  | NotAdmitted
  | SlotGranted
  | Moved;

export type TenantEffect =
  | { readonly type: 'loadTenant' }
  | { readonly type: 'tellSession'; readonly sessionId: SessionId; readonly message: TenantAnswer }
  | { readonly type: 'tellAllSessions'; readonly message: TenantAnswer }
  /** Asks the scheduler for one of the node's executions. */
  | ({ readonly type: 'requestSlot'; readonly weight: number } & Omit<TurnPlace, 'arrival'>)
  /** Gives one back to the scheduler. */
  | { readonly type: 'slotReleased' }
  | { readonly type: 'announceLater'; readonly afterMs: number }
  | { readonly type: 'askLease'; readonly kind: Leased['kind']; readonly question: LeaseQuestion }
  | { readonly type: 'leaseLater'; readonly what: LeaseDue['what']; readonly afterMs: number }
  | { readonly type: 'leaveNode' };

/** `minute` is what is left of its rate from when it was here last; `leases` where its limits hold over several nodes. */
export const newTenant = (
  tenantId: TenantId,
  tier: Tier,
  tiers: TierTable,
  minute: Bucket | null = null,
  leases: TenantLeases | null = null,
): TenantState => ({
  tenantId,
  tiers,
  tier,
  fixed: false,
  stash: emptyFifo,
  loading: false,
  minute,
  day: { day: '', used: 0 },
  running: 0,
  queued: 0,
  arriving: [],
  waiting: emptyFifo,
  announcing: false,
  leases,
  spent: null,
});

/** Whether a message gives a turn a place or a slot: where no turn takes that, it is released (`releaseOf`). */
export const isGrant = (message: { readonly type: string }): message is Admitted | SlotGranted =>
  message.type === 'admitted' || message.type === 'slotGranted';

export const releaseOf = (grant: Admitted | SlotGranted): Release => ({
  type: 'release',
  taskId: grant.taskId,
  attempt: grant.attempt,
  slot: grant.type === 'admitted' ? grant.slot : 'granted',
  refund: grant.type === 'admitted',
});
