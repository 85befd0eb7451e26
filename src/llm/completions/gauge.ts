/** How many tokens a model makes of a text: an estimate that knows scripts, set right by what the provider counts. */
import type { BaseMessage } from '@langchain/core/messages';
import { estimateTokens } from '../../domain/conversation.ts';

/** How much a new count weighs against those before it. */
const WEIGHT = 0.3;
/** A provider that counts outside these bounds counts something else. */
const MIN_RATIO = 0.25;
const MAX_RATIO = 6;

/** Roughly what providers count for an image. */
const IMAGE_TOKENS = 1_000;

export interface Gauge {
  estimate(messages: readonly BaseMessage[]): number;
  /** What the provider counted for these messages. */
  learn(messages: readonly BaseMessage[], counted: number): void;
}

export function createGauge(): Gauge {
  let ratio = 1;
  return {
    estimate: (messages) => Math.ceil(plainEstimate(messages) * ratio),
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

function plainEstimate(messages: readonly BaseMessage[]): number {
  let tokens = 0;
  for (const message of messages) {
    const { content } = message;
    const { text } = message;
    if (text !== '') tokens += estimateTokens(text);
    if (typeof content !== 'string') tokens += IMAGE_TOKENS * content.filter(isImage).length;
    if ('tool_calls' in message && Array.isArray(message.tool_calls))
      tokens += estimateTokens(JSON.stringify(message.tool_calls));
  }
  return Math.max(1, tokens);
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
  if (gauge.estimate(messages) <= tokens) return messages;
  const first = messages[0]?.type === 'system' ? 1 : 0;
  const last = messages.findLastIndex(({ type }) => type === 'human');
  let from = first;
  while (from < last) {
    from += 1;
    while (from < last && messages[from]?.type === 'ai') from += 1;
    const rest = [...messages.slice(0, first), ...messages.slice(from)];
    if (from >= last || gauge.estimate(rest) <= tokens) return rest;
  }
  return messages;
}
