/** One chunk of a chat-completions answer, read for what it holds and not for what it should look like. */
import type { ToolCallPiece } from '../tool-calls.ts';

/** What a chunk holds; fields that it has not are absent. */
export interface Chunk {
  text?: string;
  /** Thoughts of the model, and the field they came in, under which they go back. */
  reasoning?: string;
  reasoningField?: ReasoningField;
  /** OpenRouter's `reasoning_details`: opaque, to be sent back whole. */
  reasoningDetails?: readonly unknown[];
  calls?: readonly ToolCallPiece[];
  finish?: Finish;
  /** The finish's own word, for the log. */
  finishWord?: string;
  usage?: Usage;
  /** It is a completion: some endpoints end their pieces with all of them once more. */
  isWhole?: true;
}

const REASONING_FIELDS = ['reasoning_content', 'reasoning', 'thinking'] as const;
export type ReasoningField = (typeof REASONING_FIELDS)[number];

/** The error that a gateway sends where a chunk should be; undefined where there is none. */
export function errorIn(value: unknown, eventName: string): unknown {
  if (!isObject(value)) return undefined;
  const { object } = value;
  const error = value.error ?? firstChoice(value.choices)?.error;
  if (error !== undefined && !saysNothing(error)) return error;
  if (object === 'error' || eventName === 'error' || value.type === 'error') return value;
  return undefined;
}

/** Some gateways have an error in every event: empty, or with the code 0. */
const saysNothing = (error: unknown): boolean =>
  isObject(error)
    ? Object.keys(error).length > 0 && Object.values(error).every(saysNothing)
    : error === null || error === false || error === '' || error === 0;

/** Reads a chunk, or a whole completion. What has another shape than it should have counts as absent. */
export function readChunk(value: unknown): Chunk {
  const chunk: Chunk = {};
  if (!isObject(value)) return chunk;
  const choice = firstChoice(value.choices);
  const usage = readUsage(value.usage) ?? readUsage(at(value.x_groq, 'usage')) ?? readUsage(choice?.usage);
  if (usage) chunk.usage = usage;
  if (!choice) return chunk;
  if (value.object === 'chat.completion') chunk.isWhole = true;
  const finish = readFinish(choice.finish_reason);
  if (finish) {
    chunk.finish = finish;
    chunk.finishWord = finishWord(choice.finish_reason);
  }
  const delta = isObject(choice.delta) ? choice.delta : choice.message;
  if (isObject(delta)) readDelta(chunk, delta);
  else if (typeof choice.text === 'string' && choice.text !== '') chunk.text = choice.text;
  return chunk;
}

/** The answer is the first choice; others are not asked for, and are passed over. */
function firstChoice(choices: unknown): Record<string, unknown> | undefined {
  if (!Array.isArray(choices)) return undefined;
  return choices.find((choice) => isObject(choice) && !(Number(choice.index) > 0));
}

function readDelta(chunk: Chunk, delta: Record<string, unknown>): void {
  const { content, refusal, tool_calls, function_call, reasoning_details } = delta;
  if (typeof content === 'string') {
    if (content !== '') chunk.text = content;
  } else if (content !== undefined && content !== null) readParts(chunk, content);
  if (typeof refusal === 'string' && refusal !== '') chunk.text = (chunk.text ?? '') + refusal;
  for (const field of REASONING_FIELDS) {
    const thought = delta[field];
    if (typeof thought !== 'string' || thought === '') continue;
    chunk.reasoning = thought;
    chunk.reasoningField = field;
    break;
  }
  if (Array.isArray(reasoning_details) && reasoning_details.length > 0)
    chunk.reasoningDetails = reasoning_details;
  const pieces = Array.isArray(tool_calls) ? tool_calls : isObject(tool_calls) ? [tool_calls] : [];
  if (pieces.length > 0) chunk.calls = pieces.filter(isObject).map(pieceOf);
  else if (isObject(function_call)) chunk.calls = [pieceOf({ index: 0, function: function_call })];
}

/** Content in parts: text is text, refusals are, thoughts are thoughts, and whatever else there is is not shown. */
function readParts(chunk: Chunk, content: unknown): void {
  const parts = Array.isArray(content) ? content : [content];
  for (const part of parts) {
    if (typeof part === 'string') chunk.text = (chunk.text ?? '') + part;
    else if (isObject(part)) {
      const text = part.type === 'refusal' ? part.refusal : (part.text ?? part.thinking);
      const isThought = part.type === 'thinking' || part.type === 'reasoning';
      if (isThought) chunk.reasoning = (chunk.reasoning ?? '') + plain(text);
      else chunk.text = (chunk.text ?? '') + plain(text);
    }
  }
  if (chunk.text === '') delete chunk.text;
}

/** Text, also where it is in parts once more. */
const plain = (value: unknown): string => {
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return value.map((part) => plain(isObject(part) ? part.text : part)).join('');
  return isObject(value) ? plain(value.value) : '';
};

