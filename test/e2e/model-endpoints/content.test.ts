/** What is in an answer (F10, F16): what is shown of it, and what it is charged with. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CALLS, choice, DONE, line, STOP, TEXT, USAGE } from '../../support/stub-model.ts';
import { ANY, BOTH, openStage, partOf, row, table, WITH_TOOLS } from './cases.ts';
import {
  ALL,
  type Answered,
  answered,
  CALCULATED,
  ends,
  type Failed,
  failed,
  SUM,
  UNCOUNTED,
} from './expectations.ts';

// F10

const PARTS = [
  { type: 'text', text: 'All of' },
  { type: 'text', text: ' it.' },
];
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

// F16

/** A sound answer with these counts. */
const counted = (usage: unknown): string => TEXT + STOP + line({ choices: [], usage }) + DONE;
const usage = { prompt_tokens: 100, completion_tokens: 10, total_tokens: 110 };
const TEXTS = { prompt_tokens: '100', completion_tokens: '10', total_tokens: '110' };
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
  row('text', SUM.replace(USAGE, line({ choices: [], usage: TEXTS })), CALCULATED),
  row(
    'a negative one',
    SUM.replace(USAGE, line({ choices: [], usage: { total_tokens: -500 } })),
    answered('Tools said: 42', { tokens: [111, 10_000], requests: 2 }),
  ),
]);

test('F16: an execution that is waited for has its count, too', async (t) => {
  const stage = await openStage(t);
  partOf(stage, 'text', { answers: [SUM.replace(USAGE, line({ choices: [], usage: TEXTS }))] });
  const body = { agent_id: 'default', input: '<<text>>', wait: true };
  const answer = await stage.scene.ask('/api/executions', { body });
  assert.equal(answer.status, 200);
  assert.deepEqual(
    [answer.body.result.content, answer.body.execution_info.tokens_used],
    ['Tools said: 42', 220],
  );
});
