/** Executions outside a chat: one run, the retries while a limit refuses it, and batches of them. */
import type { ErrorData, Reply } from '../domain/errors.ts';
import type { SessionId, TaskId, TenantId } from '../domain/ids.ts';
import type { Tier } from '../domain/tiers.ts';
import type { SayReply, TurnRecord, TurnRequest } from '../domain/turn.ts';
import type { BatchBody } from '../domain/turn-schemas.ts';

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
  close(): Promise<void>;
}

export interface RunOptions {
  /** Whether somebody wants to know the end. */
  readonly hear: boolean;
  /** What the last frame tells of the end is enough: nothing is read for it. */
  readonly brief?: boolean;
  /** Told when the execution has its turn. */
  readonly onStarted?: (() => void) | undefined;
  readonly callbackUrl?: string | undefined;
}

export type Accepted = Extract<SayReply, { ok: true }>['accepted'];

export interface StartedRun {
  readonly ok: true;
  readonly taskId: TaskId;
  /** Of a repeated request: the session of the first. */
  readonly sessionId: SessionId;
  readonly accepted: Accepted;
  /** Never rejects. Never settles where nobody wanted to hear. */
  readonly ended: Promise<Reply<TurnRecord>>;
}

export interface Runs {
  /** Begins an execution, or finds it under way or over where its task id was used before. */
  begin(
    request: TurnRequest,
    options: RunOptions,
  ): Promise<StartedRun | { readonly ok: false; readonly error: ErrorData }>;
  /** Stops listening: who waits for an end hears INTERRUPTED. The executions themselves are the directory's. */
  close(): void;
}

/** close(): nothing begins any more; what waits to begin is refused as INTERRUPTED. */
export interface Offers {
  /**
   * Begins an execution as soon as the tenant's limits let it: refused with OVERLOADED or RATE_LIMITED it is offered
   * again after `retry_after_ms`. Resolves to the last refusal where that takes too long, or `signal` is aborted.
   */
  begin(request: TurnRequest, options: RunOptions, signal?: AbortSignal): ReturnType<Runs['begin']>;
  close(): void;
}

/** One item, ready to be said. */
export interface ItemRequest {
  readonly request: TurnRequest;
  readonly callbackUrl: string | undefined;
}

/**
 * Order: items begin in the order given, `concurrency` at a time, and end as they may. Each is offered with patience
 * (offers.ts). Nothing survives the process. close(): no batch begins any more; its items are the offers' to end.
 */
export interface Batches {
  start(tenantId: TenantId, orders: readonly ItemRequest[], concurrency: number): Reply<BatchBody>;
  /** Undefined for the batches of other tenants too. */
  find(tenantId: TenantId, batchId: string): BatchBody | undefined;
  close(): void;
}

/** close(): callbacks that have not arrived are given up, batches begin nothing more; the turns are the directory's. */
export interface Executions {
  readonly runs: Runs;
  /** Begins runs with the patience that items of batches have. */
  readonly offers: Offers;
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
