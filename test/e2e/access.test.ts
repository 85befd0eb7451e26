/** Nothing open by mistake, and what was refused is found again: over real sockets, in log and metrics. */
import assert from 'node:assert/strict';
import { createServer, request } from 'node:http';
import { type TestContext, test } from 'node:test';
import { type NodeClient, spawnNode, startTestNode } from '../support/node.ts';
import { listen } from '../support/processes.ts';
import { bearer, JWT, token } from '../support/tokens.ts';
import { connect, HandshakeRefused } from '../support/websocket-client.ts';

const SERVICE = { SERVICE_TOKEN: 'a-service-token-of-enough-length' };

/** What a proxy adds, in the spellings of several. */
const FORWARDED: readonly Readonly<Record<string, string>>[] = [
  { 'X-Forwarded-For': '203.0.113.7' },
  { 'x-forwarded-proto': 'https' },
  { 'X-FORWARDED-HOST': 'chat.example' },
  { Forwarded: 'for=203.0.113.7;proto=https' },
  { 'X-Real-IP': '203.0.113.7' },
];

const statusOf = (promise: Promise<unknown>): Promise<number> =>
  promise.then(
    () => 101,
    (error: unknown) => (error instanceof HandshakeRefused ? error.status : Promise.reject(error)),
  );

async function handshake(
  node: NodeClient,
  path: string,
  headers: Record<string, string> = {},
): Promise<number> {
  return statusOf(
    connect(`ws://127.0.0.1:${node.port}${path}`, { headers }).then((client) => client.close()),
  );
}

test('open mode takes nothing that came through a proxy; probes answer', async (t) => {
  const node = await startTestNode(t, { env: SERVICE });
  for (const headers of FORWARDED) {
    const name = Object.keys(headers)[0];
    const paths = ['/api/agents', '/metrics', '/openapi.json', '/internal/agents/x/config', '/nowhere'];
    for (const path of paths) {
      const { status, body } = await node.ask(path, { headers });
      assert.deepEqual([status, body?.error.code], [403, 'FORBIDDEN'], `${name} ${path}`);
      assert.match(body.error.message, /AUTH_MODE=jwt, or ALLOW_INSECURE=1/);
    }
    const said = await node.ask('/api/chat/send', { headers, body: { message: 'Hi.' } });
    assert.equal(said.status, 403);
    for (const path of ['/health', '/ready']) assert.equal((await node.ask(path, { headers })).status, 200);
    assert.equal(await handshake(node, '/ws/acme/s1', headers), 403, name);
    assert.equal(await handshake(node, '/ws/task_updates', headers), 403, name);
  }
  assert.equal((await node.ask('/api/agents')).status, 200);
  assert.equal(await handshake(node, '/ws/acme/s1'), 101);
});

test('who insists is served through a proxy, and so is who has a token', async (t) => {
  const headers = { 'X-Forwarded-For': '203.0.113.7' };
  await t.test('ALLOW_INSECURE=1', async (own) => {
    const node = await startTestNode(own, { env: { ALLOW_INSECURE: '1' } });
    assert.equal((await node.ask('/api/agents', { headers })).status, 200);
    assert.equal(await handshake(node, '/ws/acme/s1', headers), 101);
  });
  await t.test('jwt', async (own) => {
    const node = await startTestNode(own, { env: JWT });
    const all = { ...headers, ...(await bearer('acme', { scope: 'agents:read chat' })) };
    assert.equal((await node.ask('/api/agents', { headers: all, tenant: null })).status, 200);
    assert.equal(await handshake(node, '/ws/acme/s1', all), 101);
  });
});

test('a subject as identity providers name it is let in, and stands in the audit', async (t) => {
  const node = await startTestNode(t, { env: { AUTH_JWT_SECRET: JWT.AUTH_JWT_SECRET ?? '' } });
  for (const [at, user] of ['auth0|5f7c', 'ann@example.com', 'CN=Änn, O=Acme "x"'].entries()) {
    const headers = await bearer('acme', { scope: 'agents:read agents:write chat', user });
    const body = { name: `Agent ${at}`, provider: 'offline', model: 'offline-echo', system_prompt: 'Hi.' };
    const made = await node.ask('/api/agents', { headers, tenant: null, body });
    assert.equal(made.status, 201, made.text);
    const history = await node.ask(`/api/agents/${made.body.id}/history`, { headers, tenant: null });
    assert.ok(history.text.includes(JSON.stringify(user)), history.text);
  }
  const query = `user_id=${encodeURIComponent('auth0|5f7c')}`;
  const headers = await bearer('acme', { user: 'auth0|5f7c' });
  assert.equal(await handshake(node, `/ws/acme/s1?${query}`, headers), 101);
});

