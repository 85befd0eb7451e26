/** Models without a network: one that answers from the message, and paced ones for tests and benchmarks. */
import { setImmediate as nextLoopTurn } from 'node:timers/promises';
import type { CallbackManagerForLLMRun } from '@langchain/core/callbacks/manager';
import type { BaseLanguageModelInput } from '@langchain/core/language_models/base';
import {
  BaseChatModel,
  type BaseChatModelCallOptions,
  type BindToolsInput,
} from '@langchain/core/language_models/chat_models';
import { AIMessageChunk, type BaseMessage } from '@langchain/core/messages';
import { ChatGenerationChunk, type ChatResult } from '@langchain/core/outputs';
import type { Runnable } from '@langchain/core/runnables';
import { convertToOpenAITool } from '@langchain/core/utils/function_calling';
import { estimateTokens } from '../domain/conversation.ts';
import { cut } from '../domain/cut.ts';
import { refusalError } from '../domain/errors.ts';
import { textOf } from './messages.ts';
import type { ToolDefinition } from './tools/tool.ts';

interface OfflineCallOptions extends BaseChatModelCallOptions {
  readonly tools?: readonly ToolDefinition[];
}

type Pace =
  | { readonly kind: 'none' }
  | { readonly kind: 'tick' }
  | { readonly kind: 'ms'; readonly ms: number };
type Plan = (messages: readonly BaseMessage[], tools: readonly ToolDefinition[]) => OfflineAnswer;

const MAX_TOKENS = 100_000;
const MAX_PACE_MS = 60_000;
const HELP = 'offline models are offline-echo, offline-<n>x<ms> (n tokens, ms apart) and offline-<n>xtick';

/** How many calls there have been: makes ids of tool calls unique in the process. */
let calls = 0;

/** Reads a model name. Throws a RefusalError (MODEL_ERROR) that names what there is. */
function readName(name: string): { plan: Plan; pace: Pace } {
  if (name === 'offline-echo') return { plan: echo, pace: { kind: 'none' } };
  const [, count, ms] = /^offline-(\d{1,6})x(\d{1,5}|tick)$/.exec(name) ?? [];
  const tokens = Number(count);
  if (ms === undefined || tokens > MAX_TOKENS || Number(ms) > MAX_PACE_MS)
    throw refusalError('MODEL_ERROR', { message: `There is no model ${name.slice(0, 100)}: ${HELP}.` });
  const answer = { pieces: Array.from({ length: tokens }, (_, index) => `tok${index + 1} `) };
  const pace: Pace =
    ms === 'tick' ? { kind: 'tick' } : ms === '0' ? { kind: 'none' } : { kind: 'ms', ms: Number(ms) };
  return { plan: () => answer, pace };
}

/** Waits that end with the signal: one listener for a whole stream, one timer at a time, none left behind. */
function pacer(ms: number, signal: AbortSignal | undefined) {
  let timer: NodeJS.Timeout | undefined;
  let wake = (): void => {};
  const onAbort = (): void => {
    clearTimeout(timer);
    wake();
  };
  signal?.addEventListener('abort', onAbort);
  return {
    wait: () =>
      new Promise<void>((resolve) => {
        wake = resolve;
        timer = setTimeout(resolve, ms);
      }),
    end(): void {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    },
  };
}

/** A LangChain chat model that computes its answer. Without a pace it never leaves the microtask queue. */
export class OfflineModel extends BaseChatModel<OfflineCallOptions> {
  readonly model: string;
  readonly #plan: Plan;
  readonly #pace: Pace;
  readonly #maxTokens: number;

  /** `maxTokens`: pieces after which an answer is cut, as `length`. Throws RefusalError for a name it does not know. */
  constructor(fields: { readonly model: string; readonly maxTokens?: number }) {
    super({});
    const { plan, pace } = readName(fields.model);
    this.model = fields.model;
    this.#plan = plan;
    this.#pace = pace;
    this.#maxTokens = fields.maxTokens ?? Number.POSITIVE_INFINITY;
  }

  _llmType(): string {
    return 'offline';
  }

  override bindTools(
    tools: BindToolsInput[],
    options?: Partial<OfflineCallOptions>,
  ): Runnable<BaseLanguageModelInput, AIMessageChunk, OfflineCallOptions> {
    const definitions: ToolDefinition[] = tools.map((tool) => {
      const { name, description, parameters } = convertToOpenAITool(tool).function;
      return {
        type: 'function',
        function: { name, description: description ?? '', parameters: parameters ?? {} },
      };
    });
    return this.withConfig({ ...options, tools: definitions });
  }

