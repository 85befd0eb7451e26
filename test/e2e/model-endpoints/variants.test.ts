/** More of what real endpoints and the gateways before them send: packed bodies, wrong types, odd calls, waits, statuses. */
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { CALLS, choice, DONE, HALF, line, raw, refuse, STOP, TEXT, USAGE } from '../../support/stub-model.ts';
import { ANY, type Answer, BOTH, type EndpointCase, row, table, WITH_TOOLS } from './cases.ts';
import {
  ALL,
  answered,
  BROKEN,
  CALCULATED,
  ends,
  failed,
  SOUND,
  said,
  UNCOUNTED,
  UNREADABLE,
} from './expectations.ts';

const SOUND_BYTES = Buffer.from(SOUND);
const as = (type: string) => ({ headers: { 'content-type': type } });
const packed = (bytes: Uint8Array, encoding: string, type = 'text/event-stream') =>
  raw(bytes, { headers: { 'content-encoding': encoding, 'content-type': type } });
const oneByOne = (bytes: Uint8Array) => Array.from(bytes, (byte) => Uint8Array.of(byte));
const COMPLETION = JSON.stringify({
  choices: [{ index: 0, message: { role: 'assistant', content: 'All of it.' }, finish_reason: 'stop' }],
  usage: { total_tokens: 110 },
});

table('a body is unpacked by what it is, and not by what its header says', BOTH, [
  row('gzip', packed(gzipSync(SOUND), 'gzip'), ALL),
  row('gzip, in capitals', packed(gzipSync(SOUND), 'GZIP'), ALL),
  row('gzip, byte by byte', raw(oneByOne(gzipSync(SOUND)), { headers: { 'content-encoding': 'gzip' } }), ALL),
  row('gzip in a list', packed(gzipSync(SOUND), 'gzip, identity'), ALL),
  row('gzip that nobody named', raw(gzipSync(SOUND)), ALL),
  row('gzip of a whole completion', packed(gzipSync(COMPLETION), 'gzip', 'application/json'), ALL),
  row('gzip that was unpacked on the way', packed(SOUND_BYTES, 'gzip'), ALL),
  row('brotli', packed(brotliCompressSync(SOUND), 'br'), ALL),
  row('brotli that was unpacked on the way', packed(SOUND_BYTES, 'br'), ALL),
  row('deflate', packed(deflateSync(SOUND), 'deflate'), ALL),
  row('deflate without its head', packed(deflateRawSync(SOUND), 'deflate'), ALL),
  row('deflate that was unpacked on the way', packed(SOUND_BYTES, 'deflate'), ALL),
  row('zstd', packed(zstdCompressSync(SOUND_BYTES), 'zstd'), ALL),
  row('identity', packed(SOUND_BYTES, 'identity'), ALL),
  row('nobody knows what', packed(SOUND_BYTES, 'x-house'), ALL),
  row('gzip, cut off', packed(gzipSync(SOUND).subarray(0, 30), 'gzip'), UNREADABLE),
  row('gzip, not packed but bytes', packed(Buffer.alloc(500, 7), 'gzip'), failed(['MODEL_ERROR'])),
  row(
    'a refusal, packed',
    packed429(),
    failed('MODEL_RATE_LIMITED', { requests: 1, warning: /insufficient_quota/ }),
  ),
]);

function packed429(): Answer {
  const body = gzipSync(JSON.stringify({ error: { code: 'insufficient_quota', message: 'CANARY' } }));
  return raw(body, {
    status: 429,
    headers: { 'content-encoding': 'gzip', 'content-type': 'application/json' },
  });
}

table('events are events, whatever their content type says', BOTH, [
  ...[
    'application/json',
    'text/plain',
    'application/octet-stream',
    'text/html',
    'application/x-ndjson',
    '',
  ].map((type) => row(`events as ${type || 'nothing'}`, raw(SOUND, as(type)), ALL)),
  row('events as JSON, byte by byte', raw(oneByOne(SOUND_BYTES), as('application/json')), ALL),
  row('events as JSON, behind a comment', raw(`: hello\n\n${SOUND}`, as('application/json')), ALL),
  row('half of them, as JSON', raw(HALF, as('application/json')), BROKEN),
  row('JSON as events', raw(COMPLETION), ALL),
  row('text that begins like events, as JSON', raw('error: upstream', as('application/json')), UNREADABLE),
  row('events without blank lines between', raw(SOUND.replaceAll('\n\n', '\n')), ALL),
  row('the same, without [DONE]', raw((TEXT + STOP + USAGE).replaceAll('\n\n', '\n')), ALL),
]);

