/** One chunk of a chat-completions answer, read for what it holds and not for what it should look like. */
import type { ToolCallPiece } from '../tool-calls.ts';
import { type Finish, finishWord, readFinish } from './finish.ts';
import { readUsage, type Usage } from './usage.ts';

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
}

const REASONING_FIELDS = ['reasoning_content', 'reasoning', 'thinking'] as const;
export type ReasoningField = (typeof REASONING_FIELDS)[number];

/** The error that a gateway sends where a chunk should be; undefined where there is none. */
export function errorIn(value: unknown, eventName: string): unknown {
  if (!isObject(value)) return undefined;
  const { object } = value;
  const error = value.error ?? firstChoice(value.choices)?.error;
  if (error !== undefined && error !== null && error !== false && error !== '') return error;
  if (object === 'error' || eventName === 'error' || value.type === 'error') return value;
  return undefined;
}

/** Reads a chunk, or a whole completion. What has another shape than it should have counts as absent. */
export function readChunk(value: unknown): Chunk {
  const chunk: Chunk = {};
  if (!isObject(value)) return chunk;
  const choice = firstChoice(value.choices);
  const usage = readUsage(value.usage) ?? readUsage(at(value.x_groq, 'usage')) ?? readUsage(choice?.usage);
  if (usage) chunk.usage = usage;
  if (!choice) return chunk;
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
  const { arguments: args } = of;
  return {
    index: typeof index === 'number' && Number.isInteger(index) ? index : undefined,
    id: typeof call.id === 'string' && call.id !== '' ? call.id : undefined,
    name: typeof of.name === 'string' && of.name !== '' ? of.name : undefined,
    args:
      typeof args === 'string'
        ? args
        : args === undefined || args === null
          ? undefined
          : JSON.stringify(args),
    extra: isObject(call.extra_content) ? call.extra_content : undefined,
  };
}

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const at = (value: unknown, key: string): unknown => (isObject(value) ? value[key] : undefined);
