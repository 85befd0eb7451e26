/** The stream and its end (F5, F7, F8, F10, F14, F16): what is read, what is shown, and what counts as cut off. */
import assert from 'node:assert/strict';
import { errorAnswer } from '../../support/picky-endpoint.ts';
import { CALLS, choice, DONE, HALF, line, raw, STOP, TEXT, USAGE } from '../../support/stub-model.ts';
import {
  ANY,
  type Answered,
  answered,
  BOTH,
  type EndpointCase,
  ends,
  type Failed,
  failed,
  row,
  SOUND,
  said,
  table,
  WITH_TOOLS,
} from './cases.ts';

const ALL: Answered = answered('All of it.', { tokens: 110, requests: 1 });
/** The text is all there; nobody counted. */
const UNCOUNTED: Answered = answered('All of it.', { tokens: [1, 10_000], requests: 1 });
const EITHER = ['MODEL_ERROR', 'MODEL_UNAVAILABLE'];
/** Text was shown, then the model failed: not asked again. */
const BROKEN: Failed = failed(EITHER, { retryable: true, shown: 'Half of', requests: 1 });
/** A call of the calculator and the end of its message. */
const SUM =
  line(
    choice({
      tool_calls: [
        { index: 0, id: 'c1', function: { name: 'calculator', arguments: '{"expression":"6*7"}' } },
      ],
    }),
  ) +
  CALLS +
  USAGE +
  DONE;

// The bytes

const UMLAUTS = 'Grüße, 世界, 👩‍👩‍👧!';
const FOREIGN = said(UMLAUTS) + STOP + USAGE + DONE;
const GREETED: Answered = answered(UMLAUTS, { tokens: 110, requests: 1 });

/** The body cut into pieces of this many bytes. */
function inPieces(body: string, size: number): readonly Uint8Array[] {
  const bytes = Buffer.from(body);
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, place) =>
    bytes.subarray(place * size, (place + 1) * size),
  );
}

table('events are read whatever their bytes look like', ANY, [
  row('sound', SOUND, ALL),
  row('byte by byte', inPieces(FOREIGN, 1), GREETED),
  row('in pieces of three bytes', inPieces(FOREIGN, 3), GREETED),
  row('in pieces of seven bytes', inPieces(FOREIGN, 7), GREETED),
  row('CRLF', FOREIGN.replaceAll('\n', '\r\n'), GREETED),
  row('CRLF, byte by byte', inPieces(FOREIGN.replaceAll('\n', '\r\n'), 1), GREETED),
  row('CR', FOREIGN.replaceAll('\n', '\r'), GREETED),
  row('CR, byte by byte', inPieces(FOREIGN.replaceAll('\n', '\r'), 1), GREETED),
  row(
    'line ends of all kinds',
    TEXT.replace('\n\n', '\r\n\n') + STOP.replace('\n\n', '\r\r') + USAGE + DONE,
    ALL,
  ),
  row('a byte order mark', `\ufeff${FOREIGN}`, GREETED),
  row('a byte order mark, byte by byte', inPieces(`\ufeff${FOREIGN}`, 1), GREETED),
  row('no blank behind the colon', SOUND.replaceAll('data: ', 'data:'), ALL),
  row('two blanks behind the colon', SOUND.replaceAll('data: ', 'data:  '), ALL),
  row('a tab behind the colon', SOUND.replaceAll('data: ', 'data:\t'), ALL),
  row('data in several lines', SOUND.replaceAll('"choices":', '\ndata: "choices":\ndata: '), ALL),
  row('names and ids', SOUND.replaceAll('data: ', 'event: message\nid: 7\nretry: 10\ndata: '), ALL),
  row('a name behind the data', SOUND.replaceAll('\n\n', '\nevent: message\n\n'), ALL),
  row('unknown fields', SOUND.replaceAll('data: ', 'colour: red\ndata: '), ALL),
  row('blank lines before and between', `\n\n\n${SOUND.replaceAll('\n\n', '\n\n\n\n')}`, ALL),
  row('no blank line behind [DONE]', SOUND.trimEnd(), ALL),
  row('one line feed behind [DONE]', `${SOUND.trimEnd()}\n`, ALL),
  row('blanks behind [DONE]', `${SOUND.trimEnd()}  \n\n`, ALL),
  row('no [DONE]', TEXT + STOP + USAGE, ALL),
  row('no [DONE], and no blank line behind the last event', (TEXT + STOP + USAGE).trimEnd(), ALL),
  row(
    'an event of 20,000 bytes',
    said('x'.repeat(20_000)) + STOP + USAGE + DONE,
    answered('x'.repeat(20_000), { tokens: 110 }),
  ),
  row(
    'fields that nobody knows',
    line({ ...choice({ content: 'All of it.', x: [1] }), x: { y: null } }) + STOP + USAGE + DONE,
    ALL,
  ),
  row('escapes, byte by byte', inPieces(FOREIGN.replace('ß', '\\u00df'), 1), GREETED),
]);

