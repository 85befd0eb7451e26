/**
 * An execution: one run of an agent for one turn, with its limits, its tools and its end. Pure; effects.ts performs what
 * it decides. The run itself goes on beside the mailbox, so that a cancel never waits behind the model.
 */
import type { SessionId, TaskId, TenantId } from '../../src/domain/ids.ts';
import type { RunningTool } from '../../src/domain/turn.ts';
import type { ExecutionOutcome, ExecutionPlan } from '../../src/ports/runner.ts';
import { type Behaviour, type ReplyTo, unreachable } from '../runtime/actor.ts';

export interface ExecutionState {
  readonly tenantId: TenantId;
  readonly sessionId: SessionId;
  readonly plan: ExecutionPlan;
  readonly status: 'new' | 'running' | 'aborting' | 'ended';
  /** Calls that run now, in the order in which they began. */
  readonly tools: readonly RunningTool[];
  readonly toolsUsed: number;
}

export type ExecutionMessage =
  | { readonly type: 'start' }
  | { readonly type: 'cancel' }
  | { readonly type: 'inquire'; readonly replyTo: ReplyTo<readonly RunningTool[]> }
  | { readonly type: 'toolStarted'; readonly callId: string; readonly tool: string }
  | { readonly type: 'toolFinished'; readonly callId: string; readonly tool: string; readonly ok: boolean }
  | { readonly type: 'finished'; readonly outcome: ExecutionOutcome; readonly atMs: number }
  /** The run threw: a bug, not an outcome. */
  | { readonly type: 'broke'; readonly error: Error };

export type ExecutionEffect =
  | { readonly type: 'run'; readonly plan: ExecutionPlan }
  | { readonly type: 'abortRun' }
  | {
      readonly type: 'reply';
      readonly replyTo: ReplyTo<readonly RunningTool[]>;
      readonly tools: readonly RunningTool[];
    }
  | {
      readonly type: 'report';
      readonly taskId: TaskId;
      readonly outcome: ExecutionOutcome;
      readonly atMs: number;
    }
  | { readonly type: 'stopExecution' };

export const newExecution = (plan: ExecutionPlan): ExecutionState => ({
  tenantId: plan.tenantId,
  sessionId: plan.sessionId,
  plan,
  status: 'new',
  tools: [],
  toolsUsed: 0,
});

export const execution: Behaviour<ExecutionState, ExecutionMessage, ExecutionEffect> = (state, message) => {
  switch (message.type) {
    case 'start':
      if (state.status !== 'new') return [state, []];
      return [{ ...state, status: 'running' }, [{ type: 'run', plan: state.plan }]];
    case 'cancel':
      if (state.status !== 'running') return [state, []];
      return [{ ...state, status: 'aborting' }, [{ type: 'abortRun' }]];
    case 'toolStarted':
      return [{ ...state, tools: [...state.tools, { callId: message.callId, tool: message.tool }] }, []];
    case 'toolFinished': {
      const tools = state.tools.filter(({ callId }) => callId !== message.callId);
      return [{ ...state, tools, toolsUsed: state.toolsUsed + 1 }, []];
    }
    case 'inquire':
      return [state, [{ type: 'reply', replyTo: message.replyTo, tools: state.tools }]];
    case 'finished':
      if (state.status === 'ended') return [state, []];
      return [
        { ...state, status: 'ended', tools: [] },
        [
          { type: 'report', taskId: state.plan.taskId, outcome: message.outcome, atMs: message.atMs },
          { type: 'stopExecution' },
        ],
      ];
    case 'broke':
      // Its supervisor stops it and tells the session, which ends the turn with INTERNAL.
      throw message.error;
    default:
      return unreachable(message);
  }
};
