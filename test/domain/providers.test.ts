/** Providers out of the environment and the operator's file: where they are, what they are sent, and what they lack. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  completionsUrl,
  configureProviders,
  headersOf,
  knownProviders,
  modelsUrl,
  type ProviderConfig,
} from '../../src/domain/providers.ts';
import { providersFileSchema } from '../../src/domain/providers-file.ts';
import { BUILT_IN_PROVIDERS } from '../../src/domain/ready-made-providers.ts';

type Environment = Readonly<Record<string, string>>;

function provider(name: string, environment: Environment = {}, file: unknown = []): ProviderConfig {
  const { providers, problems } = configureProviders(environment, providersFileSchema.parse(file));
  assert.deepEqual(problems, []);
  const found = providers.get(name);
  assert.ok(found, name);
  return found;
}

const address = (name: string, environment?: Environment, file?: unknown): string | undefined =>
  completionsUrl(provider(name, environment, file), 'a/model')?.href;

const house = { name: 'house', base_url: 'https://llm.example.com/v1' };

test('the ready-made ones are where their vendors say, or where a variable says', () => {
  const known: readonly [string, string | undefined][] = [
    ['openai', 'https://api.openai.com/v1/chat/completions'],
    ['groq', 'https://api.groq.com/openai/v1/chat/completions'],
    ['ollama', 'http://127.0.0.1:11434/v1/chat/completions'],
    ['vllm', undefined],
    ['openrouter', 'https://openrouter.ai/api/v1/chat/completions'],
    ['deepseek', 'https://api.deepseek.com/v1/chat/completions'],
    ['mistral', 'https://api.mistral.ai/v1/chat/completions'],
    ['gemini', 'https://generativelanguage.googleapis.com/v1beta/openai/chat/completions'],
  ];
  for (const [name, expected] of known) {
    assert.equal(address(name), expected, name);
    if (name === 'groq') continue;
    const moved = { [`${name.toUpperCase()}_BASE_URL`]: 'http://127.0.0.1:9/own/?k=v' };
    assert.equal(address(name, moved), 'http://127.0.0.1:9/own/chat/completions?k=v', name);
  }
});

test('a base URL of Groq comes with or without the path of its own client, one of Ollama and vLLM with or without /v1', () => {
  for (const base of ['http://h:1', 'http://h:1/', 'http://h:1/openai/v1', 'http://h:1/openai/v1/'])
    assert.equal(address('groq', { GROQ_BASE_URL: base }), 'http://h:1/openai/v1/chat/completions', base);
  for (const base of ['http://h:1', 'http://h:1/', 'http://h:1/v1', 'http://h:1/v1/'])
    for (const name of ['ollama', 'vllm'])
      assert.equal(
        address(name, { [`${name.toUpperCase()}_BASE_URL`]: base }),
        'http://h:1/v1/chat/completions',
        base,
      );
});

test('on Azure the model is in the path, the version in the query, and the key or the token in its header', () => {
  const keyed = { AZURE_OPENAI_ENDPOINT: 'https://x.openai.azure.com/', AZURE_OPENAI_API_KEY: 'k' };
  const azure = provider('azure', { ...keyed, AZURE_OPENAI_API_VERSION: '2025-01-01-preview' });

  assert.equal(
    completionsUrl(azure, 'my gpt/4o')?.href,
    'https://x.openai.azure.com/openai/deployments/my%20gpt%2F4o/chat/completions?api-version=2025-01-01-preview',
  );
  assert.equal(
    modelsUrl(azure)?.href,
    'https://x.openai.azure.com/openai/models?api-version=2025-01-01-preview',
  );
  assert.deepEqual(headersOf(azure), { 'api-key': 'k' });
  const token = { AZURE_OPENAI_ENDPOINT: 'https://x/openai', AZURE_OPENAI_AD_TOKEN: 't' };
  assert.deepEqual(headersOf(provider('azure', token)), { authorization: 'Bearer t' });
  assert.equal(
    address('azure', token),
    'https://x/openai/deployments/a%2Fmodel/chat/completions?api-version=2024-10-21',
  );
  assert.equal(provider('azure', token).missing, undefined);
});

test('what each of them lacks is known by the name of the variable', () => {
  const lacking = (environment: Environment, file: unknown = []) =>
    Object.fromEntries(
      knownProviders(configureProviders(environment, providersFileSchema.parse(file)).providers),
    );

  assert.deepEqual(lacking({}), {
    openai: 'OPENAI_API_KEY',
    groq: 'GROQ_API_KEY',
    ollama: undefined,
    vllm: 'VLLM_BASE_URL',
    openrouter: 'OPENROUTER_API_KEY',
    deepseek: 'DEEPSEEK_API_KEY',
    mistral: 'MISTRAL_API_KEY',
    gemini: 'GEMINI_API_KEY',
    azure: 'AZURE_OPENAI_ENDPOINT',
    offline: undefined,
  });
  assert.equal(lacking({ OPENAI_BASE_URL: 'http://h' }).openai, undefined);
  assert.equal(lacking({ MISTRAL_API_KEY: 'k' }).mistral, undefined);
  assert.equal(lacking({ AZURE_OPENAI_ENDPOINT: 'http://h' }).azure, 'AZURE_OPENAI_API_KEY');
  assert.equal(lacking({}, [house]).house, undefined);
  assert.equal(lacking({}, [{ ...house, api_key_env: 'HOUSE_KEY' }]).house, 'HOUSE_KEY');
  assert.equal(lacking({ HOUSE_KEY: 'k' }, [{ ...house, api_key_env: 'HOUSE_KEY' }]).house, undefined);
});

test('a provider of the file has its own address, headers, query and quirks', () => {
  const entry = {
    ...house,
    base_url: 'https://llm.example.com/v1/?tenant=1',
    api_key_env: 'HOUSE_KEY',
    model: 'house-large',
    dialect: 'groq',
    without: ['stream_options'],
    limit_field: 'max_tokens',
    headers: { 'X-Team': 'support' },
    query: { region: 'eu & us' },
  };
  const found = provider('house', { HOUSE_KEY: ' k \n' }, [entry]);

  assert.equal(
    completionsUrl(found, 'm')?.href,
    'https://llm.example.com/v1/chat/completions?tenant=1&region=eu+%26+us',
  );
  assert.deepEqual(headersOf(found), { 'X-Team': 'support', authorization: 'Bearer k' });
  assert.deepEqual(
    [found.dialect, found.without, found.limitField, found.model],
    ['groq', ['stream_options'], 'max_tokens', 'house-large'],
  );
  assert.deepEqual(headersOf(provider('house', {}, [house])), { authorization: 'Bearer none' });
});

test('wrong variables are named, and what stands in them is not', () => {
  const { problems } = configureProviders(
    {
      OPENAI_BASE_URL: 'canary:8080/v1',
      OLLAMA_BASE_URL: 'ftp://canary',
      MISTRAL_API_KEY: 'canary with blanks',
      GROQ_API_KEY: 'canary\r\nx-evil: 1',
      AZURE_OPENAI_ENDPOINT: 'canary',
      AZURE_OPENAI_API_VERSION: 'canary'.repeat(100),
      HOUSE_KEY: 'canäry',
    },
    providersFileSchema.parse([{ ...house, api_key_env: 'HOUSE_KEY' }]),
  );

  assert.deepEqual(problems.map((problem) => problem.split(':')[0]).sort(), [
    'AZURE_OPENAI_API_VERSION',
    'AZURE_OPENAI_ENDPOINT',
    'GROQ_API_KEY',
    'HOUSE_KEY',
    'MISTRAL_API_KEY',
    'OLLAMA_BASE_URL',
    'OPENAI_BASE_URL',
  ]);
  assert.equal(/can.?ry/.test(problems.join()), false);
});

test('a file with anything else in it is refused, and where it is wrong is said', () => {
  const entries: readonly [unknown, RegExp][] = [
    [null, /array/],
    [{ house }, /array/],
    [['house'], /^0 .*object/],
    [[{ name: 'house' }], /^0\.base_url/],
    [[{ ...house, color: 'red' }], /color/],
    [[{ ...house, base_url: 'llm.example.com' }], /base_url must be a URL/],
    [[{ ...house, base_url: 'file:///etc/passwd' }], /base_url must be a URL/],
    [[{ ...house, base_url: 'https://user:pass@h' }], /base_url must not hold/],
    [[{ ...house, base_url: `https://h/${'x'.repeat(3_000)}` }], /base_url/],
    [[{ ...house, base_url: 1 }], /base_url/],
    [[{ ...house, name: 'House' }], /name must be/],
    [[{ ...house, name: '' }], /name must be/],
    [[{ ...house, name: '__proto__' }], /name must be/],
    [[{ ...house, name: 'x'.repeat(33) }], /name must be/],
    ...BUILT_IN_PROVIDERS.map((name): [unknown, RegExp] => [[{ ...house, name }], /built-in/]),
    [[house, { ...house, base_url: 'https://other' }], /^1\.name stands twice/],
    [[{ ...house, api_key_env: 'HOUSE KEY' }], /api_key_env/],
    [[{ ...house, api_key_env: 'sk-canary' }], /api_key_env/],
    [[{ ...house, without: 'stream_options' }], /without/],
    [[{ ...house, without: ['messages'] }], /without\.0 is a field that no request/],
    [[{ ...house, without: ['a b'] }], /without\.0/],
    [[{ ...house, limit_field: 'tokens' }], /limit_field/],
    [[{ ...house, dialect: 'latin' }], /dialect/],
    [[{ ...house, headers: { 'x y': 'z' } }], /headers/],
    [[{ ...house, headers: { 'x-y': 'a\r\nb: c' } }], /headers\.x-y/],
    [[{ ...house, headers: { Authorization: 'Bearer x' } }], /headers/],
    [[{ ...house, headers: { 'Content-Length': '0' } }], /headers/],
    [[{ ...house, headers: { 'x-y': 1 } }], /headers\.x-y/],
    [[{ ...house, headers: many(51) }], /headers must be at most/],
    [[{ ...house, query: { a: 1 } }], /query\.a/],
    [Array.from({ length: 101 }, (_, at) => ({ ...house, name: `h${at}` })), /100/],
  ];
  for (const [file, expected] of entries) {
    const parsed = providersFileSchema.safeParse(file);
    const issues = (parsed.error?.issues ?? []).map(({ path, message }) => `${path.join('.')} ${message}`);
    assert.match(issues.join('\n').trim(), new RegExp(expected, 'm'), JSON.stringify(file)?.slice(0, 200));
    assert.equal(issues.join().includes('canary'), false);
  }
});

const many = (count: number) =>
  Object.fromEntries(Array.from({ length: count }, (_, at) => [`x-${at}`, 'y']));
