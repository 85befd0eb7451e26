/** Turns and messages as plain records, and which of them the model is given. */
import type { TaskId } from './ids.ts';

export type Role = 'user' | 'assistant';

/** One message of a conversation. A user message and its answer share the turn's task id. */
export interface Message {
  readonly role: Role;
  readonly content: string;
  readonly taskId: TaskId;
  readonly atMs: number;
}

/** Rough tokens of a text: four characters each, never under one. Used for budgets, and where no provider counts. */
export const estimateTokens = (text: string): number => Math.max(1, Math.ceil(text.length / 4));

/**
 * The newest messages that fit: at most `maxMessages` of them and `maxTokens` estimated tokens together,
 * never starting with an answer whose question was cut. The last message is always kept.
 */
export function trimHistory(
  messages: readonly Message[],
  maxMessages: number,
  maxTokens: number,
): readonly Message[] {
  let from = messages.length;
  let tokens = 0;
  while (from > 0 && messages.length - from < Math.max(1, maxMessages)) {
    const message = messages[from - 1];
    if (!message) break;
    tokens += estimateTokens(message.content);
    if (tokens > maxTokens && from < messages.length) break;
    from -= 1;
  }
  while (from < messages.length - 1 && messages[from]?.role === 'assistant') from += 1;
  return from === 0 ? messages : messages.slice(from);
}
