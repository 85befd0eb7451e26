/** Thoughts that stand in the content between tags, and what endpoints take beside calls where the model wrote no text. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deltas, last } from '../../support/chatter.ts';
import { startScene, startTestNode } from '../../support/node.ts';
import {
  choice,
  DONE,
  line,
  raw,
  STOP,
  type StubBody,
  startStubModel,
  USAGE,
} from '../../support/stub-model.ts';
import { temporary } from '../../support/temporary.ts';
import type { Received } from '../../support/websocket-client.ts';
import { ANY, type EndpointCase, row, type Seen, table, WITH_TOOLS } from './cases.ts';
import {
  ALL,
  answered,
  BROKEN,
  CALCULATED,
  EITHER,
  failed,
  SOUND,
  SUM,
  said,
  UNREADABLE,
} from './expectations.ts';
import { ownModel, refusal } from './turns.ts';

const AFTER = STOP + USAGE + DONE;
/** Content, a chunk for each piece. */
const content = (pieces: readonly string[]): string => pieces.map(said).join('');
const THOUGHT = '<think>\nCANARY thinks.\n</think>\n\nAll of it.';
const whole = (text: string): string =>
  JSON.stringify({
    object: 'chat.completion',
    choices: [{ index: 0, message: { role: 'assistant', content: text }, finish_reason: 'stop' }],
    usage: { total_tokens: 110 },
  });
/** The next request of the conversation has the answer, and not what was thought. */
const apart = ({ frames, next }: Seen): void => {
  const text = JSON.stringify(next.body.messages);
  assert.ok(!text.includes('thinks') && !text.includes('think>'), text);
  assert.equal(deltas(frames), 'All of it.');
};
const kept: Pick<EndpointCase, 'also'> = { also: apart };

table('thoughts between tags are no text of the answer, however they are split', ANY, [
  row('in one chunk', said(THOUGHT) + AFTER, ALL, kept),
  row('unit by unit', content(THOUGHT.split('')) + AFTER, ALL, kept),
  ...Array.from({ length: 9 }, (_, at) =>
    row(`split at ${at + 1}`, content([THOUGHT.slice(0, at + 1), THOUGHT.slice(at + 1)]) + AFTER, ALL, kept),
  ),
  row(
    'byte by byte',
    raw(Array.from(Buffer.from(said(THOUGHT) + AFTER), (byte) => Uint8Array.of(byte))),
    ALL,
    kept,
  ),
  row('behind blanks', content(['\n', ' ', THOUGHT]) + AFTER, ALL, kept),
  row('none between the tags', content(['<think>', '\n\n', '</think>', '\n\nAll of it.']) + AFTER, ALL, kept),
  row('by another name', said('<thought>CANARY thinks.</thought>All of it.') + AFTER, ALL, kept),
  row(
    'beside a field of thoughts',
    line(choice({ reasoning_content: 'CANARY thinks.' })) + said(THOUGHT) + AFTER,
    ALL,
    kept,
  ),
  row(
    'as a whole completion',
    raw(whole(THOUGHT), { headers: { 'content-type': 'application/json' } }),
    ALL,
    kept,
  ),
  row('all of it once more at the end', said(THOUGHT) + line(whole(THOUGHT)) + DONE, ALL, kept),
  row('in content of parts', line(choice({ content: [{ type: 'text', text: THOUGHT }] })) + AFTER, ALL, kept),
  row('cut off behind them', raw(said('<think>CANARY</think>Half of'), { end: 'reset' }), BROKEN),
  row('cut off within them', raw(said('<think>CANARY'), { end: 'reset' }), UNREADABLE),
  row(
    'nothing else',
    said('<think>CANARY</think>\n') + AFTER,
    failed(EITHER, { retryable: true, message: /thoughts/ }),
  ),
  row(
    'without an end',
    said('<think>CANARY') + AFTER,
    failed(EITHER, { retryable: true, message: /thoughts/ }),
  ),
  row(
    'later they are text',
    said('Like <think>this</think>.') + AFTER,
    answered('Like <think>this</think>.'),
  ),
  row('a tag of another kind', said('<b>All</b> of it.') + AFTER, answered('<b>All</b> of it.')),
  row('half a tag', content(['<', 'thin']) + AFTER, answered('<thin')),
]);

const besideCalls = ({ messages }: StubBody): unknown =>
  messages.find(({ tool_calls }) => tool_calls)?.content;
const THINKS_AND_CALLS = said('<think>CANARY thinks.</think>\n\n') + SUM;

