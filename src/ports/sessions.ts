/** The sessions of a node as edges reach them: who asks, what is said, who watches, and the directory that finds them. */
import type { Close, Reply } from '../domain/errors.ts';
import type { Frame, PushedFrame } from '../domain/frames.ts';
import type { SessionId, TaskId, TenantId } from '../domain/ids.ts';
import type { Caller, CancelReply, SayReply, TurnRequest, TurnStanding } from '../domain/turn.ts';
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
  /** Whether it is sent `chat.reasoning`; absent: it is not. */
  readonly reasoning?: boolean;
  send(frame: Frame): void;
  close(close: Close): void;
}

/** Where a resuming client stopped. */
export interface ResumePoint {
  readonly lastSeq: number;
  readonly epoch: string | undefined;
  /** Who was told of no epoch wants the frames of this turn alone, where they are still there. */
  readonly taskId?: TaskId;
}

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
  turn(tenantId: TenantId, taskId: TaskId): Promise<Reply<TurnStanding>>;
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
