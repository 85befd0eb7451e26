/** The routes of templates, webhooks and services over a real socket. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { z } from 'zod';
import {
  agentSchema,
  deliverySchema,
  templateSchema,
  webhookSchema,
} from '../../../src/domain/agent-record.ts';
import { tenantIdSchema } from '../../../src/domain/ids.ts';
import { refused } from '../../support/http-client.ts';
import { bearer } from '../../support/tokens.ts';
import { openManagementNode, SERVICE_TOKEN } from './management-node.ts';

const node = await openManagementNode();
after(() => node.close());
const { ask } = node;

const pageSchema = z.object({ items: z.array(z.looseObject({ id: z.string() })), total: z.number() });
const pageOf = async (response: Response) => {
  assert.equal(response.status, 200, await response.clone().text());
  return pageSchema.parse(await response.json());
};

const enterprise = { 'x-tenant-tier': 'enterprise' };
const ownTemplate = { name: 'Own', slug: 'own', agent: { system_prompt: 'Be brief.', temperature: 0.1 } };

test('templates: the built-in ones, own ones, and agents made from them', async () => {
  const { items, total } = await pageOf(await ask('/api/templates'));
  assert.ok(total >= 3);
  assert.ok(items.some(({ slug }) => slug === 'customer_service'));
  assert.equal((await pageOf(await ask('/api/templates?page=2&page_size=1'))).items.length, 1);

  await refused(await ask('/api/templates', { body: ownTemplate }), 422, 'TIER_LIMIT');
  const response = await ask('/api/templates', { body: ownTemplate, tenant: 'big', headers: enterprise });
  assert.equal(response.status, 201, await response.clone().text());
  const template = templateSchema.parse(await response.json());
  assert.equal(response.headers.get('location'), `/api/templates/${template.id}`);
  const path = `/api/templates/${template.id}`;
  const big = { tenant: 'big', headers: enterprise };

  const changed = await ask(path, {
    method: 'PUT',
    body: { ...ownTemplate, name: 'Changed' },
    tenant: 'big',
    headers: { ...enterprise, 'if-match': '"1"' },
  });
  assert.equal(changed.headers.get('etag'), '"2"');
  const stale = { ...big, method: 'PUT', body: ownTemplate };
  await refused(
    await ask(path, { ...stale, headers: { ...enterprise, 'if-match': '"1"' } }),
    409,
    'CONFLICT',
  );

  const body = { template_id: template.id, name: 'Made', customizations: { temperature: 0.9 } };
  const made = await ask('/api/agents/from-template', { ...big, body });
  assert.equal(made.status, 201, await made.clone().text());
  const agent = agentSchema.parse(await made.json());
  assert.deepEqual(
    [agent.template_id, agent.system_prompt, agent.temperature],
    [template.id, 'Be brief.', 0.9],
  );

  for (const init of [{}, { method: 'PUT', body: ownTemplate }, { method: 'DELETE' }])
    await refused(await ask(path, { ...init, tenant: 'globex', headers: enterprise }), 404, 'NOT_FOUND');
  const foreign = { body, tenant: 'globex', headers: enterprise };
  await refused(await ask('/api/agents/from-template', foreign), 404, 'NOT_FOUND');
  assert.equal((await ask(path, { ...big, method: 'DELETE' })).status, 204);
  await refused(await ask(path, big), 404, 'NOT_FOUND');
});

test('a from-template body that is none is refused with its issues', async () => {
  for (const body of [
    {},
    { template_id: 'x' },
    { template_id: 'x', name: 'y', customizations: [] },
    { template_id: 'x', name: 'y', slug: 'NO' },
  ]) {
    const response = await ask('/api/agents/from-template', { body });
    assert.equal(response.status, 400);
    assert.match(await response.text(), /"details":\{"issues":\[\{"field":/);
  }
});

test('a webhook shows its secret once and to its own tenant only', async () => {
  const response = await ask('/api/webhooks', { body: { url: 'https://hooks.example.com/x?y=1' } });
  assert.equal(response.status, 201, await response.clone().text());
  assert.equal(response.headers.get('cache-control'), 'no-store');
  const webhook = webhookSchema.parse(await response.json());
  assert.match(webhook.secret, /^whsec_[A-Za-z0-9+/]{43}=$/);
  assert.equal(webhook.events, null);

  const listed = await (await ask('/api/webhooks')).text();
  assert.ok(listed.includes(webhook.id));
  assert.ok(!listed.includes(webhook.secret) && !listed.includes('whsec_'));
  assert.deepEqual((await pageOf(await ask('/api/webhooks', { tenant: 'globex' }))).items, []);
  const path = `/api/webhooks/${webhook.id}`;
  const foreign = { tenant: 'globex' };
  await refused(await ask(`${path}/deliveries`, foreign), 404, 'NOT_FOUND');
  await refused(await ask(path, { ...foreign, method: 'DELETE' }), 404, 'NOT_FOUND');
  assert.deepEqual((await pageOf(await ask(`${path}/deliveries`))).items, []);
  assert.equal((await ask(path, { method: 'DELETE' })).status, 204);
  await refused(await ask(path, { method: 'DELETE' }), 404, 'NOT_FOUND');
});

test('a dead delivery can be replayed, by its tenant, and only a dead one', async () => {
  const tenant = tenantIdSchema.parse('acme');
  const body = { url: 'https://hooks.example.com/', events: ['agent_created'] };
  const webhook = webhookSchema.parse(await (await ask('/api/webhooks', { body })).json());
  const at = new Date().toISOString();
  const delivery = deliverySchema.parse({
    id: 'msg_dead',
    webhook_id: webhook.id,
    tenant_id: tenant,
    event: 'agent_created',
    payload: {
      event: 'agent_created',
      service: 'agent-management',
      task_id: 't',
      tenant_id: tenant,
      timestamp: at,
      data: {},
    },
    status: 'dead',
    attempts: 8,
    next_attempt_at: null,
    last_error: 'answered 500',
    created_at: at,
    delivered_at: null,
  });
  await node.store.saveDelivery(delivery);
  const replay = '/api/webhooks/deliveries/msg_dead/replay';
  await refused(await ask(replay, { method: 'POST', tenant: 'globex' }), 404, 'NOT_FOUND');
  const response = await ask(replay, { method: 'POST' });
  assert.equal(response.status, 202, await response.clone().text());
  const again = deliverySchema.parse(await response.json());
  assert.deepEqual([again.status, again.attempts, again.last_error], ['pending', 0, 'answered 500']);
  await refused(await ask(replay, { method: 'POST' }), 409, 'CONFLICT');
  await refused(await ask('/api/webhooks/deliveries/none/replay', { method: 'POST' }), 404, 'NOT_FOUND');
  assert.equal((await ask(`/api/webhooks/${webhook.id}`, { method: 'DELETE' })).status, 204);
});

test('a webhook may not point at addresses, at this network, or carry a password', async () => {
  const wrong = [
    'http://hooks.example.com/',
    'ftp://hooks.example.com/',
    'file:///etc/passwd',
    'https://user:pw@hooks.example.com/',
    'https://user@hooks.example.com/',
    'https://127.0.0.1/',
    'https://127.1/',
    'https://0x7f.1/',
    'https://0177.0.0.1/',
    'https://2130706433/',
    'https://0/',
    'https://１２７.0.0.1/',
    'https://127.0.0.1./',
    'https://10.0.0.1:8443/',
    'https://169.254.169.254/latest/meta-data',
    'https://[::1]/',
    'https://[::]/',
    'https://[::ffff:127.0.0.1]/',
    'https://[64:ff9b::7f00:1]/',
    'https://[fe80::1]/',
    'https://8.8.8.8/',
    'https://localhost/',
    'https://LOCALHOST./',
    'https://a.localhost/',
    'https://printer.local/',
    'https://metadata.google.internal/',
    'not a url',
    '/relative',
  ];
  for (const url of wrong) {
    const response = await ask('/api/webhooks', { body: { url } });
    const text = await response.text();
    assert.equal(response.status, 400, `${url}: ${text}`);
    assert.match(text, /"field":"url"/, url);
  }
  for (const body of [
    {},
    { url: 'https://a.example/', events: [] },
    { url: 'https://a.example/', events: ['everything'] },
    { url: 'https://a.example/', secret: 'short' },
    { url: 'https://a.example/', secret: `whsec_${'A'.repeat(33)}` },
    { url: 'https://a.example/', more: 1 },
    { url: `https://a.example/${'x'.repeat(2_000)}` },
  ])
    assert.equal((await ask('/api/webhooks', { body })).status, 400, JSON.stringify(body).slice(0, 60));
});

test('a tenant has at most twenty webhooks', async () => {
  const create = (n: number) =>
    ask('/api/webhooks', { body: { url: `https://h${n}.example.com/` }, tenant: 'hooked' });
  for (let n = 0; n < 20; n += 1) assert.equal((await create(n)).status, 201);
  await refused(await create(20), 409, 'CONFLICT');
});

const service = { authorization: `Bearer ${SERVICE_TOKEN.replaceAll(' ', '-')}` };

test('services read configurations and set tiers, with the token and nothing else', async () => {
  const internal = await openManagementNode({ serviceToken: SERVICE_TOKEN.replaceAll(' ', '-') });
  const call = (path: string, init: { method?: string; body?: unknown; headers?: Record<string, string> }) =>
    internal.ask(path, init);
  try {
    const made = await internal.ask('/api/agents', { body: { name: 'Served' } });
    const agent = agentSchema.parse(await made.json());
    const path = `/internal/agents/${agent.id}/config`;
    // `ask` names acme by header.
    const read = await call(path, { headers: service });
    assert.equal(read.status, 200, await read.clone().text());
    assert.deepEqual(await read.json(), agent);
    assert.equal((await call(`${path}?tenant_id=acme`, { headers: service })).status, 200);
    const two = await call(`${path}?tenant_id=globex`, { headers: service });
    await refused(two, 400, 'INVALID_REQUEST');
    const foreign = { ...service, 'x-tenant-id': 'globex' };
    await refused(await call(path, { headers: foreign }), 404, 'NOT_FOUND');
    await refused(await fetch(internal.url + path, { headers: service }), 400, 'INVALID_REQUEST');

    const wrong = [
      'Bearer wrong',
      'Bearer ',
      service.authorization.slice(0, -1),
      `${service.authorization}x`,
    ];
    for (const authorization of [...wrong, 'Basic abc'])
      for (const at of [path, '/internal/tenants/acme'])
        await refused(await call(at, { headers: { authorization } }), 401, 'UNAUTHENTICATED');
    await refused(await call(path, {}), 401, 'UNAUTHENTICATED');

    const set = { method: 'PUT', body: { tier: 'free' }, headers: service };
    await refused(await call('/internal/tenants/acme', { headers: service }), 404, 'NOT_FOUND');
    const answer = await call('/internal/tenants/acme', set);
    assert.deepEqual([answer.status, await answer.json()], [200, { tenant_id: 'acme', tier: 'free' }]);
    const tenant = await call('/internal/tenants/acme', { headers: service });
    assert.deepEqual(await tenant.json(), { tenant_id: 'acme', tier: 'free', day: '2026-01-02', used: 3 });
    await refused(await internal.ask('/api/agents', { body: { name: 'Second' } }), 422, 'TIER_LIMIT');
    for (const body of [{}, { tier: 'gold' }, { tier: 'free', more: 1 }])
      await refused(await call('/internal/tenants/acme', { ...set, body }), 400, 'INVALID_REQUEST');
    await refused(await call('/internal/tenants/a%20b', set), 400, 'INVALID_REQUEST');
  } finally {
    await internal.close();
  }
});

test('without SERVICE_TOKEN nobody is a service, whatever they send', async () => {
  const closed = await openManagementNode({ serviceToken: undefined });
  try {
    for (const headers of [
      {},
      service,
      { authorization: 'Bearer undefined' },
      { authorization: 'Bearer ' },
    ]) {
      const error = await refused(await closed.ask('/internal/tenants/acme', { headers }), 403, 'FORBIDDEN');
      assert.match(error.message, /SERVICE_TOKEN/);
    }
  } finally {
    await closed.close();
  }
});

test('reading and writing templates and webhooks need their scopes', async () => {
  const strict = await openManagementNode({ mode: 'jwt' });
  try {
    const reader = await bearer('acme', { scope: 'agents:read', tier: 'enterprise' });
    const chatter = await bearer('acme', { scope: 'chat' });
    const writer = await bearer('acme', { scope: 'agents:write', tier: 'enterprise' });
    const hook = { url: 'https://hooks.example.com/' };
    for (const [path, body] of [
      ['/api/templates', ownTemplate],
      ['/api/webhooks', hook],
    ] as const) {
      await refused(await strict.ask(path), 401, 'UNAUTHENTICATED');
      await refused(await strict.ask(path, { headers: chatter }), 403, 'FORBIDDEN');
      assert.equal((await strict.ask(path, { headers: reader })).status, 200);
      await refused(await strict.ask(path, { body, headers: reader }), 403, 'FORBIDDEN');
      assert.equal((await strict.ask(path, { body, headers: writer })).status, 201);
    }
  } finally {
    await strict.close();
  }
});