// F5

/** Events that say nothing, by name. */
const NOTHING: readonly (readonly [string, string])[] = [
  ['blank data', 'data:\n\n'],
  ['data that is a blank', 'data: \n\n'],
  ['data without a colon', 'data\n\n'],
  ['several blank lines of data', 'data:\ndata:\n\n'],
  ['a name without data', 'event: ping\n\n'],
  ['an id without data', 'id: 7\n\n'],
  ['a comment', ': keep-alive\n\n'],
  ['an empty comment', ':\n\n'],
  ['a time to reconnect', 'retry: 1000\n\n'],
  ['null', 'data: null\n\n'],
  ['an empty object', 'data: {}\n\n'],
  ['a ping', 'event: ping\ndata: {"type":"ping"}\n\n'],
  ['no choice', 'data: {"choices":[]}\n\n'],
  ['choices null', 'data: {"choices":null}\n\n'],
  ['a filter of the prompt', 'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n'],
  ['a choice without a delta', 'data: {"choices":[{"index":0}]}\n\n'],
  ['a choice with a delta null', 'data: {"choices":[{"index":0,"delta":null,"finish_reason":null}]}\n\n'],
  ['an empty delta', line(choice({}))],
  ['an error null', 'data: {"choices":[],"error":null}\n\n'],
];

table('F5: events that say nothing are passed over, wherever they stand', BOTH, [
  ...NOTHING.flatMap(([name, event]): EndpointCase[] => [
    row(`${name}, first`, event + SOUND, ALL),
    row(`${name}, between`, TEXT + event + STOP + USAGE + DONE, ALL),
    row(`${name}, after the finish`, TEXT + STOP + event + USAGE + DONE, ALL),
    row(`${name}, after [DONE]`, SOUND + event, ALL),
  ]),
  row('all of them, everywhere', everywhere(), ALL),
]);

function everywhere(): string {
  const all = NOTHING.map(([, event]) => event).join('');
  return [all, TEXT, all, STOP, all, USAGE, all, DONE, all].join('');
}

// F7

const FAILURES = [
  'abort',
  'error',
  'ERROR',
  'failed',
  'cancelled',
  'insufficient_system_resource',
  'network_error',
  'MALFORMED_FUNCTION_CALL',
  'error: out of memory',
  'abort: the engine died',
];
const FILTERS = [
  'content_filter',
  'SAFETY',
  'safety',
  'RECITATION',
  'PROHIBITED_CONTENT',
  'BLOCKLIST',
  'SPII',
  'content_filter: SAFETY',
  'content_filtered',
  'guardrail_intervened',
  'sensitive',
  'ERROR_TOXIC',
];
const GOOD = [
  'stop',
  'STOP',
  'eos',
  'eos_token',
  'end_turn',
  'COMPLETE',
  'complete',
  'stop_sequence',
  'END_TURN',
  'FINISH_REASON_STOP',
  'length',
  'max_tokens',
  'MAX_TOKENS',
  'model_length',
];

