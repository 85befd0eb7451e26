/** Agents on providers beside OpenAI and Groq: what reaches their endpoints, and what a node says of those it lacks. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
// Loaded on first use, and compiled with it: here, so that the compiler is none of what a test leaves behind.
import '../../src/llm/langchain-agent.ts';
import { last } from '../support/chatter.ts';
import { type Env, startTestNode, type TestNode } from '../support/node.ts';
import { freePort } from '../support/processes.ts';
import { callTools, refuse, type StubModel, say, startStubModel } from '../support/stub-model.ts';
import { temporary } from '../support/temporary.ts';

/** A stub that is closed before its node. */
async function stubFor(t: TestContext): Promise<StubModel> {
  const stub = await startStubModel();
  t.after(() => stub.close());
  return stub;
}

const startNode = (t: TestContext, env: Env): Promise<TestNode> =>
  startTestNode(t, { env: { DEFAULT_TIER: 'enterprise', ...env } });

async function make({ ask }: TestNode, fields: object): Promise<string> {
  const made = await ask('/api/agents', { body: { name: 'Helper', ...fields } });
  assert.equal(made.status, 201, made.text);
  return made.body.id;
}

const azureAt = (stub: StubModel): Env => ({
  AZURE_OPENAI_ENDPOINT: `${stub.groqBaseUrl}/`,
  AZURE_OPENAI_API_VERSION: '2024-12-01-preview',
});

test('on Azure an agent talks to its deployment, with the key', async (t) => {
  const stub = await stubFor(t);
  const node = await startNode(t, { ...azureAt(stub), AZURE_OPENAI_API_KEY: 'azure-key' });
  const agent_id = await make(node, { provider: 'azure', model: 'my-gpt-4o', tools: ['calculator'] });
  stub.next(callTools([{ name: 'calculator', args: '{"expression":"6*7"}' }]), say('It is 42.'));
  const client = await node.chat('acme', 's1');
  const answer = last(await client.turn('What is 6 * 7?', { agent_id }), 'chat.response');

  assert.equal(answer.data.content, 'It is 42.');
  assert.equal(stub.requests.length, 2);
  for (const { path, headers, body } of stub.requests) {
    assert.equal(path, '/openai/deployments/my-gpt-4o/chat/completions?api-version=2024-12-01-preview');
    assert.deepEqual([headers['api-key'], headers.authorization], ['azure-key', undefined]);
    assert.deepEqual([body.model, body.stream], ['my-gpt-4o', true]);
  }
  const ready = await node.ask('/ready', { tenant: null });
  assert.deepEqual([ready.status, ready.body.providers.azure], [200, { status: 'configured' }]);
  assert.equal(ready.text.includes('azure-key'), false);
});

test('a token of Azure goes as a bearer, for the default agent too', async (t) => {
  const stub = await stubFor(t);
  const { chat } = await startNode(t, {
    ...azureAt(stub),
    AZURE_OPENAI_AD_TOKEN: 'azure-token',
    DEFAULT_PROVIDER: 'azure',
    DEFAULT_MODEL: 'd-1',
  });
  last(await (await chat('acme', 's1')).turn('Hello.'), 'chat.response');
  const [request] = stub.requests;
  assert.deepEqual(
    [request?.headers.authorization, request?.headers['api-key']],
    ['Bearer azure-token', undefined],
  );
});

test("a provider of the operator's file is asked as the file says, whichever loop runs the agent", async (t) => {
  const stub = await stubFor(t);
  const { write } = temporary(t);
  const house = {
    name: 'house',
    base_url: `${stub.baseUrl}/?tenant=7`,
    api_key_env: 'HOUSE_KEY',
    without: ['stream_options', 'temperature'],
    limit_field: 'max_completion_tokens',
    headers: { 'x-team': 'support' },
    query: { region: 'eu' },
  };
  const node = await startNode(t, {
    PROVIDERS_FILE: write('providers.json', JSON.stringify([house])),
    MODELS_FILE: write('models.json', '{"house-*":{"output":512}}'),
    HOUSE_KEY: 'house-key',
  });
  const client = await node.chat('acme', 's1');
  for (const type of ['conversational', 'workflow']) {
    const fields = { provider: 'house', model: 'house-1', max_tokens: 4_000 };
    const agent_id = await make(node, { ...fields, name: type, type });
    last(await client.turn('Hello.', { agent_id }), 'chat.response');
  }

  assert.equal(stub.requests.length, 2);
  for (const { path, headers, body } of stub.requests) {
    assert.equal(path, '/v1/chat/completions?tenant=7&region=eu');
    assert.deepEqual([headers.authorization, headers['x-team']], ['Bearer house-key', 'support']);
    assert.deepEqual([body.max_tokens, body.max_completion_tokens], [undefined, 512]);
    assert.deepEqual([body.stream_options, body.temperature], [undefined, undefined]);
  }
});

test('two providers at one address have their own quirks', async (t) => {
  const stub = await stubFor(t);
  const { write } = temporary(t);
  const entry = { base_url: stub.baseUrl };
  const entries = [
    { ...entry, name: 'plain' },
    { ...entry, name: 'picky', without: ['stream_options'] },
  ];
  const node = await startNode(t, { PROVIDERS_FILE: write('providers.json', JSON.stringify(entries)) });
  const client = await node.chat('acme', 's1');
  for (const provider of ['plain', 'picky']) {
    const agent_id = await make(node, { name: provider, provider, model: 'm' });
    last(await client.turn('Hello.', { agent_id }), 'chat.response');
  }
  assert.deepEqual(
    stub.requests.map(({ body }) => body.stream_options !== undefined),
    [true, false],
  );
});

