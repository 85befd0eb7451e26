/** The runner: what an execution is given, what it tells while it runs, and how it ends. */
import type { AgentConfig } from '../domain/agent.ts';
import type { Message } from '../domain/conversation.ts';
import type { ErrorData, Reply } from '../domain/errors.ts';
import type { ExecutionInfo, FinishReason, Notice, TurnEvent } from '../domain/frames.ts';
import type { AgentId, SessionId, TaskId, TenantId } from '../domain/ids.ts';
import type { JsonFormat } from '../domain/response-format.ts';
import type { Tier } from '../domain/tiers.ts';
import type { AgentStats } from './telemetry.ts';

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
  /** Absent: the answer is text. */
  readonly responseFormat?: JsonFormat;
  /** URLs of the images that came with the user's message. */
  readonly images?: readonly string[];
}

export interface ExecutionLimits {
  readonly timeoutMs: number;
  readonly maxIterations: number;
  readonly maxTokens: number;
  /** Names, already filtered by tier. */
  readonly tools: readonly string[];
}

/** What one call of the model came to. */
export interface CallCounts {
  /** What it used: as the provider counts, or by estimate. */
  readonly tokens: number;
  /** Only as the provider counts. */
  readonly inputTokens?: number;
  readonly outputTokens?: number;
  readonly finish: FinishReason;
}

/** How a run ended by itself. `counts` are those of its last call, which the execution has not counted yet. */
export type RunOutcome =
  | { readonly type: 'answered'; readonly content: string; readonly counts: CallCounts }
  | { readonly type: 'failed'; readonly error: ErrorData };

/** How an execution ended, with what it used. */
export type ExecutionOutcome =
  | { readonly type: 'answered'; readonly content: string; readonly info: ExecutionInfo }
  | { readonly type: 'failed'; readonly error: ErrorData; readonly info: ExecutionInfo }
  | { readonly type: 'aborted'; readonly info: ExecutionInfo };

/** What an agent run tells while it goes on: in order, in the same tick as it happens. */
export type ExecutionEvent =
  | Extract<TurnEvent, { type: 'execution.started' | 'chat.delta' | 'tool.started' | 'tool.finished' }>
  /** `isFirst`: of an attempt of the model to answer a call. */
  | (Extract<Notice, { type: 'chat.reasoning' }> & { readonly isFirst?: boolean })
  /** That attempt has failed and another one is made: what it thought is no part of the turn. */
  | { readonly type: 'reasoning.dropped' };

export interface ExecutionContext {
  /** Aborted when the execution is over before its run: it reaches the model's HTTP request and running tools. */
  readonly signal: AbortSignal;
  readonly emit: (event: ExecutionEvent) => void;
  /** Settles once the turn is stored; awaited before the first side effect (a tool), never before the model. */
  readonly accepted: Promise<unknown>;
  /** Awaited before a deed that must not happen twice; rejects where it can not be kept that it begins. */
  readonly effects: () => Promise<void>;
  /** When the execution's time is up, by performance.now(). */
  readonly endsAt: number;
  /** A call of the model begins. `spent` estimates its tokens so far, for an execution that ends in its middle. */
  readonly callStarted: (spent: () => number) => void;
  /**
   * A call that was not the last has ended. Resolves to the number of calls that are left;
   * rejects with a RefusalError (TIER_LIMIT) where the budget is spent.
   */
  readonly callEnded: (counts: CallCounts) => Promise<number>;
}

/**
 * Runs agents. `run` never rejects for anything a model, a tool or a limit does: that is an outcome. After the signal
 * nobody waits for it any more: what it then tells or resolves to is dropped.
 */
export interface AgentRunner {
  run(plan: ExecutionPlan, context: ExecutionContext): Promise<RunOutcome>;
  /** Ends workers and connections. */
  close(): Promise<void>;
}

/** Where agent configurations come from. Resolves to a refusal (AGENT_NOT_FOUND) for an unknown one. */
export interface AgentSource {
  /** The newest version, or the one asked for; NOT_FOUND where the agent never had it. */
  agent(tenantId: TenantId, agentId: AgentId, version?: number): Promise<Reply<AgentConfig>>;
  /** Tells of every agent that has a newer version, is gone, or may have changed, once `agent` would answer that. */
  onChange?(listener: (tenantId: TenantId, agentId: AgentId) => void): void;
  stats?(): AgentStats;
}
