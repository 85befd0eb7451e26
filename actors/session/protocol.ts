/** What a session knows, is told, and decides: plain data, so that it can be printed, compared and recovered. */
import type { AgentConfig } from '../../src/domain/agent.ts';
import type { Message } from '../../src/domain/conversation.ts';
import type { Close, ErrorData, Reply } from '../../src/domain/errors.ts';
import type { Notice, TurnEvent } from '../../src/domain/frames.ts';
import type { AgentId, SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import type { ModelTable } from '../../src/domain/models.ts';
import type { Bucket } from '../../src/domain/rate-limit.ts';
import type { Tier, TierLimits, TierTable } from '../../src/domain/tiers.ts';
import type {
  CancelReply,
  EndStatus,
  SayReply,
  TurnRecord,
  TurnRequest,
  TurnStatus,
} from '../../src/domain/turn.ts';
import type { ExecutionOutcome, ExecutionPlan } from '../../src/ports/runner.ts';
import type { ResumePoint } from '../../src/ports/sessions.ts';
import type { Epoch, Write } from '../../src/ports/store.ts';
import type { ReplyTo } from '../runtime/actor.ts';
import type { Release, Slot, TenantAnswer } from '../tenant/protocol.ts';
import type { AttachReady, TurnOptions } from './event-stream.ts';
import type { Turn, TurnText } from './turn.ts';

/** What all sessions of a node share. */
export interface SessionConfig {
  readonly tiers: TierTable;
  /** The limits over all nodes, where several share them. */
  readonly sharedTiers?: TierTable;
  /** An operator's table of models; by default the built-in one. */
  readonly models?: ModelTable | undefined;
  /** Replaces the tier's requests per session and hour; null: no limit; undefined: the tier's. */
  readonly requestsPerHour: number | null | undefined;
  /** An operator's caps under the tier's limits. */
  readonly maxIterations: number | undefined;
  readonly maxTimeMs: number | undefined;
}

export interface SessionState {
  readonly tenantId: TenantId;
  readonly sessionId: SessionId;
  /** By which its node has it. */
  readonly epoch: Epoch;
  readonly config: SessionConfig;
  /** Messages that came before history and tier were there; null once they are. */
  readonly stash: readonly SessionMessage[] | null;
  /** What was said in turns that ran, in the order in which they ran; null until it is loaded. */
  readonly history: readonly Message[] | null;
  /** Turns that an earlier process left unfinished, until a client is there to be notified. */
  readonly unnotified: readonly TurnRecord[];
  readonly tier: Tier | null;
  /** The tier was set by an operator: what clients name does not count. */
  readonly tierFixed: boolean;
  readonly bucket: Bucket | null;
  /** In the order in which they will run. */
  readonly turns: readonly Turn[];
  /** The last tasks that ended here and how, for resends; the oldest first. */
  readonly recent: readonly { readonly taskId: TaskId; readonly status: EndStatus }[];
  readonly clients: readonly string[];
  /** It is for one turn alone, and leaves memory with it. */
  readonly ephemeral: boolean;
  readonly draining: boolean;
  /** Being deleted: those who wait for it, and whether the store has been asked. */
  readonly forgetting: {
    readonly replyTo: readonly ReplyTo<Reply<null>>[];
    readonly writing: boolean;
  } | null;
}

/** A turn is asked for. */
export interface Said {
  readonly type: 'said';
  readonly request: TurnRequest;
  /** Its place among all turns of the tenant. */
  readonly arrival: number;
  readonly replyTo: ReplyTo<SayReply>;
  readonly atMs: number;
}

export interface Cancel {
  readonly type: 'cancel';
  readonly taskId: TaskId;
  readonly replyTo: ReplyTo<CancelReply>;
  readonly atMs: number;
}

export interface Attach {
  readonly type: 'attach';
  readonly clientId: string;
  readonly tier: Tier | undefined;
  readonly resume: ResumePoint | undefined;
  readonly atMs: number;
}

type FromEdge =
  | Said
  | Cancel
  | Attach
  | { readonly type: 'detach'; readonly clientId: string }
  | { readonly type: 'inquire'; readonly taskId: TaskId; readonly replyTo: ReplyTo<TurnRecord | null> }
  | { readonly type: 'forget'; readonly replyTo: ReplyTo<Reply<null>>; readonly atMs: number };

/** What of a session the store is asked to hold. */
type StoreStep = 'accepted' | 'overtaken' | 'ended' | 'notified' | 'deleted';

/** The store holds it. `duplicate`: it has a turn of that task id from before, which stands so; nothing was written. */
export interface Stored {
  readonly type: 'stored';
  readonly step: StoreStep;
  readonly taskId: TaskId | undefined;
  readonly duplicate: TurnStatus | undefined;
  readonly atMs: number;
}

export interface StoreFailed {
  readonly type: 'storeFailed';
  readonly step: StoreStep;
  readonly taskId: TaskId | undefined;
  /** Why, where it is not the store that failed. */
  readonly error?: ErrorData;
  readonly atMs: number;
}

type FromStore =
  | {
      readonly type: 'loaded';
      readonly history: readonly Message[];
      readonly interrupted: readonly TurnRecord[];
    }
  | Stored
  | StoreFailed
  /** A write was refused since the session is not this node's by its epoch. */
  | { readonly type: 'fenced' };

interface AgentAnswer {
  readonly taskId: TaskId;
  readonly attempt: number;
  readonly atMs: number;
}

type FromAgents =
  | ({ readonly type: 'agentFound'; readonly agent: AgentConfig } & AgentAnswer)
  | ({ readonly type: 'agentRefused'; readonly error: ErrorData } & AgentAnswer)
  /** The agent has a newer version, is off, or is gone: turns that wait look it up anew. */
  | { readonly type: 'agentChanged'; readonly agentId: AgentId };

/** `text` is what the clients were given of the answer. */
type FromExecution =
  | ({
      readonly type: 'ended';
      readonly taskId: TaskId;
      readonly outcome: ExecutionOutcome;
      readonly atMs: number;
    } & TurnText)
  | ({ readonly type: 'executionLost'; readonly taskId: TaskId; readonly atMs: number } & TurnText);

type FromNode =
  | { readonly type: 'drain'; readonly reconnectAfterMs: number; readonly atMs: number }
  | { readonly type: 'drainExpired'; readonly atMs: number }
  | { readonly type: 'drained'; readonly replyTo: ReplyTo<null> }
  /** Another node asks for it: it leaves, unless it is needed. `guestsToo`: clients of other nodes keep it as well. */
  | { readonly type: 'yield'; readonly guestsToo: boolean; readonly replyTo: ReplyTo<boolean> }
  /** Of a run with a session of its own: its node owns it by this epoch from now on, for all that comes. */
  | { readonly type: 'owned'; readonly epoch: Epoch }
  | { readonly type: 'idle' };

export type SessionMessage = FromEdge | FromStore | FromAgents | TenantAnswer | FromExecution | FromNode;

const EDGE_TYPES: ReadonlySet<string> = new Set<FromEdge['type']>([
  'said',
  'cancel',
  'attach',
  'detach',
  'inquire',
  'forget',
]);

export const isFromEdge = (message: SessionMessage): message is FromEdge => EDGE_TYPES.has(message.type);

/** When it came; 0 where it does not say. */
export const atOf = (message: SessionMessage): number => ('atMs' in message ? message.atMs : 0);

/** A turn as its agent is looked up. */
export interface AgentQuery {
  readonly taskId: TaskId;
  readonly attempt: number;
  readonly agentId: AgentId;
  readonly agentVersion: number | undefined;
}

/** An answer to whoever waits under that number; made by `reply`. */
interface ReplyEffect {
  readonly type: 'reply';
  readonly replyTo: number;
  readonly value: unknown;
}

export const reply = <R>(replyTo: ReplyTo<R>, value: R): ReplyEffect => ({ type: 'reply', replyTo, value });

/** What a session may decide to have done: data, performed in effects.ts. */
export type SessionEffect =
  | { readonly type: 'load' }
  | { readonly type: 'join'; readonly tier: Tier | undefined }
  | ({ readonly type: 'findAgent' } & AgentQuery)
  | {
      readonly type: 'requestAdmission';
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly arrival: number;
      readonly slot: Exclude<Slot, 'granted'>;
      readonly tier: Tier | undefined;
      readonly atMs: number;
    }
  | {
      readonly type: 'requestSlot';
      readonly taskId: TaskId;
      readonly attempt: number;
      readonly arrival: number;
    }
  | Release
  /** `wait`: only the store's word brings `stored`; otherwise the session goes on at once. */
  | {
      readonly type: 'store';
      readonly step: StoreStep;
      readonly taskId: TaskId | undefined;
      readonly write: Write;
      readonly wait: boolean;
    }
  | {
      readonly type: 'execute';
      readonly plan: ExecutionPlan;
      readonly options: TurnOptions;
      readonly epoch: Epoch;
    }
  | { readonly type: 'abort'; readonly taskId: TaskId }
  | { readonly type: 'event'; readonly taskId: TaskId; readonly event: TurnEvent; readonly atMs: number }
  /** Nothing that the turn's execution has written is sent. */
  | { readonly type: 'discard'; readonly taskId: TaskId }
  | ReplyEffect
  | { readonly type: 'attachClient'; readonly clientId: string; readonly ready: AttachReady }
  | { readonly type: 'detachClient'; readonly clientId: string }
  /** Refuses a client that could not be attached. */
  | {
      readonly type: 'turnAway';
      readonly clientId: string;
      readonly error: ErrorData;
      readonly atMs: number;
    }
  | { readonly type: 'notice'; readonly notice: Notice; readonly atMs: number }
  | {
      readonly type: 'closeClients';
      readonly close: Close;
      readonly told: { readonly error: ErrorData; readonly atMs: number } | null;
    }
  | { readonly type: 'track'; readonly taskId: TaskId; readonly tier: Tier }
  | { readonly type: 'untrack'; readonly taskId: TaskId }
  | { readonly type: 'measure'; readonly turn: TurnRecord; readonly tier: Tier }
  | { readonly type: 'refused'; readonly tier: Tier; readonly code: ErrorData['code'] }
  /** Leaves memory unless mail waits. */
  | { readonly type: 'leave' }
  | { readonly type: 'stop' };

export type SessionStep = readonly [SessionState, readonly SessionEffect[]];

/** The turn a message is about: one that answers an earlier attempt is about none. */
export function turnOf(state: SessionState, message: SessionMessage): Turn | undefined {
  const taskId = message.type === 'said' ? message.request.taskId : 'taskId' in message && message.taskId;
  if (!taskId) return undefined;
  const turn = findTurn(state, taskId);
  const isLate = turn && 'attempt' in message && message.attempt !== turn.attempt;
  return isLate ? undefined : turn;
}

export const findTurn = (state: SessionState, taskId: TaskId): Turn | undefined =>
  state.turns.find((turn) => turn.taskId === taskId);

/** Puts a turn in the place of the one with its task id. */
export const withTurn = (state: SessionState, changed: Turn): SessionState => ({
  ...state,
  turns: state.turns.map((turn) => (turn.taskId === changed.taskId ? changed : turn)),
});

/** Ended tasks a session remembers; older resends are found out by the store. */
const RECENT_TASKS = 32;

/** `status`: how it ended, to be remembered; undefined: as if it had never been. */
export function withoutTurn(state: SessionState, taskId: TaskId, status?: EndStatus): SessionState {
  const recent = status ? [...state.recent, { taskId, status }].slice(-RECENT_TASKS) : state.recent;
  return { ...state, recent, turns: state.turns.filter((turn) => turn.taskId !== taskId) };
}

/** How many turns the tenant's day may count over all nodes; null: any, or the node alone counts them. */
export const sharedDayOf = ({ config, tier }: SessionState): number | null =>
  config.sharedTiers?.[tier ?? 'free'].requests_per_day ?? null;

export const limitsOf = (state: SessionState): TierLimits => state.config.tiers[state.tier ?? 'free'];
