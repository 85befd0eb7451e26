/** What a session knows and is told: plain data, so that it can be printed, compared and recovered. */
import type { AgentConfig } from '../../src/domain/agent.ts';
import type { Message } from '../../src/domain/conversation.ts';
import type { Close, ErrorData } from '../../src/domain/errors.ts';
import type { Overrides } from '../../src/domain/execution-params.ts';
import type { Notice, OnBusy, TurnEvent } from '../../src/domain/frames.ts';
import type { AgentId, SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import type { Bucket } from '../../src/domain/rate-limit.ts';
import type { Tier, TierTable } from '../../src/domain/tiers.ts';
import type { TurnRecord } from '../../src/domain/turn.ts';
import type { ExecutionOutcome, ExecutionPlan } from '../../src/ports/runner.ts';
import type { ResumePoint } from '../../src/ports/sessions.ts';
import type { Write } from '../../src/ports/store.ts';
import type { AttachReady, TurnOptions } from './event-stream.ts';

/** Where an answer goes: a number of the actor system's `ask`. */
export type ReplyTo = number;

/** What all sessions of a node share. */
export interface SessionConfig {
  readonly tiers: TierTable;
  /** Replaces the tier's requests per session and hour; null: no limit; undefined: the tier's. */
  readonly requestsPerHour: number | null | undefined;
  /** An operator's caps under the tier's limits. */
  readonly maxIterations: number | undefined;
  readonly maxTimeMs: number | undefined;
}

/** Where a turn's place in the tenant's books is: asked for, had, or given back. It is given back once. */
export type Claim = 'asked' | 'held' | 'returned';

/** What a turn has of the tenant's capacity to run. */
export type Slot = 'none' | 'asked' | 'granted';

/** One turn from `said` to its terminal event. Turns stand in the order in which they will run. */
export interface Turn {
  readonly taskId: TaskId;
  /**
   * The first caller's number: tells it from an earlier turn of the same id that was refused. That one's answers, its
   * place in line and its grant may still be on their way, and are not for this one.
   */
  readonly attempt: ReplyTo;
  readonly agentId: AgentId;
  /** The version it asked for; absent: the newest when it runs. */
  readonly agentVersion?: number;
  /** What was said; the store and the history share this record. */
  readonly said: Message;
  readonly context: Readonly<Record<string, unknown>>;
  readonly overrides?: Overrides;
  readonly stream: boolean;
  /** It may have been interrupted in an earlier process: the store says whether it goes on running (Write `again`). */
  readonly resumable?: true;
  /** Those who wait to hear whether it was accepted. */
  readonly callers: readonly { readonly replyTo: ReplyTo; readonly duplicate: boolean }[];
  readonly cancellers: readonly { readonly replyTo: ReplyTo; readonly atMs: number }[];
  readonly agent: AgentConfig | null;
  readonly claim: Claim;
  /** It asked to run; it may. */
  readonly slot: Slot;
  readonly executing: boolean;
  /** `chat.accepted` is out, because the store holds the turn. */
  readonly kept: 'no' | 'writing' | 'yes';
  /** Turns ahead, as the client was last told. */
  readonly position: number;
  /** When somebody first wanted it stopped. */
  readonly stopAtMs: number | null;
  /** How it ended; set until the store holds that too. */
  readonly ended: Ending | null;
  /** Refused after it began: nothing of it may be seen. */
  readonly dropped: boolean;
}

export interface Ending {
  readonly outcome: ExecutionOutcome | { readonly type: 'aborted' };
  /** What the clients were given of the answer. */
  readonly text: string;
  readonly atMs: number;
  readonly writing: boolean;
  /** What the conversation keeps of it; set once it is being written. */
  readonly answer?: Message | undefined;
}

export interface SessionState {
  readonly tenantId: TenantId;
  readonly sessionId: SessionId;
  readonly config: SessionConfig;
  /** Messages that came before history and tier were there; null once they are. */
  readonly stash: readonly SessionMessage[] | null;
  readonly history: readonly Message[] | null;
  /** Turns that an earlier process left unfinished, until a client is there to be told. */
  readonly untold: readonly TurnRecord[];
  readonly tier: Tier | null;
  /** The tier was set by an operator: what clients name does not count. */
  readonly tierFixed: boolean;
  readonly bucket: Bucket | null;
  readonly turns: readonly Turn[];
  /** The last tasks that ended here, for resends. */
  readonly recent: readonly TaskId[];
  readonly clients: readonly string[];
  /** It is for one turn alone. */
  readonly ephemeral: boolean;
  readonly draining: boolean;
  /** Being deleted: those who wait for it, and whether the store has been told. */
  readonly forgetting: { readonly replyTo: readonly ReplyTo[]; readonly writing: boolean } | null;
}

export interface Said {
  readonly type: 'said';
  readonly taskId: TaskId;
  readonly agentId: AgentId;
  readonly agentVersion?: number;
  readonly message: string;
  readonly context: Readonly<Record<string, unknown>>;
  readonly overrides?: Overrides;
  readonly stream: boolean;
  readonly resumable?: true;
  readonly onBusy: OnBusy;
  readonly tier: Tier | undefined;
  readonly replyTo: ReplyTo;
  readonly atMs: number;
}

type Cancel = {
  readonly type: 'cancel';
  readonly taskId: TaskId;
  readonly replyTo: ReplyTo;
  readonly atMs: number;
};
type Attach = {
  readonly type: 'attach';
  readonly clientId: string;
  readonly tier: Tier | undefined;
  readonly resume: ResumePoint | undefined;
  readonly atMs: number;
};

export type SessionMessage =
  // From the edges.
  | Said
  | Cancel
  | Attach
  | { readonly type: 'detach'; readonly clientId: string }
  | { readonly type: 'inquire'; readonly taskId: TaskId; readonly replyTo: ReplyTo }
  | { readonly type: 'forget'; readonly replyTo: ReplyTo; readonly atMs: number }
  // From the store and the agent source.
  | {
      readonly type: 'loaded';
      readonly history: readonly Message[];
      readonly interrupted: readonly TurnRecord[];
    }
  | { readonly type: 'loadFailed'; readonly atMs: number }
  | {
      readonly type: 'agentFound';
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly agent: AgentConfig;
      readonly atMs: number;
    }
  | {
      readonly type: 'agentRefused' | 'claimRefused';
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly error: ErrorData;
      readonly atMs: number;
    }
  /** The agent has a newer version. */
  | { readonly type: 'agentChanged'; readonly agent: AgentConfig }
  | Kept
  | KeepFailed
  // From the tenant and the node.
  | { readonly type: 'entered'; readonly tier: Tier; readonly fixed: boolean }
  /** `slot` is what the claim asked for; `ahead` counts the tenant's turns before it. */
  | {
      readonly type: 'claimed';
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly tier: Tier;
      readonly slot: Slot;
      readonly ahead: number;
      readonly atMs: number;
    }
  | { readonly type: 'granted'; readonly taskId: TaskId; readonly attempt: number; readonly atMs: number }
  | {
      readonly type: 'moved';
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly ahead: number;
      readonly atMs: number;
    }
  | { readonly type: 'drain'; readonly reconnectAfterMs: number; readonly atMs: number }
  | { readonly type: 'drainExpired'; readonly atMs: number }
  | { readonly type: 'drained'; readonly replyTo: ReplyTo }
  | { readonly type: 'idle' }
  // From the execution.
  | Ended
  | { readonly type: 'executionLost'; readonly taskId: TaskId; readonly text: string; readonly atMs: number };

export type KeepStep = 'accepted' | 'ended' | 'told' | 'deleted';
export type Kept = {
  readonly type: 'kept';
  readonly step: KeepStep;
  readonly taskId: TaskId | undefined;
  readonly duplicate: boolean;
  readonly atMs: number;
};
export type KeepFailed = {
  readonly type: 'keepFailed';
  readonly step: KeepStep;
  readonly taskId: TaskId | undefined;
  /** Why, where it is not the store that failed. */
  readonly error?: ErrorData;
  readonly atMs: number;
};
/** `text` is what the clients were given. */
export type Ended = {
  readonly type: 'ended';
  readonly taskId: TaskId;
  readonly outcome: ExecutionOutcome;
  readonly text: string;
  readonly atMs: number;
};

/** The turn a message is about: one that answers an earlier attempt is about none. */
export function turnOf(state: SessionState, message: SessionMessage): Turn | undefined {
  if (!('taskId' in message) || message.taskId === undefined) return undefined;
  const turn = findTurn(state, message.taskId);
  const isLate = turn && 'attempt' in message && message.attempt !== turn.attempt;
  return isLate ? undefined : turn;
}

export const findTurn = (state: SessionState, taskId: TaskId): Turn | undefined =>
  state.turns.find((turn) => turn.taskId === taskId);

/** When it came; 0 where it does not say. */
export const atOf = (message: SessionMessage): number => ('atMs' in message ? message.atMs : 0);

export function withTurn(state: SessionState, taskId: TaskId, change: Partial<Turn>): SessionState {
  return {
    ...state,
    turns: state.turns.map((turn) => (turn.taskId === taskId ? { ...turn, ...change } : turn)),
  };
}

/** Ended tasks a session remembers; older resends are found out by the store. */
const RECENT_TASKS = 32;

export function withoutTurn(state: SessionState, taskId: TaskId, remember: boolean): SessionState {
  const recent = remember ? [...state.recent, taskId].slice(-RECENT_TASKS) : state.recent;
  return { ...state, recent, turns: state.turns.filter((turn) => turn.taskId !== taskId) };
}

/** A turn as the status routes show it. */
export function recordOf(state: SessionState, turn: Turn): TurnRecord {
  return {
    taskId: turn.taskId,
    tenantId: state.tenantId,
    sessionId: state.sessionId,
    agentId: turn.agentId,
    ...(turn.executing && turn.agent ? { agentVersion: turn.agent.version } : {}),
    status: turn.executing ? 'processing' : 'queued',
    createdAtMs: turn.said.atMs,
  };
}

export type SessionEffect =
  | { readonly type: 'load' }
  | { readonly type: 'enter'; readonly tier: Tier | undefined }
  | ({ readonly type: 'findAgent' } & Pick<Turn, 'taskId' | 'attempt' | 'agentId' | 'agentVersion'>)
  | {
      readonly type: 'claim';
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly slot: Slot;
      readonly tier: Tier | undefined;
      readonly atMs: number;
    }
  | { readonly type: 'acquire'; readonly taskId: TaskId; readonly attempt: number }
  /** Gives back a claim, and the slot it had or had asked for. `refund`: it does not count as a request. */
  | {
      readonly type: 'release';
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly slot: Slot;
      readonly refund: boolean;
    }
  | {
      readonly type: 'keep';
      readonly step: KeepStep;
      readonly taskId: TaskId | undefined;
      readonly write: Write;
      /** Whether the session waits for it; otherwise it goes on at once. */
      readonly wait: boolean;
    }
  | { readonly type: 'execute'; readonly plan: ExecutionPlan; readonly options: TurnOptions }
  | { readonly type: 'abort'; readonly taskId: TaskId }
  | { readonly type: 'event'; readonly taskId: TaskId; readonly event: TurnEvent; readonly atMs: number }
  /** Forgets a turn that was never accepted: what its execution wrote is not sent. */
  | { readonly type: 'discard'; readonly taskId: TaskId }
  | { readonly type: 'reply'; readonly replyTo: ReplyTo; readonly value: unknown }
  | { readonly type: 'attachClient'; readonly clientId: string; readonly ready: AttachReady }
  | { readonly type: 'detachClient'; readonly clientId: string }
  /** Refuses a client that has not been attached. */
  | {
      readonly type: 'turnAway';
      readonly clientId: string;
      readonly error: ErrorData;
      readonly atMs: number;
    }
  | { readonly type: 'notice'; readonly notice: Notice; readonly atMs: number }
  /** Closes all clients, those too that are not attached yet; `told`: after an error. */
  | {
      readonly type: 'closeClients';
      readonly close: Close;
      readonly told: { readonly error: ErrorData; readonly atMs: number } | null;
    }
  /** A turn of this id lives here, or no longer does. */
  | { readonly type: 'track'; readonly taskId: TaskId; readonly tier: Tier }
  | { readonly type: 'untrack'; readonly taskId: TaskId }
  | { readonly type: 'measure'; readonly turn: TurnRecord; readonly tier: Tier }
  | { readonly type: 'refused'; readonly tier: Tier; readonly code: string }
  | { readonly type: 'leave' }
  | { readonly type: 'stop' };

export type SessionStep = readonly [SessionState, readonly SessionEffect[]];
