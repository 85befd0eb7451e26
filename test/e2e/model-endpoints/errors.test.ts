/** Errors under 200 and by status (F9), and what the operator is told of them (F18). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Chatter, chatter } from '../../support/chatter.ts';
import { spawnNode } from '../../support/node.ts';
import { errorAnswer } from '../../support/picky-endpoint.ts';
import {
  choice,
  DONE,
  HALF,
  hangUp,
  line,
  raw,
  type Scenario,
  STOP,
  startStubModel,
  TEXT,
  USAGE,
} from '../../support/stub-model.ts';
import { connect } from '../../support/websocket-client.ts';
import {
  ANY,
  type Answer,
  BOTH,
  type EndpointCase,
  markOf,
  row,
  saysNothing,
  table,
  WITH_TOOLS,
} from './cases.ts';
import {
  ALL,
  type Answered,
  answered,
  CALCULATED,
  BROKEN as CUT,
  EITHER,
  ends,
  type Failed,
  failed,
  SOUND,
  said,
} from './expectations.ts';

const SECOND: Answered = { ...ALL, requests: 2 };
/** Asked three times in all. */
const LIMITED: Failed = failed('MODEL_RATE_LIMITED', { retryable: true, requests: 3 });
const UNAVAILABLE: Failed = failed('MODEL_UNAVAILABLE', { retryable: true, requests: 3 });
/** Asked once: the same request would be refused again. */
const REFUSED: Failed = failed('MODEL_ERROR', { retryable: false, requests: 1 });
const QUOTA: Failed = failed('MODEL_RATE_LIMITED', { requests: 1 });
/** Text was shown before. */
const BROKEN: Failed = { ...CUT, codes: [...EITHER, 'MODEL_RATE_LIMITED'] };
const NOTHING: Failed = failed(EITHER, { retryable: true, requests: 3 });

// F9: errors

/** Errors by name, and what each means before any text. */
const ERRORS: readonly (readonly [string, object | string, Failed])[] = [
  ['429 as a number', { code: 429, message: 'Provider returned error' }, LIMITED],
  ['429 as a numeral', { code: '429', message: 'Provider returned error' }, LIMITED],
  ['429 as a status', { status: 429, message: 'Slow down' }, LIMITED],
  ['rate_limit_exceeded', { code: 'rate_limit_exceeded', message: 'Slow down' }, LIMITED],
  ['the type rate_limit_error', { type: 'rate_limit_error', message: 'Slow down' }, LIMITED],
  ['RESOURCE_EXHAUSTED', { code: 429, status: 'RESOURCE_EXHAUSTED', message: 'Slow down' }, LIMITED],
  ['insufficient_quota', { code: 'insufficient_quota', type: 'insufficient_quota', message: 'Pay' }, QUOTA],
  ['500', { code: 500, message: 'Internal' }, UNAVAILABLE],
  ['502', { code: 502, message: 'Bad gateway' }, UNAVAILABLE],
  ['503 as a numeral', { code: '503', message: 'Overloaded' }, UNAVAILABLE],
  ['504', { code: 504, message: 'Timed out' }, UNAVAILABLE],
  ['529', { code: 529, message: 'Overloaded' }, UNAVAILABLE],
  ['408', { code: 408, message: 'Timed out' }, UNAVAILABLE],
  ['server_error', { code: 'server_error', message: 'Sorry' }, UNAVAILABLE],
  ['the type overloaded_error', { type: 'overloaded_error', message: 'Overloaded' }, UNAVAILABLE],
  ['UNAVAILABLE', { code: 503, status: 'UNAVAILABLE', message: 'Overloaded' }, UNAVAILABLE],
  ['a code that nobody knows', { code: 'gremlins', message: 'Oh no' }, UNAVAILABLE],
  ['a number that nobody knows', { code: 1234, message: 'Oh no' }, UNAVAILABLE],
  ['code null', { code: null, message: 'Oh no', type: null }, UNAVAILABLE],
  ['no code', { message: 'Oh no' }, UNAVAILABLE],
  ['an empty error', {}, UNAVAILABLE],
  ['text', 'Oh no', UNAVAILABLE],
  ['400', { code: 400, message: 'Bad request' }, REFUSED],
  ['401', { code: 401, message: 'No auth credentials found' }, REFUSED],
  ['403 as a numeral', { code: '403', message: 'Forbidden' }, REFUSED],
  ['404', { code: 404, message: 'No such model' }, REFUSED],
  ['invalid_api_key', { code: 'invalid_api_key', type: 'invalid_request_error', message: 'No' }, REFUSED],
  ['model_not_found', { code: 'model_not_found', type: 'invalid_request_error', message: 'No' }, REFUSED],
  [
    'context_length_exceeded',
    { code: 'context_length_exceeded', type: 'invalid_request_error', message: 'Too long' },
    failed('MODEL_ERROR', { requests: [1, 3] }),
  ],
];

