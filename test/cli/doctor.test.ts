/** `nooble doctor`: each check against the real thing, well and ill. */
import assert from 'node:assert/strict';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { leakFree } from '../support/leaks.ts';
import { listen } from '../support/processes.ts';
import { refuse, startStubModel } from '../support/stub-model.ts';
import { openShell } from './shell.ts';

async function listening(t: TestContext, server: Server): Promise<number> {
  t.after(() => server.close());
  return listen(server);
}

/** Answers every write with the text. */
const talker = (answer: (text: string) => string): Server =>
  createServer((socket: Socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk) => socket.write(answer(chunk.toString())));
  });

const lineOf = (out: string, check: string): string =>
  out.split('\n').find((line) => line.slice(6).startsWith(check)) ?? '';

test('where all is well every line says so', async (t) => {
  leakFree(t);
  const asked: string[] = [];
  const redis = await listening(
    t,
    talker((text) => {
      asked.push(text);
      return `${text.includes('auth') ? '+OK\r\n' : ''}${text.includes('ping') ? '+PONG\r\n' : ''}`;
    }),
  );
  const models = await listening(
    t,
    createHttpServer((request, response) => {
      const right = request.url === '/v1/models' && request.headers.authorization === 'Bearer key-1';
      response.writeHead(right ? 200 : 401).end('{}');
    }),
  );
  const shell = await openShell(t, {
    PORT: '0',
    REDIS_URL: `redis://user:secret@127.0.0.1:${redis}`,
    OPENAI_API_KEY: 'key-1',
    OPENAI_BASE_URL: `http://127.0.0.1:${models}/v1`,
  });
  const { code, out } = await shell.run('doctor');
  assert.equal(code, 0, out);
  for (const check of ['settings', 'store', 'redis', 'model', 'port'])
    assert.match(lineOf(out, check), /^ok /, check);
  assert.deepEqual(asked.join(''), '*3\r\n$4\r\nauth\r\n$4\r\nuser\r\n$6\r\nsecret\r\n*1\r\n$4\r\nping\r\n');
  assert.ok(!out.includes('secret') && !out.includes('key-1'));
});

test('what is not set is skipped and that is fine', async (t) => {
  leakFree(t);
  const { code, out } = await (await openShell(t, { PORT: '0' })).run('doctor');
  assert.equal(code, 0);
  for (const check of ['redis', 'model']) assert.match(lineOf(out, check), /^skip /);
});

test('wrong settings are all named, and nothing else is tried', async (t) => {
  leakFree(t);
  const { code, out } = await (await openShell(t, { PORT: 'x', AUTH_MODE: 'jwt' })).run('doctor');
  assert.equal(code, 1);
  assert.match(out, /^fail {2}settings {2}PORT: /m);
  assert.match(out, /^fail {2}settings {2}AUTH_MODE: /m);
  assert.ok(!out.includes('store'));
});

test('every provider is named with what it lacks', async (t) => {
  leakFree(t);
  const shell = await openShell(t, { PORT: '0', MISTRAL_API_KEY: 'key-1' });
  const { code, out } = await shell.run('doctor');
  assert.equal(code, 0, out);
  assert.match(
    lineOf(out, 'keys'),
    /could answer: ollama, mistral, offline; not set up: openai \(OPENAI_API_KEY\)/,
  );
});