table(
  'thoughts between tags go back with the calls that they led to, where the model wrote them',
  WITH_TOOLS,
  [
    row('thoughts, then a call', THINKS_AND_CALLS, CALCULATED, {
      also: ({ requests, next }) => {
        assert.equal(requests[1] && besideCalls(requests[1].body), '<think>\nCANARY thinks.\n</think>\n\n');
        assert.ok(!JSON.stringify(next.body).includes('thinks'));
      },
    }),
    row(
      'thoughts, text, then a call',
      said('<think>CANARY thinks.</think>Wait.') + SUM,
      answered('Tools said: 42'),
      {
        also: ({ requests }) =>
          assert.equal(
            requests[1] && besideCalls(requests[1].body),
            '<think>\nCANARY thinks.\n</think>\n\nWait.',
          ),
      },
    ),
  ],
);

const inContent = (problem: unknown, text: string) => (body: StubBody) =>
  body.messages.some(({ tool_calls, content: beside }) => tool_calls && beside === problem)
    ? refusal(text)
    : null;
const both = (text: string) => (body: StubBody) =>
  inContent(null, text)(body) ?? inContent('', text)(body) ?? inContent(undefined, text)(body);
/** Refused once or twice, and from then on known. */
const LEARNT = answered('Tools said: 42', { results: ['42'], requests: [2, 4] });

table('null beside calls is said otherwise where it is refused', WITH_TOOLS, [
  ...[
    "Input should be a valid string, loc: ['body', 'messages', 2, 'content']",
    'messages[2].content: invalid type: null, expected a string',
    "Invalid type for 'messages.[2].content': expected a string, but got null instead.",
    'content is required',
    'can only concatenate str (not "NoneType") to str',
  ].map((text) =>
    row(`null: ${text.slice(0, 30)}`, SUM, LEARNT, {
      agent: ownModel(),
      rules: { refuses: inContent(null, text) },
    }),
  ),
  row('null, under 500', SUM, LEARNT, {
    agent: ownModel(),
    rules: {
      refuses: (body) =>
        inContent(null, '')(body) && refusal('TypeError: can only concatenate str (not "NoneType")', {}, 500),
    },
  }),
  row('null, and an empty text', SUM, LEARNT, {
    agent: ownModel(),
    rules: { refuses: both('Message content must be non-empty') },
  }),
]);

test('what is taken beside calls is remembered', async (t) => {
  const { stub, chat } = await startScene(t);
  const refuses = inContent(null, 'content: null is not a string');
  stub.byDefault(({ body }) => refuses(body) ?? raw(body.messages.at(-1)?.role === 'tool' ? SOUND : SUM));
  const client = await chat('acme', 's1');
  last(await client.turn('How much?'), 'chat.response');
  assert.equal(stub.requests.length, 3);
  last(await client.turn('And now?'), 'chat.response');
  assert.equal(stub.requests.length, 5);
});

test("an operator's file says how a provider's tags are read", async (t) => {
  const stub = await startStubModel();
  t.after(() => stub.close());
  const { write } = temporary(t);
  const entries = (['read', 'begun', 'text'] as const).map((think_tags) => ({
    name: think_tags,
    base_url: stub.baseUrl,
    think_tags,
  }));
  const node = await startTestNode(t, {
    env: { DEFAULT_TIER: 'enterprise', PROVIDERS_FILE: write('providers.json', JSON.stringify(entries)) },
  });
  const client = await node.chat('acme', 's1', { query: { reasoning: '1' } });
  const asked = async (provider: string, text: string) => {
    stub.next(raw(content(text.split('')) + AFTER));
    const made = await node.ask('/api/agents', { body: { name: provider, provider, model: 'm' } });
    const frames = await client.turn('Well?', { agent_id: made.body.id ?? provider });
    const record = (await node.ask(`/api/chat/tasks/${frames[0]?.task_id}`)).body;
    return [
      thoughts(frames).trim(),
      last(frames, 'chat.response').data.content,
      record.reasoning?.trim() ?? '',
    ];
  };
  assert.deepEqual(await asked('read', '<think>So.</think>Yes.'), ['So.', 'Yes.', 'So.']);
  assert.deepEqual(await asked('begun', 'So.\n</think>\n\nYes.'), ['So.', 'Yes.', 'So.']);
  assert.deepEqual(await asked('text', '<think>So.</think>Yes.'), ['', '<think>So.</think>Yes.', '']);
});

const thoughts = (frames: readonly Received[]): string =>
  frames.flatMap(({ type, data }) => (type === 'chat.reasoning' ? data.content : [])).join('');