test('401, 403 and 429 are in the log, as many as it bears, and all of them in the metrics', async (t) => {
  const env = { ...JWT, ...SERVICE, ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: '1' };
  const node = await startTestNode(t, { env });
  const headers = await bearer('acme', { scope: 'chat metrics' });
  const as = { headers, tenant: null };
  const secret = await token('acme', { secret: 'another secret of at least thirty-two characters' });
  for (let tries = 0; tries < 30; tries += 1)
    await node.ask('/api/agents?q=canary', { tenant: null, headers: { authorization: `Bearer ${secret}` } });
  assert.equal((await node.ask('/api/agents', as)).status, 403);
  assert.equal(
    (await node.ask('/api/chat/send?jwt=canary', { ...as, body: { message: 'Hi.' } })).status,
    401,
  );
  const say = () => node.ask('/api/chat/send', { ...as, body: { message: 'Hi.', session_id: 's1' } });
  assert.equal((await say()).status, 202);
  assert.equal((await say()).status, 429);
  const client = await node.chat('acme', 's1', { headers });
  assert.equal((await client.ended(client.say('Hi.'))).data.code, 'RATE_LIMITED');
  assert.equal(await handshake(node, '/ws/acme/s1'), 401);
  const service = await connect(`ws://127.0.0.1:${node.port}/ws/task_updates`);
  service.send({ service_token: 'canary-of-a-service', service_name: 'x' });
  assert.equal((await service.closed).code, 4401);

  const { text } = await node.ask('/metrics', as);
  for (const [wire, code, count] of [
    ['http', 'UNAUTHENTICATED', 31],
    ['http', 'FORBIDDEN', 1],
    ['http', 'RATE_LIMITED', 1],
    ['websocket', 'RATE_LIMITED', 1],
    ['websocket', 'UNAUTHENTICATED', 1],
    ['service', 'UNAUTHENTICATED', 1],
  ])
    assert.match(
      text,
      new RegExp(`nooble_requests_refused_total\\{wire="${wire}",code="${code}"\\} ${count}\\n`),
    );
  const lines = node.lines.filter(({ msg }) => msg === 'request refused');
  assert.equal(lines.filter(({ wire, code }) => wire === 'http' && code === 'UNAUTHENTICATED').length, 10);
  const limited = lines.find(({ wire, code }) => wire === 'http' && code === 'RATE_LIMITED');
  assert.deepEqual([limited?.tenant_id, limited?.path], ['acme', 'POST /api/chat/send']);
  assert.ok(limited?.request_id);
  assert.ok(!JSON.stringify(lines).includes('canary') && !JSON.stringify(lines).includes(secret));
});

async function webSite(t: TestContext, status: number): Promise<string> {
  const server = createServer((_, res) =>
    res.writeHead(status, { connection: 'close' }).end('\n<!doctype html>'),
  );
  const port = await listen(server);
  t.after(() => server.close());
  return `http://127.0.0.1:${port}`;
}

test('settings that can not work are said at the start and in /ready', async (t) => {
  const node = await spawnNode(t, {
    DEFAULT_MODEL: 'offline-ecko',
    DEFAULT_PROVIDER: 'offline',
    OPENAI_BASE_URL: await webSite(t, 404),
    GROQ_BASE_URL: await webSite(t, 200),
    AUTH_JWT_SECRET: 'x'.repeat(32),
    HOST: '::1',
  }).catch((error: unknown) => assert.fail(String(error)));
  assert.match(String((await node.line('listening')).url), /^http:\/\/\[::1\]:\d+$/);
  for (const name of ['OPENAI_BASE_URL', 'GROQ_BASE_URL', 'DEFAULT_MODEL'])
    await node.line(({ level, msg }) => level === 'warn' && msg.includes(name));
  await node.line(({ msg }) => msg.startsWith('AUTH_MODE is not set'));
  const ready = await new Promise<string>((resolve, reject) => {
    request(`http://[::1]:${node.port}/ready`, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (more: string) => (text += more));
      response.on('end', () => resolve(text));
    })
      .on('error', reject)
      .end();
  });
  const { status, warnings } = JSON.parse(ready);
  assert.equal(status, 'ready');
  assert.equal(warnings.length, 3, ready);
});
