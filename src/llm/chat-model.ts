/** A chat model as the agent loops use it: one answer at a time, told piece by piece. */
import type { BaseChatModel } from '@langchain/core/language_models/chat_models';
import type { BaseMessage } from '@langchain/core/messages';
import type { ChatGenerationChunk } from '@langchain/core/outputs';
import type { TenantId } from '../domain/ids.ts';
import type { JsonFormat } from '../domain/response-format.ts';
import type { Answer, AnswerSink } from './completions/answer.ts';
import { readFinish, type Usage } from './completions/chunk.ts';
import { addPieces, type OpenCall, type ToolCallPiece } from './tool-calls.ts';
import type { ToolDefinition } from './tools/tool.ts';

export interface ModelRequest {
  readonly messages: readonly BaseMessage[];
  readonly tools: readonly ToolDefinition[];
  /** Models that do not know of it are asked without. */
  readonly format?: JsonFormat | undefined;
  readonly signal: AbortSignal;
  /** Whether an answer without text and calls is one: after a tool has run. */
  readonly mayBeEmpty: boolean;
  /** Tokens that prompt and answer may have together. */
  readonly budgetTokens: number;
  /** On whose behalf: answers that stream at once are read by tenant in turn. */
  readonly tenantId: TenantId;
}

export interface ChatModel {
  readonly provider: string;
  readonly model: string;
  /** Where it is asked, for the log; absent where no request leaves the process. */
  readonly host?: string;
  /** Tokens of what the model is given, as far as has been learnt of it. */
  estimate(messages: readonly BaseMessage[]): number;
  /** One attempt. Rejects with a ModelFailure, or with the signal's reason. */
  ask(request: ModelRequest, sink: AnswerSink): Promise<Answer>;
}

/**
 * A LangChain model, read by its own generator and not by `stream()`: five times cheaper, measured (ARCHITECTURE). For
 * models in this process, which end properly.
 */
export function fromLangChain(provider: string, name: string, model: BaseChatModel): ChatModel {
  return {
    provider,
    model: name,
    estimate: (messages) => Math.ceil(messages.reduce((units, { text }) => units + text.length, 0) / 4),
    async ask({ messages, tools, signal }, sink) {
      const calls: OpenCall[] = [];
      let text = '';
      let finish: unknown;
      let usage: Usage | undefined;
      const options = tools.length > 0 ? { signal, tools } : { signal };
      const chunks: AsyncGenerator<ChatGenerationChunk> = model._streamResponseChunks(
        [...messages],
        options,
        undefined,
      );
      for await (const { text: piece, message, generationInfo } of chunks) {
        sink.onChunk();
        if (piece !== '') {
          text += piece;
          sink.onText(piece);
        }
        if (isAssistantChunk(message)) {
          if (message.tool_call_chunks) addPieces(calls, message.tool_call_chunks);
          const counted = message.usage_metadata;
          if (counted)
            usage = {
              total: counted.total_tokens,
              input: counted.input_tokens,
              output: counted.output_tokens,
            };
        }
        finish = generationInfo?.finish_reason ?? finish;
      }
      signal.throwIfAborted();
      return { text, calls, thoughts: undefined, finish: readFinish(finish) ?? 'stop', usage };
    },
  };
}

/** The part of an assistant's chunk that is read here. LangChain types a stream's message by its base class. */
interface AssistantChunk {
  readonly tool_call_chunks: readonly ToolCallPiece[] | undefined;
  readonly usage_metadata:
    | { readonly total_tokens: number; readonly input_tokens: number; readonly output_tokens: number }
    | undefined;
}

const isAssistantChunk = (message: object): message is AssistantChunk => 'tool_call_chunks' in message;
