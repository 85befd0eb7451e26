/** The end of the stream (F7, F8): what is a whole answer, what a failure, and what is cut off. */
import assert from 'node:assert/strict';
import { CALLS, choice, DONE, HALF, line, raw, STOP, TEXT, USAGE } from '../../support/stub-model.ts';
import { ANY, BOTH, row, table, WITH_TOOLS } from './cases.ts';
import {
  ALL,
  BROKEN,
  CALCULATED,
  EITHER,
  ends,
  type Failed,
  failed,
  hang,
  letGo,
  SOUND,
  SUM,
  said,
  UNCOUNTED,
} from './expectations.ts';

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
  row('no finish but [DONE]', SUM.replace(CALLS, ''), CALCULATED),
  row('a finish, then a reset', raw(SUM.replace(DONE, ''), { end: 'reset' }), CALCULATED),
  row('a finish, then silence', raw(SUM.replace(DONE, ''), hang), CALCULATED, { also: letGo }),
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
