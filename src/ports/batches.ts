/** What of executions outlives its node: batches, and the callbacks that are to come. */
import type { ErrorData } from '../domain/errors.ts';
import type { SessionId, TaskId, TenantId } from '../domain/ids.ts';
import type { TurnRecord, TurnRequest } from '../domain/turn.ts';

/** One item of a batch, ready to be said. */
export interface ItemRequest {
  readonly request: TurnRequest;
  readonly callbackUrl: string | undefined;
}

export interface StoredItem {
  readonly taskId: TaskId;
  readonly sessionId: SessionId;
  /** Why it has no turn. */
  readonly error?: ErrorData | undefined;
}

export interface StoredBatch {
  readonly id: string;
  readonly tenantId: TenantId;
  readonly concurrency: number;
  readonly items: readonly StoredItem[];
  /** All of its items have ended. */
  readonly isOver: boolean;
}

/** A batch that its node has left behind, with what its items ask for and the turns that there are. */
export interface LeftBatch extends StoredBatch {
  readonly requests: readonly ItemRequest[];
  readonly turns: readonly TurnRecord[];
}

/**
 * Batches by their tenants. One that is not over is its node's for as long as that claims it; afterwards whoever asks
 * first has it. Times are the database's where several nodes share it. Any method may reject.
 */
export interface BatchStore {
  /** Stores a batch with its requests, claimed for so long; false where the tenant has `most` that are not over. */
  add(
    batch: Omit<StoredBatch, 'isOver'>,
    requests: readonly ItemRequest[],
    most: number,
    termMs: number,
  ): Promise<boolean>;
  /** With the turns of its items; null: there is none of that id, or it is another tenant's. */
  find(
    tenantId: TenantId,
    batchId: string,
  ): Promise<{ readonly batch: StoredBatch; readonly turns: readonly TurnRecord[] } | null>;
  /** Claims batches that nobody claims. */
  claim(limit: number, termMs: number): Promise<readonly LeftBatch[]>;
  /** Claims those anew; with 0 they are free at once. */
  renew(batches: readonly Pick<StoredBatch, 'tenantId' | 'id'>[], termMs: number): Promise<void>;
  /** Stores the errors of items, and that it is over: then its requests are forgotten. */
  save(batch: StoredBatch): Promise<void>;
  /** At the start of a node that has its database to itself: no claim of an earlier process holds. */
  free(): Promise<void>;
  /** Deletes those that are over and were made before. Resolves to how many. */
  expire(beforeMs: number): Promise<number>;
}

/** That the end of a turn is to be posted to an address. */
export interface StoredCallback {
  readonly tenantId: TenantId;
  readonly taskId: TaskId;
  readonly url: string;
  /** The batch whose item the turn is: before that is over only its node calls back for the first time. */
  readonly batchId?: string | undefined;
  /** That were made. */
  readonly attempts: number;
}

/**
 * Callbacks that are to come: written before the turn is said, deleted once they have arrived or are given up. Claimed as
 * batches are. Any method may reject.
 */
export interface CallbackStore {
  /** One that is there already is claimed anew. */
  add(callback: Omit<StoredCallback, 'attempts'>, termMs: number): Promise<void>;
  /**
   * Claims due callbacks whose turns have ended. Those of turns that go on are looked at again after the term; those that
   * have had no turn for an hour are deleted.
   */
  claim(
    limit: number,
    termMs: number,
  ): Promise<readonly { readonly callback: StoredCallback; readonly turn: TurnRecord }[]>;
  /** Due again after so long, with its attempts. */
  put(callback: StoredCallback, afterMs: number): Promise<void>;
  remove(callback: Omit<StoredCallback, 'attempts'>): Promise<void>;
  /** As BatchStore's. */
  free(): Promise<void>;
}