const FIRST = ERRORS[0]?.[1] ?? {};
const OBJECT = { object: 'error', message: 'The engine died', type: 'InternalServerError', param: null };
const asJson = (body: object | string): Scenario =>
  raw(typeof body === 'string' ? body : JSON.stringify(body), {
    headers: { 'content-type': 'application/json', 'retry-after-ms': '1' },
  });

table('F9: an error in the first event is one, as if it had come by its status', BOTH, [
  ...ERRORS.map(([name, error, expect]) => row(name, line({ error }) + DONE, expect)),
]);

table('F9: an error is found wherever it stands', ANY, [
  row('beside empty choices', line({ choices: [], error: FIRST }) + DONE, LIMITED),
  row(
    'beside a choice that ends',
    line({ ...choice({ content: '' }, 'error'), error: FIRST }) + DONE,
    LIMITED,
  ),
  row(
    'beside a choice with a role',
    line({ ...choice({ role: 'assistant' }), error: FIRST }) + DONE,
    LIMITED,
  ),
  row(
    'in a choice',
    line({ choices: [{ index: 0, delta: {}, finish_reason: 'error', error: FIRST }] }) + DONE,
    LIMITED,
  ),
  row('without [DONE]', line({ error: FIRST }), LIMITED),
  row('without a blank line', line({ error: FIRST }).trimEnd(), LIMITED),
  row('in an event error', `event: error\n${line({ error: FIRST })}`, LIMITED),
  row('as an event error', `event: error\n${line(FIRST)}`, LIMITED),
  row('as an event error of text', 'event: error\ndata: the engine died\n\n', UNAVAILABLE),
  row('as vLLM writes it', line({ ...OBJECT, code: 500 }) + DONE, UNAVAILABLE),
  row('as vLLM writes it, refused', line({ ...OBJECT, type: 'BadRequestError', code: 400 }) + DONE, REFUSED),
  row('as vLLM writes it, in an error', line({ error: { ...OBJECT, code: 500 } }) + DONE, UNAVAILABLE),
  row(
    'as Anthropic writes it',
    `event: error\n${line({ type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } })}`,
    UNAVAILABLE,
  ),
  row(
    'after a role',
    line(choice({ role: 'assistant', content: '' })) + line({ error: FIRST }) + DONE,
    LIMITED,
  ),
  row('after comments', `: OPENROUTER PROCESSING\n\n${line({ error: FIRST })}${DONE}`, LIMITED),
  row(
    'that quotes the user',
    line({ error: { code: 400, message: 'Bad: CANARY-user asks.' } }) + DONE,
    REFUSED,
  ),
  row('as JSON under 200', asJson({ error: FIRST }), LIMITED),
  row(
    'as JSON under 200, of the server',
    asJson({ error: { message: 'Oh no', type: 'server_error', code: null } }),
    UNAVAILABLE,
  ),
  row(
    'as JSON under 200, refused',
    asJson({ error: { message: 'No', type: 'invalid_request_error', code: 400 } }),
    REFUSED,
  ),
  row('as JSON under 200, printed', asJson(JSON.stringify({ error: FIRST }, null, 2)), LIMITED),
  row('as JSON under 200, as vLLM writes it', asJson({ ...OBJECT, code: 503 }), UNAVAILABLE),
  row('as JSON under 200, in a list', asJson([{ error: FIRST }]), LIMITED),
  row('as JSON that is called a stream', JSON.stringify({ error: FIRST }), LIMITED),
  row(
    'error null in each chunk',
    line({ ...choice({ content: 'All of it.' }), error: null }) +
      line({ ...choice({}, 'stop'), error: null }) +
      USAGE +
      DONE,
    ALL,
  ),
  ...['429', 429, 500, 400, 'gremlins'].map((code) =>
    row(
      `after text: ${JSON.stringify(code)}`,
      HALF + line({ error: { code, message: 'Provider returned error' } }) + DONE,
      code === 400 ? { ...BROKEN, codes: ['MODEL_ERROR'] } : BROKEN,
    ),
  ),
  row('after text: an event error', `${HALF}event: error\n${line({ message: 'Oh no' })}`, BROKEN),
]);