  override async *_streamResponseChunks(
    messages: BaseMessage[],
    options: this['ParsedCallOptions'],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    const signal = options.signal;
    signal?.throwIfAborted();
    const { pieces, toolCall } = this.#plan(messages, options.tools ?? []);
    const count = Math.min(pieces.length, this.#maxTokens);
    const pace = this.#pace;
    const pauses = pace.kind === 'ms' ? pacer(pace.ms, signal) : undefined;
    try {
      for (let index = 0; index < count; index += 1) {
        if (pauses) await pauses.wait();
        else if (pace.kind === 'tick') await nextLoopTurn();
        if (signal?.aborted) throw signal.reason;
        const text = pieces[index] ?? '';
        const chunk = new ChatGenerationChunk({ text, message: new AIMessageChunk({ content: text }) });
        yield chunk;
        // An await costs a microtask a token, so there is one only with callbacks.
        if (runManager)
          await runManager.handleLLMNewToken(text, undefined, undefined, undefined, undefined, { chunk });
      }
    } finally {
      pauses?.end();
    }
    yield last(messages, count, toolCall, count < pieces.length);
  }

  async _generate(messages: BaseMessage[], options: this['ParsedCallOptions']): Promise<ChatResult> {
    let whole: ChatGenerationChunk | undefined;
    for await (const chunk of this._streamResponseChunks(messages, options))
      whole = whole ? whole.concat(chunk) : chunk;
    return { generations: whole ? [whole] : [] };
  }
}

/** The chunk that ends an answer: the tool call, why it ended, and what it cost. */
function last(
  messages: readonly BaseMessage[],
  count: number,
  toolCall: OfflineAnswer['toolCall'],
  isCut: boolean,
): ChatGenerationChunk {
  let units = 0;
  for (const message of messages) units += textOf(message).length;
  const input_tokens = Math.max(1, Math.ceil(units / 4));
  const output_tokens = count + (toolCall ? estimateTokens(toolCall.args) : 0);
  const usage_metadata = { input_tokens, output_tokens, total_tokens: input_tokens + output_tokens };
  calls += 1;
  const message = new AIMessageChunk({
    content: '',
    tool_call_chunks: toolCall
      ? [{ ...toolCall, id: `offline-${calls}`, index: 0, type: 'tool_call_chunk' }]
      : [],
  });
  // LangChain's types have no usage in the constructor of an untyped message, though it takes it.
  Object.assign(message, { usage_metadata });
  const finish_reason = toolCall ? 'tool_calls' : isCut ? 'length' : 'stop';
  return new ChatGenerationChunk({ text: '', message, generationInfo: { finish_reason } });
}

/** What a model does in one answer: pieces of text, and at most one tool call. */
interface OfflineAnswer {
  readonly pieces: readonly string[];
  readonly toolCall?: { readonly name: string; readonly args: string };
}

/** UTF-16 units of the message that an answer quotes, and that are searched for a sum. */
const MAX_QUOTE_UNITS = 2_000;
const MAX_SEARCH_UNITS = 2_000;
const MAX_EXPRESSION_UNITS = 500;

const FORMULA =
  /(?:\b(?:sqrt|abs|sin|cos|tan|log10|log2|log|exp|round|floor|ceil|pi|mod)\b|\d+(?:\.\d+)?|[-+*/^%()]|\s+)+/gi;

const DATE = /\b\d{4}-\d{1,2}-\d{1,2}\b/g;

const ZONE = /\b[A-Z][A-Za-z]+\/[A-Z][A-Za-z_]+\b/;

const ASKS_FOR_TIME =
  /\b(?:what|which|tell|current|now)\b[^.]{0,60}\b(?:time|date|day)\b|\bqué (?:hora|día|fecha)\b/i;

/** Plans the answer to the newest message: a tool call, an answer out of a tool's result, or an echo. */
function echo(messages: readonly BaseMessage[], tools: readonly ToolDefinition[]): OfflineAnswer {
  const newest = messages.at(-1);
  const asked = textOf(messages.findLast((message) => message.type === 'human'));
  if (newest?.type === 'tool') return say(answerFrom(textOf(newest), asked));
  const has = (name: string): boolean => tools.some((tool) => tool.function.name === name);
  const expression = has('calculator') ? findExpression(asked) : undefined;
  if (expression) return call('calculator', { expression });
  if (has('current_time') && ASKS_FOR_TIME.test(asked.slice(0, MAX_SEARCH_UNITS))) {
    const timezone = ZONE.exec(asked)?.[0];
    return call('current_time', timezone ? { timezone } : {});
  }
  const quote = asked.length > MAX_QUOTE_UNITS ? `${cut(asked, MAX_QUOTE_UNITS)}…` : asked;
  return say(`You said: ${quote}`);
}

/** The longest sum in a text, or undefined. Words for operators count; dates do not. */
export function findExpression(text: string): string | undefined {
  const plain = text
    .slice(0, MAX_SEARCH_UNITS)
    .replace(DATE, ' ; ')
    .replace(/(\d)\s*[x×]\s*(?=[\d(])/gi, '$1 * ')
    .replace(/÷|\bdivided by\b/gi, '/')
    .replace(/\bplus\b/gi, '+')
    .replace(/\bminus\b/gi, '-')
    .replace(/\btimes\b|\bmultiplied by\b/gi, '*');
  let best: string | undefined;
  for (const [found] of plain.matchAll(FORMULA)) {
    const candidate = found.trim();
    const isSum =
      /[\d)]\s*[-+*/^%]\s*[-(]*[\d(a-z]/i.test(candidate) || /[a-z]\d*\s*\(\s*-?[\d(]/i.test(candidate);
    if (isSum && candidate.length <= MAX_EXPRESSION_UNITS && candidate.length > (best?.length ?? 0))
      best = candidate;
  }
  return best;
}

function answerFrom(result: string, asked: string): string {
  if (result.startsWith('Error')) return `I could not work that out. ${result}`;
  const expression = findExpression(asked);
  return expression ? `${expression} = ${result}` : `It is ${result}.`;
}

/** In pieces of a word with the space after it, as models stream. */
const say = (text: string): OfflineAnswer => ({ pieces: text.match(/\S+\s*|\s+/g) ?? [] });

const call = (name: string, args: object): OfflineAnswer => ({
  pieces: [],
  toolCall: { name, args: JSON.stringify(args) },
});
