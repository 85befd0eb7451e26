/** Requests that endpoints refuse for what stands in them (F1, F2, F6, F15, F17), and how a session survives it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Chatter, deltas } from '../../support/chatter.ts';
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
  type StubBody,
  TEXT,
  USAGE,
} from '../../support/stub-model.ts';
import { until } from '../../support/until.ts';
import {
  ANY,
  type Answered,
  answered,
  BOTH,
  checkAnswered,
  checkFrames,
  type EndpointCase,
  ends,
  type Failed,
  failed,
  openStage,
  type Part,
  partOf,
  remembers,
  row,
  SOUND,
  type Stage,
  said,
  sound,
  table,
  WITH_TOOLS,
} from './cases.ts';

const EITHER = ['MODEL_ERROR', 'MODEL_UNAVAILABLE'];
/** Asked once more at most. */
const ALL: Answered = answered('All of it.', { tokens: 110, requests: [1, 2] });

const refusal = (message: string, more: object = {}, status = 400): Scenario =>
  errorAnswer(status, { message, type: 'invalid_request_error', param: null, code: null, ...more });
const limitOf = ({ max_tokens, max_completion_tokens }: StubBody): number =>
  max_tokens ?? max_completion_tokens ?? 0;
const lengthOf = ({ messages }: StubBody): number =>
  messages.reduce((sum, { content }) => sum + (typeof content === 'string' ? content.length : 0), 0);

// F1

let models = 0;
/** A model of the case's own: what a node learns of one is no help with the next. */
const ownModel = (more: Readonly<Record<string, unknown>> = {}) => {
  models += 1;
  return { model: `house-model-${models}`, ...more };
};

/** How endpoints say that a limit is too large: the words, what else is in the error, and the status. */
const TOO_LARGE: readonly (readonly [string, string, object?, number?])[] = [
  [
    'OpenAI',
    'max_tokens is too large: 32000. This model supports at most 4096 completion tokens, whereas you provided 32000.',
    { param: 'max_tokens', code: 'invalid_value' },
  ],
  [
    'vLLM',
    "'max_tokens' or 'max_completion_tokens' is too large: 32000. This model's maximum context length is 8192 tokens and your request has 120 input tokens (32000 > 8192 - 120).",
    { type: 'BadRequestError', code: 400 },
  ],
  [
    'vLLM before',
    "This model's maximum context length is 8192 tokens. However, you requested 32120 tokens (120 in the messages, 32000 in the completion). Please reduce the length of the messages or completion.",
    { type: 'BadRequestError', code: 400 },
  ],
  [
    'Groq',
    '`max_tokens` must be less than or equal to `4096`, the maximum value for `max_tokens` is less than the `context_window` for this model',
    { param: 'max_tokens' },
  ],
  [
    'Groq, by the minute',
    'Request too large for model `m` in organization `org` service tier `on_demand` on tokens per minute (TPM): Limit 6000, Requested 32120, please reduce your message size and try again.',
    { type: 'tokens', code: 'rate_limit_exceeded' },
    413,
  ],
  [
    'DeepSeek',
    'Invalid max_tokens value, the valid range of max_tokens is [1, 4096]',
    { code: 'invalid_request_error' },
  ],
  ['Mistral', 'max_tokens exceeds the maximum of 4096', { type: 'invalid_request_prompt', code: '3051' }],
  [
    'SGLang',
    'Requested token count exceeds the model’s maximum context length of 8192 tokens. You requested a total of 32120 tokens: 120 tokens from the input messages and 32000 tokens for the completion.',
    { type: 'BadRequest', code: 400 },
  ],
  ['in no words', 'Bad request'],
];

table('F1: no limit is sent that nobody asked for', ANY, [
  row('the example', SOUND, ALL, { rules: { maxTokens: 4096 } }),
  ...TOO_LARGE.map(([name, message, more, status]) =>
    row(name, SOUND, ALL, {
      agent: ownModel(),
      rules: { refuses: (body) => (limitOf(body) > 4096 ? refusal(message, more, status) : null) },
    }),
  ),
  row('only max_completion_tokens is known', SOUND, ALL, {
    agent: ownModel(),
    rules: {
      refuses: ({ max_tokens }) =>
        max_tokens === undefined
          ? null
          : refusal(
              "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
              { param: 'max_tokens', code: 'unsupported_parameter' },
            ),
    },
  }),
]);