test('an agent on a provider that the node does not have is refused with the list of those there are', async (t) => {
  const node = await startNode(t, {});
  const body = { name: 'Helper', provider: 'house', model: 'm' };
  const refused = await node.ask('/api/agents', { body });
  assert.deepEqual([refused.status, refused.body.error.code], [400, 'INVALID_REQUEST']);
  assert.match(refused.body.error.message, /no provider house; there are openai, groq, .*offline/);
  const dry = await node.ask('/api/agents/validate', { body });
  assert.deepEqual([dry.body.valid, dry.body.issues[0].rule], [false, 'unknown_provider']);
  const id = await make(node, {});
  const patched = await node.ask(`/api/agents/${id}`, { method: 'PATCH', body: { provider: 'house' } });
  assert.equal(patched.status, 400);
  const wrong = await node.ask('/api/agents', { body: { ...body, provider: 'No Such' } });
  assert.deepEqual([wrong.status, wrong.body.error.code], [400, 'INVALID_REQUEST']);
});

test('a provider that fails too often is told in /ready, which does not depend on it', async (t) => {
  const env = {
    ...{
      DEFAULT_PROVIDER: 'openai',
      DEFAULT_MODEL: 'm',
      OPENAI_BASE_URL: `http://127.0.0.1:${await freePort()}/v1`,
    },
    MODEL_BREAKER_FAILURES: '1',
  };
  const node = await startNode(t, env);
  const before = await node.ask('/ready');
  assert.deepEqual(before.body.providers.openai, { status: 'configured' });
  const client = await node.chat('acme', 's1');
  assert.equal(last(await client.turn('Hello.'), 'error').data.code, 'MODEL_UNAVAILABLE');
  const after = await node.ask('/ready');
  assert.deepEqual([after.status, after.body.providers.openai], [200, { status: 'failing' }]);
  assert.deepEqual(after.body.providers.groq, { status: 'incomplete', missing: 'GROQ_API_KEY' });
});

test('an agent on a provider without its key is stored with a warning, and its turn says whose business that is', async (t) => {
  const stub = await stubFor(t);
  const node = await startNode(t, { ...azureAt(stub), DEFAULT_PROVIDER: 'offline' });
  const fields = { provider: 'azure', model: 'm' };
  const dry = await node.ask('/api/agents/validate', { body: { name: 'Helper', ...fields } });
  assert.equal(dry.body.valid, true);
  assert.match(dry.body.warnings[0].message, /azure can not answer yet: AZURE_OPENAI_API_KEY/);
  const made = await node.ask('/api/agents', { body: { name: 'Warned', ...fields } });
  assert.match(made.body.warnings[0].message, /azure can not answer yet: AZURE_OPENAI_API_KEY/);
  const agent_id = made.body.id;
  assert.equal((await node.ask(`/api/agents/${agent_id}`)).body.warnings, undefined);
  const able = await node.ask('/api/agents', {
    body: { name: 'Able', provider: 'offline', model: 'offline-echo' },
  });
  assert.deepEqual([able.status, able.body.warnings], [201, undefined]);
  const line = await node.line('an agent can not answer');
  assert.deepEqual([line.level, line.agent_id], ['warn', agent_id]);

  const client = await node.chat('acme', 's1');
  const { data } = last(await client.turn('Hello.', { agent_id }), 'error');
  assert.deepEqual([data.code, data.retryable], ['MODEL_UNAVAILABLE', false]);
  assert.match(data.message, /AZURE_OPENAI_API_KEY/);
  assert.equal(stub.requests.length, 0);
  const { body } = await node.ask('/ready', { tenant: null });
  assert.deepEqual(body.providers.azure, { status: 'incomplete', missing: 'AZURE_OPENAI_API_KEY' });
  assert.deepEqual(body.providers.offline, { status: 'configured' });
});

test('another model stands in for one whose provider has no key', async (t) => {
  const stub = await stubFor(t);
  const node = await startNode(t, { ...azureAt(stub), OPENAI_API_KEY: 'k', OPENAI_BASE_URL: stub.baseUrl });
  const fallbacks = [{ provider: 'openai', model: 'gpt-4.1-mini' }];
  const agent_id = await make(node, { provider: 'azure', model: 'm', fallbacks });
  const client = await node.chat('acme', 's1');
  last(await client.turn('Hello.', { agent_id }), 'chat.response');
  assert.deepEqual(
    stub.requests.map(({ body }) => body.model),
    ['gpt-4.1-mini'],
  );
});

test('what an endpoint refuses although the file says otherwise is learnt all the same', async (t) => {
  const stub = await stubFor(t);
  const { write } = temporary(t);
  const house = [{ name: 'house', base_url: stub.baseUrl, limit_field: 'max_tokens' }];
  const node = await startNode(t, { PROVIDERS_FILE: write('providers.json', JSON.stringify(house)) });
  const agent_id = await make(node, { provider: 'house', model: 'm', max_tokens: 100 });
  const message =
    "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.";
  stub.byDefault(({ body }) =>
    body.max_tokens === undefined
      ? say('Fine.')
      : refuse(400, {}, { error: { message, param: 'max_tokens' } }),
  );
  const client = await node.chat('acme', 's1');
  for (const text of ['One.', 'Two.']) last(await client.turn(text, { agent_id }), 'chat.response');
  assert.equal(stub.requests.length, 3);
});
