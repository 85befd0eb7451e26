/** The probes, the OpenAPI document, browsers' origins, and who may ask for what in jwt mode. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { z } from 'zod';
import { rawConnection, refused, requestText } from '../../support/http-client.ts';
import { answeredTurn, openHttpNode } from '../../support/http-node.ts';
import { bearer } from '../../support/tokens.ts';

const readySchema = z.object({
  status: z.string(),
  checks: z.record(
    z.string(),
    z.strictObject({ status: z.string(), latency_ms: z.number(), error: z.string().optional() }),
  ),
});

test('the probes answer without a tenant in open mode', async (t) => {
  const node = await openHttpNode(t, { deps: { checks: { store: async () => {} } } });
  const get = (path: string) => fetch(node.url + path);
  assert.deepEqual(await (await get('/health')).json(), { status: 'ok' });
  const ready = await get('/ready');
  assert.equal(ready.status, 200);
  assert.equal(readySchema.parse(await ready.json()).checks.store?.status, 'ok');
  assert.deepEqual(await (await get('/ws/stats')).json(), { sockets: 3 });
  assert.deepEqual(await (await get('/metrics/overview')).json(), { turns: 7 });
  const metrics = await get('/metrics');
  assert.equal(metrics.headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
  assert.equal(await metrics.text(), 'up 1\n');
  const detailed = z
    .object({ status: z.string(), node_id: z.string(), version: z.string(), uptime_s: z.number() })
    .extend({ stats: z.object({ sessions: z.number() }), checks: z.object({ store: z.unknown() }) })
    .parse(await (await get('/health/detailed')).json());
  assert.deepEqual([detailed.status, detailed.node_id, detailed.version], ['ready', 'node-1', '1.2.3']);
  assert.equal(detailed.stats.sessions, 2);
});

test('who asks whether the node is ready hears which providers could answer, and what the others lack', async (t) => {
  const providers = new Map([
    ['offline', undefined],
    ['mistral', 'MISTRAL_API_KEY'],
  ]);
  const node = await openHttpNode(t, { deps: { providers } });
  const response = await fetch(`${node.url}/ready`);
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), {
    status: 'ready',
    checks: {},
    providers: {
      offline: { status: 'configured' },
      mistral: { status: 'incomplete', missing: 'MISTRAL_API_KEY' },
    },
  });
});

test('a node is not ready while something it needs fails or is silent, and tells no strangers why', async (t) => {
  let draining = false;
  const node = await openHttpNode(t, {
    deps: {
      draining: () => draining,
      timing: { checkTimeoutMs: 20 },
      checks: {
        store: async () => {},
        broken: () => Promise.reject(new Error('canary://user:secret@host')),
        thrown: () => {
          throw new Error('canary');
        },
        silent: () => new Promise(() => {}),
      },
    },
  });
  const response = await fetch(`${node.url}/ready`);
  assert.equal(response.status, 503);
  const text = await response.text();
  assert.ok(!text.includes('canary'));
  const { status, checks } = readySchema.parse(JSON.parse(text));
  assert.equal(status, 'not_ready');
  assert.deepEqual(
    Object.entries(checks).map(([name, check]) => [name, check.status, check.error]),
    [
      ['store', 'ok', undefined],
      ['broken', 'failed', 'failed'],
      ['thrown', 'failed', 'failed'],
      ['silent', 'failed', 'no answer within 20 ms'],
    ],
  );
  assert.equal(node.lines.filter(({ level }) => level === 'warn').length, 2);
  draining = true;
  assert.equal(readySchema.parse(await (await fetch(`${node.url}/ready`)).json()).status, 'draining');
  assert.equal((await fetch(`${node.url}/health`)).status, 200);
});

test('in jwt mode every route needs its scope, and probes for balancers need nothing', async (t) => {
  const node = await openHttpNode(t, { mode: 'jwt' });
  const chat = await bearer('acme');
  const metrics = await bearer('acme', { scope: 'metrics' });
  const send = { body: { message: 'hi' } };
  const status = { body: { task_id: 't1' } };
  const routes: [string, { method?: string; body?: unknown }, 'chat' | 'metrics'][] = [
    ['/api/chat/send', send, 'chat'],
    ['/api/chat/status', status, 'chat'],
    ['/api/chat/cancel', status, 'chat'],
    ['/api/chat/tasks/t1', {}, 'chat'],
    ['/api/sessions/s1/messages', {}, 'chat'],
    ['/api/sessions/s1', { method: 'DELETE' }, 'chat'],
    ['/metrics', {}, 'metrics'],
    ['/metrics/overview', {}, 'metrics'],
    ['/ws/stats', {}, 'metrics'],
    ['/health/detailed', {}, 'metrics'],
  ];
  for (const [path, init, scope] of routes) {
    const anonymous = await node.ask(path, init);
    assert.equal(anonymous.headers.get('www-authenticate'), 'Bearer');
    await refused(anonymous, 401, 'UNAUTHENTICATED');
    await refused(
      await node.ask(`${path}?token=x`, { ...init, headers: scope === 'chat' ? chat : metrics }),
      401,
      'UNAUTHENTICATED',
    );
    await refused(
      await node.ask(path, { ...init, headers: { authorization: 'Bearer x.y.z' } }),
      401,
      'UNAUTHENTICATED',
    );
    await refused(
      await node.ask(path, { ...init, headers: { authorization: 'Basic eDp5' } }),
      401,
      'UNAUTHENTICATED',
    );
    await refused(
      await node.ask(path, { ...init, headers: scope === 'chat' ? metrics : chat }),
      403,
      'FORBIDDEN',
    );
    const admitted = await node.ask(path, { ...init, headers: scope === 'chat' ? chat : metrics });
    assert.ok([200, 202, 404].includes(admitted.status), `${path} ${admitted.status}`);
    await admitted.arrayBuffer();
  }
  for (const path of ['/health', '/ready', '/openapi.json', '/asyncapi.json'])
    assert.equal((await node.ask(path)).status, 200);
});

test('a token opens its own tenant only, whatever headers and bodies say', async (t) => {
  const node = await openHttpNode(t, { mode: 'jwt' });
  node.script.putTurn(answeredTurn('theirs', {}, 'globex'));
  const acme = await bearer('acme', { tier: 'free', user: 'u1' });
  for (const named of [{ 'x-tenant-id': 'globex' }, { 'x-tenant-tier': 'enterprise' }])
    await refused(
      await node.ask('/api/chat/tasks/theirs', { headers: { ...acme, ...named } }),
      403,
      'FORBIDDEN',
    );
  await refused(await node.ask('/api/chat/tasks/theirs', { headers: acme }), 404, 'NOT_FOUND');
  for (const foreign of [{ tenant_id: 'globex' }, { tier: 'enterprise' }])
    await refused(
      await node.ask('/api/chat/send', { body: { message: 'hi', ...foreign }, headers: acme }),
      400,
      'INVALID_REQUEST',
    );
  assert.equal((await node.ask('/api/chat/send', { body: { message: 'hi' }, headers: acme })).status, 202);
  assert.deepEqual(node.script.said.at(-1)?.caller, { tenantId: 'acme', tier: 'free', userId: 'u1' });
});

const ROUTES = [
  'delete /api/sessions/{session_id}',
  'get /api/chat/tasks/{task_id}',
  'get /api/sessions/{session_id}/messages',
  'get /asyncapi.json',
  'get /health',
  'get /health/detailed',
  'get /metrics',
  'get /metrics/overview',
  'get /ready',
  'get /ws/stats',
  'post /api/chat/cancel',
  'post /api/chat/send',
  'post /api/chat/status',
];

test('the OpenAPI document names every route, and every reference in it resolves', async (t) => {
  const node = await openHttpNode(t);
  const text = await (await fetch(`${node.url}/openapi.json`)).text();
  const operation = z.object({ responses: z.record(z.string(), z.object({ description: z.string() })) });
  const document = z
    .object({
      openapi: z.literal('3.1.0'),
      info: z.object({ title: z.literal('Nooble'), version: z.literal('1.2.3') }),
      paths: z.record(z.string(), z.record(z.string(), operation)),
      components: z.object({
        schemas: z.record(z.string(), z.unknown()),
        securitySchemes: z.object({ bearer: z.object({ scheme: z.literal('bearer') }) }),
      }),
    })
    .parse(JSON.parse(text));
  const routes = Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.keys(operations).map((method) => `${method} ${path}`),
  );
  assert.deepEqual(routes.sort(), ROUTES);
  const references = [...text.matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)].map(([, name]) => name);
  assert.ok(references.includes('Error') && references.includes('TurnFrame'));
  for (const name of references) assert.ok(name && name in document.components.schemas, name);
  for (const type of ['chat.accepted', 'chat.delta', 'tool.finished', 'chat.response'])
    assert.ok(JSON.stringify(document.components.schemas.TurnFrame).includes(type), type);
});

test('browsers of allowed origins are let in, others are not told that they may', async (t) => {
  const asked = async (allowedOrigins: string[], origin: string, own = false) => {
    const node = await openHttpNode(t, { deps: { allowedOrigins } });
    const from = own ? `http://127.0.0.1:${node.port}` : origin;
    const preflight = await fetch(`${node.url}/api/chat/send`, {
      method: 'OPTIONS',
      headers: { origin: from, 'access-control-request-method': 'POST' },
    });
    assert.equal(preflight.status, 204);
    const actual = await node.ask('/api/chat/tasks/t1', { headers: { origin: from } });
    const allowed = preflight.headers.get('access-control-allow-origin');
    assert.equal(actual.headers.get('access-control-allow-origin'), allowed, 'refusals too can be read');
    if (allowed !== '*') assert.match(actual.headers.get('vary') ?? '', /Origin/);
    assert.match(actual.headers.get('access-control-expose-headers') ?? '', /X-Request-ID,Retry-After/);
    assert.match(preflight.headers.get('access-control-allow-headers') ?? '', /Authorization.*X-Tenant-ID/);
    assert.match(preflight.headers.get('access-control-allow-methods') ?? '', /POST.*DELETE/);
    return { allowed, from };
  };
  const own = await asked([], '', true);
  assert.equal(own.allowed, own.from);
  assert.equal((await asked([], 'https://evil.example')).allowed, null);
  assert.equal((await asked([], 'null')).allowed, null);
  const listed = ['https://app.example'];
  assert.equal((await asked(listed, 'https://app.example')).allowed, 'https://app.example');
  assert.equal((await asked(listed, 'https://app.example.evil')).allowed, null);
  assert.equal((await asked(['*'], 'https://any.example')).allowed, '*');
});

test('pages of the own host are told by Host, in any spelling, and never by a forwarded header', async (t) => {
  const node = await openHttpNode(t, {});
  const allowed = async (origin: string, extra: readonly string[] = []) => {
    const connection = rawConnection(node.port);
    connection.write(requestText('GET', '/health', [`Origin: ${origin}`, 'Connection: close', ...extra]));
    const answer = (await connection.closed).toString();
    assert.match(answer, /^HTTP\/1\.1 200/);
    return /^access-control-allow-origin: (.*)$/im.exec(answer)?.[1]?.trim();
  };
  // Requests of rawConnection say `Host: node`.
  for (const origin of ['http://node', 'https://node', 'HTTP://NODE:80', 'https://Node:443'])
    assert.equal(await allowed(origin), origin);
  for (const origin of ['http://node:8000', 'http://node/path', 'null', 'ftp://node'])
    assert.equal(await allowed(origin), undefined, origin);
  assert.equal(await allowed('http://evil', ['X-Forwarded-Host: evil']), undefined);
});

test('no route takes a token in its address, whatever it is called', async (t) => {
  const node = await openHttpNode(t, {});
  for (const path of [
    '/api/chat/tasks/t1',
    '/api/sessions/s1/messages',
    '/api/agents',
    '/health',
    '/metrics',
  ])
    for (const query of ['jwt=x', 'bearer=x', 'authorization=Bearer%20x', 'access-token=x', '%74oken=x']) {
      const answer = await node.ask(`${path}?${query}`);
      assert.equal(answer.status, 401, `${path}?${query}`);
      assert.equal(JSON.parse(await answer.text()).error.code, 'UNAUTHENTICATED');
    }
});
