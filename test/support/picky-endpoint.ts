/** The rules by which strict endpoints refuse a request, one line of code each; a broken rule is told in OpenAI's error shape. */
import { raw, type Scenario, type StubBody, type StubMessage } from './stub-model.ts';

/** Rules that only some endpoints keep. */
export interface ExtraRules {
  /** Neither `max_tokens` nor `max_completion_tokens` may be above this. */
  readonly maxTokens?: number;
  /** `stream_options` is a field that the endpoint does not know: 422. */
  readonly noStreamOptions?: boolean;
  /** The first call of each message goes back with its `thought_signature`, this one. */
  readonly signature?: string;
  /** Calls go back beside the thoughts that came with them, these ones. */
  readonly thoughts?: string;
  /** Any other rule: the whole answer, or null where the request may pass. */
  readonly refuses?: (body: StubBody) => Scenario | null;
}

/** A rule that a request broke. */
export interface Broken {
  readonly rule: string;
  readonly answer: Scenario;
}

/** An error as OpenAI sends it. */
export const errorAnswer = (status: number, error: object, headers: Readonly<Record<string, string>> = {}) =>
  raw(JSON.stringify({ error }), {
    status,
    headers: { 'content-type': 'application/json', 'retry-after-ms': '1', ...headers },
  });

/** The first of the rules that every strict endpoint keeps and that this request breaks, or null. */
export function brokenRule(body: StubBody): Broken | null {
  const rule = messageRules(body.messages) ?? (wellFormed(body) ? null : 'half of a surrogate pair');
  if (rule === null) return null;
  const error = {
    message: `Invalid request: ${rule}.`,
    type: 'invalid_request_error',
    param: null,
    code: null,
  };
  return { rule, answer: errorAnswer(400, error) };
}

/** The first of the extra rules that this request breaks, or null. */
export function brokenExtra(body: StubBody, rules: ExtraRules): Broken | null {
  const limit = body.max_tokens ?? body.max_completion_tokens ?? 0;
  if (rules.maxTokens !== undefined && limit > rules.maxTokens)
    return invalid(
      `max_tokens is too large: ${limit}. This model writes at most ${rules.maxTokens} completion tokens.`,
      'max_tokens',
    );
  if (rules.noStreamOptions && body.stream_options !== undefined)
    return { rule: 'stream_options', answer: raw(NO_SUCH_FIELD, { status: 422, headers: JSON_TYPE }) };
  for (const { tool_calls: calls, reasoning_content: thoughts } of body.messages) {
    if (!calls) continue;
    if (rules.signature && calls[0]?.extra_content?.google?.thought_signature !== rules.signature)
      return invalid('Function call is missing a thought_signature', 'messages');
    if (rules.thoughts && thoughts !== rules.thoughts)
      return invalid('Missing `reasoning_content` field in the assistant message', 'messages');
  }
  const answer = rules.refuses?.(body);
  return answer ? { rule: 'refused', answer } : null;
}

const JSON_TYPE = { 'content-type': 'application/json' };

/** As vLLM and Mistral refuse a field. */
const NO_SUCH_FIELD = JSON.stringify({
  object: 'error',
  message: {
    detail: [
      {
        type: 'extra_forbidden',
        loc: ['body', 'stream_options', 'include_usage'],
        msg: 'no such field',
        input: true,
      },
    ],
  },
  type: 'invalid_request_error',
  param: null,
  code: null,
});

const invalid = (message: string, param: string): Broken => ({
  rule: message,
  answer: errorAnswer(400, { message, type: 'invalid_request_error', param, code: null }),
});

/** Walks the conversation; `open` holds the calls that have no result yet. */
function messageRules(messages: readonly StubMessage[]): string | null {
  const open = new Set<string>();
  let before = '';
  for (const { role, content, tool_calls: calls = [], tool_call_id: id = '' } of messages) {
    if (role === 'tool' ? !open.delete(id) : open.size > 0)
      return role === 'tool' ? 'a result without its call' : 'a call without its result';
    if (role === 'user' && before === 'user') return 'two messages of the user in a row';
    if (role === 'user' && isBlank(content)) return 'a message of the user without content';
    if (role === 'assistant') {
      if (calls.length === 0 && isBlank(content)) return 'an assistant message without content and calls';
      if (calls.length > 0 && content === '') return 'content "" beside calls';
      for (const call of calls) {
        if (!/^[a-zA-Z0-9_-]{1,64}$/.test(call.function.name)) return 'a function name that is none';
        if (!isObjectText(call.function.arguments)) return 'arguments that are not the text of a JSON object';
        if (typeof call.id !== 'string' || call.id === '' || open.has(call.id))
          return 'a call without an id of its own';
        open.add(call.id);
      }
    }
    before = role;
  }
  return open.size > 0 ? 'a call without its result' : null;
}

const isBlank = (content: unknown): boolean =>
  content === undefined ||
  content === null ||
  content === '' ||
  (Array.isArray(content) && content.length === 0);

function isObjectText(text: unknown): boolean {
  if (typeof text !== 'string') return false;
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) && wellFormed(value);
  } catch {
    return false;
  }
}

/** True where no string in it, at any depth and as key or value, holds half of a surrogate pair. */
export function wellFormed(value: unknown): boolean {
  if (typeof value === 'string') return value.isWellFormed();
  if (typeof value !== 'object' || value === null) return true;
  return Object.entries(value).every(([key, item]) => key.isWellFormed() && wellFormed(item));
}
