/** Calls of tools as endpoints stream them (F3, F4, F11, F12, F13): what runs, and what goes back. */
import assert from 'node:assert/strict';
import { CALLS, choice, DONE, line, STOP, USAGE } from '../../support/stub-model.ts';
import { type EndpointCase, row, table, WITH_TOOLS } from './cases.ts';
import { type Answered, answered, ends, CALCULATED as ONE, said, UNREADABLE } from './expectations.ts';

const SIX = '{"expression":"6*7"}';
const TEN = '{"expression":"10*10"}';

/** A piece of a call, with whatever an endpoint might write into it. */
type Piece = Readonly<Record<string, unknown>>;

/** A whole call of the calculator in one piece. */
const call = (id: unknown, args: unknown, more: Piece = {}): Piece => ({
  index: 0,
  id,
  type: 'function',
  function: { name: 'calculator', arguments: args },
  ...more,
});
/** What follows of a call: arguments, and what else is given. */
const rest = (args: unknown, more: Piece = {}): Piece => ({ function: { arguments: args }, ...more });
/** One event for each list of pieces, the first one with its role. */
const pieces = (...events: readonly (readonly Piece[])[]): string =>
  events
    .map((tool_calls, place) =>
      line(choice(place === 0 ? { role: 'assistant', tool_calls } : { tool_calls })),
    )
    .join('');
const END = CALLS + USAGE + DONE;

const TWO: Answered = answered('Tools said: 42 | 100', { tokens: 220, requests: 2, results: ['42', '100'] });

// F3

/** The whole call in a first chunk with these fields of a delta. */
const roled = (delta: object): string => line(choice({ ...delta, tool_calls: [call('c1', SIX)] })) + END;

table('F3: the role says nothing about what a chunk holds', WITH_TOOLS, [
  row('empty', roled({ role: '' }), ONE),
  row('missing', roled({}), ONE),
  row('null', roled({ role: null }), ONE),
  row('assistant', roled({ role: 'assistant' }), ONE),
  row('Assistant', roled({ role: 'Assistant' }), ONE),
  row('model', roled({ role: 'model' }), ONE),
  row('ai', roled({ role: 'ai' }), ONE),
  row('user', roled({ role: 'user' }), ONE),
  row('system', roled({ role: 'system' }), ONE),
  row('developer', roled({ role: 'developer' }), ONE),
  row('tool', roled({ role: 'tool' }), ONE),
  row('function', roled({ role: 'function' }), ONE),
  row('a number', roled({ role: 1 }), ONE),
  row(
    'empty in a chunk before',
    line(choice({ role: '', content: '' })) + pieces([call('c1', SIX)]) + END,
    ONE,
  ),
  row(
    'tool in the chunk that ends the arguments',
    pieces([call('c1', '{"expression":')]) +
      line(choice({ role: 'tool', tool_calls: [rest('"6*7"}', { index: 0 })] })) +
      END,
    ONE,
  ),
  row(
    'user in the chunk with the finish',
    pieces([call('c1', SIX)]) + line(choice({ role: 'user' }, 'tool_calls')) + USAGE + DONE,
    ONE,
  ),
  row(
    'another one in each chunk, and only text',
    rolesOfText(),
    answered('All of it.', { tokens: 110, requests: 1 }),
  ),
]);

function rolesOfText(): string {
  const chunk = (role: unknown, content: string): string => line(choice({ role, content }));
  return (
    chunk('', 'All') + chunk('user', ' of') + chunk('tool', ' it') + chunk(null, '.') + STOP + USAGE + DONE
  );
}

// F4

const NAMED = { name: 'calculator' };