/** The provider's filter stepped in, and the message says so. */
const FILTERED: Failed = failed('MODEL_ERROR', { message: /filter/i, shown: 'Half of', requests: 1 });

table('F7: a finish that is a failure fails the turn', ANY, [
  ...FAILURES.map((word) =>
    row(word, HALF + ends(word) + DONE, { ...BROKEN, warning: new RegExp(word.split(/\W/)[0] ?? '', 'i') }),
  ),
  ...FAILURES.slice(0, 2).map((word) =>
    row(`${word}, before any text`, ends(word) + DONE, failed(EITHER, { retryable: true, requests: [1, 3] })),
  ),
  ...FILTERS.map((word) => row(word, HALF + ends(word) + DONE, FILTERED)),
  row(
    'content_filter, before any text',
    ends('content_filter') + DONE,
    failed('MODEL_ERROR', { message: /filter/i }),
  ),
  ...GOOD.map((word) => row(word, TEXT + ends(word) + USAGE + DONE, ALL)),
  row(
    'abort in a chunk without a delta',
    `${HALF}data: {"choices":[{"index":0,"finish_reason":"abort"}]}\n\n${DONE}`,
    BROKEN,
  ),
  row(
    'abort in a chunk with a delta null',
    `${HALF}data: {"choices":[{"index":0,"delta":null,"finish_reason":"abort"}]}\n\n${DONE}`,
    BROKEN,
  ),
  row('abort in the chunk with the text', line(choice({ content: 'Half of' }, 'abort')) + DONE, BROKEN),
  row('abort, and no [DONE]', HALF + ends('abort'), BROKEN),
  row('abort, and counts', HALF + ends('abort') + USAGE + DONE, BROKEN),
  row(
    'error, with an error beside it',
    HALF + line({ ...choice({ content: '' }, 'error'), error: { code: 502, message: 'Upstream' } }) + DONE,
    failed([...EITHER, 'MODEL_RATE_LIMITED'], { retryable: true, shown: 'Half of', requests: 1 }),
  ),
  row('"" and the end of the body', HALF + ends(''), BROKEN),
  row('"" in each chunk, then stop', line(choice({ content: 'All of it.' }, '')) + STOP + USAGE + DONE, ALL),
  row(
    '"" in each chunk, then abort',
    line(choice({ content: 'Half of' }, '')) + ends('abort') + DONE,
    BROKEN,
  ),
]);

table('F7: calls that came with a failure do not run', WITH_TOOLS, [
  ...['abort', 'error', 'content_filter'].map((word) =>
    row(word, SUM.replace(CALLS, ends(word)), failed(EITHER, { requests: [1, 3] }), {
      also: ({ frames }) => assert.ok(!frames.some(({ type }) => type === 'tool.started')),
    }),
  ),
]);

// F8

/** The turn did not wait for the endpoint, and the connection was let go. */
const letGo: NonNullable<EndpointCase['also']> = async ({ tookMs, stub, requests }) => {
  assert.ok(tookMs < 3_500, `the turn took ${Math.round(tookMs)} ms`);
  await stub.closedByClient(requests[0]?.index ?? 0);
};
const hang = { end: 'hang' } as const;
const comments = Array.from({ length: 200 }, () => ': keep-alive\n\n');
const PARTS = [
  { type: 'text', text: 'All of' },
  { type: 'text', text: ' it.' },
];

