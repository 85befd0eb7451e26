/** `nooble doctor`: each check against the real thing, well and ill. */
import assert from 'node:assert/strict';
import { createServer as createHttpServer } from 'node:http';
import { createServer, type Server, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { leakFree } from '../support/leaks.ts';
import { listen } from '../support/processes.ts';
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
