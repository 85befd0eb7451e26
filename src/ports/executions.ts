/** Executions outside a chat: one run, started at once or with patience while a limit refuses it, and batches of them. */
import type { ErrorData, Reply } from '../domain/errors.ts';
import type { SessionId, TaskId, TenantId } from '../domain/ids.ts';
import type { Tier } from '../domain/tiers.ts';
import type { TurnRecord, TurnRequest } from '../domain/turn.ts';
import type { BatchBody } from '../domain/turn-schemas.ts';
import type { DeliveryStats } from './telemetry.ts';
import type { Accepted } from './turn-observer.ts';

/** A place for one callback. It ends with `send` or `release`, whichever is called first. */
export interface CallbackPlace {
  /** Sends the JSON text, again where it fails. */
  send(body: string): void;
  release(): void;
}

/**
 * Posts JSON unsigned (a request has no secret), under the rules that webhooks have. Delivery: at least once while the
 * process lives, up to five attempts; nothing is kept on disk. Order: none. close(): what has not arrived is given up.
 */
export interface Callbacks {
  /** Why the address will not do, or null. */
  problem(url: string): string | null;
  /** 'same': the task has a callback to this address already, which will tell it. 'full': too many are held. */
  reserve(tenantId: TenantId, taskId: TaskId, url: string): CallbackPlace | 'same' | 'full';
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

/** One item of a batch, ready to be said. */
export interface ItemRequest {
  readonly request: TurnRequest;
  readonly callbackUrl: string | undefined;
}

/**
 * Order: items start in the order given, `concurrency` at a time, and end as they may. Each is started with retry.
 * Nothing survives the process. close(): no batch starts any more; its items end as their runs do.
 */
export interface Batches {
  start(tenantId: TenantId, requests: readonly ItemRequest[], concurrency: number): Reply<BatchBody>;
  /** Undefined for the batches of other tenants too. */
  find(tenantId: TenantId, batchId: string): BatchBody | undefined;
  close(): void;
}

/**
 * close(): whoever awaits an end, or waits for a retry, is answered INTERRUPTED; batches start nothing more; callbacks
 * that have not arrived are given up. The turns themselves are the directory's.
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
  close(): Promise<void>;
}