table('F4: each piece of a call finds the call it belongs to', WITH_TOOLS, [
  row('two calls at index 0, each whole', pieces([call('c1', SIX)], [call('c2', TEN)]) + END, TWO),
  row('two calls at index 0 in one event', pieces([call('c1', SIX), call('c2', TEN)]) + END, TWO),
  row(
    'two calls at index 0, in pieces one after the other',
    pieces(
      [call('c1', '')],
      [rest('{"expression":', { index: 0 })],
      [rest('"6*7"}', { index: 0 })],
      [call('c2', '')],
      [rest('{"expression":', { index: 0 })],
      [rest('"10*10"}', { index: 0 })],
    ) + END,
    TWO,
  ),
  row(
    'index null',
    pieces([call('c1', SIX, { index: null })], [call('c2', TEN, { index: null })]) + END,
    TWO,
  ),
  row(
    'index null, in pieces',
    pieces(
      [call('c1', '{"expression":', { index: null })],
      [rest('"6*7"}', { index: null })],
      [call('c2', '{"expression":', { index: null })],
      [rest('"10*10"}', { index: null, id: null })],
    ) + END,
    TWO,
  ),
  row(
    'no index',
    pieces([call('c1', SIX, { index: undefined })], [call('c2', TEN, { index: undefined })]) + END,
    TWO,
  ),
  row(
    'no index, in pieces',
    pieces(
      [call('c1', '{"expression":', { index: undefined })],
      [rest('"6*7"}')],
      [call('c2', '{"expression":', { index: undefined })],
      [rest('"10*10"}')],
    ) + END,
    TWO,
  ),
  row(
    'an index only from the second piece on',
    pieces([call('c1', '{"expression":', { index: undefined })], [rest('"6*7"}', { index: 0 })]) + END,
    ONE,
  ),
  row(
    'an index only from the second piece on, for two calls',
    pieces(
      [call('c1', '{"expression":', { index: undefined })],
      [rest('"6*7"}', { index: 0 })],
      [call('c2', '{"expression":', { index: undefined })],
      [rest('"10*10"}', { index: 1 })],
    ) + END,
    TWO,
  ),
  row(
    'an index only in the first piece',
    pieces(
      [call('c1', '{"expression":')],
      [rest('"6*7"}')],
      [call('c2', '{"expression":', { index: 1 })],
      [rest('"10*10"}')],
    ) + END,
    TWO,
  ),
  row('index from one', pieces([call('c1', SIX, { index: 1 })], [call('c2', TEN, { index: 2 })]) + END, TWO),
  row('one call at index 1', pieces([call('c1', SIX, { index: 1 })]) + END, ONE),
  row(
    'an index as text',
    pieces([call('c1', SIX, { index: '0' })], [call('c2', TEN, { index: '1' })]) + END,
    TWO,
  ),
  row('ids missing, index 0 for both', pieces([call(undefined, SIX)], [call(undefined, TEN)]) + END, TWO),
  row('ids empty, index 0 for both', pieces([call('', SIX)], [call('', TEN)]) + END, TWO),
  row('ids null, index 0 for both', pieces([call(null, SIX)], [call(null, TEN)]) + END, TWO),
  row(
    'ids missing, index 0 for both, in pieces',
    pieces(
      [call(undefined, '{"expression":')],
      [rest('"6*7"}', { index: 0 })],
      [call(undefined, '{"expression":')],
      [rest('"10*10"}', { index: 0 })],
    ) + END,
    TWO,
  ),
  row(
    'neither ids nor an index',
    pieces([call(undefined, SIX, { index: undefined })], [call(undefined, TEN, { index: undefined })]) + END,
    TWO,
  ),
  row(
    'one id for both, at an index each',
    pieces([call('c1', SIX)], [call('c1', TEN, { index: 1 })]) + END,
    TWO,
  ),
  row(
    'another id in each piece, and the name in the first alone',
    pieces(
      [call('c1', '{"expression":')],
      [rest('"6*', { index: 0, id: 'c2' })],
      [rest('7"}', { index: 0, id: 'c3' })],
    ) + END,
    ONE,
  ),
  row(
    'an empty id in every piece but the first',
    pieces([call('c1', '{"expression":')], [rest('"6*7"}', { index: 0, id: '', type: 'function' })]) + END,
    ONE,
  ),
  row(
    'id and name repeated in each piece',
    pieces([call('c1', '{"expression":')], [call('c1', '"6*')], [call('c1', '7"}')]) + END,
    ONE,
  ),
  row(
    'id and name repeated in each piece, no index',
    pieces(
      [call('c1', '{"expression":', { index: undefined })],
      [call('c1', '"6*7"}', { index: undefined })],
      [call('c2', '{"expression":', { index: undefined })],
      [call('c2', '"10*10"}', { index: undefined })],
    ) + END,
    TWO,
  ),
  row(
    'the name repeated in each piece, ids missing',
    pieces([call(undefined, '{"expression":')], [call(undefined, '"6*7"}')]) + END,
    ONE,
  ),
  row(
    'the name twice, ids missing, arguments with the second',
    pieces([call(undefined, '')], [call(undefined, SIX)]) + END,
    ONE,
  ),
  row(
    'an empty name in every piece but the first',
    pieces([call('c1', '{"expression":')], [{ index: 0, function: { name: '', arguments: '"6*7"}' } }]) + END,
    ONE,
  ),
  row(
    'a name null in every piece but the first',
    pieces(
      [call('c1', '{"expression":')],
      [{ index: 0, id: null, type: null, function: { name: null, arguments: '"6*7"}' } }],
    ) + END,
    ONE,
  ),
  row(
    'the id first, then the name, then the arguments',
    pieces(
      [{ index: 0, id: 'c1', type: 'function' }],
      [{ index: 0, function: NAMED }],
      [rest(SIX, { index: 0 })],
    ) + END,
    ONE,
  ),
  row(
    'the name first, then the id with the arguments',
    pieces([{ index: 0, function: NAMED }], [rest(SIX, { index: 0, id: 'c1' })]) + END,
    ONE,
  ),
  row(
    'pieces of two calls in turns',
    pieces(
      [call('c1', ''), call('c2', '', { index: 1 })],
      [rest('{"expression":', { index: 0 })],
      [rest('{"expression":', { index: 1 })],
      [rest('"6*7"}', { index: 0 })],
      [rest('"10*10"}', { index: 1 })],
    ) + END,
    TWO,
  ),
  row(
    'pieces of two calls in turns, told apart by their ids alone',
    pieces(
      [call('c1', '{"expression":', { index: undefined })],
      [call('c2', '{"expression":', { index: undefined })],
      [rest('"6*7"}', { id: 'c1' })],
      [rest('"10*10"}', { id: 'c2' })],
    ) + END,
    TWO,
  ),
  row(
    'three calls, at index 0, 0 and 1',
    pieces([call('c1', SIX)], [call('c2', TEN)], [call('c3', '{"expression":"1+1"}', { index: 1 })]) + END,
    answered('Tools said: 42 | 100 | 2', { requests: 2, results: ['42', '100', '2'] }),
  ),
  row(
    'byte by byte',
    [
      ...[...Buffer.from(pieces([call('c1', '{"expression":')], [rest('"6*7"}', { index: 0 })]))].map(
        (byte) => Uint8Array.of(byte),
      ),
      // At once: for what follows a finish a model call waits two seconds at most, which a busy machine needs for this.
      Buffer.from(END),
    ],
    ONE,
  ),
]);