table('F1: an agent’s own limit is sent as it stands', BOTH, [
  row(
    '500',
    SOUND,
    { ...ALL, requests: 1 },
    {
      agent: { max_tokens: 500 },
      also: ({ requests, next }) =>
        assert.deepEqual([...requests.map(({ body }) => limitOf(body)), limitOf(next.body)], [500, 500]),
    },
  ),
  row('500, where only max_completion_tokens is known', SOUND, ALL, {
    agent: ownModel({ max_tokens: 500 }),
    rules: {
      refuses: ({ max_tokens }) =>
        max_tokens === undefined
          ? null
          : refusal(
              "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
              { param: 'max_tokens', code: 'unsupported_parameter' },
            ),
    },
    also: ({ next }) => assert.equal(next.body.max_completion_tokens, 500),
  }),
  row('500, where only max_tokens is known', SOUND, ALL, {
    agent: ownModel({ max_tokens: 500 }),
    rules: {
      refuses: ({ max_completion_tokens }) =>
        max_completion_tokens === undefined
          ? null
          : refusal('Unrecognized request argument supplied: max_completion_tokens', {
              param: 'max_completion_tokens',
            }),
    },
    also: ({ next }) => assert.equal(next.body.max_tokens, 500),
  }),
  row('more than the model writes', SOUND, ALL, {
    agent: ownModel({ max_tokens: 8000 }),
    rules: { maxTokens: 4096 },
    also: ({ requests }) => assert.equal(requests[0] && limitOf(requests[0].body), 8000),
  }),
]);

// F2

const BROKEN: Failed = failed(EITHER, { retryable: true, shown: 'Half of', requests: 1 });
const SPOILT: Failed = failed(EITHER, { retryable: true, requests: [1, 3] });
/** The endpoint does not like what the user says. */
const UNHEARD: Failed = failed('MODEL_ERROR', { requests: [1, 3] });
const BAD_WORD = 'CANARY-forbidden';

/** Refuses every request in which the word stands. */
const censored = (answer: Scenario): Partial<EndpointCase> => ({
  says: BAD_WORD,
  rules: { refuses: (body) => (JSON.stringify(body).includes(BAD_WORD) ? answer : null) },
  also: ({ next }) => assert.ok(!JSON.stringify(next.body).includes(BAD_WORD)),
});

/** How endpoints say that a conversation is too long. */
const TOO_LONG: readonly (readonly [string, string, object?, number?])[] = [
  [
    'OpenAI',
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens. Please reduce the length of the messages.",
    { param: 'messages', code: 'context_length_exceeded' },
  ],
  [
    'vLLM',
    "This model's maximum context length is 8192 tokens. However, your request has 9000 input tokens. Please reduce the length of the input messages.",
    { type: 'BadRequestError', code: 400 },
  ],
  [
    'llama.cpp',
    'the request exceeds the available context size. try increasing the context size or enable context shift',
    { code: 400, type: 'exceed_context_size_error', n_prompt_tokens: 9000, n_ctx: 8192 },
  ],
  [
    'Groq',
    'Please reduce the length of the messages or completion.',
    { param: 'messages', code: 'context_length_exceeded' },
  ],
  ['Groq, by size', 'Request Entity Too Large', { code: 'request_too_large' }, 413],
  [
    'Gemini',
    'The input token count (9000) exceeds the maximum number of tokens allowed (8192).',
    { code: 400, status: 'INVALID_ARGUMENT' },
  ],
  [
    'Mistral',
    'Prompt contains 9000 tokens and 0 draft tokens, too large for model with 8192 maximum context length',
    { type: 'invalid_request_prompt', code: '3051' },
  ],
  ['Anthropic', 'prompt is too long: 9000 tokens > 8192 maximum'],
];

/** Refuses requests of more than this many characters. */
const window =
  (most: number, answer: Scenario) =>
  (body: StubBody): Scenario | null =>
    lengthOf(body) > most ? answer : null;

const words = (count: number): string => 'CANARY '.repeat(count);