table('F8: a whole answer needs no proper finish', ANY, [
  row('no finish but [DONE]', TEXT + USAGE + DONE, ALL),
  row('no finish, no counts, but [DONE]', TEXT + DONE, UNCOUNTED),
  row('"" and [DONE]', TEXT + ends('') + USAGE + DONE, ALL),
  row('the finish with the text', line(choice({ content: 'All of it.' }, 'stop')) + USAGE + DONE, ALL),
  row(
    'the finish without a delta',
    `${TEXT}data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\n${USAGE}${DONE}`,
    ALL,
  ),
  row(
    'the finish with a delta null',
    `${TEXT}data: {"choices":[{"index":0,"delta":null,"finish_reason":"stop"}]}\n\n${USAGE}${DONE}`,
    ALL,
  ),
  row('the finish with content null', TEXT + line(choice({ content: null }, 'stop')) + USAGE + DONE, ALL),
  row('the finish with empty content', TEXT + line(choice({ content: '' }, 'stop')) + USAGE + DONE, ALL),
  row(
    'the finish with an empty message',
    `${TEXT}data: {"choices":[{"index":0,"message":{"role":"assistant","content":""},"finish_reason":"stop"}]}\n\n${USAGE}${DONE}`,
    ALL,
  ),
  row(
    'all in a message, not in deltas',
    `data: {"choices":[{"index":0,"message":{"role":"assistant","content":"All of it."},"finish_reason":"stop"}]}\n\n${USAGE}${DONE}`,
    ALL,
  ),
  row(
    'the finish with the whole message again',
    `${TEXT}data: {"choices":[{"index":0,"delta":{},"message":{"role":"assistant","content":"All of it."},"finish_reason":"stop"}]}\n\n${USAGE}${DONE}`,
    ALL,
  ),
  row('the finish with content in parts', line(choice({ content: PARTS }, 'stop')) + USAGE + DONE, ALL),
  row('two finishes', TEXT + STOP + STOP + USAGE + DONE, ALL),
  row(
    'the counts with the finish',
    TEXT +
      line({
        ...choice({}, 'stop'),
        usage: { prompt_tokens: 100, completion_tokens: 10, total_tokens: 110 },
      }) +
      DONE,
    ALL,
  ),
  row('a finish, then a reset', raw(TEXT + STOP, { end: 'reset' }), UNCOUNTED),
  row('a finish and counts, then a reset', raw(TEXT + STOP + USAGE, { end: 'reset' }), ALL),
  row('[DONE], then a reset', raw(SOUND, { end: 'reset' }), ALL),
  row(
    'a finish, then an error',
    TEXT + STOP + line({ error: { code: 500, message: 'Too late' } }),
    UNCOUNTED,
  ),
  row('a finish, then no JSON', `${TEXT + STOP}data: {"choi`, UNCOUNTED),
  row('a finish, then silence', raw(TEXT + STOP, hang), UNCOUNTED, { also: letGo }),
  row('a finish and counts, then silence', raw(TEXT + STOP + USAGE, hang), ALL, { also: letGo }),
  row('[DONE], then silence', raw(SOUND, hang), ALL, { also: letGo }),
  row(
    'a finish, then comments for ever',
    raw([TEXT + STOP, ...comments], { ...hang, everyMs: 100 }),
    UNCOUNTED,
    { also: letGo },
  ),
  row(
    'a finish, then blank events for ever',
    raw([TEXT + STOP, ...comments.map(() => 'data: \n\n')], { ...hang, everyMs: 100 }),
    UNCOUNTED,
    { also: letGo },
  ),
  row('counts that come a moment after the finish', raw([TEXT + STOP, USAGE + DONE], { everyMs: 200 }), ALL),
  row('cut off without [DONE]', HALF, BROKEN),
  row('cut off by a reset', raw(HALF, { end: 'reset' }), BROKEN),
  row('cut off inside an event', HALF + TEXT.slice(0, 30), BROKEN),
  row(
    'cut off inside a character',
    [HALF, Buffer.from(said('é')).subarray(0, said('').indexOf('"},') + 1)],
    BROKEN,
  ),
]);

table('F8: a call needs no proper finish either', WITH_TOOLS, [
  row(
    'no finish but [DONE]',
    SUM.replace(CALLS, ''),
    answered('Tools said: 42', { tokens: 220, requests: 2 }),
  ),
  row(
    'a finish, then a reset',
    raw(SUM.replace(DONE, ''), { end: 'reset' }),
    answered('Tools said: 42', { tokens: 220, requests: 2 }),
  ),
  row(
    'a finish, then silence',
    raw(SUM.replace(DONE, ''), hang),
    answered('Tools said: 42', { tokens: 220, requests: 2 }),
    { also: letGo },
  ),
]);

