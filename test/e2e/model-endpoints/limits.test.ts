/** The limit of an answer: what an agent names, what models are known to write, and what endpoints allow. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { last } from '../../support/chatter.ts';
import { type Scene, startScene } from '../../support/node.ts';
import { refuse, type StubBody, say } from '../../support/stub-model.ts';
import { temporary } from '../../support/temporary.ts';

const limitOf = ({ max_tokens, max_completion_tokens }: StubBody): number | undefined =>
  max_tokens ?? max_completion_tokens;
const limits = ({ stub }: Scene) => stub.requests.map(({ body }) => limitOf(body));
const tier = 'enterprise';
const ENTERPRISE = { query: { tier } };

/** Refuses what `problem` finds wrong, by 400. */
const picky = (node: Scene, problem: (body: StubBody) => string | undefined): void =>
  node.stub.byDefault(({ body }) => {
    const message = problem(body);
    return message === undefined ? say('Hello.') : refuse(400, {}, { error: { message } });
  });

test('more than a model is known to write is a warning, is asked for all the same, and what the endpoint says counts', async (t) => {
  const node = await startScene(t);
  picky(node, (body) =>
    (limitOf(body) ?? 0) > 16_384
      ? 'max_tokens is too large: 20000. This model supports at most 16384 completion tokens.'
      : undefined,
  );
  const body = { name: 'Writer', provider: 'openai', model: 'gpt-4o', max_tokens: 20_000 };
  const dry = await node.ask('/api/agents/validate', { tier, body });
  const made = await node.ask('/api/agents', { tier, body });
  assert.equal(made.status, 201);
  for (const { warnings } of [dry.body, made.body]) {
    assert.deepEqual(
      [warnings.length, warnings[0].field, warnings[0].rule],
      [1, 'max_tokens', 'beyond_model'],
    );
    assert.match(warnings[0].message, /gpt-4o .*16384.*20000/);
  }
  const client = await node.chat('acme', 's1', ENTERPRISE);
  for (const text of ['One', 'Two'])
    last(await client.turn(text, { agent_id: made.body.id }), 'chat.response');
  assert.deepEqual(limits(node), [20_000, 16_384, 16_384], 'asked for once, and then known');

  const fits = { ...body, name: 'Fits', max_tokens: 16_384 };
  assert.equal((await node.ask('/api/agents', { tier, body: fits })).body.warnings, undefined);
});

test('a table that is out of date holds nothing back; the operator’s own does, and says so', async (t) => {
  const { write } = temporary(t);
  const MODELS_FILE = write('models.json', '{"gpt-4-turbo*":{"output":9000}}');
  const node = await startScene(t, { env: { MODELS_FILE } });
  const client = await node.chat('acme', 's1', ENTERPRISE);
  for (const [model, sent] of [
    ['gpt-4o', 20_000],
    ['gpt-4-turbo', 9_000],
  ] as const) {
    const body = { name: model, provider: 'openai', model, max_tokens: 20_000 };
    const { id, warnings } = (await node.ask('/api/agents', { tier, body })).body;
    assert.equal(warnings[0].rule, 'beyond_model');
    last(await client.turn('Hello', { agent_id: id }), 'chat.response');
    assert.equal(limits(node).at(-1), sent);
  }
});

test('what a window leaves beside one prompt is no limit of the next one, whoever asks', async (t) => {
  const node = await startScene(t);
  const window = 8_192;
  picky(node, (body) => {
    const prompt = Math.ceil(JSON.stringify(body.messages).length / 4);
    const sent = limitOf(body) ?? 0;
    return prompt + sent > window
      ? `This model's maximum context length is ${window} tokens. However, you requested ${prompt + sent} tokens (${prompt} in the messages, ${sent} in the completion). Please reduce the length of the messages or completion.`
      : undefined;
  });
  const body = { name: 'Writer', provider: 'openai', model: 'house-9', max_tokens: 6_000 };
  const agent_id = (await node.ask('/api/agents', { tier, body })).body.id;
  const long = await node.chat('acme', 'long', ENTERPRISE);
  last(await long.turn('word '.repeat(4_000), { agent_id }), 'chat.response');
  const tight = limits(node).at(-1) ?? 0;
  assert.ok(tight >= 64 && tight < 4_000, `${tight}`);
  const short = await node.chat('acme', 'short', ENTERPRISE);
  last(await short.turn('Hello', { agent_id }), 'chat.response');
  assert.equal(limits(node).at(-1), 6_000);
  for (const text of ['word '.repeat(3_000), 'And?', 'word '.repeat(3_000), 'And now?'])
    last(await long.turn(text, { agent_id }), 'chat.response');
});

test('what was given up and did not help is asked for again the next time', async (t) => {
  const node = await startScene(t);
  const message = 'Streaming of this is not supported; temperature, tools and all else are bad, too.';
  picky(node, (body) => (JSON.stringify(body.messages).includes('poison') ? message : undefined));
  const client = await node.chat('acme', 's1');
  last(await client.turn('poison'), 'error');
  const before = node.stub.requests.length;
  assert.ok(before > 1, 'it was asked otherwise');
  const other = await node.chat('acme', 's2');
  last(await other.turn('Hello'), 'chat.response');
  const { stream, temperature } = node.stub.requests[before]?.body ?? {};
  assert.deepEqual([stream, temperature], [true, 0.7]);
});