/** Fails once or twice, and then is sound. */
const once = (name: string, answer: Answer): EndpointCase => ({
  name,
  answers: [answer, SOUND],
  expect: SECOND,
});
const twice = (name: string, answer: Answer): EndpointCase => ({
  name,
  answers: [answer, answer, SOUND],
  expect: { ...SECOND, requests: 3 },
});
const fast = { 'retry-after-ms': '1' };
const asText = { 'content-type': 'text/plain', ...fast };
const asPage = { 'content-type': 'text/html; charset=utf-8', ...fast };

table('F9: what may help is tried again before the first text', ANY, [
  once('429 in the first event', line({ error: FIRST }) + DONE),
  twice('429 in the first event, twice', line({ error: FIRST }) + DONE),
  once('500 as JSON under 200', asJson({ error: { code: 500, message: 'Oh no' } })),
  once('429', errorAnswer(429, { message: 'Slow down', type: 'requests', code: 'rate_limit_exceeded' })),
  once('429 with Retry-After', errorAnswer(429, { message: 'Slow down' }, { 'retry-after': '1' })),
  once('500', errorAnswer(500, { message: 'Oh no' })),
  twice('503, twice', errorAnswer(503, { message: 'Oh no' })),
  once('502 as a page', raw('<html><body>Bad gateway</body></html>', { status: 502, headers: asPage })),
  once('503 as text', raw('upstream connect error', { status: 503, headers: asText })),
  once('529', errorAnswer(529, { type: 'overloaded_error', message: 'Overloaded' })),
  once('500 without a body', raw('', { status: 500, headers: fast })),
  once('a connection that is hung up', hangUp()),
  once('a reset before the first event', raw('', { end: 'reset', headers: fast })),
  once('a reset after a comment', raw(': wait\n\n', { end: 'reset', headers: fast })),
  once(
    'a reset after a role',
    raw(line(choice({ role: 'assistant', content: '' })), { end: 'reset', headers: fast }),
  ),
  once('an empty body', ''),
  twice('an empty body, twice', ''),
  once('only [DONE]', DONE),
  once('only comments', ': a\n\n: b\n\n'),
  once('only counts', USAGE + DONE),
]);

// F9: something else

const completion = (message: object, finish_reason: unknown = 'stop', more: object = {}): object => ({
  id: 'chatcmpl-1',
  object: 'chat.completion',
  choices: [{ index: 0, message: { role: 'assistant', ...message }, finish_reason }],
  usage: { prompt_tokens: 100, completion_tokens: 10, total_tokens: 110 },
  ...more,
});
const WHOLE = completion({ content: 'All of it.' });
const calling = (args: unknown): object => ({
  content: null,
  tool_calls: [{ id: 'c1', type: 'function', function: { name: 'calculator', arguments: args } }],
});
const PAGE =
  '<!doctype html>\n<html><head><title>Sign in</title></head>\n\n<body><h1>Gateway</h1></body></html>\n';
/** Says that this is no model's endpoint. */
const NO_MODEL: Failed = failed(EITHER, {
  message: /endpoint|web page|content type/i,
  requests: [1, 3],
});