table(
  'F8: silence in the middle of an answer cuts it off',
  BOTH,
  [
    row('nothing more', raw(HALF, hang), BROKEN, {
      also: ({ stub, requests }) => stub.closedByClient(requests[0]?.index ?? 0),
    }),
  ],
  { env: { MODEL_IDLE_SECONDS: '0.5' } },
);

// F10

const I_CANNOT = 'I cannot help with that.';
const REFUSED: Answered = answered(I_CANNOT, { tokens: 110, requests: 1 });
/** Nothing to show, and the message says what was missing. */
const EMPTY: Failed = failed('MODEL_ERROR', {
  retryable: true,
  message: /empty|nothing|without|no (text|answer|words|content|call)|thought|reason/i,
  requests: [1, 3],
});
const thought = (text: string): string =>
  line(choice({ role: 'assistant', content: null, reasoning_content: text }));

table('F10: what there is to show is shown, and nothing is not shown as an answer', ANY, [
  row(
    'a refusal',
    line(choice({ role: 'assistant', content: null, refusal: I_CANNOT })) + STOP + USAGE + DONE,
    REFUSED,
  ),
  row(
    'a refusal in pieces',
    ['I cannot', ' help', ' with that.'].map((refusal) => line(choice({ refusal }))).join('') +
      STOP +
      USAGE +
      DONE,
    REFUSED,
  ),
  row(
    'a refusal beside empty content',
    line(choice({ content: '', refusal: I_CANNOT })) + STOP + USAGE + DONE,
    REFUSED,
  ),
  row(
    'a refusal in a message',
    line({
      choices: [
        { index: 0, message: { role: 'assistant', content: null, refusal: I_CANNOT }, finish_reason: 'stop' },
      ],
    }) +
      USAGE +
      DONE,
    REFUSED,
  ),
  row(
    'refusal null beside the text',
    line(choice({ content: 'All of it.', refusal: null })) + STOP + USAGE + DONE,
    ALL,
  ),
  row('content in parts', line(choice({ content: PARTS })) + STOP + USAGE + DONE, ALL),
  row(
    'content in parts of several chunks',
    PARTS.map((part) => line(choice({ content: [part] }))).join('') + STOP + USAGE + DONE,
    ALL,
  ),
  row(
    'one part, not in a list',
    line(choice({ content: { type: 'text', text: 'All of it.' } })) + STOP + USAGE + DONE,
    ALL,
  ),
  row(
    'content in parts, thoughts among them',
    line(
      choice({ content: [{ type: 'thinking', thinking: [{ type: 'text', text: 'CANARY' }] }, ...PARTS] }),
    ) +
      STOP +
      USAGE +
      DONE,
    ALL,
  ),
  row(
    'a refusal among the parts',
    line(choice({ content: [{ type: 'refusal', refusal: I_CANNOT }] })) + STOP + USAGE + DONE,
    REFUSED,
  ),
  row('an empty list of parts, then text', line(choice({ content: [] })) + TEXT + STOP + USAGE + DONE, ALL),
  row('thoughts, then text', thought('CANARY thinks.') + TEXT + STOP + USAGE + DONE, ALL),
  row(
    'thoughts in the field reasoning, then text',
    line(choice({ content: '', reasoning: 'CANARY thinks.' })) + TEXT + STOP + USAGE + DONE,
    ALL,
  ),
  row('thoughts only', thought('CANARY thinks.') + STOP + USAGE + DONE, EMPTY),
  row(
    'thoughts only, in the field reasoning',
    line(choice({ content: '', reasoning: 'CANARY thinks.' })) + STOP + USAGE + DONE,
    EMPTY,
  ),
  row('thoughts only, and no more room', thought('CANARY thinks.') + ends('length') + USAGE + DONE, EMPTY),
  row(
    'an end for calls that never came',
    line(choice({ role: 'assistant', content: null })) + CALLS + USAGE + DONE,
    EMPTY,
  ),
  row(
    'an empty list of calls',
    line(choice({ content: null, tool_calls: [] })) + CALLS + USAGE + DONE,
    EMPTY,
  ),
  row('calls null', line(choice({ content: null, tool_calls: null })) + STOP + USAGE + DONE, EMPTY),
  row('nothing at all', STOP + USAGE + DONE, EMPTY),
  row('content null', line(choice({ role: 'assistant', content: null })) + STOP + USAGE + DONE, EMPTY),
  row('content empty', line(choice({ role: 'assistant', content: '' })) + STOP + USAGE + DONE, EMPTY),
  row('no room for a word', ends('length') + USAGE + DONE, EMPTY),
  row(
    'a list of calls that is empty beside text',
    line(choice({ content: 'All of it.', tool_calls: [] })) + STOP + USAGE + DONE,
    ALL,
  ),
]);