table('F2: one turn does not spoil the conversation', ANY, [
  row('cut off by a reset', raw(HALF, { end: 'reset' }), BROKEN),
  row('cut off in good order', HALF, BROKEN),
  row('aborted', HALF + ends('abort') + DONE, BROKEN),
  row('hung up before a word', hangUp(), SPOILT),
  row('an error of the server', errorAnswer(500, { message: 'Oh no' }), SPOILT),
  row('a limit', errorAnswer(429, { message: 'Slow down' }), failed('MODEL_RATE_LIMITED', { requests: 3 })),
  row('refused without a reason', errorAnswer(400, { message: 'No' }), UNHEARD),
  row('an empty answer', STOP + USAGE + DONE, SPOILT),
  row('an empty body', '', SPOILT),
  row('thoughts only', line(choice({ reasoning_content: 'CANARY' })) + STOP + USAGE + DONE, SPOILT),
  row(
    'stopped by a filter',
    HALF + ends('content_filter') + DONE,
    failed('MODEL_ERROR', { shown: 'Half of', requests: 1 }),
  ),
  row(
    'refused by a filter of the prompt',
    SOUND,
    UNHEARD,
    censored(
      refusal('The response was filtered due to the prompt triggering the content management policy.', {
        param: 'prompt',
        code: 'content_filter',
        status: 400,
      }),
    ),
  ),
  row(
    'refused by an inspection',
    SOUND,
    UNHEARD,
    censored(refusal('Input data may contain inappropriate content.', { code: 'data_inspection_failed' })),
  ),
  row(
    'refused by a moderation',
    SOUND,
    UNHEARD,
    censored(
      errorAnswer(403, {
        code: 403,
        message: 'Your input was flagged',
        metadata: { reasons: ['violence'], flagged_input: BAD_WORD },
      }),
    ),
  ),
  row(
    'refused as an invalid prompt',
    SOUND,
    UNHEARD,
    censored(refusal('Invalid prompt: your prompt was flagged.', { code: 'invalid_prompt' })),
  ),
  row('refused for what it says, without a code', SOUND, UNHEARD, censored(refusal('Bad request'))),
  row(
    'refused for what it says, under 200',
    SOUND,
    UNHEARD,
    censored(raw(line({ error: { code: 'content_filter', message: 'No' } }) + DONE)),
  ),
  ...TOO_LONG.map(([name, message, more, status]) =>
    row(
      `refused for its length: ${name}`,
      SOUND,
      failed('MODEL_ERROR', { message: /long|large|context|length/i, requests: [1, 3] }),
      {
        agent: ownModel(),
        says: words(2_000),
        rules: { refuses: window(10_000, refusal(message, more, status)) },
      },
    ),
  ),
]);

const HALF_EMOJI = '\ud83d';

table('F2: half a character becomes U+FFFD', WITH_TOOLS, [
  row('the user’s', SOUND, ALL, {
    says: `CANARY ${HALF_EMOJI} asks`,
    also: ({ requests }) =>
      assert.match(JSON.stringify(requests[0]?.body.messages.at(-1)), /CANARY \ufffd asks/),
  }),
  row('the user’s other half', SOUND, ALL, { says: 'CANARY \ude00 asks' }),
  row('the user’s, at the end', SOUND, ALL, { says: `CANARY ${HALF_EMOJI}` }),
  row('a whole one of the user’s stays', SOUND, ALL, {
    says: 'CANARY 😀 asks',
    also: ({ requests }) => assert.match(JSON.stringify(requests[0]?.body.messages.at(-1)), /CANARY 😀 asks/),
  }),
  row('the model’s', sound(`It is ${HALF_EMOJI}.`), answered('It is \ufffd.', { tokens: 110 })),
  row('the model’s, at the end', sound(`It is ${HALF_EMOJI}`), answered('It is \ufffd', { tokens: 110 })),
  row(
    'the model’s, in two chunks',
    said('It is \ud83d') + sound('\ude00.'),
    answered(/^It is (😀|\ufffd\ufffd)\.$/u, { tokens: 110 }),
  ),
  row(
    'the model’s, in the wrong order',
    said('It is \ude00') + sound('\ud83d.'),
    answered('It is \ufffd\ufffd.', { tokens: 110 }),
  ),
  row(
    'the model’s, in a refusal',
    line(choice({ refusal: `No ${HALF_EMOJI}` })) + STOP + USAGE + DONE,
    answered('No \ufffd', { tokens: 110 }),
  ),
  row(
    'bytes that are no UTF-8',
    [
      line(choice({ content: 'It is ' })),
      Buffer.concat([
        Buffer.from('data: {"choices":[{"index":0,"delta":{"content":"'),
        Buffer.of(0xff),
        Buffer.from('"},"finish_reason":null}]}\n\n'),
      ]),
      STOP + USAGE + DONE,
    ],
    answered('It is \ufffd', { tokens: 110 }),
  ),
  row(
    'a tool’s',
    callOf(`{"expression":"concat(\\"a\\", \\"\\\\ud83d\\")"}`),
    answered(/^Tools said: /, { requests: 2 }),
  ),
  row(
    'in thoughts that go back',
    line(choice({ reasoning_content: `CANARY ${HALF_EMOJI}` })) + callOf('{"expression":"6*7"}'),
    answered('Tools said: 42', { requests: 2 }),
  ),
]);

