/** The sessions of a node as edges reach them: who asks, what is said, who watches, and the directory that finds them. */
import type { TurnRecord } from '../domain/conversation.ts';
import type { Close, ErrorData, Reply } from '../domain/errors.ts';
import type { Overrides } from '../domain/execution-params.ts';
import type { EventData, Frame, OnBusy, PushedFrame } from '../domain/frames.ts';
import type { AgentId, SessionId, TaskId, TenantId, UserId } from '../domain/ids.ts';
import type { Tier } from '../domain/tiers.ts';
import type { MessagePage, PageRequest } from './store.ts';
import type { NodeStats } from './telemetry.ts';

/**
 * One attached observer of a session: a WebSocket, or the SSE stream of a turn.
 * Order: frames come in the order of their `seq`. Nothing is written inside `send`: the edge gathers what one
 * loop turn brings into one write. `send` after `close` does nothing.
 */
export interface Client {
  /** Unique in this process. */
  readonly id: string;
  /** How long deltas may be held back to travel together, in ms; 0 asks for every one. */
  readonly deltaWindowMs: number;
  send(frame: Frame): void;
  close(close: Close): void;
}

/** Where a resuming client stopped. */
export interface ResumePoint {
  readonly lastSeq: number;
  readonly epoch: string | undefined;
}

/** Who is asking, as the access check found out. `tier` is undefined where nothing but the tenant's record names it. */
export interface Caller {
  readonly tenantId: TenantId;
  readonly tier: Tier | undefined;
  readonly userId: UserId | undefined;
}

export interface TurnRequest {
  readonly caller: Caller;
  readonly sessionId: SessionId;
  readonly taskId: TaskId;
  /** True where the client chose `taskId`: only then can it be a resend. */
  readonly taskIdGiven: boolean;
  readonly agentId: AgentId | undefined;
  /** Pins a version of the agent; absent: the newest when the turn starts. */
  readonly agentVersion?: number | undefined;
  readonly message: string;
  readonly context: Readonly<Record<string, unknown>> | undefined;
  readonly stream: boolean;
  readonly onBusy: OnBusy;
  readonly requestId: string | undefined;
  readonly overrides?: Overrides;
  /**
   * A turn of this id that a stopped process left behind runs anew, where it may (Write `again`): the model is asked
   * only once the store has said so. A node that drains leaves such a turn behind too, when its time is up.
   */
  readonly again?: true;
  /** The session is for this turn alone: it begins without history, and leaves memory when the turn has ended. */
  readonly ownSession?: true;
}

export type SayReply =
  | { readonly ok: true; readonly taskId: TaskId; readonly accepted: EventData['chat.accepted'] }
  | { readonly ok: false; readonly taskId: TaskId; readonly error: ErrorData };

export type CancelReply =
  | {
      readonly ok: true;
      readonly taskId: TaskId;
      readonly status: TurnRecord['status'];
      readonly abortMs: number;
    }
  | { readonly ok: false; readonly taskId: TaskId; readonly error: ErrorData };

/**
 * Finds the actor that owns a tenant's session, wherever it lives, and speaks to it.
 * Delivery: a call is answered exactly once, or refused with a code; a mailbox that is full refuses with OVERLOADED.
 * Order: calls of one edge to one session are handled in the order they were made.
 * drain(): no new turns; resolves when running turns have ended or were cancelled after `graceMs`.
 */
export interface Directory {
  /** Attaches a client; it is sent `session.ready`, then what it missed. Refused: it is sent `error` and closed. */
  attach(caller: Caller, sessionId: SessionId, client: Client, resume: ResumePoint | undefined): void;
  detach(tenantId: TenantId, sessionId: SessionId, clientId: string): void;
  /** `observer`, where given, is attached before the turn's first frame and must detach itself. */
  say(request: TurnRequest, observer?: Client): Promise<SayReply>;
  cancel(tenantId: TenantId, taskId: TaskId): Promise<CancelReply>;
  /** A turn, live or stored; NOT_FOUND for those of other tenants too. */
  turn(tenantId: TenantId, taskId: TaskId): Promise<Reply<TurnRecord>>;
  messages(tenantId: TenantId, sessionId: SessionId, page: PageRequest): Promise<Reply<MessagePage>>;
  /**
   * Sends a frame, unnumbered and at most once, to the clients of some of a tenant's sessions, or of all that live.
   * Returns how many sessions that were.
   */
  push(tenantId: TenantId, sessions: readonly SessionId[] | undefined, frame: PushedFrame): number;
  /** Cancels what runs, closes its clients, and deletes what is stored. */
  forget(tenantId: TenantId, sessionId: SessionId): Promise<Reply<null>>;
  stats(): NodeStats;
}
