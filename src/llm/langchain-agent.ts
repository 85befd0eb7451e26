/** The agent type `langchain`: LangChain's createAgent drives, over the same model calls, tools and limits as our loop. */
import type { CallbackManagerForLLMRun } from '@langchain/core/callbacks/manager';
import type { BaseLanguageModelInput } from '@langchain/core/language_models/base';
import { BaseChatModel, type BaseChatModelCallOptions } from '@langchain/core/language_models/chat_models';
import type { AIMessage, AIMessageChunk, BaseMessage } from '@langchain/core/messages';
import type { ChatResult } from '@langchain/core/outputs';
import type { Runnable } from '@langchain/core/runnables';
import { createAgent, tool } from 'langchain';
import { z } from 'zod';
import { RefusalError } from '../domain/errors.ts';
import type { RunOutcome } from '../ports/runner.ts';
import type { AgentParts } from './agent-loop.ts';
import { toModelMessages, toolCallMessage } from './messages.ts';
import { callModel, type ModelAnswer } from './model-call.ts';
import type { CheckedCall } from './tool-use.ts';

/** Answers a conversation; `onText` is told of each piece. */
type Answering = (messages: BaseMessage[], onText: (text: string) => void) => Promise<AIMessage>;

/** The model as createAgent sees it: each call is one supervised call of the real model. */
class SupervisedModel extends BaseChatModel {
  readonly #answer: Answering;

  constructor(answer: Answering) {
    super({});
    this.#answer = answer;
  }

  _llmType(): string {
    return 'supervised';
  }

  /** Each call gives the real model its tools. */
  override bindTools(): Runnable<BaseLanguageModelInput, AIMessageChunk, BaseChatModelCallOptions> {
    return this;
  }

  async _generate(
    messages: BaseMessage[],
    _options: unknown,
    runManager?: CallbackManagerForLLMRun,
  ): Promise<ChatResult> {
    const message = await this.#answer(messages, (text) => {
      runManager?.handleLLMNewToken(text).catch(() => {});
    });
    return { generations: [{ text: message.text, message }] };
  }
}

/** Our checks have read the arguments already; LangChain need not refuse what they let pass. */
const anyArguments = z.looseObject({});

/** Same results and errors as `runAgentLoop`. */
export async function runLangChainAgent(parts: AgentParts): Promise<RunOutcome> {
  const { run, models, toolUse, prompt, dependencies } = parts;
  const checkedCalls = new Map<string, CheckedCall>();
  let last: ModelAnswer | undefined;
  let refused: RefusalError | undefined;

  /** createAgent may wrap what is thrown under it: the refusal is thrown again as it was. */
  const withRefusal = async <T>(step: () => Promise<T>): Promise<T> => {
    try {
      return await step();
    } catch (error) {
      if (error instanceof RefusalError) refused ??= error;
      throw error;
    }
  };
  const supervised = new SupervisedModel((messages, onText) =>
    withRefusal(async () => {
      const mayBeEmpty = messages.some(({ type }) => type === 'tool');
      const question = { models, messages, tools: toolUse.definitions, mayBeEmpty, onText };
      const answer = await callModel(run, question, dependencies);
      last = answer;
      checkedCalls.clear();
      if (answer.calls.length > 0)
        for (const checked of toolUse.check(answer.calls, await run.callEnded(answer.counts)))
          checkedCalls.set(checked.call.id, checked);
      return toolCallMessage(answer);
    }),
  );
  const tools = toolUse.definitions.map(({ function: { name, description } }) =>
    tool(
      (_args: unknown, config: { toolCall?: { id?: string } }) =>
        withRefusal(async () => {
          const checked = checkedCalls.get(config.toolCall?.id ?? '');
          return checked ? toolUse.perform(checked) : 'Error: unknown call.';
        }),
      { name, description, schema: anyArguments },
    ),
  );
  const agent = createAgent({ model: supervised, tools });
  try {
    // Two steps an iteration; ours is the limit that counts.
    const recursionLimit = 2 * run.plan.limits.maxIterations + 10;
    const messages = toModelMessages(prompt, run.plan.history, run.plan.images);
    await agent.invoke({ messages }, { signal: run.signal, recursionLimit });
  } catch (error) {
    throw refused ?? error;
  }
  if (refused) throw refused;
  if (!last) throw new Error('The agent ended without a call of its model.');
  return { type: 'answered', content: last.text, counts: last.counts };
}