table('F9: something else where an answer should be', ANY, [
  row('nothing', '', NOTHING),
  row('nothing, as JSON', asJson(''), NOTHING),
  row('only [DONE]', DONE, NOTHING),
  row('only comments', ': a\n\n: b\n\n', NOTHING),
  row('only counts', USAGE + DONE, NOTHING),
  row('only blank lines', '\n\n\n\n', NOTHING),
  row('a completion as JSON', asJson(WHOLE), ALL),
  row(
    'a completion as JSON with a charset',
    raw(JSON.stringify(WHOLE), { headers: { 'content-type': 'application/json; charset=utf-8' } }),
    ALL,
  ),
  row('a completion that is printed', asJson(JSON.stringify(WHOLE, null, 2)), ALL),
  row('a completion behind blank lines', asJson(`\n\n  ${JSON.stringify(WHOLE)}\n`), ALL),
  row('a completion with a byte order mark', asJson(`\ufeff${JSON.stringify(WHOLE)}`), ALL),
  row('a completion that is called a stream', JSON.stringify(WHOLE), ALL),
  row('a completion that is called text', raw(JSON.stringify(WHOLE), { headers: asText }), ALL),
  row('a completion in one event', line(WHOLE) + DONE, ALL),
  row('a completion in parts', asJson(completion({ content: [{ type: 'text', text: 'All of it.' }] })), ALL),
  row('a completion without a finish', asJson(completion({ content: 'All of it.' }, null)), ALL),
  row(
    'a completion without counts',
    asJson({ ...WHOLE, usage: undefined }),
    answered('All of it.', { requests: 1 }),
  ),
  row(
    'a completion that refuses',
    asJson(completion({ content: null, refusal: 'I cannot.' })),
    answered('I cannot.', { tokens: 110 }),
  ),
  row(
    'a completion byte by byte',
    raw(
      [...Buffer.from(JSON.stringify(completion({ content: 'Größe' })))].map((byte) => Uint8Array.of(byte)),
      { headers: { 'content-type': 'application/json' } },
    ),
    answered('Größe', { tokens: 110 }),
  ),
  row(
    'a completion with nothing in it',
    asJson(completion({ content: '' })),
    failed('MODEL_ERROR', { retryable: true, requests: [1, 3] }),
  ),
  row(
    'a completion without choices',
    asJson({ ...WHOLE, choices: [] }),
    failed(EITHER, { retryable: true, requests: [1, 3] }),
  ),
  row(
    'a completion that a filter stopped',
    asJson(completion({ content: '' }, 'content_filter')),
    failed('MODEL_ERROR', { message: /filter/i }),
  ),
  row(
    'a completion cut off',
    asJson(JSON.stringify(completion({ content: 'CANARY' })).slice(0, 120)),
    failed(EITHER, { retryable: true, requests: [1, 3] }),
  ),
  row('a page', raw(PAGE, { headers: asPage }), { ...NO_MODEL, warning: /text\/html/ }),
  row('a page that is called a stream', PAGE, failed(EITHER, { requests: [1, 3] })),
  row('a page without a content type', raw(PAGE, { headers: { 'content-type': '' } }), NO_MODEL),
  row('plain text', raw('CANARY says hello.', { headers: asText }), { ...NO_MODEL, warning: /text\/plain/ }),
  row('plain text that is called a stream', 'CANARY says hello.', failed(EITHER, { requests: [1, 3] })),
  row('XML', raw('<?xml version="1.0"?><ok/>', { headers: { 'content-type': 'application/xml' } }), NO_MODEL),
  row('JSON that is something else', asJson({ status: 'ok' }), failed(EITHER, { requests: [1, 3] })),
  row('a list', asJson('[]'), failed(EITHER, { requests: [1, 3] })),
  row('a number', asJson('7'), failed(EITHER, { requests: [1, 3] })),
  row(
    'bytes of no text',
    [Uint8Array.of(0x1f, 0x8b, 8, 0, 0xff, 0xfe)],
    failed(EITHER, { requests: [1, 3] }),
  ),
]);

table('F9: a completion as JSON is read, calls and all', WITH_TOOLS, [
  row('arguments as text', asJson(completion(calling('{"expression":"6*7"}'), 'tool_calls')), CALCULATED),
  row('arguments as an object', asJson(completion(calling({ expression: '6*7' }), 'tool_calls')), CALCULATED),
  row('in one event', line(completion(calling('{"expression":"6*7"}'), 'tool_calls')) + DONE, CALCULATED),
]);

// By status

table('errors by status end the turn with their codes', BOTH, [
  row('429', errorAnswer(429, { message: 'Slow down' }), { ...LIMITED, warning: /429/ }),
  row('429, the quota spent', errorAnswer(429, { message: 'Pay', code: 'insufficient_quota' }), QUOTA),
  row('500', errorAnswer(500, { message: 'Oh no' }), { ...UNAVAILABLE, warning: /500/ }),
  row('503 as a page', raw(PAGE, { status: 503, headers: asPage }), { ...UNAVAILABLE, warning: /503/ }),
  row('400', errorAnswer(400, { message: 'No' }), { ...REFUSED, warning: /400/ }),
  row('401', errorAnswer(401, { message: 'No', code: 'invalid_api_key' }), { ...REFUSED, warning: /401/ }),
  row('404 as text', raw('404 page not found', { status: 404, headers: asText }), {
    ...REFUSED,
    warning: /404/,
  }),
  row('hung up', hangUp(), UNAVAILABLE),
]);

// F18

const FAILED_GENERATION = { code: 'tool_use_failed', message: 'Failed', failed_generation: '<CANARY>' };