// F11

/** Extra content as Gemini sends it along with a call. */
const SIGNED = { extra_content: { google: { thought_signature: 'SIG' } } };
const THOUGHTS = 'CANARY thinks: six times seven.';

/** The whole message of a request that has calls. */
const withCalls: NonNullable<EndpointCase['also']> = ({ requests }) => {
  const told = requests.at(-1)?.body.messages.find(({ tool_calls }) => tool_calls);
  assert.ok(told);
  assert.notEqual(told.content, '');
};

table('F11: what came with a call goes back with it', WITH_TOOLS, [
  row('a signature', pieces([call('c1', SIX, SIGNED)]) + END, ONE, {
    rules: { signature: 'SIG' },
    also: withCalls,
  }),
  row(
    'a signature in a piece after the name',
    pieces([call('c1', '')], [rest(SIX, { index: 0, ...SIGNED })]) + END,
    ONE,
    { rules: { signature: 'SIG' } },
  ),
  row(
    'a signature on the first of two calls',
    pieces([call('c1', SIX, SIGNED), call('c2', TEN, { index: 1 })]) + END,
    TWO,
    {
      rules: { signature: 'SIG' },
      also: ({ requests }) => {
        const calls = requests.at(-1)?.body.messages.find(({ tool_calls }) => tool_calls)?.tool_calls;
        assert.equal(calls?.[1]?.extra_content, undefined, 'the second call has the signature of the first');
      },
    },
  ),
  {
    name: 'signatures in two rounds, each on its own call',
    answers: [pieces([call('c1', SIX, SIGNED)]) + END],
    afterTools: [pieces([call('c2', TEN, SIGNED)]) + END],
    rules: { signature: 'SIG' },
    expect: answered('Tools said: 100', { requests: 3, tokens: 330, results: ['42', '100'] }),
  },
  row(
    'thoughts',
    line(choice({ role: 'assistant', content: null, reasoning_content: THOUGHTS })) +
      pieces([call('c1', SIX)]) +
      END,
    ONE,
    { rules: { thoughts: THOUGHTS }, also: withCalls },
  ),
  row(
    'thoughts in pieces',
    [...THOUGHTS].map((letter) => line(choice({ reasoning_content: letter }))).join('') +
      pieces([call('c1', SIX)]) +
      END,
    ONE,
    { rules: { thoughts: THOUGHTS } },
  ),
  {
    name: 'thoughts in two rounds, each on its own message',
    answers: [line(choice({ reasoning_content: THOUGHTS })) + pieces([call('c1', SIX)]) + END],
    afterTools: [line(choice({ reasoning_content: THOUGHTS })) + pieces([call('c2', TEN)]) + END],
    rules: { thoughts: THOUGHTS },
    expect: answered('Tools said: 100', { requests: 3, tokens: 330, results: ['42', '100'] }),
  },
  row(
    'thoughts and text beside the call',
    line(choice({ reasoning_content: THOUGHTS })) + said('Let me see.') + pieces([call('c1', SIX)]) + END,
    ONE,
    {
      rules: { thoughts: THOUGHTS },
      also: ({ requests }) => {
        const told = requests.at(-1)?.body.messages.find(({ tool_calls }) => tool_calls);
        assert.equal(told?.content, 'Let me see.');
      },
    },
  ),
  row('empty text beside the call', line(choice({ content: '' })) + pieces([call('c1', SIX)]) + END, ONE, {
    also: withCalls,
  }),
]);

