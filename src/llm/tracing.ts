/** LangChain's callbacks for calls that do not go through its models: tracers hear of them as of any other. */
import { CallbackManager, type CallbackManagerForLLMRun } from '@langchain/core/callbacks/manager';
import type { Serialized } from '@langchain/core/load/serializable';
import { AIMessage, type BaseMessage } from '@langchain/core/messages';
import type { ChatModel } from './chat-model.ts';
import type { Answer } from './completions/answer.ts';
import { parseArgs } from './tool-calls.ts';
import type { ToolDefinition } from './tools/tool.ts';

/** One call, told to whoever listens; what a listener throws is its own affair. */
export interface CallTrace {
  token(text: string): void;
  ended(answer: Answer): void;
  failed(error: unknown): void;
}

/** Undefined where nobody listens (LANGSMITH_TRACING, or a handler in LangChain's context): that costs microseconds. */
export function traceCall(
  { provider, model }: ChatModel,
  messages: readonly BaseMessage[],
  tools: readonly ToolDefinition[],
): CallTrace | undefined {
  const manager = CallbackManager._configureSync();
  if (!manager) return undefined;
  const params = { invocation_params: { model, tools, _type: provider }, options: {} };
  const serialized: Serialized = { lc: 1, type: 'not_implemented', id: ['nooble', provider, model] };
  const metadata = { ls_provider: provider, ls_model_name: model, ls_model_type: 'chat' };
  manager.addMetadata(metadata);
  const started = manager.handleChatModelStart(serialized, [[...messages]], undefined, undefined, params);
  /** In order, and never in the way of the answer. */
  let told: Promise<unknown> = started;
  const tell = (step: (run: CallbackManagerForLLMRun) => Promise<unknown>): void => {
    told = told.then(async () => Promise.all((await started).map(step))).catch(() => undefined);
  };
  return {
    token: (text) => tell((run) => run.handleLLMNewToken(text)),
    ended: (answer) => tell((run) => run.handleLLMEnd({ generations: [[generationOf(answer)]] })),
    failed: (error) => tell((run) => run.handleLLMError(error)),
  };
}

function generationOf({ text, calls, usage, finish }: Answer) {
  const { input = 0, output = 0, total = 0 } = usage ?? {};
  const message = new AIMessage({ content: text, response_metadata: { finish_reason: finish } });
  message.tool_calls = calls.map(({ id, name, args }) => ({ id, name, args: parseArgs(args) ?? {} }));
  // LangChain's types have no usage in an untyped message, though it has one.
  Object.assign(message, {
    usage_metadata: { input_tokens: input, output_tokens: output, total_tokens: total },
  });
  return { text, message };
}
