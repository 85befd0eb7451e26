/** The line of a session's turns: who runs next, with what, and who is told where it stands. Pure. */
import { allowedTools, historyMessages, historyTokens } from '../../src/domain/agent.ts';
import { trimHistory } from '../../src/domain/conversation.ts';
import { capped, type TierLimits } from '../../src/domain/tiers.ts';
import type { ExecutionPlan } from '../../src/ports/runner.ts';
import { type SessionEffect, type SessionState, type SessionStep, type Turn, withTurn } from './protocol.ts';

export const limitsOf = (state: SessionState): TierLimits => state.config.tiers[state.tier ?? 'free'];

/** Gives the first turn what it needs to run: it asks for a slot, or starts on the one it was granted. */
export function runNext(state: SessionState): SessionStep {
  const first = state.turns[0];
  if (first?.claim !== 'held' || first.executing || first.ended || first.dropped) return [state, []];
  if (first.slot === 'none')
    return [
      withTurn(state, first.taskId, { slot: 'asked' }),
      [{ type: 'acquire', taskId: first.taskId, attempt: first.attempt }],
    ];
  if (first.slot === 'asked' || !first.agent) return [state, []];
  // What was over before must not reach the model once more: here the store's word is waited for.
  if (first.resumable && first.kept !== 'yes') return [state, []];
  const plan = planOf(state, first);
  return [
    withTurn(state, first.taskId, { executing: true }),
    [{ type: 'execute', plan, options: { stream: first.stream, accepted: first.kept === 'yes' } }],
  ];
}

function planOf(state: SessionState, turn: Turn): ExecutionPlan {
  const limits = limitsOf(state);
  const { config } = state;
  const agent = turn.agent;
  if (!agent) throw new Error('a turn without an agent can not be planned');
  // A resend runs until the store has said that it is none of ours to run: its question is in the history, too.
  const others = (state.history ?? []).filter(({ taskId }) => taskId !== turn.taskId);
  const history = [...others, turn.said];
  return {
    taskId: turn.taskId,
    tenantId: state.tenantId,
    sessionId: state.sessionId,
    tier: state.tier ?? 'free',
    agent,
    history: trimHistory(history, historyMessages(agent, limits), historyTokens(agent, limits)),
    context: turn.context,
    limits: {
      timeoutMs: lowest(limits.execution_timeout_s * 1000, config.maxTimeMs, turn.overrides?.maxTimeMs),
      maxIterations: lowest(
        limits.max_iterations,
        config.maxIterations,
        agent.maxIterations ?? undefined,
        turn.overrides?.maxIterations,
      ),
      maxTokens: limits.tokens_per_run,
      // After the tier's choice: what a request switches off makes no room for another tool.
      tools: allowedTools(agent.tools, limits).filter((name) => turn.overrides?.tools?.[name] !== false),
    },
  };
}

/** A tier's limit under every cap that there is. */
const lowest = (tierLimit: number, ...caps: readonly (number | undefined)[]): number =>
  caps.reduce<number>(capped, tierLimit);

/**
 * Tells the turns that wait behind others in this session how many are ahead of them now. One that is not accepted
 * yet hears of it with its acceptance.
 */
export function positions(state: SessionState, atMs: number): SessionStep {
  const effects: SessionEffect[] = [];
  let changed = false;
  const turns = state.turns.map((turn, ahead) => {
    if (ahead === 0 || turn.ended || turn.position === ahead) return turn;
    changed = true;
    if (turn.kept === 'yes')
      effects.push({
        type: 'event',
        taskId: turn.taskId,
        event: { type: 'chat.queued', data: { position: ahead } },
        atMs,
      });
    return { ...turn, position: ahead };
  });
  return changed ? [{ ...state, turns }, effects] : [state, effects];
}