function pieceOf(call: Record<string, unknown>): ToolCallPiece {
  const of = isObject(call.function) ? call.function : call;
  const index = typeof call.index === 'string' ? Number.parseInt(call.index, 10) : call.index;
  const args = of.arguments ?? of.parameters ?? of.input;
  return {
    index: typeof index === 'number' && Number.isInteger(index) ? index : undefined,
    id: typeof call.id === 'string' && call.id !== '' ? call.id : undefined,
    name: typeof of.name === 'string' && of.name !== '' ? of.name : undefined,
    args:
      typeof args === 'string'
        ? args
        : args === undefined || args === null || isBlank(args)
          ? undefined
          : JSON.stringify(args),
    extra: isObject(call.extra_content) ? call.extra_content : undefined,
  };
}

/** `{}` as a first piece, before the arguments' text; alone it says the same as nothing. */
const isBlank = (value: unknown): boolean => isObject(value) && Object.keys(value).length === 0;

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const at = (value: unknown, key: string): unknown => (isObject(value) ? value[key] : undefined);

// --- How an answer ended: every endpoint has a word of its own ---

export type Finish =
  /** The answer is whole. */
  | 'stop'
  /** It was cut at a limit of length; what there is counts as the answer. */
  | 'length'
  | 'tool_calls'
  /** A filter of the provider stepped in. */
  | 'filtered'
  /** The model was stopped, failed, or ran out of machine. */
  | 'failed';

/** A call that its endpoint could not read: Gemini says `function_call_filter: MALFORMED_FUNCTION_CALL`. */
const BAD_CALL = /malformed|function_call_filter/;
const FILTERED =
  /filter|safety|moderat|recitation|block|prohibit|spii|sensitive|toxic|guardrail|refusal|policy|harm|unsafe|violation/;
const FAILED =
  /abort|error|fail|cancel|kill|crash|time_?d?_?out|oom|out_of_memory|insufficient|unavailable|overload|exception|interrupt|malformed|unexpected|disconnect|reset|evict|preempt|shutdown|terminated|exhausted|rate_limit/;
const LENGTH =
  /^(length|max_(output_|completion_)?tokens|model_length|(model_)?context_(window|length).*|token_limit|truncated|limit)$/;
const CALLS = /^(tool_?calls?|function_?calls?|tool_use)$/;

/**
 * Reads a `finish_reason`, in any case, also with a reason behind the word (`error: out of memory`). Words that nobody
 * knows are a good end. Undefined for what is none: null, '' and the like.
 */
export function readFinish(reason: unknown): Finish | undefined {
  const word = wordOf(reason);
  if (word === '' || word === 'null' || word === 'none') return undefined;
  if (LENGTH.test(word)) return 'length';
  if (CALLS.test(word)) return 'tool_calls';
  if (BAD_CALL.test(word)) return 'failed';
  if (FILTERED.test(word)) return 'filtered';
  if (FAILED.test(word)) return 'failed';
  return 'stop';
}

/** The word as it may stand in a log: the first one, short, without anything else. */
export const finishWord = (reason: unknown): string => /^[a-z_]{0,40}/.exec(wordOf(reason))?.[0] ?? '';

function wordOf(reason: unknown): string {
  if (typeof reason === 'object' && reason !== null)
    return wordOf(Reflect.get(reason, 'type') ?? Reflect.get(reason, 'reason') ?? '');
  if (typeof reason !== 'string') return '';
  return reason
    .slice(0, 200)
    .replace(/([a-z])([A-Z])/g, '$1_$2')
    .trim()
    .toLowerCase()
    .replace(/[\s-]+/g, '_');
}

// --- What a provider says that a call used, where it says numbers ---

/** Whole tokens, each at least one; `total` is there whenever anything is. */
export interface Usage {
  readonly total: number;
  readonly input?: number;
  readonly output?: number;
}

/**
 * Reads `prompt_tokens`, `completion_tokens` and `total_tokens`, as numbers or numerals. Zeros, negative numbers,
 * fractions and what no window holds are no counts. The total counts; without one, the other two together. Undefined where nothing counts.
 */
export function readUsage(value: unknown): Usage | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const input = count(value, 'prompt_tokens') ?? count(value, 'input_tokens');
  const output = count(value, 'completion_tokens') ?? count(value, 'output_tokens');
  const sum = input === undefined && output === undefined ? undefined : (input ?? 0) + (output ?? 0);
  const total = count(value, 'total_tokens') ?? sum;
  if (total === undefined) return undefined;
  return {
    total,
    ...(input === undefined ? {} : { input }),
    ...(output === undefined ? {} : { output }),
  };
}

/** More tokens than any window has. */
const MAX_COUNT = 100_000_000;

function count(value: object, key: string): number | undefined {
  const found: unknown = Reflect.get(value, key);
  const number = typeof found === 'string' && /^\d{1,15}$/.test(found.trim()) ? Number(found) : found;
  return typeof number === 'number' && Number.isInteger(number) && number > 0 && number <= MAX_COUNT
    ? number
    : undefined;
}