// F12

/** A call under a name that may be none. */
const named = (name: unknown): string =>
  pieces([{ index: 0, id: 'c1', type: 'function', function: { name, arguments: SIX } }]) + END;
/** Either the tool that was meant ran, or the model was told of its mistake. */
const ANSWERED: Answered = answered(/^Tools said: (42$|Error: )/, { requests: 2 });

table('F12: a name that is none does not go back as it was', WITH_TOOLS, [
  row('a token of a template behind it', named('calculator<|channel|>commentary'), ANSWERED),
  row('a prefix with a dot', named('functions.calculator'), ANSWERED),
  row('a prefix with a colon', named('default_api:calculator'), ANSWERED),
  row('a slash', named('tools/calculator'), ANSWERED),
  row('a number behind a colon', named('functions.calculator:0'), ANSWERED),
  row('a blank before it', named(' calculator'), ANSWERED),
  row('a blank behind it', named('calculator '), ANSWERED),
  row('a line feed behind it', named('calculator\n'), ANSWERED),
  row('brackets', named('calculator()'), ANSWERED),
  row('quotes', named('"calculator"'), ANSWERED),
  row('two words', named('my calculator'), ANSWERED),
  row('empty', named(''), ANSWERED),
  row('missing', named(undefined), ANSWERED),
  row('null', named(null), ANSWERED),
  row('a blank', named(' '), ANSWERED),
  row('65 letters', named('a'.repeat(65)), ANSWERED),
  row('70,000 letters', named('a'.repeat(70_000)), ANSWERED),
  row('Chinese', named('计算器'), ANSWERED),
  row('an emoji', named('🧮'), ANSWERED),
  row('half of a surrogate pair', named('calculator\ud83d'), ANSWERED),
  row('markup', named('<tool_call>calculator</tool_call>'), ANSWERED),
  row('the arguments too', named('calculator{"expression":"6*7"}'), ANSWERED),
  row('__proto__', named('__proto__'), ANSWERED),
  row(
    'a good call beside a bad one',
    pieces([call('c1', SIX), { index: 1, id: 'c2', function: { name: 'a b', arguments: '{}' } }]) + END,
    answered(/^Tools said: 42 \| Error: /, { requests: 2, results: ['42'] }),
  ),
]);