function callOf(args: string): string {
  const call = { index: 0, id: 'c1', type: 'function', function: { name: 'calculator', arguments: args } };
  return line(choice({ tool_calls: [call] })) + ends('tool_calls') + USAGE + DONE;
}

/** Says something to the part of this mark, on the default agent. */
const say = (client: Chatter, mark: string, text = 'CANARY-user asks.') => client.turn(`${text} <<${mark}>>`);

/** The next plain turn is answered at the picky endpoint. */
async function goesOn(stage: Stage, client: Chatter, mark: string): Promise<Part> {
  const part = partOf(stage, mark);
  const frames = await say(client, mark);
  assert.deepEqual(part.broken, []);
  checkFrames(frames);
  checkAnswered(frames, part, answered('All of it.'));
  return part;
}

test('F2: on msgpack half a character is U+FFFD as well', async (t) => {
  const stage = await openStage(t);
  partOf(stage, 'half', { answers: [sound(`It is ${HALF_EMOJI}.`)] });
  const client = await stage.scene.chat('acme', 's1', { protocols: ['nooble.msgpack'] });
  const frames = await say(client, 'half');
  assert.equal(frames.at(-1)?.data.content, 'It is \ufffd.');
  assert.equal(deltas(frames), 'It is \ufffd.');
  await goesOn(stage, client, 'next');
});

test('F2: what was cancelled before a word, or ran out of time, spoils nothing', async (t) => {
  const stage = await openStage(t, { EXECUTION_MAX_EXECUTION_TIME: '1.5' });
  const { stub, chat } = stage.scene;
  const client = await chat('acme', 's1');
  const before = await goesOn(stage, client, 'before');

  partOf(stage, 'silent', { answers: [raw('', { end: 'hang' })] });
  const task = client.say('CANARY-user asks. <<silent>>');
  await stub.request(1);
  client.send({ type: 'chat.cancel', task_id: task });
  assert.equal((await client.ended(task)).type, 'chat.cancelled');
  await goesOn(stage, client, 'after the cancelled one');

  partOf(stage, 'half', { answers: [raw(HALF, { end: 'hang' })] });
  const second = client.say('CANARY-user asks. <<half>>');
  await client.see((frame) => frame.task_id === second && frame.type === 'chat.delta');
  client.send({ type: 'chat.cancel', task_id: second });
  assert.equal((await client.ended(second)).type, 'chat.cancelled');
  await goesOn(stage, client, 'after the one cancelled in the middle');

  partOf(stage, 'slow', { answers: [raw(HALF, { end: 'hang' })] });
  const late = await say(client, 'slow');
  assert.equal(late.at(-1)?.data.code, 'EXECUTION_TIMEOUT');
  const after = await goesOn(stage, client, 'after the late one');
  assert.equal(before.requests.length, 1);
  for (const { body } of after.requests) remembers({ body }, 'All of it.');
});

test('F2: a question behind it in the queue is answered', async (t) => {
  const stage = await openStage(t);
  const client = await stage.scene.chat('acme', 's1');
  partOf(stage, 'cut', { answers: [raw(['', HALF], { end: 'reset', everyMs: 50 })] });
  partOf(stage, 'empty', { answers: [STOP + USAGE + DONE] });
  const queued = partOf(stage, 'queued');
  const tasks = ['cut', 'empty', 'queued'].map((mark) => client.say(`CANARY-user asks. <<${mark}>>`));
  const found = await Promise.all(tasks.map((task) => client.ended(task)));
  assert.deepEqual(
    found.map(({ type }) => type),
    ['error', 'error', 'chat.response'],
  );
  assert.deepEqual(queued.broken, []);
  await goesOn(stage, client, 'next');
});

