/** Runs agents: picks the loop by the agent's type and lends each run its model, tools and supervision. */
import type { AgentConfig } from '../domain/agent.ts';
import { RefusalError } from '../domain/errors.ts';
import type { EventData } from '../domain/frames.ts';
import { formatRefusal, jsonMisfit, schemaRefusal } from '../domain/response-format.ts';
import type { AnswerSchemas } from '../ports/answer-schemas.ts';
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
  readonly schemas: AnswerSchemas;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
  /** How long a model may take to begin, and between two tokens. */
  readonly timeouts: RunDependencies['timeouts'];
}

/** Makes the node's agent runner. It owns `tools` and `schemas` from here: close() ends their workers. */
export function createAgentRunner(dependencies: RunnerDependencies): AgentRunner {
  const { models, tools, schemas, clock, metrics, log, timeouts } = dependencies;
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
        await readSchema(run, dependencies);
        if (type === 'conversational') return inFormat(run, await runAgentLoop(parts), schemas);
        // Loaded on first use: LangGraph adds 20 MB and 150 ms to the start.
        const { runLangChainAgent } = await import('./langchain-agent.ts');
        return inFormat(run, await runLangChainAgent(parts), schemas);
      }),
    async close() {
      watchdog.close();
      await Promise.all([tools.close(), schemas.close(), models.close()]);
    },
  };
}

/**
 * A turn's own schema is read before a model is asked, and refused where no answer can be matched against it. An
 * agent's was read when the agent was stored: it is read while the model answers, and one that an earlier version or a
 * service let pass asks for no more than JSON.
 */
async function readSchema({ plan }: Run, { schemas, log }: RunnerDependencies): Promise<void> {
  const { responseFormat: format, agent, tenantId } = plan;
  if (format?.type !== 'json_schema') return;
  const reading = schemas.read(format.json_schema.schema, tenantId);
  if (format !== agent.responseFormat) {
    const { problem } = await reading;
    if (problem !== undefined) throw new RefusalError(schemaRefusal(problem));
  } else
    reading.then(({ problem }) => {
      const ids = { tenant_id: tenantId, agent_id: agent.id, agent_version: agent.version };
      if (problem !== undefined) log.warn({ ...ids, problem }, "an agent's schema can not be used");
    });
}

/** An answer that is not in the format that was asked for is no answer. Its call counts all the same. */
async function inFormat(run: Run, outcome: RunOutcome, schemas: AnswerSchemas): Promise<RunOutcome> {
  const { responseFormat: format, tenantId } = run.plan;
  if (outcome.type !== 'answered' || !format) return outcome;
  const misfit =
    format.type === 'json_object'
      ? jsonMisfit(outcome.content, 'object')
      : await schemas.match(format.json_schema.schema, outcome.content, tenantId, run.signal);
  if (!misfit) return outcome;
  await run.callEnded(outcome.counts);
  return { type: 'failed', error: formatRefusal(misfit, outcome.counts.finish === 'length') };
}
