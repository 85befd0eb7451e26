/** The turns of a session in the order in which they run: which is next, with which plan, and who stands where. Pure. */
import { allowedTools, historyMessages, historyTokens } from '../../src/domain/agent.ts';
import { trimHistory } from '../../src/domain/conversation.ts';
import { defined } from '../../src/domain/defined.ts';
import type { AgentId } from '../../src/domain/ids.ts';
import { formatOf } from '../../src/domain/response-format.ts';
import { capped } from '../../src/domain/tiers.ts';
import { contextOf } from '../../src/domain/turn.ts';
import type { ExecutionPlan } from '../../src/ports/runner.ts';
import {
  type AgentQuery,
  limitsOf,
  type SessionEffect,
  type SessionState,
  type SessionStep,
  sharedDayOf,
  withTurn,
} from './protocol.ts';
import { mayBeKnown, type Running, type Turn } from './turn.ts';

/** After each message: the first turn is given what it needs to run, and those behind it hear where they stand. */
export function thenRun(step: SessionStep, atMs: number): SessionStep {
  const [state, effects] = step;
  const [running, more] = runNext(state);
  const [next, moves] = positions(running, atMs);
  return more.length + moves.length === 0 ? [next, effects] : [next, [...effects, ...more, ...moves]];
}

/** The first turn requests a slot, or starts on the one it was granted. */
function runNext(state: SessionState): SessionStep {
  const first = state.turns[0];
  if (first?.phase !== 'queued' || first.slot === 'requested') return [state, []];
  const { taskId, attempt, arrival, slot, agent, stored } = first;
  if (slot === 'none')
    return [
      withTurn(state, { ...first, slot: 'requested' }),
      [{ type: 'requestSlot', taskId, attempt, arrival }],
    ];
  // What was said before, or is over the day's limit, must not reach a model or a tool: here the store's word is waited for.
  if (!agent || (!stored && (mayBeKnown(first) || sharedDayOf(state) !== null))) return [state, []];
  const { slot: _held, ...rest } = first;
  const running: Running = { ...rest, phase: 'running', agent };
  return [
    withTurn(state, running),
    [
      ...overtakenWrite(state, running),
      {
        type: 'execute',
        plan: planOf(state, running),
        options: { stream: first.request.stream, accepted: stored },
        epoch: first.epoch,
      },
    ],
  ];
}

/** The turn takes the last place in the stored conversation, which is read in the order in which turns ran. */
function overtakenWrite(
  { tenantId }: SessionState,
  { taskId, epoch, overtaken }: Turn,
): readonly SessionEffect[] {
  const write = { type: 'turn-overtaken', tenantId, taskId, epoch } as const;
  return overtaken ? [{ type: 'store', step: 'overtaken', taskId, write, wait: false }] : [];
}

function planOf(state: SessionState, { taskId, agent, request, said }: Running): ExecutionPlan {
  const limits = limitsOf(state);
  const { config } = state;
  const { overrides, caller } = request;
  return {
    taskId,
    tenantId: state.tenantId,
    sessionId: state.sessionId,
    tier: state.tier ?? 'free',
    agent,
    history: trimHistory(
      // The model is given the images themselves, and not their markers.
      [...(state.history ?? []), request.images ? { ...said, content: request.message } : said],
      historyMessages(agent, limits),
      historyTokens(agent, limits, config.models),
    ),
    ...defined({
      responseFormat: formatOf(request.responseFormat, agent.responseFormat),
      images: request.images,
    }),
    context: { ...contextOf(request), ...(caller.userId ? { user_id: caller.userId } : {}) },
    limits: {
      timeoutMs: lowest(limits.execution_timeout_s * 1000, config.maxTimeMs, overrides?.maxTimeMs),
      maxIterations: lowest(
        limits.max_iterations,
        config.maxIterations,
        agent.maxIterations ?? undefined,
        overrides?.maxIterations,
      ),
      maxTokens: limits.tokens_per_run,
      // After the tier's choice: what a request switches off makes no room for another tool.
      tools: allowedTools(agent.tools, limits).filter((name) => overrides?.tools?.[name] !== false),
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
function positions(state: SessionState, atMs: number): SessionStep {
  if (state.turns.length < 2) return [state, []];
  const effects: SessionEffect[] = [];
  const turns = state.turns.map((turn, ahead) => (ahead === 0 ? turn : moved(turn, ahead, atMs, effects)));
  return turns.some((turn, at) => turn !== state.turns[at]) ? [{ ...state, turns }, effects] : [state, []];
}

/** A turn that waits with another number of turns ahead of it; the event goes to `effects` where clients know it. */
export function moved(turn: Turn, ahead: number, atMs: number, effects: SessionEffect[]): Turn {
  if ((turn.phase !== 'admitting' && turn.phase !== 'queued') || turn.position === ahead) return turn;
  if (turn.phase === 'queued' && turn.stored)
    effects.push({
      type: 'event',
      taskId: turn.taskId,
      event: { type: 'chat.queued', data: { position: ahead } },
      atMs,
    });
  return { ...turn, position: ahead };
}

/** How a turn's agent is looked up. */
export const agentQuery = ({ taskId, attempt, agentId, request }: Turn): AgentQuery => ({
  taskId,
  attempt,
  agentId,
  agentVersion: request.agentVersion,
});

/**
 * An agent has a newer version, is off, or is gone. Turns that wait for it do not run before it has been looked up
 * anew; those that are being admitted with the older one are looked up anew, too.
 */
export function agentChanged(state: SessionState, agentId: AgentId): SessionStep {
  const effects: SessionEffect[] = [];
  const turns = state.turns.map((turn) => {
    const waits = turn.phase === 'queued' || turn.phase === 'admitting';
    if (!waits || turn.agentId !== agentId) return turn;
    effects.push({ type: 'findAgent', ...agentQuery(turn) });
    return { ...turn, agent: null };
  });
  return effects.length > 0 ? [{ ...state, turns }, effects] : [state, []];
}