// F13

/** A call of the clock, which needs no arguments. */
const clock = (args: unknown): string =>
  pieces([{ index: 0, id: 'c1', type: 'function', function: { name: 'current_time', arguments: args } }]) +
  END;
const TIME: Answered = answered(/^Tools said: (?!Error)/, { requests: 2 });
const MISTAKE: Answered = answered(/^Tools said: Error: /, { requests: 2, results: [] });

table('F13: arguments are an object, however they are written', WITH_TOOLS, [
  row('an object', pieces([call('c1', { expression: '6*7' })]) + END, ONE),
  row(
    'an object, after empty text',
    pieces([call('c1', '')], [rest({ expression: '6*7' }, { index: 0 })]) + END,
    ONE,
  ),
  row(
    'two objects of two calls',
    pieces([call('c1', { expression: '6*7' })], [call('c2', { expression: '10*10' }, { index: 1 })]) + END,
    TWO,
  ),
  row('blanks around the text', pieces([call('c1', ` \n${SIX}\n `)]) + END, ONE),
  row('an empty object', clock({}), TIME),
  row('the text {}', clock('{}'), TIME),
  row('the text null', clock('null'), TIME),
  row('null', clock(null), TIME),
  row('empty', clock(''), TIME),
  row('a blank', clock(' '), TIME),
  row('missing', clock(undefined), TIME),
  row(
    'the text null in pieces',
    pieces(
      [{ index: 0, id: 'c1', function: { name: 'current_time', arguments: 'nu' } }],
      [rest('ll', { index: 0 })],
    ) + END,
    TIME,
  ),
  row('null, then the text', pieces([call('c1', null)], [rest(SIX, { index: 0 })]) + END, ONE),
  row('broken', pieces([call('c1', '{"expression":')]) + END, MISTAKE),
  row('a list', pieces([call('c1', '[1]')]) + END, MISTAKE),
  row(
    'half of a surrogate pair in the text',
    pieces([call('c1', '{"expression":"6*7 \\ud83d"}')]) + END,
    answered(/^Tools said: /, { requests: 2 }),
  ),
]);

// A finish that is a failure takes its calls with it; a finish that is missing does not.

table('calls and the end of the stream', WITH_TOOLS, [
  row('the finish stop', pieces([call('c1', SIX)]) + STOP + USAGE + DONE, ONE),
  row('the finish function_call', pieces([call('c1', SIX)]) + ends('function_call') + USAGE + DONE, ONE),
  row('no finish but [DONE]', pieces([call('c1', SIX)]) + USAGE + DONE, ONE),
  row(
    'the finish in the chunk of the call',
    line(choice({ role: 'assistant', tool_calls: [call('c1', SIX)] }, 'tool_calls')) + USAGE + DONE,
    ONE,
  ),
  row('aborted', pieces([call('c1', SIX)]) + ends('abort') + DONE, UNREADABLE),
  row('cut off before a finish', pieces([call('c1', SIX)]), UNREADABLE),
]);
