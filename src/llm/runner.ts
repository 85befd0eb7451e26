/** Runs agents: picks the loop by the agent's type and lends each run its model, tools and supervision. */
import type { AgentConfig } from '../domain/agent.ts';
import type { EventData } from '../domain/frames.ts';
import { formatRefusal } from '../domain/response-format.ts';
import type { AgentRunner, RunOutcome } from '../ports/runner.ts';
import type { Clock, Log, Metrics } from '../ports/telemetry.ts';
import { type AgentParts, runAgentLoop } from './agent-loop.ts';
import type { ModelProvider } from './models.ts';
import { systemPrompt } from './prompts.ts';
import { createWatchdog, type Run, type RunDependencies, supervise } from './run.ts';
import { createToolUse } from './tool-use.ts';
import type { ToolSet } from './tools/tool.ts';
import { createToolLookup, type NodeTools } from './tools/tool-set.ts';

interface RunnerDependencies {
  readonly models: ModelProvider;
  readonly tools: ToolSet & Partial<Pick<NodeTools, 'registry'>>;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
  /** How long a model may take to begin, and between two tokens. */
  readonly timeouts: RunDependencies['timeouts'];
}

/** Makes the node's agent runner. It owns `tools` from here: close() ends their workers. */
export function createAgentRunner(dependencies: RunnerDependencies): AgentRunner {
  const { models, tools, clock, metrics, log, timeouts } = dependencies;
  const toolsOf = createToolLookup(tools);
  const watchdog = createWatchdog();
  /** One object for all turns of an agent's version: sessions keep it for replay. */
  const started = new WeakMap<AgentConfig, EventData['execution.started']>();

  function startedData(agent: AgentConfig): EventData['execution.started'] {
    const known = started.get(agent);
    if (known) return known;
    const data = { agent_id: agent.id, agent_version: agent.version, model: agent.model };
    started.set(agent, data);
    return data;
  }
  const callDependencies = { metrics, log };

  return {
    run: (plan, context) =>
      supervise(plan, context, { watchdog, log, timeouts }, async (run) => {
        const { type, provider, model, temperature, maxTokens, fallbacks = [] } = plan.agent;
        const draw = { temperature, maxTokens: maxTokens ?? undefined };
        const parts: AgentParts = {
          run,
          models: [
            models.model({ provider, model, ...draw }),
            ...fallbacks.map((other) => models.model({ ...other, ...draw })),
          ],
          toolUse: createToolUse(run, toolsOf(plan.limits.tools), metrics),
          prompt: systemPrompt(plan, clock.now()),
          dependencies: callDependencies,
        };
        run.emit({ type: 'execution.started', data: startedData(plan.agent) });
        if (type === 'conversational') return inFormat(run, await runAgentLoop(parts));
        // Loaded on first use: LangGraph adds 20 MB and 150 ms to the start.
        const { runLangChainAgent } = await import('./langchain-agent.ts');
        return inFormat(run, await runLangChainAgent(parts));
      }),
    async close() {
      watchdog.close();
      await Promise.all([tools.close(), models.close()]);
    },
  };
}

/** An answer that was to be JSON and is none is no answer. Its call counts all the same. */
async function inFormat(run: Run, outcome: RunOutcome): Promise<RunOutcome> {
  const { responseFormat } = run.plan;
  if (outcome.type !== 'answered' || !responseFormat) return outcome;
  const error = formatRefusal(outcome.content, responseFormat, outcome.counts.finish === 'length');
  if (!error) return outcome;
  await run.callEnded(outcome.counts);
  return { type: 'failed', error };
}
