/**
 * An execution: one run of an agent for one turn. It owns what the run may use (calls, tokens, time), the tools that run
 * now, and the end. Pure; effects.ts performs what it decides. The run itself goes on beside the mailbox, so that a
 * cancel never waits behind the model, nor for a model or tool that does not let go.
 */
import { type ErrorData, type Reply, refusal } from '../../src/domain/errors.ts';
import type { FinishReason } from '../../src/domain/frames.ts';
import type { SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import type { RunningTool } from '../../src/domain/turn.ts';
import type { CallCounts, ExecutionPlan, RunOutcome } from '../../src/ports/runner.ts';
import { type Behaviour, type ReplyTo, unreachable } from '../runtime/actor.ts';

export interface ExecutionState {
  readonly tenantId: TenantId;
  readonly sessionId: SessionId;
  readonly plan: ExecutionPlan;
  readonly status: 'new' | 'running' | 'ended';
  /** Calls of the model that have ended. One that is open is known to the run beside the mailbox. */
  readonly iterations: number;
  /** Tokens of them. */
  readonly tokens: number;
  /** Those of them that the provider counted; null once a call was not counted. */
  readonly inputTokens: number | null;
  readonly outputTokens: number | null;
  /** How the last of them ended; null before the first. */
  readonly finish: FinishReason | null;
  /** Tool calls that run now, in the order in which they began. */
  readonly tools: readonly RunningTool[];
  /** Names of tools that were used, each once. Never written to: it is what the end tells. */
  readonly toolsUsed: string[];
}

export type ExecutionMessage =
  | { readonly type: 'start' }
  | { readonly type: 'cancel' }
  | { readonly type: 'deadline'; readonly tookMs: number }
  | { readonly type: 'inquire'; readonly replyTo: ReplyTo<readonly RunningTool[]> }
  /** A call that was not the last. Answered with the number of calls that are left. */
  | { readonly type: 'callEnded'; readonly counts: CallCounts; readonly replyTo: ReplyTo<Reply<number>> }
  | { readonly type: 'toolStarted'; readonly callId: string; readonly tool: string }
  | { readonly type: 'toolFinished'; readonly callId: string }
  | { readonly type: 'finished'; readonly outcome: RunOutcome }
  /** The run threw: a bug, not an outcome. */
  | { readonly type: 'broke'; readonly error: Error };

/** An end without the times and the open call, which effects.ts adds. */
export type ExecutionEnd =
  | { readonly type: 'answered'; readonly content: string }
  | { readonly type: 'failed'; readonly error: ErrorData }
  | { readonly type: 'aborted' };

/** What an execution has used. */
export type Used = Pick<
  ExecutionState,
  'iterations' | 'tokens' | 'inputTokens' | 'outputTokens' | 'finish' | 'toolsUsed'
>;

export type ExecutionEffect =
  | { readonly type: 'run'; readonly plan: ExecutionPlan }
  | { readonly type: 'abortRun' }
  | {
      readonly type: 'replyTools';
      readonly replyTo: ReplyTo<readonly RunningTool[]>;
      readonly tools: readonly RunningTool[];
    }
  | {
      readonly type: 'replyCallsLeft';
      readonly replyTo: ReplyTo<Reply<number>>;
      readonly reply: Reply<number>;
    }
  | { readonly type: 'report'; readonly taskId: TaskId; readonly end: ExecutionEnd; readonly used: Used }
  | { readonly type: 'stopExecution' };

type ExecutionStep = readonly [ExecutionState, readonly ExecutionEffect[]];

/** One list for all executions without tools: every turn in memory refers to one. Never written to. */
const NO_TOOLS: string[] = [];

export const newExecution = (plan: ExecutionPlan): ExecutionState => ({
  tenantId: plan.tenantId,
  sessionId: plan.sessionId,
  plan,
  status: 'new',
  iterations: 0,
  tokens: 0,
  inputTokens: 0,
  outputTokens: 0,
  finish: null,
  tools: [],
  toolsUsed: NO_TOOLS,
});

export const execution: Behaviour<ExecutionState, ExecutionMessage, ExecutionEffect> = (state, message) => {
  switch (message.type) {
    case 'start':
      if (state.status !== 'new') return [state, []];
      return [{ ...state, status: 'running' }, [{ type: 'run', plan: state.plan }]];
    case 'cancel':
      return end(state, { type: 'aborted' });
    case 'deadline':
      return end(state, { type: 'failed', error: outOfTime(state.plan.limits.timeoutMs, message.tookMs) });
    case 'callEnded': {
      const next = counted(state, message.counts);
      const error = overBudget(next);
      const reply: Reply<number> = error ? { ok: false, error } : { ok: true, value: callsLeft(next) };
      return [next, [{ type: 'replyCallsLeft', replyTo: message.replyTo, reply }]];
    }
    case 'toolStarted': {
      const { callId, tool } = message;
      const toolsUsed = state.toolsUsed.includes(tool) ? state.toolsUsed : [...state.toolsUsed, tool];
      return [{ ...state, tools: [...state.tools, { callId, tool }], toolsUsed }, []];
    }
    case 'toolFinished':
      return [{ ...state, tools: state.tools.filter(({ callId }) => callId !== message.callId) }, []];
    case 'inquire':
      return [state, [{ type: 'replyTools', replyTo: message.replyTo, tools: state.tools }]];
    case 'finished': {
      const { outcome } = message;
      if (outcome.type === 'failed') return end(state, outcome);
      const next = counted(state, outcome.counts);
      const error = overBudget(next);
      return end(next, error ? { type: 'failed', error } : { type: 'answered', content: outcome.content });
    }
    case 'broke':
      // Its supervisor stops it and tells the session, which ends the turn with INTERNAL.
      throw message.error;
    default:
      return unreachable(message);
  }
};

/** The end, told once. A run that has not ended by itself is aborted, and nobody waits for it. */
function end(state: ExecutionState, how: ExecutionEnd): ExecutionStep {
  if (state.status === 'ended') return [state, []];
  const { plan, iterations, tokens, inputTokens, outputTokens, finish, toolsUsed } = state;
  const used = { iterations, tokens, inputTokens, outputTokens, finish, toolsUsed };
  const report: ExecutionEffect = { type: 'report', taskId: plan.taskId, end: how, used };
  const abort: readonly ExecutionEffect[] = how.type === 'answered' ? [] : [{ type: 'abortRun' }];
  return [{ ...state, status: 'ended', tools: [] }, [...abort, report, { type: 'stopExecution' }]];
}

const counted = (state: ExecutionState, counts: CallCounts): ExecutionState => ({
  ...state,
  iterations: state.iterations + 1,
  tokens: state.tokens + counts.tokens,
  inputTokens: sum(state.inputTokens, counts.inputTokens),
  outputTokens: sum(state.outputTokens, counts.outputTokens),
  finish: counts.finish,
});

/** A sum that lacks a call would be taken for the whole. */
const sum = (before: number | null, more: number | undefined): number | null =>
  before === null || more === undefined ? null : before + more;

const callsLeft = ({ plan, iterations }: ExecutionState): number =>
  Math.max(0, plan.limits.maxIterations - iterations);

function overBudget({ plan, tokens }: ExecutionState): ErrorData | undefined {
  const max = plan.limits.maxTokens;
  if (tokens <= max) return undefined;
  return refusal('TIER_LIMIT', {
    message: `The run used ${tokens} tokens; the tenant's tier allows ${max} a run.`,
    details: { limit: 'tokens_per_run', max, used: tokens },
  });
}

const inSeconds = (ms: number): number => Math.round(ms) / 1000;

const outOfTime = (limitMs: number, tookMs: number): ErrorData =>
  refusal('EXECUTION_TIMEOUT', {
    message: `The execution ran into its time limit of ${inSeconds(limitMs)} s.`,
    details: { max_execution_time: inSeconds(limitMs), actual_execution_time: inSeconds(tookMs) },
  });