test('F2: a session read back from the store is treated alike', async (t) => {
  const stage = await openStage(t, { SESSION_IDLE_SECONDS: '0.2' });
  const { chat, ask } = stage.scene;
  partOf(stage, 'cut', { answers: [raw(HALF, { end: 'reset' })] });
  partOf(stage, 'empty', { answers: [STOP + USAGE + DONE] });
  const client = await chat('acme', 's1');
  await goesOn(stage, client, 'before');
  for (const mark of ['cut', 'empty']) assert.equal((await say(client, mark)).at(-1)?.type, 'error');
  await client.close();
  await until('the session to leave memory', async () => {
    const { body } = await ask('/health/detailed');
    const kinds: readonly { kind: string; alive: number }[] = body.stats.actors;
    return (kinds.find(({ kind }) => kind === 'session')?.alive ?? 0) === 0;
  });
  const after = await goesOn(stage, await chat('acme', 's1'), 'after');
  for (const { body } of after.requests) remembers({ body }, 'All of it.');
});

for (const [name, message, more, status] of TOO_LONG)
  test(`F2: a conversation that outgrows the window is cut and asked once more (${name})`, async (t) => {
    const stage = await openStage(t, { DEFAULT_MODEL: 'house-model' });
    const client = await stage.scene.chat('acme', 's1');
    const refuses = window(8_000, refusal(message, more, status));
    for (let turn = 1; turn <= 8; turn += 1) {
      const part = partOf(stage, `turn-${turn}`, { rules: { refuses }, answers: [sound(`Answer ${turn}.`)] });
      const frames = await say(client, `turn-${turn}`, words(250));
      assert.deepEqual(part.broken, []);
      checkAnswered(frames, part, answered(`Answer ${turn}.`));
      assert.ok(part.requests.length <= 3, `${part.requests.length} requests in turn ${turn}`);
      const told = part.requests.at(-1);
      if (turn > 1 && told) remembers(told, `Answer ${turn - 1}.`);
    }
  });

test('F1: a model that no table knows is given more than the last words', async (t) => {
  const stage = await openStage(t, { DEFAULT_MODEL: 'house-model' });
  const client = await stage.scene.chat('acme', 's1');
  const parts: Part[] = [];
  for (let turn = 1; turn <= 5; turn += 1) {
    parts.push(partOf(stage, `turn-${turn}`, { answers: [sound(`Answer ${turn}.`)] }));
    assert.equal((await say(client, `turn-${turn}`, words(280))).at(-1)?.type, 'chat.response');
  }
  const told = parts.at(-1)?.requests.at(-1);
  assert.ok(told);
  remembers(told, 'Answer 1.');
});

// F6

const NAMES = [
  'qwen3-codex',
  'gpt-5-codex',
  'gpt-5.1-codex-max',
  'codex-mini-latest',
  'o1-pro',
  'o3-pro',
  'gpt-5-pro',
  'gpt-5.2-pro',
  'o3-deep-research',
  'computer-use-preview',
];

table('F6: /chat/completions is asked whatever the model’s name', ANY, [
  ...NAMES.map((model) =>
    row(
      model,
      SOUND,
      { ...ALL, requests: 1 },
      {
        agent: { model },
        also: ({ stub, requests }) => {
          assert.equal(requests[0]?.body.model, model);
          assert.deepEqual(stub.strays, []);
        },
      },
    ),
  ),
]);

for (const model of NAMES.slice(0, 3))
  test(`F6: ${model} as DEFAULT_MODEL`, async (t) => {
    const stage = await openStage(t, { DEFAULT_MODEL: model });
    partOf(stage, 'tool', { answers: [callOf('{"expression":"6*7"}')] });
    const client = await stage.scene.chat('acme', 's1');
    const frames = await say(client, 'tool');
    assert.equal(frames.at(-1)?.data.content, 'Tools said: 42');
    await goesOn(stage, client, 'next');
    assert.deepEqual(stage.scene.stub.strays, []);
  });

// F15

const NOT_THERE = 'stream_options';
/** How endpoints say that they do not know the field. */
const UNKNOWN: readonly (readonly [string, Scenario])[] = [
  ['OpenAI', refusal(`Unrecognized request argument supplied: ${NOT_THERE}`)],
  ['Azure', refusal(`Unknown parameter: '${NOT_THERE}'.`, { param: NOT_THERE, code: 'unknown_parameter' })],
  [
    'FastAPI',
    asJson({
      detail: [
        {
          type: 'extra_forbidden',
          loc: ['body', NOT_THERE],
          msg: 'Extra inputs are not permitted',
          input: {},
        },
      ],
    }),
  ],
  [
    'an older FastAPI',
    asJson({
      detail: [{ loc: ['body', NOT_THERE], msg: 'extra fields not permitted', type: 'value_error.extra' }],
    }),
  ],
  ['Groq', refusal(`property '${NOT_THERE}' is unsupported`)],
  [
    'a text',
    raw(`json: unknown field "${NOT_THERE}"`, { status: 400, headers: { 'content-type': 'text/plain' } }),
  ],
];