test('asked to, it asks models for one token and says what came back, never the key', async (t) => {
  leakFree(t);
  const stub = await startStubModel();
  t.after(() => stub.close());
  const shell = await openShell(t);
  const house = [
    { name: 'house', base_url: stub.baseUrl, api_key_env: 'HOUSE_KEY', model: 'house-1' },
    { name: 'spare', base_url: stub.baseUrl, api_key_env: 'SPARE_KEY' },
    { name: 'gone', base_url: 'http://127.0.0.1:1' },
  ];
  const environment = {
    PORT: '0',
    OPENAI_API_KEY: 'canary-1',
    OPENAI_BASE_URL: stub.baseUrl,
    HOUSE_KEY: 'canary-2',
    PROVIDERS_FILE: await shell.write('providers.json', JSON.stringify(house)),
  };
  const asked = async (words: string) => {
    const { code, out, err } = await shell.run(`doctor --ask ${words}`, environment);
    assert.equal(`${out}${err}`.includes('canary'), false, out);
    return { code, lines: out.split('\n').filter((line) => line.slice(6).startsWith('ask')) };
  };

  const fine = await asked('--provider house --provider house/other/model --provider offline/offline-echo');
  assert.equal(fine.code, 0, fine.lines.join('\n'));
  assert.deepEqual(
    fine.lines.map((line) => /^ok {4}ask {7}(\S+) answers \((\w+)/.exec(line)?.slice(1)),
    [
      ['openai/gpt-4.1-mini', 'stop'],
      ['house/house-1', 'stop'],
      ['house/other/model', 'stop'],
      ['offline/offline-echo', 'length'],
    ],
  );
  assert.deepEqual(stub.requests.map(({ body, headers }) => [body.model, headers.authorization]).sort(), [
    ['gpt-4.1-mini', 'Bearer canary-1'],
    ['house-1', 'Bearer canary-2'],
    ['other/model', 'Bearer canary-2'],
  ]);
  for (const { body } of stub.requests) assert.equal(body.max_tokens ?? body.max_completion_tokens, 1);

  stub.byDefault(() => refuse(401, {}, { error: { code: 'invalid_api_key', message: 'canary' } }));
  const ill = await asked('--provider spare --provider gone --provider nobody');
  assert.equal(ill.code, 1);
  for (const [at, expected] of [
    /^fail {2}ask {7}openai\/gpt-4.1-mini does not answer: MODEL_ERROR \(401\).*invalid_api_key/,
    /^fail {2}ask {7}spare was not asked: set SPARE_KEY/,
    /^fail {2}ask {7}gone\/gpt-4.1-mini does not answer: MODEL_UNAVAILABLE/,
    /^fail {2}ask {7}there is no provider nobody; there are openai/,
  ].entries())
    assert.match(ill.lines[at] ?? '', expected);
});

test('a model that refuses so small a limit is asked with a larger one', async (t) => {
  leakFree(t);
  const stub = await startStubModel();
  t.after(() => stub.close());
  const shell = await openShell(t, { PORT: '0', OPENAI_API_KEY: 'k', OPENAI_BASE_URL: stub.baseUrl });
  stub.next(refuse(400));
  const { code, out } = await shell.run('doctor --ask', { DEFAULT_MODEL: 'o3' });
  assert.equal(code, 0, out);
  assert.deepEqual(
    stub.requests.map(({ body }) => body.max_completion_tokens),
    [1, 256],
  );
});

test('providers are named to be asked, and not otherwise', async (t) => {
  leakFree(t);
  const { code, err } = await (await openShell(t)).run('doctor --provider openai');
  assert.equal(code, 2);
  assert.match(err, /--ask/);
});

test('each thing that is ill has a line with what to do', async (t) => {
  leakFree(t);
  const taken = await listening(t, createServer());
  const notRedis = await listening(
    t,
    talker(() => 'HTTP/1.1 400 Bad Request\r\n\r\n'),
  );
  const locked = await listening(
    t,
    talker(() => '-NOAUTH Authentication required.\r\n'),
  );
  const models = await listening(
    t,
    createHttpServer((_, response) => response.writeHead(401).end()),
  );
  const shell = await openShell(t);
  const file = await shell.write('no-folder', '');
  const ill: [Record<string, string>, string, RegExp][] = [
    [{ PORT: String(taken) }, 'port', /is taken.*PORT/],
    [{ HOST: '203.0.113.1', ALLOW_INSECURE: '1' }, 'port', /EADDRNOTAVAIL.*HOST/],
    [{ DATABASE_URL: `sqlite:${file}/x.db` }, 'store', /DATABASE_URL/],
    [{ REDIS_URL: 'redis://127.0.0.1:1' }, 'redis', /ECONNREFUSED.*REDIS_URL/],
    [{ REDIS_URL: `redis://127.0.0.1:${notRedis}` }, 'redis', /not answer as Redis/],
    [{ REDIS_URL: `redis://127.0.0.1:${locked}` }, 'redis', /NOAUTH/],
    [{ OPENAI_API_KEY: 'k', OPENAI_BASE_URL: `http://127.0.0.1:${models}` }, 'model', /OPENAI_API_KEY/],
    [{ GROQ_API_KEY: 'k', GROQ_BASE_URL: 'http://127.0.0.1:65533' }, 'model', /ECONNREFUSED.*GROQ_BASE_URL/],
  ];
  for (const [environment, check, expected] of ill) {
    const { code, out } = await shell.run('doctor', { PORT: '0', ...environment });
    assert.equal(code, 1, out);
    assert.match(lineOf(out, check), /^fail /, out);
    assert.match(lineOf(out, check), expected);
  }
});
