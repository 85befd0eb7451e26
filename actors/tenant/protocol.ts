/** What a tenant knows, is told, and may decide to have done: plain data. */
import { emptyFifo, type Fifo } from '../../src/domain/fifo.ts';
import type { SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import type { Bucket, DayCount } from '../../src/domain/rate-limit.ts';
import type { Tier, TierTable } from '../../src/domain/tiers.ts';
import type { TenantRecord } from '../../src/ports/store.ts';
import type { SessionMessage, Slot } from '../session/protocol.ts';

/** A turn that waits until one of the tenant's executions has ended. */
export interface WaitingTurn {
  readonly sessionId: SessionId;
  readonly taskId: TaskId;
  readonly attempt: number;
  /** Turns ahead, as its session was last told. */
  readonly ahead: number;
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
  /** Turns that were counted and do not run yet, wherever they wait. */
  readonly queued: number;
  readonly waiting: Fifo<WaitingTurn>;
  /** The next look at the positions of those who wait is under way. */
  readonly announcing: boolean;
}

export type TenantMessage =
  | { readonly type: 'loaded'; readonly record: TenantRecord | null }
  | { readonly type: 'loadFailed'; readonly atMs: number }
  | {
      readonly type: 'enter';
      readonly sessionId: SessionId;
      readonly tier: Tier | undefined;
      readonly atMs: number;
    }
  | {
      readonly type: 'claim';
      readonly sessionId: SessionId;
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly slot: Slot;
      readonly tier: Tier | undefined;
      readonly atMs: number;
    }
  | {
      readonly type: 'acquire';
      readonly sessionId: SessionId;
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly atMs: number;
    }
  | {
      readonly type: 'release';
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly slot: Slot;
      readonly refund: boolean;
    }
  | { readonly type: 'tierSet'; readonly tier: Tier }
  | { readonly type: 'announce'; readonly atMs: number }
  | { readonly type: 'idle' };

export type TenantEffect =
  | { readonly type: 'loadTenant' }
  | { readonly type: 'tellSession'; readonly sessionId: SessionId; readonly message: SessionMessage }
  | { readonly type: 'tellAllSessions'; readonly message: SessionMessage }
  /** Asks the node for one of its executions. */
  | {
      readonly type: 'want';
      readonly sessionId: SessionId;
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly weight: number;
    }
  /** Gives one back. */
  | { readonly type: 'done' }
  | { readonly type: 'announceLater'; readonly afterMs: number }
  | { readonly type: 'leaveNode' };

/** `minute` is what it had left of its rate when it was here last. */
export const newTenant = (
  tenantId: TenantId,
  tier: Tier,
  tiers: TierTable,
  minute: Bucket | null = null,
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
  waiting: emptyFifo,
  announcing: false,
});
