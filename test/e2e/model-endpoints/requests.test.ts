/** Requests that endpoints refuse (F1, F6, F15, F17): limits and fields that nobody asked for, paths, and too much history. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DONE, line, raw, type Scenario, STOP, type StubBody, TEXT } from '../../support/stub-model.ts';
import { ANY, BOTH, openStage, type Part, partOf, remembers, row, table, WITH_TOOLS } from './cases.ts';
import { ALL, type Answered, answered, callOf, SOUND, said, sound, UNCOUNTED } from './expectations.ts';
import { goesOn, lengthOf, ownModel, refusal, say, words } from './turns.ts';

/** Asked once more at most. */
const SOON: Answered = { ...ALL, requests: [1, 2] };

const limitOf = ({ max_tokens, max_completion_tokens }: StubBody): number =>
  max_tokens ?? max_completion_tokens ?? 0;

// F1

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
  row('the example', SOUND, SOON, { rules: { maxTokens: 4096 } }),
  ...TOO_LARGE.map(([name, message, more, status]) =>
    row(name, SOUND, SOON, {
      agent: ownModel(),
      rules: { refuses: (body) => (limitOf(body) > 4096 ? refusal(message, more, status) : null) },
    }),
  ),
  row('only max_completion_tokens is known', SOUND, SOON, {
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
    { ...SOON, requests: 1 },
    {
      agent: { max_tokens: 500 },
      also: ({ requests, next }) =>
        assert.deepEqual([...requests.map(({ body }) => limitOf(body)), limitOf(next.body)], [500, 500]),
    },
  ),
  row('500, where only max_completion_tokens is known', SOUND, SOON, {
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
  row('500, where only max_tokens is known', SOUND, SOON, {
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
  row('more than the model writes', SOUND, SOON, {
    agent: ownModel({ max_tokens: 8000 }),
    rules: { maxTokens: 4096 },
    also: ({ requests }) => assert.equal(requests[0] && limitOf(requests[0].body), 8000),
  }),
]);

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
      { ...SOON, requests: 1 },
      {
        agent: { model },
        also: ({ requests }) => assert.equal(requests[0]?.body.model, model),
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
const ESTIMATED: Answered = { ...UNCOUNTED, requests: [1, 2] };
const hasField = (body: StubBody, field: string): boolean => Object.hasOwn(body, field);

table('F15: a field the endpoint does not know is left out', ANY, [
  row('the example', SOUND, SOON, { agent: ownModel(), rules: { noStreamOptions: true } }),
  row('the example, and no counts', TEXT + STOP + DONE, ESTIMATED, {
    agent: ownModel(),
    rules: { noStreamOptions: true },
  }),
  ...UNKNOWN.map(([name, answer]) =>
    row(name, TEXT + STOP + DONE, ESTIMATED, {
      agent: ownModel(),
      rules: { refuses: (body) => (hasField(body, NOT_THERE) ? answer : null) },
    }),
  ),
  row('temperature', SOUND, SOON, {
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
    { ...SOON, requests: [1, 3] },
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
          answers: [
            (reply) => counted(answer, lengthOf(reply.request.body) * perCharacter, perCharacter)(reply),
          ],
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
