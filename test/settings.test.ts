/** The environment becomes settings, or every mistake in it is named. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { TIER_TABLE } from '../src/domain/tiers.ts';
import { parseSettings, type Settings } from '../src/settings.ts';
import { temporary } from './support/temporary.ts';

type Environment = Readonly<Record<string, string | undefined>>;

function settingsOf(environment: Environment): Settings {
  const parsed = parseSettings(environment);
  assert.ok(parsed.ok, parsed.ok ? '' : parsed.problems.join('\n'));
  return parsed.settings;
}

function problemsOf(environment: Environment): readonly string[] {
  const parsed = parseSettings(environment);
  return parsed.ok ? [] : parsed.problems;
}

const variablesIn = (problems: readonly string[]): readonly string[] =>
  problems.map((problem) => problem.split(':')[0] ?? '').sort();

const tiersFile = (t: TestContext, content: string): string => temporary(t).write('tiers.json', content);

test('with nothing set the node works: loopback, offline, professional, in memory', () => {
  const settings = settingsOf({});

  assert.equal(settings.port, 8000);
  assert.equal(settings.host, '127.0.0.1');
  assert.match(settings.nodeId, /^node-[0-9a-f]{8}$/);
  assert.equal(settings.access.mode, 'open');
  assert.equal(settings.defaultTier, 'professional');
  assert.equal(settings.models.defaultProvider, 'offline');
  assert.equal(settings.models.defaultModel, 'offline-echo');
  assert.equal(settings.redisUrl, undefined);
  assert.deepEqual(settings.tiers, TIER_TABLE);
  assert.deepEqual(settings.sockets, {
    pingIntervalMs: 30_000,
    pingTimeoutMs: 10_000,
    max: 50_000,
    deltaWindowMs: 15,
  });
  assert.equal(settings.sessions.requestsPerHour, undefined);
  assert.equal(settings.drainMs, 25_000);
  assert.deepEqual(settings.withoutEffect, []);
});

test('two nodes without a name get different ones', () => {
  assert.notEqual(settingsOf({}).nodeId, settingsOf({}).nodeId);
});

test('an empty or blank variable counts as not set', () => {
  assert.equal(settingsOf({ PORT: '', REDIS_URL: '  ', OPENAI_API_KEY: ' ' }).port, 8000);
  assert.equal(settingsOf({ OPENAI_API_KEY: ' ' }).models.defaultProvider, 'offline');
});

test('every wrong variable is named at once, those that contradict each other too', () => {
  const problems = problemsOf({
    PORT: '70000',
    DATABASE_URL: 'mysql://x',
    REDIS_URL: 'http://x',
    AUTH_JWT_SECRET: 'short',
    DEFAULT_TIER: 'gold',
    EXECUTION_LOG_LEVEL: 'loud',
    NODE_ID: 'a b',
    OPENAI_BASE_URL: 'localhost:8080/v1',
    DELTA_WINDOW_MS: '-1',
    SESSION_IDLE_SECONDS: '0',
    ALLOW_INSECURE: 'maybe',
    TIERS_FILE: '/nowhere/tiers.json',
    DEFAULT_PROVIDER: 'groq',
  });

  assert.deepEqual(variablesIn(problems), [
    ...['ALLOW_INSECURE', 'AUTH_JWT_SECRET', 'DATABASE_URL', 'DEFAULT_TIER', 'DELTA_WINDOW_MS'],
    ...['EXECUTION_LOG_LEVEL', 'GROQ_API_KEY', 'NODE_ID', 'OPENAI_BASE_URL', 'PORT', 'REDIS_URL'],
    ...['SESSION_IDLE_SECONDS', 'TIERS_FILE'],
  ]);
});

test('a wrong secret is named once and its value nowhere', () => {
  const problems = problemsOf({
    AUTH_MODE: 'jwt',
    AUTH_JWT_SECRET: 'canary-secret',
    SERVICE_TOKEN: 'canary-token',
  });

  assert.deepEqual(variablesIn(problems), ['AUTH_JWT_SECRET', 'SERVICE_TOKEN']);
  assert.equal(problems.join().includes('canary'), false);
});

test('open mode refuses every address but loopback, unless the operator insists', () => {
  for (const host of ['0.0.0.0', '::', '192.168.1.5', 'example.org', '127.0.0.1.example.org'])
    assert.deepEqual(variablesIn(problemsOf({ HOST: host })), ['HOST'], host);
  for (const host of ['127.0.0.1', '::1', 'localhost']) assert.equal(settingsOf({ HOST: host }).host, host);
  assert.equal(settingsOf({ HOST: '0.0.0.0', ALLOW_INSECURE: '1' }).host, '0.0.0.0');
});

test('jwt mode needs a way to check tokens, and may then listen anywhere', () => {
  assert.deepEqual(variablesIn(problemsOf({ AUTH_MODE: 'jwt' })), ['AUTH_MODE']);
  for (const key of [{ AUTH_JWT_SECRET: 'x'.repeat(32) }, { AUTH_JWKS_URL: 'https://example.org/jwks' }])
    assert.equal(settingsOf({ AUTH_MODE: 'jwt', HOST: '0.0.0.0', ...key }).access.mode, 'jwt');
});

test('a way to check tokens means jwt, also without AUTH_MODE; open mode stands beside no other of its kind', () => {
  const secret = { AUTH_JWT_SECRET: 'x'.repeat(32) };
  const keys = { AUTH_JWKS_URL: 'https://example.org/jwks' };
  for (const env of [secret, keys, { ...secret, ...keys, AUTH_MODE: ' ', HOST: '0.0.0.0' }]) {
    const { mode, isModeImplied } = settingsOf(env).access;
    assert.deepEqual([mode, isModeImplied], ['jwt', true]);
  }
  assert.equal(settingsOf({ ...secret, AUTH_MODE: 'jwt' }).access.isModeImplied, false);
  assert.equal(settingsOf({}).access.isModeImplied, false);
  for (const env of [secret, keys, { AUTH_ISSUER: 'me' }, { AUTH_AUDIENCE: 'us' }]) {
    const all = { ...env, AUTH_MODE: 'open', ALLOW_INSECURE: '1' };
    assert.deepEqual(variablesIn(problemsOf(all)), Object.keys(env));
  }
  assert.deepEqual(variablesIn(problemsOf({ AUTH_ISSUER: 'me' })), ['AUTH_ISSUER']);
  assert.deepEqual(variablesIn(problemsOf({ AUTH_JWT_SECRET: 'short', HOST: '0.0.0.0' })), [
    'AUTH_JWT_SECRET',
  ]);
});

test('a name that begins as ours do and is none stops the node, with the one that is meant', () => {
  for (const [name, meant] of [
    ['AUTH_SECRET', 'AUTH_JWT_SECRET'],
    ['AUTH_JWT_SECERT', 'AUTH_JWT_SECRET'],
    ['AUTH_JWK_URL', 'AUTH_JWKS_URL'],
    ['EXECUTION_MAX_ITERATION', 'EXECUTION_MAX_ITERATIONS'],
    ['ORCHESTRATOR_MAX_WEBSOCKETS_CONNECTIONS', 'ORCHESTRATOR_MAX_WEBSOCKET_CONNECTIONS'],
    ['MODEL_IDLE_SECOND', 'MODEL_IDLE_SECONDS'],
    ['NODE_MAX_EXECUTION', 'NODE_MAX_EXECUTIONS'],
    ['DRAIN_SECOND', 'DRAIN_SECONDS'],
    ['DELTA_WINDOWS_MS', 'DELTA_WINDOW_MS'],
    ['ALLOWED_ORIGIN', 'ALLOWED_ORIGINS'],
    ['ALLOW_UNSECURE', 'ALLOW_INSECURE'],
    ['DATABASE_URI', 'DATABASE_URL'],
    ['DEFAULT_TEIR', 'DEFAULT_TIER'],
    ['OPENAI_BASEURL', 'OPENAI_BASE_URL'],
    ['SERVICE_TOKENS', 'SERVICE_TOKEN'],
    ['COLLECTION_DIR', undefined],
  ] as const) {
    const problems = problemsOf({ [name]: 'x' });
    if (meant === undefined) assert.deepEqual(problems, []);
    else assert.deepEqual(problems, [`${name}: is no setting of this node; did you mean ${meant}?`]);
  }
  assert.deepEqual(problemsOf({ EXECUTION_COLOUR: 'red' }), ['EXECUTION_COLOUR: is no setting of this node']);
  assert.deepEqual(problemsOf({ EXECUTION_COLOUR: ' ' }), []);
});

test("others' variables are theirs", (t) => {
  const providers = temporary(t).write(
    'providers.json',
    JSON.stringify([{ name: 'house', base_url: 'https://example.org/v1', api_key_env: 'MODEL_HOUSE_KEY' }]),
  );
  const theirs = {
    ...{
      NODE_ENV: 'production',
      NODE_OPTIONS: '--x',
      NODE_VERSION: '22',
      NODE_PATH: '/x',
      NODE_IP: '10.0.0.1',
    },
    ...{
      NODE_EXTRA_CA_CERTS: '/x',
      NODE_NO_WARNINGS: '1',
      NODE_NAME: 'k8s',
      NODE_TLS_REJECT_UNAUTHORIZED: '1',
    },
    ...{ HOSTNAME: 'h', HOME: '/root', PATH: '/bin', PORTS: '1', SESSION_MANAGER: 'x', SERVICE_NAME: 'x' },
    ...{ GROK_API_KEY: 'x', OPENAI_ORG_ID: 'x', REDIS_PORT: 'tcp://10.0.0.1:6379', DEFAULT_REGION: 'eu' },
    ...{
      EXECUTION_SERVICE_HOST: '10.0.0.1',
      EXECUTION_SERVICE_PORT_HTTP: '80',
      ORCHESTRATOR_PORT: 'tcp://1',
    },
    ...{ ORCHESTRATOR_PORT_8000_TCP_ADDR: '10.0.0.1', AUTH_SERVICE_HOST: '10.0.0.2' },
    ...{ NOOBLE_URL: 'http://x', NOOBLE_TENANT: 'acme', NOOBLE_TOKEN: 'x' },
    ...{ OPENAI_API_KEY: 'k', OPENAI_API_KEY2: 'k2', AZURE_OPENAI_AD_TOKEN: 'x' },
    ...{ PROVIDERS_FILE: providers, MODEL_HOUSE_KEY: 'k' },
  };
  assert.deepEqual(problemsOf(theirs), []);
});

test('a default model that nobody has is said, and keeps no node from starting', () => {
  const warnings = (env: Environment) => settingsOf(env).warnings;
  assert.match(
    warnings({ DEFAULT_MODEL: 'gpt-4.1-mini' })[0] ?? '',
    /^DEFAULT_MODEL=gpt-4.1-mini: no provider has a key/,
  );
  const offline = { DEFAULT_PROVIDER: 'offline' };
  for (const model of ['offline-ecko', 'offline-', 'offline-5x', 'gpt-4.1-mini'])
    assert.match(warnings({ ...offline, DEFAULT_MODEL: model })[0] ?? '', /there is no offline model/);
  for (const model of ['offline-echo', 'offline-3x0', 'offline-5xtick'])
    assert.deepEqual(warnings({ ...offline, DEFAULT_MODEL: model }), []);
  assert.deepEqual(warnings({ OPENAI_API_KEY: 'k', DEFAULT_MODEL: 'gpt-9' }), []);
  assert.deepEqual(warnings({}), []);
});

test('the first provider with a key is the default one, and a named one needs its key or endpoint', () => {
  const keys = { OPENAI_API_KEY: 'k1', GROQ_API_KEY: 'k2' };
  assert.equal(settingsOf(keys).models.defaultProvider, 'openai');
  assert.equal(settingsOf({ GROQ_API_KEY: 'k2' }).models.defaultProvider, 'groq');
  assert.equal(settingsOf({ ...keys, DEFAULT_PROVIDER: 'offline' }).models.defaultProvider, 'offline');
  assert.deepEqual(variablesIn(problemsOf({ DEFAULT_PROVIDER: 'openai' })), ['OPENAI_API_KEY']);

  const local = { DEFAULT_PROVIDER: 'openai', OPENAI_BASE_URL: 'http://127.0.0.1:9/v1', DEFAULT_MODEL: 'm' };
  assert.equal(settingsOf(local).models.defaultModel, 'm');
});

test('Redis is found under any of its names, the plain one first', () => {
  const parts = { ORCHESTRATOR_REDIS_HOST: 'cache', ORCHESTRATOR_REDIS_PORT: '7000' };
  const execution = { ...parts, EXECUTION_REDIS_URL: 'redis://two' };

  assert.equal(settingsOf(parts).redisUrl, 'redis://cache:7000');
  assert.equal(settingsOf({ ORCHESTRATOR_REDIS_HOST: 'cache' }).redisUrl, 'redis://cache:6379');
  assert.equal(settingsOf(execution).redisUrl, 'redis://two');
  assert.equal(settingsOf({ ...execution, REDIS_URL: 'rediss://one' }).redisUrl, 'rediss://one');
});

test('requests per session: none set is the tier, 0 is no limit, a number is that many', () => {
  const limit = (value: string) =>
    settingsOf({ ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: value }).sessions.requestsPerHour;

  assert.deepEqual([limit(''), limit('0'), limit('7')], [undefined, null, 7]);
});

test('seconds become milliseconds, log levels take the names Python uses', () => {
  const settings = settingsOf({
    EXECUTION_MAX_EXECUTION_TIME: '1.5',
    MODEL_IDLE_SECONDS: '0.25',
    EXECUTION_LOG_LEVEL: 'WARNING',
  });

  assert.equal(settings.execution.maxTimeMs, 1_500);
  assert.equal(settings.models.idleTimeoutMs, 250);
  assert.equal(settings.logLevel, 'warn');
});

test('variables that do nothing here are accepted and listed', () => {
  const settings = settingsOf({
    EXECUTION_WORKER_SLEEP_SECONDS: '0.1',
    EXECUTION_EMBEDDING_SERVICE_URL: 'http://x',
    UNRELATED: '1',
  });

  assert.deepEqual([...settings.withoutEffect].sort(), [
    'EXECUTION_EMBEDDING_SERVICE_URL',
    'EXECUTION_WORKER_SLEEP_SECONDS',
  ]);
});

test('origins are a list, and blanks in it are nothing', () => {
  assert.deepEqual(
    settingsOf({ ALLOWED_ORIGINS: ' https://a.example , ,https://b.example' }).access.allowedOrigins,
    ['https://a.example', 'https://b.example'],
  );
});

test('a tiers file is laid over the table', (t) => {
  const file = tiersFile(t, '{"free":{"executions":9}}');

  assert.deepEqual(settingsOf({ TIERS_FILE: file }).tiers, {
    ...TIER_TABLE,
    free: { ...TIER_TABLE.free, executions: 9 },
  });
});

test('a tiers file that is no JSON or names what is unknown stops the node, and says where it is wrong', (t) => {
  const [broken] = problemsOf({ TIERS_FILE: tiersFile(t, '{') });
  assert.match(broken ?? '', /^TIERS_FILE: .*tiers\.json: .*JSON/);

  const [unknown] = problemsOf({ TIERS_FILE: tiersFile(t, '{"free":{"executions":0},"gold":{}}') });
  assert.match(unknown ?? '', /free\.executions/);
  assert.match(unknown ?? '', /gold/);
});

test('files of providers and models are read, and what is wrong with them stops the node without being quoted', (t) => {
  const { write, folder } = temporary(t);
  const house = [
    { name: 'house', base_url: 'http://127.0.0.1:9/v1', api_key_env: 'HOUSE_KEY', model: 'h-1' },
  ];
  const providers = write('providers.json', JSON.stringify(house));
  const models = write('models.json', '{"h-*":{"window":9000}}');
  const settings = settingsOf({
    PROVIDERS_FILE: providers,
    MODELS_FILE: models,
    HOUSE_KEY: 'k',
    DEFAULT_PROVIDER: 'house',
  });
  assert.equal(settings.models.providers.get('house')?.apiKey, 'k');
  assert.equal(settings.models.defaultModel, 'h-1');
  assert.equal(settings.models.table[0]?.window, 9_000);
  assert.equal(settingsOf({ PROVIDERS_FILE: providers }).models.providers.get('house')?.missing, 'HOUSE_KEY');

  const long = ' '.repeat(1024 * 1024);
  for (const file of [
    ...[
      folder,
      '/dev/zero',
      `${folder}/nowhere.json`,
      write('empty.json', ''),
      write('long.json', `[]${long}`),
    ],
    ...[write('torn.json', '[{"headers":{"x-key":"canary" canary'), write('wrong.json', '["canary"]')],
    write('deep.json', '['.repeat(100_000)),
  ])
    for (const variable of ['PROVIDERS_FILE', 'MODELS_FILE']) {
      const problems = problemsOf({ [variable]: file, DEFAULT_PROVIDER: 'house' });
      const expected = variable === 'PROVIDERS_FILE' ? [variable] : ['DEFAULT_PROVIDER', variable];
      assert.deepEqual(variablesIn(problems), expected, file);
      assert.equal(problems.join().includes('canary'), false, problems.join());
    }
});

test('the default provider must be there, with its key and a model', () => {
  const wrong = (environment: Environment) => variablesIn(problemsOf(environment));

  assert.deepEqual(wrong({ DEFAULT_PROVIDER: 'nobody' }), ['DEFAULT_PROVIDER']);
  assert.deepEqual(wrong({ DEFAULT_PROVIDER: 'No Body' }), ['DEFAULT_PROVIDER']);
  assert.match(problemsOf({ DEFAULT_PROVIDER: 'nobody' }).join(), /there are openai, groq, .*azure.*offline/);
  assert.deepEqual(wrong({ DEFAULT_PROVIDER: 'mistral' }), ['MISTRAL_API_KEY']);
  assert.deepEqual(wrong({ DEFAULT_PROVIDER: 'ollama' }), ['DEFAULT_MODEL']);
  assert.deepEqual(wrong({ DEFAULT_PROVIDER: 'vllm', DEFAULT_MODEL: 'm' }), ['VLLM_BASE_URL']);
  assert.deepEqual(wrong({ DEFAULT_PROVIDER: 'openai', OPENAI_BASE_URL: 'x' }), ['OPENAI_BASE_URL']);
  const mistral = settingsOf({ DEFAULT_PROVIDER: 'mistral', MISTRAL_API_KEY: 'k' }).models;
  assert.equal(mistral.defaultModel, 'mistral-small-latest');
});

test('proxies are read in either case', () => {
  const proxies = { https_proxy: 'http://p:1', NO_PROXY: 'a', no_proxy: 'b' };
  assert.deepEqual(settingsOf(proxies).models.proxies, { https: 'http://p:1', http: undefined, except: 'a' });
});

test('the README explains every variable that the settings know', () => {
  const source = readFileSync(new URL('../src/settings.ts', import.meta.url), 'utf8');
  const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8');
  const names = [...source.matchAll(/^ {2}([A-Z][A-Z_]+):/gm)].map((match) => match[1] ?? '');
  for (const { variables } of settingsOf({}).models.providers.values()) names.push(variables.key);

  assert.ok(names.length > 30);
  assert.deepEqual(
    names.filter((name) => !readme.includes(`\`${name}\``)),
    [],
  );
});

test('services beside the node are embedded unless they are said to be on Redis, which must then be there', () => {
  const names = ['MANAGEMENT', 'CONVERSATION', 'EMBEDDING', 'QUERY', 'TOOL_REGISTRY'];
  const variables = names.map((name) => `${name}_SERVICE`);
  assert.deepEqual(new Set(Object.values(settingsOf({}).peers.modes)), new Set(['embedded']));

  const beside = Object.fromEntries(variables.map((name) => [name, 'redis']));
  assert.deepEqual(variablesIn(problemsOf(beside)), variables.toSorted());
  const { modes } = settingsOf({ ...beside, REDIS_URL: 'redis://localhost' }).peers;
  assert.deepEqual(new Set(Object.values(modes)), new Set(['redis']));

  const wrong = { QUERY_SERVICE: 'http', PEER_ENCODING: 'xml', PEER_TIMEOUT_SECONDS: '0' };
  assert.deepEqual(variablesIn(problemsOf(wrong)), Object.keys(wrong).toSorted());
});

test('more queues are names of Redis keys', () => {
  const { extraQueues } = settingsOf({
    EXECUTION_EXTRA_QUEUES: 'execution:ctx-1:free, execution:ctx-2:enterprise',
  });
  assert.deepEqual(extraQueues, ['execution:ctx-1:free', 'execution:ctx-2:enterprise']);
  assert.deepEqual(variablesIn(problemsOf({ EXECUTION_EXTRA_QUEUES: 'two words' })), [
    'EXECUTION_EXTRA_QUEUES.0',
  ]);
});
