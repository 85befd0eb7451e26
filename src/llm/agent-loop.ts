/** The default agent: asks the model, runs the tools it asks for, and asks again until it answers. */
import type { RunOutcome } from '../ports/runner.ts';
import type { ChatModel } from './chat-model.ts';
import { toModelMessages, toolCallMessage, toolResultMessage } from './messages.ts';
import { callModel, type ModelCallDependencies } from './model-call.ts';
import type { Run } from './run.ts';
import type { ToolUse } from './tool-use.ts';

/** What either kind of agent works with. */
export interface AgentParts {
  readonly run: Run;
  /** The agent's model, then those that stand in for it. */
  readonly models: readonly [ChatModel, ...ChatModel[]];
  readonly toolUse: ToolUse;
  /** The system prompt, filled in. */
  readonly prompt: string;
  readonly dependencies: ModelCallDependencies;
}

/**
 * Resolves to the text of the last iteration: without tools, the deltas put together. Each iteration that asks for
 * tools is counted by the execution before its tools are judged.
 * Throws a RefusalError when a limit, the model or its use of tools ends the run.
 */
export async function runAgentLoop(parts: AgentParts): Promise<RunOutcome> {
  const { run, models, toolUse, prompt, dependencies } = parts;
  const messages = toModelMessages(prompt, run.plan.history, run.plan.images);
  for (let mayBeEmpty = false; ; mayBeEmpty = true) {
    const question = { models, messages, tools: toolUse.definitions, mayBeEmpty };
    const answer = await callModel(run, question, dependencies);
    if (answer.calls.length === 0) return { type: 'answered', content: answer.text, counts: answer.counts };

    const checked = toolUse.check(answer.calls, await run.callEnded(answer.counts));
    messages.push(toolCallMessage(answer));
    const results = await Promise.all(checked.map((call) => toolUse.perform(call)));
    messages.push(...checked.map(({ call }, place) => toolResultMessage(call, results[place] ?? '')));
  }
}
