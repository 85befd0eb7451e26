/** What the word at the end of an answer means: every endpoint has its own. */

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
