import { errorAnswer } from '../../support/picky-endpoint.ts';
import { choice, DONE, HALF, line, raw, STOP, TEXT, USAGE } from '../../support/stub-model.ts';
import { ANY, BOTH, type EndpointCase, row, table } from './cases.ts';
import {
  ALL,
  type Answered,
  answered,
  BROKEN,
  type Failed,
  failed,
  hang,
  letGo,
  SOUND,
  said,
  UNREADABLE,
} from './expectations.ts';

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

// F14

/** The end of the body in the middle of what the model says. */
const TORN = '{"choices":[{"index":0,"delta":{"content":"CANARY is what the model says"';
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
