/** What the model `offline-echo` says: it answers from the message, and does sums and dates with the tools it has. */
import type { BaseMessage } from '@langchain/core/messages';
import { cut } from './text.ts';
import type { ToolDefinition } from './tools/tool.ts';

/** What a model does in one answer: pieces of text, and at most one tool call. */
export interface OfflineAnswer {
  readonly pieces: readonly string[];
  readonly toolCall?: { readonly name: string; readonly args: string };
}

/** UTF-16 units of the message that an answer quotes. */
const MAX_QUOTE_UNITS = 2_000;
/** UTF-16 units of the message that are searched for a sum. */
const MAX_SEARCH_UNITS = 2_000;
const MAX_EXPRESSION_UNITS = 500;

const FORMULA =
  /(?:\b(?:sqrt|abs|sin|cos|tan|log10|log2|log|exp|round|floor|ceil|pi|mod)\b|\d+(?:\.\d+)?|[-+*/^%()]|\s+)+/gi;
const DATE = /\b\d{4}-\d{1,2}-\d{1,2}\b/g;
const ZONE = /\b[A-Z][A-Za-z]+\/[A-Z][A-Za-z_]+\b/;
const ASKS_FOR_TIME =
  /\b(?:what|which|tell|current|now)\b[^.]{0,60}\b(?:time|date|day)\b|\bqué (?:hora|día|fecha)\b/i;

/** Plans the answer to the newest message: a tool call, an answer out of a tool's result, or an echo. */
export function echo(messages: readonly BaseMessage[], tools: readonly ToolDefinition[]): OfflineAnswer {
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

const textOf = (message: BaseMessage | undefined): string =>
  typeof message?.content === 'string' ? message.content : '';

/** In pieces of a word with the space after it, as models stream. */
const say = (text: string): OfflineAnswer => ({ pieces: text.match(/\S+\s*|\s+/g) ?? [] });

const call = (name: string, args: object): OfflineAnswer => ({
  pieces: [],
  toolCall: { name, args: JSON.stringify(args) },
});
