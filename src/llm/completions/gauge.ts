/** How many tokens a model makes of a text: an estimate that knows scripts, set right by what the provider counts. */
import type { BaseMessage } from '@langchain/core/messages';
import { estimateTokens } from '../../domain/conversation.ts';
import { textOf } from '../messages.ts';

/** How much a new count weighs against those before it. */
const WEIGHT = 0.3;
/** A provider that counts outside these bounds counts something else. */
const MIN_RATIO = 0.25;
const MAX_RATIO = 6;

/** Roughly what providers count for an image. */
const IMAGE_TOKENS = 1_000;

export interface Gauge {
  estimate(messages: readonly BaseMessage[]): number;
  /** What each message adds to that. */
  weights(messages: readonly BaseMessage[]): readonly number[];
  /** What the provider counted for these messages. */
  learn(messages: readonly BaseMessage[], counted: number): void;
}

export function createGauge(): Gauge {
  let ratio = 1;
  return {
    estimate: (messages) => Math.ceil(plainEstimate(messages) * ratio),
    weights: (messages) => messages.map((message) => plainTokens(message) * ratio),
    learn(messages, counted) {
      // What an image costs is every provider's own.
      if (messages.some(({ content }) => typeof content !== 'string')) return;
      const seen = counted / plainEstimate(messages);
      if (seen < MIN_RATIO || seen > MAX_RATIO) return;
      // Up at once and down slowly: too much history costs an answer, too little costs a memory.
      ratio = seen > ratio ? seen : ratio + WEIGHT * (seen - ratio);
    },
  };
}

const plainEstimate = (messages: readonly BaseMessage[]): number =>
  Math.max(
    1,
    messages.reduce((tokens, message) => tokens + plainTokens(message), 0),
  );

function plainTokens(message: BaseMessage): number {
  const { content } = message;
  const text = textOf(message);
  let tokens = text === '' ? 0 : estimateTokens(text);
  if (typeof content !== 'string') tokens += IMAGE_TOKENS * content.filter(isImage).length;
  if ('tool_calls' in message && Array.isArray(message.tool_calls) && message.tool_calls.length > 0)
    tokens += estimateTokens(JSON.stringify(message.tool_calls));
  return tokens;
}

const isImage = ({ type }: { readonly type?: string }): boolean => type === 'image_url';

/**
 * The newest of a conversation that is estimated to fit: the system prompt, the last thing the user said and all that
 * came of it always stay. Never begins with an answer. The same array where nothing has to go.
 */
export function fitted(
  messages: readonly BaseMessage[],
  tokens: number,
  gauge: Gauge,
): readonly BaseMessage[] {
  // Weighed once: a long conversation cut message by message must not hold the loop.
  const weights = gauge.weights(messages);
  let left = weights.reduce((sum, weight) => sum + weight, 0);
  if (left <= tokens) return messages;
  const first = messages[0]?.type === 'system' ? 1 : 0;
  const last = messages.findLastIndex(({ type }) => type === 'human');
  let from = first;
  while (from < last && (left > tokens || messages[from]?.type === 'ai')) {
    left -= weights[from] ?? 0;
    from += 1;
  }
  if (from > first) return [...messages.slice(0, first), ...messages.slice(from)];
  return messages;
}