table('F10: after a tool an answer may be empty', WITH_TOOLS, [
  row('with the finish stop', SUM, answered('', { tokens: 220, requests: 2, results: ['42'] }), {
    afterTools: [STOP + USAGE + DONE],
  }),
  row(
    'but not with an end for calls that never came',
    SUM,
    { ...EMPTY, requests: [2, 4] },
    {
      afterTools: Array.from({ length: 3 }, () => CALLS + USAGE + DONE),
    },
  ),
]);

// F14

/** The end of the body in the middle of what the model says. */
const TORN = '{"choices":[{"index":0,"delta":{"content":"CANARY is what the model says"';
const UNREADABLE: Failed = failed(EITHER, { retryable: true, requests: [1, 3] });
const TOOL_USE_FAILED = {
  message: "Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details.",
  type: 'invalid_request_error',
  code: 'tool_use_failed',
  failed_generation: '<function=calculator>{"expression": CANARY',
};
/** Told by its code, tried again or not. */
const NO_CALL: Failed = failed('MODEL_ERROR', { requests: [1, 3], warning: /tool_use_failed/ });

table('F14: one reader for all providers, and a quiet one', ANY, [
  row('a chunk that is torn', `${line(choice({ role: 'assistant', content: '' }))}data: ${TORN}`, UNREADABLE),
  row('a torn chunk after text', `${HALF}data: ${TORN}`, BROKEN),
  row('a torn chunk, and a blank line', `${HALF}data: ${TORN}\n\n${STOP}${DONE}`, BROKEN),
  row('no JSON', `${HALF}data: CANARY says\n\n${STOP}${DONE}`, BROKEN),
  row('no JSON from the start', `data: CANARY says\n\n${DONE}`, UNREADABLE),
  row('a chunk without choices', `data: {"id":"x"}\n\n${SOUND}`, ALL),
  row('a ping', `event: ping\ndata: {"type":"ping"}\n\n${SOUND}`, ALL),
  row('no blank line at the end', (TEXT + STOP + USAGE).trimEnd(), ALL),
  row('an open connection after [DONE]', raw(SOUND, hang), ALL, { also: letGo }),
  row('tool_use_failed', errorAnswer(400, TOOL_USE_FAILED), NO_CALL),
  row(
    'tool_use_failed under 200',
    `event: error\ndata: ${JSON.stringify({ error: { ...TOOL_USE_FAILED, status_code: 400 } })}\n\n`,
    NO_CALL,
  ),
  row(
    'a context that is too small',
    errorAnswer(400, {
      message:
        'Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192',
      type: 'invalid_request_error',
      param: 'messages',
      code: 'context_length_exceeded',
    }),
    failed('MODEL_ERROR', { message: /long|context/i, requests: [1, 3] }),
  ),
]);

// F16