table('F18: one warning names task, model and why, and never what the model said', ANY, [
  row('a page', raw(PAGE, { headers: asPage }), { ...NO_MODEL, warning: /text\/html/ }),
  row('400 with a code', errorAnswer(400, { message: 'No', code: 'invalid_value' }), {
    ...REFUSED,
    once: true,
    warning: /400.*invalid_value|invalid_value.*400/,
  }),
  row('401', errorAnswer(401, { message: 'No' }), { ...REFUSED, once: true, warning: /401/ }),
  row(
    'a failed generation',
    errorAnswer(400, FAILED_GENERATION),
    failed('MODEL_ERROR', { warning: /tool_use_failed/ }),
  ),
  row('400 that quotes the user', errorAnswer(400, { message: 'Not allowed: CANARY-user asks.' }), {
    ...REFUSED,
    once: true,
    warning: /400/,
  }),
  row('401 in the first event', line({ error: { code: 401, message: 'No' } }), {
    ...REFUSED,
    once: true,
    warning: /401/,
  }),
  row('aborted', HALF + ends('abort') + DONE, { ...BROKEN, once: true, warning: /abort/ }),
  row(
    'filtered',
    HALF + ends('content_filter') + DONE,
    failed('MODEL_ERROR', { once: true, warning: /filter/ }),
  ),
  row('an error after text', HALF + line({ error: { code: 502, message: 'Upstream' } }), {
    ...BROKEN,
    once: true,
    warning: /502/,
  }),
  row('cut off', HALF, { ...BROKEN, once: true }),
  row('reset after text', raw(HALF, { end: 'reset' }), { ...BROKEN, once: true }),
  row('no JSON after text', `${HALF}data: CANARY\n\n`, { ...BROKEN, once: true }),
]);

test('nothing but the lines of the node is on stdout and stderr of its process', async (t) => {
  const stub = await startStubModel();
  t.after(() => stub.close());
  const node = await spawnNode(t, {
    DEFAULT_PROVIDER: 'openai',
    OPENAI_API_KEY: 'sk-test',
    OPENAI_BASE_URL: stub.baseUrl,
    GROQ_API_KEY: 'gsk-test',
    GROQ_BASE_URL: stub.groqBaseUrl,
    DEFAULT_TIER: 'enterprise',
    EXECUTION_LOG_LEVEL: 'debug',
  });
  const sockets: Chatter[] = [];
  t.after(() => sockets.forEach((socket) => void socket.destroy()));
  const torn = 'data: {"choices":[{"index":0,"delta":{"content":"CANARY is what the model says"';
  const answers: readonly Scenario[] = [
    raw(line(choice({ role: 'assistant', content: '' })) + torn),
    raw(`${HALF}${torn}\n\n${STOP}${DONE}`),
    raw('data: CANARY says\n\n'),
    raw('CANARY says hello.', { headers: asText }),
    raw(said('CANARY') + TEXT, { end: 'reset' }),
    raw(said('CANARY') + ends('abort') + DONE),
    errorAnswer(400, FAILED_GENERATION),
    errorAnswer(400, { message: 'CANARY', code: 'CANARY' }),
    raw(
      line({
        choices: [
          {
            index: 0,
            delta: { tool_calls: [{ index: 0, function: { name: 'CANARY', arguments: 'CANARY' } }] },
          },
        ],
      }) + DONE,
    ),
    raw(JSON.stringify(completion({ content: 'CANARY' })).slice(0, 120), {
      headers: { 'content-type': 'application/json' },
    }),
    hangUp(),
    raw(SOUND),
  ];
  stub.byDefault((request) => answers[Number(markOf(request))] ?? raw(SOUND));
  for (const provider of ['openai', 'groq']) {
    const made = await fetch(`${node.url}/api/agents`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-tenant-id': 'acme' },
      body: JSON.stringify({ name: provider, provider, model: 'test-8b', tools: ['calculator'] }),
    });
    assert.equal(made.status, 201);
    const { id }: { id: string } = JSON.parse(await made.text());
    const turns = answers.map(async (_, place) => {
      const socket = chatter(await connect(`ws://127.0.0.1:${node.port}/ws/acme/${provider}-${place}`));
      sockets.push(socket);
      await socket.turn(`CANARY-user asks. <<${place}>>`, { agent_id: id });
    });
    await Promise.all(turns);
  }
  node.kill('SIGTERM');
  await node.exit;
  assert.equal(node.stderr(), '');
  saysNothing(node.lines);
});
