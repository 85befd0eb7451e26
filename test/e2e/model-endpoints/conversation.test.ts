/** One turn does not spoil the conversation (F2): what was cut off, refused, empty, too long or half a character. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deltas } from '../../support/chatter.ts';
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
  USAGE,
} from '../../support/stub-model.ts';
import { until } from '../../support/until.ts';
import {
  ANY,
  checkAnswered,
  type EndpointCase,
  openStage,
  partOf,
  remembers,
  row,
  table,
  WITH_TOOLS,
} from './cases.ts';
import {
  ALL,
  answered,
  BROKEN,
  callOf,
  EITHER,
  ends,
  type Failed,
  failed,
  SOUND,
  said,
  sound,
} from './expectations.ts';
import { goesOn, lengthOf, ownModel, refusal, say, words } from './turns.ts';

// F2

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
    'the model’s, in two chunks far apart',
    raw([said('It is \ud83d'), sound('\ude00.')], { everyMs: 100 }),
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
    'a tool’s, which quotes its arguments',
    callOf('{"expression":"6 * \\ud83d"}'),
    answered(/^Tools said: /, { requests: 2 }),
  ),
  row(
    'in thoughts that go back',
    line(choice({ reasoning_content: `CANARY ${HALF_EMOJI}` })) + callOf('{"expression":"6*7"}'),
    answered('Tools said: 42', { requests: 2 }),
  ),
]);

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
    const stage = await openStage(t);
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
