/** Executions outside a chat: one run, started at once or with patience while a limit refuses it, and batches of them. */
import type { ErrorData, Reply } from '../domain/errors.ts';
import type { SessionId, TaskId, TenantId } from '../domain/ids.ts';
import type { Tier } from '../domain/tiers.ts';
import type { TurnRecord, TurnRequest } from '../domain/turn.ts';
import type { BatchBody } from '../domain/turn-schemas.ts';
import type { ItemRequest, StoredCallback } from './batches.ts';
import type { DeliveryStats } from './telemetry.ts';
import type { Accepted } from './turn-observer.ts';

/** A place for one callback. It ends with the first call. */
export interface CallbackPlace {
  /** Sends the JSON text, again where it fails. */
  send(body: string): void;
  /** There is nothing to call back about. */
  release(): void;
  /** This node does not hear of the end: whoever comes next looks how the turn ended. */
  leave(): void;
}

/**
 * Posts JSON unsigned (a request has no secret), under the rules that webhooks have. Delivery: at least once, up to five
 * attempts; a callback is stored before its turn is said, and outlives its node. Order: none. close(): what has not arrived is
 * left to the next node.
 */
export interface Callbacks {
  /** Why the address will not do, or null. */
  problem(url: string): string | null;
  /**
   * Stores that a turn, said next, is to be called back about; rejects where that can not be stored. 'same': the task has a
   * callback to this address in hand, which will tell it. 'full': too many are held.
   */
  reserve(callback: Omit<StoredCallback, 'attempts'>): Promise<CallbackPlace | 'same' | 'full'>;
  /** Begins to take up what other nodes, or an earlier process, left. */
  start(): void;
  /** Callbacks that are not over, those of executions that run included; not those that wait for another attempt. */
  sending(): number;
  /** Waiting are those whose result is there: for an attempt, the first or another. */
  stats(): DeliveryStats;
  close(): Promise<void>;
}

export interface RunOptions {
  /**
   * How its end is awaited. 'none': not at all. 'frame': what the terminal frame tells is enough, and no record is read
   * for it. 'record': the stored record, which tells more.
   */
  readonly awaitEnd: 'none' | 'frame' | 'record';
  /** Called when the execution has its slot. Never where the end is not awaited. */
  readonly onStarted?: (() => void) | undefined;
  readonly callbackUrl?: string | undefined;
  /** The batch whose item it is. */
  readonly batchId?: string | undefined;
}

export interface StartedRun {
  readonly ok: true;
  readonly taskId: TaskId;
  /** Of a repeated request: the session of the first. */
  readonly sessionId: SessionId;
  readonly accepted: Accepted;
  /** As SayReply's. */
  readonly replying?: true;
  /** Never rejects: an end that is not known is a refusal. Never settles where it is not awaited. */
  readonly ended: Promise<Reply<TurnRecord>>;
}

export type StartReply = StartedRun | { readonly ok: false; readonly error: ErrorData };

/**
 * Order: items start in the order given, `concurrency` at a time, and end as they may. Each is started with retry. A batch is
 * stored with what its items ask for before it is accepted; what its node leaves, another, or the next process, goes on with.
 * close(): no item starts any more; what has not ended is left to them.
 */
export interface Batches {
  start(tenantId: TenantId, requests: readonly ItemRequest[], concurrency: number): Promise<Reply<BatchBody>>;
  /** NOT_FOUND for the batches of other tenants too. */
  find(tenantId: TenantId, batchId: string): Promise<Reply<BatchBody>>;
  /** Begins to take up what other nodes, or an earlier process, left. */
  takeUp(): void;
  close(): Promise<void>;
}

/**
 * close(): whoever awaits an end, or waits for a retry, is answered INTERRUPTED; batches start nothing more; callbacks
 * that have not arrived are left to the next node. The turns themselves are the directory's.
 */
export interface Executions {
  /** Starts an execution, or finds it under way or over where its task id was used before. Rejects as Directory.say. */
  start(request: TurnRequest, options: RunOptions): Promise<StartReply>;
  /**
   * Starts an execution as soon as the tenant's limits let it: refused with OVERLOADED or RATE_LIMITED it is tried again
   * after `retry_after_ms`. Resolves to the last refusal where that takes too long, or `signal` is aborted. Never
   * rejects.
   */
  startWithRetry(request: TurnRequest, options: RunOptions, signal?: AbortSignal): Promise<StartReply>;
  readonly batches: Batches;
  /** How many executions the tenant may have at once. Rejects where the store does not answer. */
  readonly atOnce: (tenantId: TenantId, named: Tier | undefined) => Promise<number>;
  /** Why results can not be sent to this address, or null. */
  readonly callbackProblem: (url: string) => string | null;
  /** A session of its own for one execution. */
  readonly newSessionId: () => SessionId;
  /** Callbacks to come or on their way, without those that wait for another attempt. */
  readonly sending: () => number;
  /** Begins to take up batches and callbacks that were left. */
  takeUp(): void;
  close(): Promise<void>;
}
