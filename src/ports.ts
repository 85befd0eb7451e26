/**
 * What the parts of a node ask of each other: each port says what it delivers, in which order, and how it closes.
 * Over 300 lines: the one page on which all ports of the runtime stand.
 */
import type { ActionLog, Outgoing } from './action-ports.ts';
import type { AgentConfig } from './domain/agent.ts';
import type { Message, TurnRecord } from './domain/conversation.ts';
import type { Close, ErrorData } from './domain/errors.ts';
import type { EventData, ExecutionInfo, Frame, OnBusy, TurnEvent } from './domain/frames.ts';
import type { AgentId, SessionId, TaskId, TenantId, UserId } from './domain/ids.ts';
import type { Tier, TierLimits } from './domain/tiers.ts';

// --- Clients -------------------------------------------------------------------------------------------------

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

/** A frame that belongs to no turn's events. */
export interface PushedFrame {
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly taskId?: string;
}

/** Where a resuming client stopped. */
export interface ResumePoint {
  readonly lastSeq: number;
  readonly epoch: string | undefined;
}

// --- Directory: how the edges reach actors ---------------------------------------------------------------------

/** Who is asking, as the access check found out. `tier` is undefined where nothing but the tenant's record names it. */
export interface Caller {
  readonly tenantId: TenantId;
  readonly tier: Tier | undefined;
  readonly userId: UserId | undefined;
}

