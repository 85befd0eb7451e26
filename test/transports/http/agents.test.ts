/** The agent routes over a real socket and the real agent management. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { z } from 'zod';
import { agentSchema, auditEntrySchema } from '../../../src/domain/agent-record.ts';
import { hasTokenInQuery } from '../../../transports/wire/access.ts';
import { refused } from '../../support/http-client.ts';
import type { AskInit } from '../../support/http-node.ts';
import { bearer } from '../../support/tokens.ts';
import { openManagementNode } from './management-node.ts';

const node = await openManagementNode();
after(() => node.close());
const { ask } = node;

const pageSchema = z.object({
  items: z.array(z.looseObject({})),
  page: z.number(),
  page_size: z.number(),
  total: z.number(),
});
const issuesSchema = z.object({
  error: z.object({
    code: z.string(),
    details: z.object({
      issues: z.array(
        z.object({ field: z.string(), rule: z.string(), message: z.string(), tier: z.string().optional() }),
      ),
    }),
  }),
});

async function made(fields: object, tenant = 'acme') {
  const response = await ask('/api/agents', { body: fields, tenant });
  assert.equal(response.status, 201, await response.clone().text());
  return agentSchema.parse(await response.json());
}
async function issuesOf(response: Response, status: number) {
  assert.equal(response.status, status, await response.clone().text());
  return issuesSchema.parse(await response.json()).error;
}

test('an agent is made out of a name, and read back with its version as ETag', async () => {
  const response = await ask('/api/agents', { body: { name: 'Support Bot' } });
  assert.equal(response.status, 201);
  assert.equal(response.headers.get('etag'), '"1"');
  const agent = agentSchema.parse(await response.json());
  assert.equal(response.headers.get('location'), `/api/agents/${agent.id}`);
  assert.deepEqual([agent.version, agent.tenant_id, agent.slug], [1, 'acme', 'support-bot']);
  const read = await ask(`/api/agents/${agent.id}`);
  assert.equal(read.headers.get('etag'), '"1"');
  assert.deepEqual(await read.json(), agent);
});

test('everything that is wrong with an agent is named at once, form and tier alike', async () => {
  const body = {
    slug: 'Not A Slug',
    temperature: 9,
    tools: ['calculator'],
    model: 'gpt-4.1',
    provider: 'openai',
    colour: 'red',
  };
  const error = await issuesOf(
    await ask('/api/agents', { body, tenant: 'freeloader', headers: { 'x-tenant-tier': 'free' } }),
    400,
  );
  const fields = error.details.issues.map(({ field }) => field);
  for (const field of ['name', 'slug', 'temperature', 'tools', 'model', 'colour'])
    assert.ok(
      fields.some((one) => one.startsWith(field)),
      `${field} in ${fields}`,
    );
});

test('what the tier does not include is 422 and says which tier would', async () => {
  const body = { name: 'Big', provider: 'openai', model: 'gpt-4.1' };
  const headers = { 'x-tenant-tier': 'free' };
  const error = await issuesOf(await ask('/api/agents', { body, tenant: 'small', headers }), 422);
  assert.equal(error.code, 'TIER_LIMIT');
  assert.equal(error.details.issues[0]?.tier, 'advance');
  await made({ name: 'One' }, 'tiny');
  const second = await ask('/api/agents', { body: { name: 'Two' }, tenant: 'tiny', headers });
  await refused(second, 422, 'TIER_LIMIT');
});

test('a dry run changes nothing', async () => {
  const before = pageSchema.parse(await (await ask('/api/agents')).json()).total;
  const fine = await ask('/api/agents/validate', { body: { name: 'Trial' } });
  assert.deepEqual(await fine.json(), { valid: true, issues: [] });
  const broken = await ask('/api/agents/validate', { body: { temperature: 7 } });
  assert.equal(broken.status, 200);
  assert.match(await broken.text(), /"valid":false.*"field":"name"/);
  const agent = await made({ name: 'Existing' });
  const update = await ask('/api/agents/validate', { body: { agent_id: agent.id, temperature: 0.1 } });
  assert.deepEqual(await update.json(), { valid: true, issues: [] });
  const nobody = await ask('/api/agents/validate', { body: { agent_id: 'nobody', name: 'x' } });
  assert.equal(nobody.status, 404);
  assert.equal((await ask('/api/agents/validate', { body: { agent_id: 7 } })).status, 400);
  assert.equal(pageSchema.parse(await (await ask('/api/agents')).json()).total, before + 1);
});

test('PATCH keeps what it does not name, PUT does not', async () => {
  const { id } = await made({ name: 'Patchy', description: 'kept', temperature: 0.3 });
  const patched = await ask(`/api/agents/${id}`, { method: 'PATCH', body: { temperature: 0.4 } });
  assert.equal(patched.headers.get('etag'), '"2"');
  const after = agentSchema.parse(await patched.json());
  assert.deepEqual([after.description, after.temperature], ['kept', 0.4]);
  const put = await ask(`/api/agents/${id}`, { method: 'PUT', body: { name: 'Patchy' } });
  const replaced = agentSchema.parse(await put.json());
  assert.deepEqual([replaced.description, replaced.version], ['', 3]);
  assert.notEqual(replaced.temperature, 0.4);
});

test('a write that names a stale version gets 409, one that names none wins', async () => {
  const { id } = await made({ name: 'Guarded' });
  const write = (version: string, n: number) =>
    ask(`/api/agents/${id}`, {
      method: 'PATCH',
      body: { description: `d${n}` },
      headers: { 'if-match': version },
    });
  assert.equal((await write('"1"', 1)).status, 200);
  await refused(await write('"1"', 2), 409, 'CONFLICT');
  await refused(await write('1', 2), 409, 'CONFLICT');
  assert.equal((await write('2', 3)).status, 200);
  assert.equal((await write('*', 4)).status, 200);
  assert.equal((await write('W/"4"', 5)).status, 200, 'a proxy that compresses makes our tags weak');
  await refused(await write('W/"4"', 6), 409, 'CONFLICT');
  for (const malformed of ['""', '"x"', 'W/4', 'w/"5"', '"3", "4"', '-1', '1.5', '"4'])
    await refused(await write(malformed, 5), 400, 'INVALID_REQUEST');
  const stale = { method: 'DELETE', headers: { 'if-match': '"1"' } };
  await refused(await ask(`/api/agents/${id}`, stale), 409, 'CONFLICT');
  const back = { body: { version: 1 }, headers: { 'if-match': '"1"' } };
  await refused(await ask(`/api/agents/${id}/rollback`, back), 409, 'CONFLICT');
});

test('versions, their differences, the way back and the history of it all', async () => {
  const { id } = await made({ name: 'Past', description: 'first' });
  await ask(`/api/agents/${id}`, {
    method: 'PATCH',
    body: { description: 'second' },
    headers: { 'x-user-id': 'ada' },
  });
  const versions = pageSchema.parse(await (await ask(`/api/agents/${id}/versions`)).json());
  assert.deepEqual(
    versions.items.map(({ version }) => version),
    [2, 1],
  );
  const one = await ask(`/api/agents/${id}/versions?page=2&page_size=1`);
  assert.deepEqual(
    pageSchema.parse(await one.json()).items.map(({ version }) => version),
    [1],
  );
  const first = agentSchema.parse(await (await ask(`/api/agents/${id}/versions/1`)).json());
  assert.equal(first.description, 'first');
  const diff = await ask(`/api/agents/${id}/diff?from=1&to=2`);
  assert.deepEqual(await diff.json(), {
    from: 1,
    to: 2,
    changes: [{ field: 'description', from: 'first', to: 'second' }],
  });
  const back = await ask(`/api/agents/${id}/rollback`, {
    body: { version: 1 },
    headers: { 'if-match': '"2"', 'user-agent': 'nooble-cli' },
  });
  const restored = agentSchema.parse(await back.json());
  assert.deepEqual([restored.version, restored.description], [3, 'first']);
  const history = pageSchema.parse(await (await ask(`/api/agents/${id}/history`)).json());
  const entries = z.array(auditEntrySchema).parse(history.items);
  assert.deepEqual(
    entries.map(({ action, actor, source }) => [action, actor, source]),
    [
      ['rolled_back', 'anonymous', 'cli'],
      ['updated', 'ada', 'api'],
      ['created', 'anonymous', 'api'],
    ],
  );
  for (const path of ['versions/9', 'diff?from=1&to=9'])
    await refused(await ask(`/api/agents/${id}/${path}`), 404, 'NOT_FOUND');
  for (const path of ['versions/0', 'versions/x', 'diff?from=1', 'diff?from=a&to=2', 'history?page=0'])
    await refused(await ask(`/api/agents/${id}/${path}`), 400, 'INVALID_REQUEST');
  for (const body of [{}, { version: 0 }, { version: '1' }, { version: 1, more: 1 }])
    await issuesOf(await ask(`/api/agents/${id}/rollback`, { body }), 400);
});

test('a deleted agent is gone until it is restored', async () => {
  const { id } = await made({ name: 'Mortal' });
  const gone = await ask(`/api/agents/${id}`, { method: 'DELETE', headers: { 'if-match': '"1"' } });
  assert.equal(gone.status, 204);
  assert.equal(await gone.text(), '');
  await refused(await ask(`/api/agents/${id}`), 404, 'NOT_FOUND');
  const back = await ask(`/api/agents/${id}/restore`, { method: 'POST' });
  assert.equal(back.status, 200);
  assert.equal((await ask(`/api/agents/${id}`)).status, 200);
});

test('lists are paged and filtered', async () => {
  for (const name of ['Alpha', 'Beta', 'Gamma'])
    await made(
      { name, tags: [name], ...(name === 'Beta' ? { type: 'rag', collections: ['docs'] } : {}) },
      'listed',
    );
  const list = async (query: string) =>
    pageSchema.parse(await (await ask(`/api/agents?${query}`, { tenant: 'listed' })).json());
  const all = await list('');
  assert.deepEqual([all.items.length, all.page, all.page_size, all.total], [3, 1, 20, 3]);
  const second = await list('page=2&page_size=2');
  assert.deepEqual([second.items.length, second.page, second.page_size, second.total], [1, 2, 2, 3]);
  for (const query of ['type=rag', 'tag=Beta', 'q=bet']) {
    const { items } = await list(query);
    assert.deepEqual(
      items.map(({ name }) => name),
      ['Beta'],
    );
  }
  const twice = await ask('/api/agents?page=1&page=2');
  assert.equal(twice.status, 400);
  assert.match(await twice.text(), /page: is given more than once/);
  for (const query of ['page=0', 'page=x', 'page_size=101', 'page_size=0', 'type=robot', 'page=1&page=2'])
    await refused(await ask(`/api/agents?${query}`), 400, 'INVALID_REQUEST');
});

test('a bulk update is one task', async () => {
  const agent = await made({ name: 'Many' });
  const items = [{ id: agent.id, changes: { description: 'bulk' }, version: 1 }];
  const response = await ask('/api/agents/bulk', { body: { items } });
  assert.equal(response.status, 202);
  const { task_id } = z.object({ task_id: z.string() }).parse(await response.json());
  assert.ok(task_id);
  for (const body of [{}, { items: [] }, { items: [{ id: 'a b', changes: {} }] }, { items: [{ id: 'a' }] }])
    await issuesOf(await ask('/api/agents/bulk', { body }), 400);
});

test('bodies that are no objects, no JSON, too deep or too large are refused', async () => {
  for (const body of [[], null, 'text', 7, true])
    assert.equal((await ask('/api/agents', { body })).status, 400, JSON.stringify(body));
  const raw = (body: string, type = 'application/json') =>
    fetch(`${node.url}/api/agents`, {
      method: 'POST',
      headers: { 'x-tenant-id': 'acme', 'content-type': type },
      body,
    });
  for (const body of ['', '{', 'name: x', '{"name":"x"}}'])
    await refused(await raw(body), 400, 'INVALID_REQUEST');
  await refused(await raw('{"name":"x"}', 'text/plain'), 400, 'INVALID_REQUEST');
  await refused(await raw(`{"name":${'['.repeat(100)}${']'.repeat(100)}}`), 400, 'INVALID_REQUEST');
  await refused(await raw(JSON.stringify({ name: 'x'.repeat(300_000) })), 413, 'TOO_LARGE');
  const proto = await raw('{"name":"Proto","__proto__":{"is_active":false},"constructor":1}');
  assert.equal(proto.status, 400);
  await refused(await ask('/api/agents/a%20b'), 400, 'INVALID_REQUEST');
});

test('another tenant sees, changes and restores nothing', async () => {
  const { id } = await made({ name: 'Private' });
  const other = { tenant: 'globex' };
  const attempts: [string, AskInit][] = [
    ['', {}],
    ['', { method: 'PUT', body: { name: 'Mine' } }],
    ['', { method: 'PATCH', body: { name: 'Mine' } }],
    ['', { method: 'DELETE' }],
    ['/versions', {}],
    ['/versions/1', {}],
    ['/diff?from=1&to=1', {}],
    ['/history', {}],
    ['/rollback', { body: { version: 1 } }],
    ['/restore', { method: 'POST' }],
  ];
  for (const [path, init] of attempts)
    await refused(await ask(`/api/agents/${id}${path}`, { ...init, ...other }), 404, 'NOT_FOUND');
  assert.deepEqual(pageSchema.parse(await (await ask('/api/agents', other)).json()).items, []);
  const named = await ask('/api/agents', { body: { name: 'X', tenant_id: 'acme', id }, ...other });
  assert.equal(named.status, 400, 'a body names no tenant');
  assert.equal(agentSchema.parse(await (await ask(`/api/agents/${id}`)).json()).name, 'Private');
});

test('reading and writing need their scopes', async () => {
  const strict = await openManagementNode({ mode: 'jwt' });
  try {
    const as = (scope: string) => bearer('acme', { scope });
    await refused(await strict.ask('/api/agents'), 401, 'UNAUTHENTICATED');
    await refused(await strict.ask('/api/agents', { headers: await as('chat') }), 403, 'FORBIDDEN');
    assert.equal((await strict.ask('/api/agents', { headers: await as('agents:read') })).status, 200);
    const body = { name: 'x' };
    await refused(
      await strict.ask('/api/agents', { body, headers: await as('agents:read') }),
      403,
      'FORBIDDEN',
    );
    assert.equal((await strict.ask('/api/agents', { body, headers: await as('agents:write') })).status, 201);
  } finally {
    await strict.close();
  }
});

test('no parameter that a route takes is mistaken for a token', async () => {
  const named = z.object({ in: z.string(), name: z.string() });
  const operation = z.object({ parameters: z.array(named).default([]) });
  const document = z.object({ paths: z.record(z.string(), z.record(z.string(), operation)) });
  const { paths } = document.parse(await (await fetch(`${node.url}/openapi.json`)).json());
  const parameters = Object.values(paths).flatMap((path) =>
    Object.values(path).flatMap((each) => each.parameters),
  );
  const names = parameters.filter((one) => one.in === 'query').map(({ name }) => name);
  assert.ok(names.includes('page') && names.includes('tenant_id'));
  assert.deepEqual(
    names.filter((name) => hasTokenInQuery(new URLSearchParams({ [name]: 'x' }))),
    [],
  );
});

test('the OpenAPI document describes the routes, and what the bodies may hold', async () => {
  const text = await (await fetch(`${node.url}/openapi.json`)).text();
  for (const name of ['AgentInput', 'AgentPatch', 'AgentValidate', 'TemplateInput', '/api/agents/{id}/diff'])
    assert.ok(text.includes(`"${name}":`), name);
});