function asJson(body: object): Scenario {
  return raw(JSON.stringify(body), { status: 422, headers: { 'content-type': 'application/json' } });
}

/** Nobody counts where nobody may ask for it. */
const UNCOUNTED: Answered = answered('All of it.', { tokens: [1, 10_000], requests: [1, 2] });
const hasField = (body: StubBody, field: string): boolean => Object.hasOwn(body, field);

table('F15: a field the endpoint does not know is left out', ANY, [
  row('the example', SOUND, ALL, { agent: ownModel(), rules: { noStreamOptions: true } }),
  row('the example, and no counts', TEXT + STOP + DONE, UNCOUNTED, {
    agent: ownModel(),
    rules: { noStreamOptions: true },
  }),
  ...UNKNOWN.map(([name, answer]) =>
    row(name, TEXT + STOP + DONE, UNCOUNTED, {
      agent: ownModel(),
      rules: { refuses: (body) => (hasField(body, NOT_THERE) ? answer : null) },
    }),
  ),
  row('temperature', SOUND, ALL, {
    agent: ownModel(),
    rules: {
      refuses: (body) =>
        hasField(body, 'temperature')
          ? refusal(
              "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported.",
              { param: 'temperature', code: 'unsupported_value' },
            )
          : null,
    },
  }),
  row(
    'a limit and stream_options, one after the other',
    SOUND,
    { ...ALL, requests: [1, 3] },
    {
      agent: ownModel(),
      rules: { noStreamOptions: true, maxTokens: 4096 },
    },
  ),
]);

table('F15: with tools, too', WITH_TOOLS, [
  row(
    'stream_options',
    callOf('{"expression":"6*7"}'),
    answered('Tools said: 42', { requests: [2, 3], results: ['42'] }),
    {
      agent: ownModel(),
      rules: { noStreamOptions: true },
    },
  ),
]);

// F17

/** What is said in each turn, and how many tokens the endpoint counts for a character of it. */
const SCRIPTS: readonly (readonly [string, string, number])[] = [
  ['Chinese', '天地玄黄宇宙洪荒', 1],
  ['Japanese', 'いろはにほへとちり', 1],
  ['Korean', '가나다라마바사아', 1],
  ['Cyrillic', 'съешь же ещё этих ', 0.5],
  ['digits', '31415926535', 0.5],
  ['code', '{[(x=>y)]}&&!z;', 0.5],
];

for (const [name, letters, perCharacter] of SCRIPTS)
  for (const provider of ['openai', 'groq'])
    test(`F17: history is cut by what the endpoint counts, and each turn is answered: ${name} (${provider})`, async (t) => {
      const model = provider === 'groq' ? 'llama-3.1-8b-instant' : 'gpt-4.1-mini';
      const stage = await openStage(t, {
        DEFAULT_TIER: 'free',
        DEFAULT_PROVIDER: provider,
        DEFAULT_MODEL: model,
      });
      const client = await stage.scene.chat('acme', 's1');
      const text = (characters: number): string => letters.repeat(characters).slice(0, characters);
      const size = 600 / perCharacter;
      for (let turn = 1; turn <= 9; turn += 1) {
        const answer = `${turn}${text(200 / perCharacter)}`;
        const part = partOf(stage, `turn-${turn}`, {
          rules: {
            refuses: (body) => counted(answer, Math.round((lengthOf(body) + answer.length) * perCharacter)),
          },
        });
        const frames = await say(client, `turn-${turn}`, text(size));
        assert.equal(frames.at(-1)?.type, 'chat.response', `turn ${turn}: ${frames.at(-1)?.data.message}`);
        const told = part.requests.at(-1);
        if (turn > 1 && told) remembers(told, `${turn - 1}${text(200 / perCharacter)}`);
      }
    });

/** A sound answer, charged by its characters and those of the prompt. */
function counted(answer: string, promptTokens: number, perCharacter: number): Scenario {
  const prompt_tokens = Math.round(promptTokens);
  const completion_tokens = Math.round(answer.length * perCharacter);
  const usage = { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
  return raw(said(answer) + STOP + line({ choices: [], usage }) + DONE);
}
