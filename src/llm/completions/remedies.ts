/** What an endpoint refuses about a request that can be asked otherwise: a field, a limit, its length. Pure. */
import type { RequestBody } from './body.ts';

/** How to ask once more. */
export type Remedy =
  | { readonly type: 'without'; readonly field: string }
  /** The model knows no role for instructions: they are said before the first question. */
  | { readonly type: 'noSystem' }
  /** Null beside calls, where the model wrote no text: what refuses null may refuse '' as well, so there is text. */
  | { readonly type: 'besideCalls' }
  /** The limit of the answer goes by the other name. */
  | { readonly type: 'rename'; readonly from: string; readonly to: string }
  | { readonly type: 'answerTokens'; readonly tokens: number }
  /** What the window leaves beside this prompt: nothing to remember, another prompt leaves another room. */
  | { readonly type: 'room'; readonly tokens: number; readonly window: number }
  /** The prompt is too long. `window` is how many tokens prompt and answer may have together, where it says so. */
  | { readonly type: 'shorter'; readonly window?: number };

/** Fields that a request can do without, in the order in which they are given up. */
const OPTIONAL = [
  'stream_options',
  'stream',
  'parallel_tool_calls',
  'temperature',
  'tool_choice',
  'response_format',
  'reasoning_effort',
  'top_p',
  'seed',
  'user',
  'service_tier',
  'strict',
];
const LIMITS = ['max_tokens', 'max_completion_tokens'] as const;

const CONTEXT =
  /context|too (long|large|many (input )?tokens)|prompt is too|input is too|maximum (number of )?(input )?tokens|token limit|exceed\w* .{0,40}(limit|length|window|tokens)|reduce (the|your) (length|message|prompt|input)/;
/** Fewer tokens are no room for an answer. */
const MIN_ROOM = 64;
const OVER_MINUTE = /tokens per minute|\btpm\b/;

/**
 * Reads a refusal (400, 413, 422; 429 where the request alone is more than a minute's tokens). `text` is its body.
 * Undefined where asking otherwise does not help.
 */
export function remedyFor(status: number, text: string, body: RequestBody): Remedy | undefined {
  const said = text.toLowerCase();
  const isTooLarge = OVER_MINUTE.test(said) && /too large|requested/.test(said);
  // Templates that can not join null to text fail where they are filled in.
  if (NO_NULL.test(said) && hasBareCalls(body)) return { type: 'besideCalls' };
  if (status !== 400 && status !== 413 && status !== 422 && !(status === 429 && isTooLarge)) return undefined;
  const limit = LIMITS.find((name) => name in body && body[name] !== undefined);
  if (limit) {
    const remedy = limitRemedy(said, limit, Number(body[limit]));
    if (remedy) return remedy;
  }
  if (NO_SYSTEM.test(said) && systemOf(body) !== undefined) return { type: 'noSystem' };
  if (NO_CONTENT.test(said) && hasBareCalls(body)) return { type: 'besideCalls' };
  const field = OPTIONAL.find((name) => body[name] !== undefined && named(name).test(said));
  if (field) return { type: 'without', field };
  if (status === 413 || isTooLarge || CONTEXT.test(said)) {
    const window = windowIn(said, isTooLarge);
    return window === undefined ? { type: 'shorter' } : { type: 'shorter', window };
  }
  return undefined;
}

/** A field as texts name it; `stream` is a word of many texts, and `streaming` says the same. */
const named = (field: string): RegExp =>
  field === 'stream'
    ? /^(?=.*(support|verif|allow|disabl|must be false)).*(?<!\w)stream(ing)?\b/s
    : new RegExp(field);

/** Gemma's and Mistral's templates, OpenAI's first reasoning models, Google's Gemma. */
const NO_SYSTEM =
  /(system|developer) (role|message|prompt|instruction)s?\b.{0,40}(not|un)[ -]?(support|enabl|allow)|not support '(system|developer)'|roles must alternate/;

const NO_NULL = /nonetype/;
const ABSENT = String.raw`(?:null|none|nil|empty|blank|missing|required|non-?empty|string|str\b|text\b)`;
const NO_CONTENT = new RegExp(`\\bcontents?\\b.{0,80}${ABSENT}|${ABSENT}.{0,80}\\bcontents?\\b`, 's');
/** Text that says nothing. */
const A_WORD = '...';

interface SentMessage {
  readonly role?: unknown;
  readonly content?: unknown;
  readonly tool_calls?: unknown;
}

const messagesOf = ({ messages }: RequestBody): readonly SentMessage[] =>
  Array.isArray(messages) ? messages : [];

const isBare = ({ content, tool_calls }: SentMessage): boolean =>
  tool_calls !== undefined && content === null;

const hasBareCalls = (body: RequestBody): boolean => messagesOf(body).some(isBare);

const withBesideCalls = (body: RequestBody): RequestBody => ({
  ...body,
  messages: messagesOf(body).map((each) => (isBare(each) ? { ...each, content: A_WORD } : each)),
});

/** The messages of a request, and the instructions that they begin with. */
function systemOf(body: RequestBody): { system: string; rest: readonly SentMessage[] } | undefined {
  const [first, ...rest] = messagesOf(body);
  const isSystem = first?.role === 'system' || first?.role === 'developer';
  return isSystem && typeof first.content === 'string' ? { system: first.content, rest } : undefined;
}