export interface SayRequest {
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

/** What a request asks of its own run, under the limits of tier, node and agent: it can only lower them. */
export interface Overrides {
  /** Takes away the tools that are false here; true adds none. */
  readonly tools?: Readonly<Record<string, boolean>>;
  readonly maxIterations?: number;
  readonly maxTimeMs?: number;
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

export type Reply<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: ErrorData };

export interface MessagePage {
  readonly messages: readonly Message[];
  readonly hasMore: boolean;
  /** Turns that a stopped process left unfinished and that no client has been told of (`turn-told`). */
  readonly interrupted?: readonly TurnRecord[];
}

export interface NodeStats {
  readonly tenants: number;
  readonly sessions: number;
  readonly draining: boolean;
  /** Turns, by the tier of their tenant. */
  readonly turns: Readonly<Record<Tier, { readonly running: number; readonly queued: number }>>;
  readonly actors: readonly ActorKindStats[];
  readonly agents?: AgentStats;
}

/** What the actors of one kind have done since the start. */
export interface ActorKindStats {
  readonly kind: string;
  readonly alive: number;
  /** Messages that wait now, in all mailboxes of the kind, and in the fullest there has been. */
  readonly depth: number;
  readonly deepest: number;
  readonly handled: number;
  readonly busyMs: number;
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
  say(request: SayRequest, observer?: Client): Promise<SayReply>;
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

// --- Store -----------------------------------------------------------------------------------------------------

export interface PageRequest {
  readonly limit: number;
  /** Messages older than those of this turn. */
  readonly before: TaskId | undefined;
}

export interface TenantRecord {
  readonly tenantId: TenantId;
  /** Absent where nobody set one. */
  readonly tier: Tier | undefined;
  /** Requests accepted today (UTC). */
  readonly day: string;
  readonly used: number;
}

/** Something to keep. Each is atomic by itself. */
export type Write =
  /**
   * A turn was accepted, with its user message, and counted against `day`. `again`: where the session has a turn of
   * this id that was interrupted, had no effects (`turn-effects`) and whose end nobody was told, that one goes on
   * running instead of being a duplicate; it keeps its message, and is not counted twice.
   */
  | {
      readonly type: 'turn-accepted';
      readonly turn: TurnRecord;
      readonly message: Message;
      readonly day: string;
      readonly again?: true;
    }
  /** A turn is about to do something that must not happen twice. */
  | { readonly type: 'turn-effects'; readonly tenantId: TenantId; readonly taskId: TaskId }
  /**
   * A turn ended; `message` is the answer, or what there was of it. `outgoing` is what is to be sent for it. `asked`
   * and `tier` are not stored: they are for who makes `outgoing`.
   */
  | {
      readonly type: 'turn-ended';
      readonly turn: TurnRecord;
      readonly message: Message | undefined;
      readonly outgoing?: readonly Outgoing[];
      readonly asked?: Message;
      readonly tier?: Tier;
    }
  /** Kept to be sent, without a turn. */
  | { readonly type: 'outgoing'; readonly outgoing: readonly Outgoing[] }
  /** Sent: answers are remembered, the rest is deleted. */
  | {
      readonly type: 'outgoing-sent';
      readonly sent: readonly { readonly tenantId: TenantId; readonly id: string }[];
    }
  /** Answers that were sent, or that nobody waited for, and are older are forgotten. */
  | { readonly type: 'outgoing-expired'; readonly beforeMs: number }
  | { readonly type: 'session-deleted'; readonly tenantId: TenantId; readonly sessionId: SessionId }
  /** Clients have been told how an interrupted turn ended. */
  | { readonly type: 'turn-told'; readonly tenantId: TenantId; readonly taskId: TaskId }
  | { readonly type: 'tenant-tier'; readonly tenantId: TenantId; readonly tier: Tier }
  /** At the start of a node: turns that an earlier process left unfinished end as INTERRUPTED. */
  | { readonly type: 'unfinished-interrupted'; readonly atMs: number }
  /** Sessions of a tier (`null`: of tenants without a tier of their own) whose last message is older are deleted. */
  | { readonly type: 'history-expired'; readonly tier: Tier | null; readonly beforeMs: number };

/** `duplicate`: the tenant has a turn of that task id already; nothing was written. */
export type WriteOutcome = 'stored' | 'duplicate';

/**
 * What must outlive an actor. No method answers in the same tick, any may reject (then nothing was kept).
 * Order: writes take effect in the order of the calls. commit() resolves once the write cannot be lost.
 * close(): finishes what was begun; later calls reject.
 */
export interface Store extends ActionLog {
  tenant(tenantId: TenantId, day: string): Promise<TenantRecord | null>;
  /** Messages newest last, or null where the session is unknown or deleted. */
  session(tenantId: TenantId, sessionId: SessionId, page: PageRequest): Promise<MessagePage | null>;
  turn(tenantId: TenantId, taskId: TaskId): Promise<TurnRecord | null>;
  commit(write: Write): Promise<WriteOutcome>;
  /** Resolves if the store would take a write now. */
  ping(): Promise<void>;
  close(): Promise<void>;
}

// --- Executions --------------------------------------------------------------------------------------------------

/** Everything an execution needs, settled before it starts. */
export interface ExecutionPlan {
  readonly taskId: TaskId;
  readonly tenantId: TenantId;
  readonly sessionId: SessionId;
  readonly tier: Tier;
  readonly agent: AgentConfig;
  /** Oldest first; the last one is the user's message. */
  readonly history: readonly Message[];
  readonly context: Readonly<Record<string, unknown>>;
  readonly limits: ExecutionLimits;
}

export interface ExecutionLimits {
  readonly timeoutMs: number;
  readonly maxIterations: number;
  readonly maxTokens: number;
  /** Names, already filtered by tier. */
  readonly tools: readonly string[];
}

export type ExecutionOutcome =
  | { readonly type: 'answered'; readonly content: string; readonly info: ExecutionInfo }
  | { readonly type: 'failed'; readonly error: ErrorData; readonly info: ExecutionInfo }
  | { readonly type: 'aborted'; readonly info: ExecutionInfo };

/** What an agent run tells while it goes on: in order, in the same tick as it happens. */
export type ExecutionEvent = Extract<
  TurnEvent,
  { type: 'execution.started' | 'chat.delta' | 'tool.started' | 'tool.finished' }
>;

export interface ExecutionContext {
  /** Aborting reaches the model's HTTP request and running tools; the run then ends as `aborted`. */
  readonly signal: AbortSignal;
  readonly emit: (event: ExecutionEvent) => void;
  /** Settles once the turn is stored; awaited before the first side effect (a tool), never before the model. */
  readonly accepted: Promise<unknown>;
  /** Awaited before a deed that must not happen twice; rejects where it can not be kept that it begins. */
  readonly effects: () => Promise<void>;
}

/**
 * Runs agents. `run` never rejects for anything a model, a tool or a limit does: that is an outcome.
 * After the signal it settles promptly, whatever the model does.
 */
export interface AgentRunner {
  run(plan: ExecutionPlan, context: ExecutionContext): Promise<ExecutionOutcome>;
  /** Ends workers and connections. */
  close(): Promise<void>;
}

/** Where agent configurations come from. Resolves to a refusal (AGENT_NOT_FOUND) for an unknown one. */
export interface AgentSource {
  /** The newest version, or the one asked for; NOT_FOUND where the agent never had it. */
  agent(tenantId: TenantId, agentId: AgentId, version?: number): Promise<Reply<AgentConfig>>;
  /** Tells of every new version of a live agent, once `agent` would answer it. */
  onChange?(listener: (tenantId: TenantId, agent: AgentConfig) => void): void;
  stats?(): AgentStats;
}

/** Configurations held in memory, and how often a turn found its own there or had to wait for it. */
export interface AgentStats {
  readonly live: number;
  readonly hits: number;
  readonly misses: number;
}

// --- Outbox --------------------------------------------------------------------------------------------------------

/** A turn as its execution sees it: written straight to the clients, past every mailbox. */
export interface TurnSink {
  readonly emit: (event: ExecutionEvent) => void;
  /** Resolves when the turn has been accepted, or never will be. */
  readonly accepted: Promise<void>;
}

export interface TurnOptions {
  /** False suppresses deltas. */
  readonly stream: boolean;
  /** `chat.accepted` is out already. */
  readonly accepted: boolean;
}

/**
 * One session's numbered event log and its clients. It alone gives out `seq`.
 * Order: events get their numbers in the order of the calls. A turn's execution events wait until its
 * `chat.accepted` is out, and are dropped once the turn is sealed.
 */
export interface Outbox {
  readonly epoch: string;
  /** Numbers, keeps and sends an event. */
  event(taskId: TaskId, event: TurnEvent, atMs: number): void;
  /** Opens a turn for its execution; one at a time. */
  turn(taskId: TaskId, options: TurnOptions): TurnSink;
  /** Takes no more from the turn's execution; returns the text its clients have been given. */
  seal(taskId: TaskId): string;
  /** Forgets what a turn has written and not sent. */
  discard(taskId: TaskId): void;
  /** Sends `session.ready`, then what the client missed or a snapshot, then all that follows. */
  attach(client: Client, ready: AttachReady): void;
  /** Sends all that follows, and nothing else. */
  watch(client: Client): void;
  detach(clientId: string): void;
  /** To every client, unnumbered. */
  notice(notice: Pick<Frame, 'type' | 'data'> & { readonly taskId?: string }, atMs: number): void;
  close(close: Close): void;
}

export interface AttachReady {
  readonly tenantId: TenantId;
  readonly sessionId: SessionId;
  readonly tier: Tier;
  readonly running: readonly TaskId[];
  readonly resume: ResumePoint | undefined;
  readonly messages: readonly Message[];
  readonly atMs: number;
}

// --- Time, numbers -------------------------------------------------------------------------------------------------

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
}

/** Where parts report what happened; cheap enough for the message path, without ids as labels. */
export interface Metrics {
  turnEnded(
    tier: Tier,
    outcome: 'completed' | 'failed' | 'cancelled' | 'timeout',
    info: ExecutionInfo | undefined,
  ): void;
  turnRefused(tier: Tier | 'unknown', code: string): void;
  deadLetter(kind: string): void;
  actorCrashed(kind: string): void;
  toolUsed(tool: string, ok: boolean): void;
  modelRetried(provider: string, reason: string): void;
  socketOpened(): void;
  socketClosed(code: number): void;
}

/** One line of structured log; pino stands behind it. */
export interface Log {
  debug(fields: object, text: string): void;
  info(fields: object, text: string): void;
  warn(fields: object, text: string): void;
  error(fields: object, text: string): void;
  child(fields: object): Log;
}

export type { TierLimits };
