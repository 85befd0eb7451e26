/** Turns and messages as plain records, and which of them the model is given. */
import type { TaskId } from './ids.ts';

export type Role = 'user' | 'assistant';

/** One message of a conversation. A user message and its answer share the turn's task id. */
export interface Message {
  readonly role: Role;
  readonly content: string;
  readonly taskId: TaskId;
  readonly atMs: number;
  /** The text so far of a turn that failed: shown, and given to no model. */
  readonly partial?: true;
  /** The model refused to answer this for what it says, or for its length: shown, and given to no model again. */
  readonly refused?: true;
}

/**
 * Rough tokens of a text, never under one: four characters each in Latin script, two in others, one where a character is
 * a word or a syllable (Chinese, Japanese, Korean) or a picture. Used for budgets, and where no provider counts.
 */
export function estimateTokens(text: string): number {
  if (!FOREIGN.test(text)) return Math.max(1, Math.ceil(text.length / 4));
  let quarters = 0;
  for (let at = 0; at < text.length; at += 1) quarters += quartersOf(text.charCodeAt(at));
  return Math.max(1, Math.ceil(quarters / 4));
}

/** Beyond Latin with its accents. */
const FOREIGN = /[\u0250-\u200f\u2020-\uffff]/;

/** Quarters of a token that one UTF-16 unit stands for. */
function quartersOf(unit: number): number {
  if (unit < 0x250 || (unit >= 0x2010 && unit < 0x2020)) return 1;
  // Greek, Cyrillic, Hebrew, Arabic, Indic scripts, Thai and the like, up to Hangul's letters.
  if (unit < 0x1100) return 2;
  return 4;
}

/** Whether it is the text so far of a turn that failed. */
export const isPartial = ({ partial }: Message): boolean => partial === true;

/** Whether no model is given it. */
const isUnread = (message: Message): boolean => isPartial(message) || message.refused === true;

/**
 * The newest messages that fit: at most `maxMessages` of them and `maxTokens` estimated tokens together,
 * never starting with an answer whose question was cut, and without what failed turns left. The last message is always
 * kept.
 */
export function trimHistory(
  conversation: readonly Message[],
  maxMessages: number,
  maxTokens: number,
): readonly Message[] {
  const messages = conversation.some(isUnread) ? conversation.filter((one) => !isUnread(one)) : conversation;
  const weigh = fitsAtItsHeaviest(messages, maxTokens) ? () => 0 : estimateTokens;
  let from = messages.length;
  let tokens = 0;
  while (from > 0 && messages.length - from < Math.max(1, maxMessages)) {
    const message = messages[from - 1];
    if (!message) break;
    tokens += weigh(message.content);
    if (tokens > maxTokens && from < messages.length) break;
    from -= 1;
  }
  while (from < messages.length - 1 && messages[from]?.role === 'assistant') from += 1;
  return from === 0 ? messages : messages.slice(from);
}

/** No text has more tokens than units. Most conversations are known to fit by that, without a look at their texts. */
function fitsAtItsHeaviest(messages: readonly Message[], maxTokens: number): boolean {
  let units = 0;
  for (const { content } of messages) units += content.length + 1;
  return units <= maxTokens;
}