const call = (more: object): string => line(choice({ tool_calls: [{ index: 0, id: 'c1', ...more }] }));
const AFTER = CALLS + USAGE + DONE;

table('arguments go by other names, and come in other pieces', WITH_TOOLS, [
  row(
    'an empty object first, then the text',
    call({ function: { name: 'calculator', arguments: {} } }) +
      line(choice({ tool_calls: [{ index: 0, function: { arguments: '{"expression":"6*7"}' } }] })) +
      AFTER,
    CALCULATED,
  ),
  ...['parameters', 'input'].map((name) =>
    row(name, call({ function: { name: 'calculator', [name]: { expression: '6*7' } } }) + AFTER, CALCULATED),
  ),
]);

const uncounted = (usage: object): Answer => TEXT + STOP + line({ choices: [], usage }) + DONE;

table('counts that no window holds are no counts', ANY, [
  row('a total', uncounted({ total_tokens: 1e15 }), UNCOUNTED),
  row('all of them', uncounted({ prompt_tokens: 1e9, completion_tokens: 1e9, total_tokens: 2e9 }), UNCOUNTED),
  row('beyond what a number holds', uncounted({ total_tokens: 1e300 }), UNCOUNTED),
  row('as text', uncounted({ total_tokens: '999999999999' }), UNCOUNTED),
]);

/** Sound at the second try. */
const again = (
  name: string,
  first: Answer,
  more: Omit<EndpointCase, 'name' | 'answers' | 'expect'> = {},
): EndpointCase => ({
  name,
  answers: [first, SOUND],
  expect: answered('All of it.', { tokens: 110, requests: 2 }),
  ...more,
});
/** Asked again no sooner than that. */
const after = (ms: number): Pick<EndpointCase, 'also'> => ({
  also({ tookMs }) {
    if (tookMs < ms) throw new Error(`asked again after ${Math.round(tookMs)} ms`);
  },
});
const DELAY = { '@type': 'type.googleapis.com/google.rpc.RetryInfo', retryDelay: '1.2s' };

table('who asks again waits as long as it is told, in whatever way', BOTH, [
  again('Retry-After is negative', refuse(429, { 'retry-after': '-5' }), after(250)),
  again('Retry-After is a word', refuse(503, { 'retry-after': 'soon' }), after(250)),
  again(
    'Retry-After is a date that is over',
    refuse(429, { 'retry-after': 'Wed, 21 Oct 2015 07:28:00 GMT' }),
  ),
  again(
    'Google says it in the body',
    refuse(429, {}, [{ error: { code: 429, status: 'RESOURCE_EXHAUSTED', details: [DELAY] } }]),
    after(1_200),
  ),
  again('the same under 200', line({ error: { code: 429, details: [DELAY] } }), after(1_200)),
  ...['9'.repeat(15), '9'.repeat(400), 'Fri, 31 Dec 9999 23:59:59 GMT'].map((text) =>
    row(
      `Retry-After is far away: ${text.slice(0, 16)}`,
      refuse(429, { 'retry-after': text }),
      failed('MODEL_RATE_LIMITED', { requests: 1 }),
      {
        also({ frames }) {
          const { retry_after_ms: ms } = frames.at(-1)?.data ?? {};
          if (ms !== 86_400_000) throw new Error(`come again after ${ms} ms`);
        },
      },
    ),
  ),
]);

table('statuses and ends that only some endpoints have', BOTH, [
  again('498: out of capacity', refuse(498)),
  again('499: the gateway gave up', refuse(499)),
  again('529: overloaded', refuse(529)),
  row(
    '402: nothing left to spend',
    refuse(402, {}, { error: { code: 402, message: 'CANARY' } }),
    failed('MODEL_RATE_LIMITED', { requests: 1, message: /nothing left to spend.*operator/, warning: /402/ }),
  ),
  again(
    'a call that Gemini itself could not read',
    ends('function_call_filter: MALFORMED_FUNCTION_CALL') + DONE,
  ),
  row(
    'the same behind text',
    said('Half of') + ends('function_call_filter: MALFORMED_FUNCTION_CALL') + DONE,
    BROKEN,
  ),
]);