/** A sound answer with these counts. */
const counted = (usage: unknown): string => TEXT + STOP + line({ choices: [], usage }) + DONE;
const usage = { prompt_tokens: 100, completion_tokens: 10, total_tokens: 110 };
const counts = (total_tokens: unknown): object => ({ ...usage, total_tokens });

table('F16: counts that are no counts', BOTH, [
  row('text', counted({ prompt_tokens: '100', completion_tokens: '10', total_tokens: '110' }), ALL),
  row('no total', counted({ prompt_tokens: 100, completion_tokens: 10 }), ALL),
  row('text, no total', counted({ prompt_tokens: '100', completion_tokens: '10' }), ALL),
  row('total zero', counted(counts(0)), ALL),
  row('total null', counted(counts(null)), ALL),
  row('a negative total', counted(counts(-1)), ALL),
  row('total as a word', counted(counts('many')), ALL),
  row('total empty', counted(counts('')), ALL),
  row('a list as total', counted(counts([110])), ALL),
  row('a fraction as total', counted(counts(110.5)), answered('All of it.', { tokens: [110, 111] })),
  row('fractions', counted({ prompt_tokens: 100.4, completion_tokens: 10.2 }), UNCOUNTED),
  row('zeros', counted({ prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 }), UNCOUNTED),
  row('negative ones', counted({ prompt_tokens: -1, completion_tokens: -1, total_tokens: -2 }), UNCOUNTED),
  row(
    'no numbers',
    counted({ prompt_tokens: 'n/a', completion_tokens: 'n/a', total_tokens: 'n/a' }),
    UNCOUNTED,
  ),
  row(
    'more than can be',
    `${TEXT}${STOP}data: {"choices":[],"usage":{"total_tokens":1e308}}\n\n${DONE}`,
    UNCOUNTED,
  ),
  row('nulls', counted({ prompt_tokens: null, completion_tokens: null, total_tokens: null }), UNCOUNTED),
  row('an empty object', counted({}), UNCOUNTED),
  row('null', counted(null), UNCOUNTED),
  row('a number', counted(110), UNCOUNTED),
  row('none', TEXT + STOP + DONE, UNCOUNTED),
  row('only the answer’s', counted({ completion_tokens: 10 }), UNCOUNTED),
  row(
    'null in each chunk but the last',
    line({ ...choice({ content: 'All of it.' }), usage: null }) + STOP + USAGE + DONE,
    ALL,
  ),
  row(
    'more in each chunk',
    [101, 105, 110]
      .map((total) =>
        line({
          ...choice({ content: total === 110 ? ' it.' : total === 105 ? ' of' : 'All' }),
          usage: counts(total),
        }),
      )
      .join('') +
      STOP +
      DONE,
    ALL,
  ),
  row(
    'zeros first',
    line({ ...choice({ content: 'All of it.' }), usage: counts(0) }) + STOP + USAGE + DONE,
    ALL,
  ),
  row(
    'zeros last',
    TEXT +
      STOP +
      USAGE +
      line({ choices: [], usage: { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 } }) +
      DONE,
    ALL,
  ),
  row('in x_groq', TEXT + line({ ...choice({}, 'stop'), x_groq: { id: 'req', usage } }) + DONE, ALL),
  row(
    'in the choice',
    TEXT + line({ choices: [{ index: 0, delta: {}, finish_reason: 'stop', usage }] }) + DONE,
    ALL,
  ),
]);

table('F16: counts of several rounds are added as numbers', WITH_TOOLS, [
  row(
    'text',
    SUM.replace(
      USAGE,
      line({ choices: [], usage: { prompt_tokens: '100', completion_tokens: '10', total_tokens: '110' } }),
    ),
    answered('Tools said: 42', { tokens: 220, requests: 2 }),
  ),
  row(
    'a negative one',
    SUM.replace(USAGE, line({ choices: [], usage: { total_tokens: -500 } })),
    answered('Tools said: 42', { tokens: [111, 10_000], requests: 2 }),
  ),
]);