/** The instructions as the beginning of the first question. */
function withoutSystem(body: RequestBody): RequestBody {
  const found = systemOf(body);
  if (!found) return body;
  const { system, rest } = found;
  const [question, ...others] = rest;
  const content = question?.content;
  const said = Array.isArray(content)
    ? [{ type: 'text', text: system }, ...content]
    : [system, content].filter((text) => typeof text === 'string' && text !== '').join('\n\n');
  if (question?.role !== 'user') return { ...body, messages: [{ role: 'user', content: system }, ...rest] };
  return { ...body, messages: [{ ...question, content: said }, ...others] };
}

const UNKNOWN =
  /unsupported|not supported|instead|unknown|unrecognized|extra|not permitted|not allowed|unexpected|invalid param|deprecated/;

/** What the refusal says about the limit of the answer. */
function limitRemedy(said: string, limit: string, sent: number): Remedy | undefined {
  const other = limit === 'max_tokens' ? 'max_completion_tokens' : 'max_tokens';
  const isUnknown = UNKNOWN.test(said);
  const namesOther = limit === 'max_tokens' ? said.includes(other) : /\bmax_tokens\b/.test(said);
  if (isUnknown && (namesOther || said.includes(limit))) return { type: 'rename', from: limit, to: other };
  const window = windowIn(said, OVER_MINUTE.test(said));
  const prompt = numberAfter(
    said,
    /(\d[\d,]*)(?= (tokens )?(in|of|from) (the |your )?(messages|prompt|input))/,
  );
  if (window !== undefined && prompt !== undefined && prompt < window) {
    const tokens = Math.min(sent - 1, window - prompt - 8);
    return tokens < MIN_ROOM ? { type: 'shorter', window } : { type: 'room', window, tokens };
  }
  if (
    !said.includes(limit) &&
    !/completion tokens|output tokens|max(imum)? (new|output)|max_new_tokens|maxoutputtokens/.test(said)
  )
    return undefined;
  const fitting = numbersIn(said).filter((number) => number < sent && number >= 16);
  if (fitting.length > 0) return { type: 'answerTokens', tokens: Math.max(...fitting) };
  return { type: 'without', field: limit };
}

/** The tokens that prompt and answer may have together, where the text names them. */
function windowIn(said: string, perMinute: boolean): number | undefined {
  const named = perMinute
    ? numberAfter(said, /limit:? (\d[\d,]*)/)
    : (numberAfter(said, /\bn_ctx"?: ?(\d+)/) ??
      numberAfter(said, /(?:context|window|maximum|max|limit)[^.\d"]{0,60}?(\d[\d,]{2,})/) ??
      numberAfter(said, /(\d[\d,]{2,})(?: tokens?)? (?:context|limit|maximum)/));
  return named !== undefined && named >= 256 ? named : undefined;
}

function numberAfter(said: string, pattern: RegExp): number | undefined {
  const found = pattern.exec(said)?.[1]?.replaceAll(',', '');
  return found === undefined ? undefined : Number(found);
}

const numbersIn = (said: string): readonly number[] =>
  (said.match(/\d[\d,]*/g) ?? []).map((text) => Number(text.replaceAll(',', '')));

/** What was learnt of one model at one endpoint: how its requests have to look. Bounded by whoever holds it. */
export interface Habits {
  readonly without: readonly string[];
  readonly renamed: Readonly<Record<string, string>>;
  readonly answerTokens: number | undefined;
  readonly window: number | undefined;
  readonly noSystem?: boolean;
  readonly besideCalls?: boolean;
}

/** With one remedy more. */
export function learnt(habits: Habits, remedy: Remedy): Habits {
  switch (remedy.type) {
    case 'without':
      if (habits.without.includes(remedy.field)) return habits;
      return { ...habits, without: [...habits.without, remedy.field] };
    case 'noSystem':
      return { ...habits, noSystem: true };
    case 'besideCalls':
      return { ...habits, besideCalls: true };
    case 'rename':
      // Known by neither name.
      if (habits.renamed[remedy.to] !== undefined)
        return { ...habits, renamed: {}, without: [...habits.without, remedy.from, remedy.to] };
      return { ...habits, renamed: { ...habits.renamed, [remedy.from]: remedy.to } };
    case 'answerTokens':
      return { ...habits, answerTokens: remedy.tokens };
    case 'room':
      return { ...habits, window: remedy.window };
    case 'shorter':
      return remedy.window === undefined ? habits : { ...habits, window: remedy.window };
  }
}

/** A request as the endpoint is known to want it. */
export function adapted(body: RequestBody, habits: Habits): RequestBody {
  const { without, renamed, answerTokens } = habits;
  const asked = habits.noSystem ? withoutSystem(body) : body;
  const next = { ...(habits.besideCalls ? withBesideCalls(asked) : asked) };
  for (const field of without) delete next[field];
  // Options of what is not asked for are refused.
  if (next.stream === undefined) delete next.stream_options;
  for (const [from, to] of Object.entries(renamed)) {
    if (next[from] === undefined) continue;
    next[to] = next[from];
    delete next[from];
  }
  if (answerTokens !== undefined)
    for (const name of LIMITS)
      if (next[name] !== undefined) next[name] = Math.min(Number(next[name]), answerTokens);
  return next;
}