const whole = (content: string): string =>
  line({
    object: 'chat.completion',
    choices: [{ index: 0, message: { role: 'assistant', content }, finish_reason: 'stop' }],
  });

table('what was sent in pieces may come whole once more', ANY, [
  row('the text', TEXT + whole('All of it.') + USAGE + DONE, ALL),
  row('the text, and nothing before', whole('All of it.') + USAGE + DONE, ALL),
  row(
    'a word twice is no message',
    said('ha') + said('ha') + STOP + USAGE + DONE,
    answered('haha', { tokens: 110, requests: 1 }),
  ),
]);

const args = (text: string): string => call({ function: { name: 'calculator', arguments: text } });
const SIX = '{"expression":"6*7"}';

table('arguments that come whole in each piece', WITH_TOOLS, [
  row('the same again', args(SIX) + args(SIX) + AFTER, CALCULATED),
  row('an empty object first', args('{}') + args(SIX) + AFTER, CALCULATED),
  row('more of them each time', args('{"expr') + args('{"expression":"6') + args(SIX) + AFTER, CALCULATED),
  row(
    'a piece that is whole by chance is none',
    args('{"expression":') + args('{}') + AFTER,
    answered(/not a JSON object/, { requests: 2 }),
  ),
  row(
    'pieces that begin alike are pieces',
    args('{"expression":"6') + args('*') + args('7"}') + AFTER,
    CALCULATED,
  ),
]);

const sayingNothing = (error: unknown): string =>
  TEXT.replace('{"choices"', `{"error":${JSON.stringify(error)},"choices"`) + STOP + USAGE + DONE;

table('an error that says nothing is none', BOTH, [
  ...[null, false, '', 0, { code: 0, message: '' }, { code: null, message: null }].map((error) =>
    row(JSON.stringify(error), sayingNothing(error), ALL),
  ),
  again('an empty one is one', line({ error: {} }) + DONE),
  again('a text is one', line({ error: 'upstream' }) + DONE),
]);

const complaint = (message: string) => refuse(400, {}, { error: { message: `${message} CANARY` } });
const own = (more: object = {}) => ({ model: 'house-*', ...more });
const isSystem = ({ role }: { readonly role: string }): boolean => role === 'system' || role === 'developer';

table('models that know no role for instructions, and endpoints that do not stream', BOTH, [
  ...[
    'System role not supported',
    "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
    'Developer instruction is not enabled for models/gemma-3-1b-it',
    'Conversation roles must alternate user/assistant/user/assistant/...',
  ].map((message) =>
    row(message.slice(0, 30), SOUND, answered('All of it.', { tokens: 110, requests: [1, 2] }), {
      agent: own({ system_prompt: 'You are brief.' }),
      rules: { refuses: ({ messages }) => (messages.some(isSystem) ? complaint(message) : null) },
      also({ next }) {
        const first = next.body.messages[0];
        if (first?.role !== 'user' || !String(first.content).startsWith('You are brief.\n\n'))
          throw new Error(JSON.stringify(next.body.messages));
      },
    }),
  ),
  ...[
    'Your organization must be verified to stream this model.',
    "Unsupported value: 'stream' does not support true with this model.",
    'Streaming is not supported.',
  ].map((message) =>
    row(message.slice(0, 30), SOUND, answered('All of it.', { tokens: 110, requests: [1, 3] }), {
      agent: own(),
      rules: {
        refuses: (body) => ('stream' in body || 'stream_options' in body ? complaint(message) : null),
      },
    }),
  ),
]);

table('a model without tools is said to be one', WITH_TOOLS, [
  ...[
    [400, 'house/x does not support tools'],
    [404, 'No endpoints found that support tool use.'],
  ].map(([status, message]) =>
    row(
      `${message}`,
      refuse(Number(status), {}, { error: { message: `${message} CANARY` } }),
      failed('MODEL_ERROR', { requests: 1, retryable: false, message: /can not use tools .*another model/ }),
    ),
  ),
]);
