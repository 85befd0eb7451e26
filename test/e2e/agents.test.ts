/** Agents on a whole node, from the HTTP request to the turn that runs them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { last } from '../support/chatter.ts';
import { type AskOptions, startScene, startTestNode, type TestNode } from '../support/node.ts';
import { bearer, JWT } from '../support/tokens.ts';

type Ask = TestNode['ask'];

/** Makes an agent and returns it. */
async function make(ask: Ask, body: object, more: AskOptions = {}) {
  const made = await ask('/api/agents', { body, ...more });
  assert.equal(made.status, 201, made.text);
  return made.body;
}

const patch = (ask: Ask, id: string, body: object, headers: Record<string, string> = {}) =>
  ask(`/api/agents/${id}`, { method: 'PATCH', body, headers });

const refused = ({ status, body }: Awaited<ReturnType<Ask>>) => [status, body?.error?.code];

test('an agent is made, read, changed, replaced, deleted and restored', async (t) => {
  const { ask } = await startTestNode(t);
  const made = await ask('/api/agents', { body: { name: 'Büro Helfer', tags: ['office'] } });
  assert.equal(made.status, 201);
  const { id, slug, version } = made.body;
  assert.equal(made.headers.get('location'), `/api/agents/${id}`);
  assert.equal(made.headers.get('etag'), '"1"');
  assert.deepEqual([version, made.body.tenant_id, made.body.is_active], [1, 'acme', true]);
  assert.match(slug, /^[a-z0-9-]{2,50}$/);

  const changed = await patch(ask, id, { temperature: 0.1 });
  assert.deepEqual([changed.body.version, changed.body.temperature, changed.body.tags], [2, 0.1, ['office']]);
  const replaced = await ask(`/api/agents/${id}`, { method: 'PUT', body: { name: 'Office Helper' } });
  assert.deepEqual([replaced.body.version, replaced.body.tags, replaced.body.temperature], [3, [], 0.7]);
  assert.deepEqual((await ask(`/api/agents/${id}`)).body, replaced.body);

  const { body: list } = await ask('/api/agents?q=helper&page_size=5');
  assert.deepEqual([list.total, list.page, list.page_size, list.items[0].id], [1, 1, 5, id]);
  assert.equal((await ask('/api/agents?tag=office')).body.total, 0);

  assert.equal((await ask(`/api/agents/${id}`, { method: 'DELETE' })).status, 204);
  assert.deepEqual(refused(await ask(`/api/agents/${id}`)), [404, 'NOT_FOUND']);
  assert.equal((await ask('/api/agents')).body.total, 0);
  const restored = await ask(`/api/agents/${id}/restore`, { method: 'POST' });
  assert.deepEqual([restored.status, restored.body.deleted_at], [200, null]);
  assert.equal((await ask(`/api/agents/${id}`)).body.name, 'Office Helper');
});

test('all mistakes are named at once, with the tier that would allow what this one does not', async (t) => {
  const { ask } = await startTestNode(t);
  const body = { name: '', temperature: 3, tools: ['calculator', 'nothing'], type: 'workflow', color: 'red' };
  const answer = await ask('/api/agents', { body, tier: 'free' });
  assert.deepEqual(refused(answer), [400, 'INVALID_REQUEST']);
  const { issues } = answer.body.error.details;
  const fields = new Set(issues.map(({ field }: { field: string }) => field));
  for (const field of ['name', 'temperature', 'tools', 'type', 'color']) assert.ok(fields.has(field), field);
  const dry = await ask('/api/agents/validate', { body, tier: 'free' });
  assert.deepEqual([dry.status, dry.body.valid, dry.body.issues], [200, false, issues]);

  const large = await ask('/api/agents', { body: { name: 'Big', type: 'workflow' }, tier: 'free' });
  assert.deepEqual(refused(large), [422, 'TIER_LIMIT']);
  assert.equal(large.body.error.details.issues[0].tier, 'professional');
});

test('a slug is one agent’s in its tenant, and free again once that is deleted', async (t) => {
  const { ask } = await startTestNode(t);
  const { id } = await make(ask, { name: 'One', slug: 'the-one' });
  assert.deepEqual(refused(await ask('/api/agents', { body: { name: 'Two', slug: 'the-one' } })), [
    409,
    'CONFLICT',
  ]);
  await make(ask, { name: 'One', slug: 'the-one' }, { tenant: 'other' });
  await ask(`/api/agents/${id}`, { method: 'DELETE' });
  await make(ask, { name: 'Two', slug: 'the-one' });
  const restored = await ask(`/api/agents/${id}/restore`, { method: 'POST' });
  assert.deepEqual(refused(restored), [409, 'CONFLICT']);
});

test('versions can be read, compared and brought back, and the history says who did what', async (t) => {
  const { ask } = await startTestNode(t);
  const { id } = await make(
    ask,
    { name: 'Guide', system_prompt: 'One.' },
    { headers: { 'x-user-id': 'ann' } },
  );
  await patch(ask, id, { system_prompt: 'Two.', tags: ['new'] }, { 'x-user-id': 'bob' });
  const { body: versions } = await ask(`/api/agents/${id}/versions`);
  assert.deepEqual(
    versions.items.map(({ version }: { version: number }) => version),
    [2, 1],
  );
  assert.equal((await ask(`/api/agents/${id}/versions/1`)).body.system_prompt, 'One.');
  assert.deepEqual(refused(await ask(`/api/agents/${id}/versions/9`)), [404, 'NOT_FOUND']);
  const { body: diff } = await ask(`/api/agents/${id}/diff?from=1&to=2`);
  assert.deepEqual(diff.changes, [
    { field: 'system_prompt', from: 'One.', to: 'Two.' },
    { field: 'tags', from: [], to: ['new'] },
  ]);
  const back = await ask(`/api/agents/${id}/rollback`, {
    body: { version: 1 },
    headers: { 'x-user-id': 'cat' },
  });
  assert.deepEqual(
    [back.status, back.body.version, back.body.system_prompt, back.body.tags],
    [200, 3, 'One.', []],
  );
  const { body: history } = await ask(`/api/agents/${id}/history`);
  const told = history.items.map((entry: Record<string, unknown>) => [
    entry.version,
    entry.action,
    entry.actor,
    entry.source,
  ]);
  assert.deepEqual(told, [
    [3, 'rolled_back', 'cat', 'api'],
    [2, 'updated', 'bob', 'api'],
    [1, 'created', 'ann', 'api'],
  ]);
});

test('a write over a version that is no longer the newest is refused, and the other stays', async (t) => {
  const { ask } = await startTestNode(t);
  const { id } = await make(ask, { name: 'Guide' });
  assert.equal((await patch(ask, id, { name: 'First' }, { 'if-match': '"1"' })).status, 200);
  for (const headers of [{ 'if-match': '"1"' }, { 'if-match': '1' }])
    assert.deepEqual(refused(await patch(ask, id, { name: 'Second' }, headers)), [409, 'CONFLICT']);
  const gone = await ask(`/api/agents/${id}`, { method: 'DELETE', headers: { 'if-match': '"1"' } });
  assert.deepEqual(refused(gone), [409, 'CONFLICT']);
  const answers = await Promise.all(
    Array.from({ length: 8 }, (_, count) =>
      patch(ask, id, { name: `Racer ${count}` }, { 'if-match': '"2"' }),
    ),
  );
  assert.equal(answers.filter(({ status }) => status === 200).length, 1);
  assert.equal((await ask(`/api/agents/${id}`)).body.version, 3);
});

test('many are changed as one task, whose progress the tenant’s sockets see', async (t) => {
  const { ask, chat } = await startTestNode(t, { env: { DEFAULT_TIER: 'enterprise' } });
  const ids: string[] = [];
  for (let count = 0; count < 30; count += 1) ids.push((await make(ask, { name: `Agent ${count}` })).id);
  const [client, stranger] = [await chat('acme', 's1'), await chat('other', 's1')];
  const items = [
    ...ids.map((id) => ({ id, changes: { temperature: 0.2 } })),
    { id: 'nobody', changes: { temperature: 0.2 } },
    { id: ids[0], changes: { temperature: 9 } },
  ];
  const { status } = await ask('/api/agents/bulk', { body: { items } });
  assert.equal(status, 202);
  const done = await client.see('task_completed');
  assert.deepEqual([done.data.channel, done.data.event], ['tenant:acme', 'task_completed']);
  assert.equal(done.seq, undefined);
  const { data } = done.data;
  assert.deepEqual(data.progress, { done: 32, failed: 2, total: 32 });
  assert.deepEqual(data.results.at(-2).error.code, 'NOT_FOUND');
  const steps = client.frames.filter(({ type }) => type === 'task_status_update');
  assert.ok(steps.length > 5, `${steps.length} steps were told`);
  assert.equal(client.frames.filter(({ type }) => type === 'agent_updated').length, 30);
  assert.equal((await ask(`/api/agents/${ids[7]}`)).body.temperature, 0.2);
  stranger.send({ type: 'ping' });
  await stranger.see('pong');
  assert.deepEqual(
    stranger.frames.map(({ type }) => type),
    ['session.ready', 'pong'],
  );
});

test('templates: by tier, from one an agent, own ones for enterprise alone', async (t) => {
  const { ask } = await startTestNode(t);
  const slugs = async (tier: string) =>
    (await ask('/api/templates', { tier, tenant: tier })).body.items
      .map(({ slug }: { slug: string }) => slug)
      .sort();
  assert.deepEqual(await slugs('free'), ['customer_service']);
  assert.deepEqual(await slugs('advance'), ['customer_service', 'knowledge_base']);
  assert.deepEqual(await slugs('professional'), ['customer_service', 'knowledge_base', 'sales_assistant']);

  const { body: templates } = await ask('/api/templates');
  const [template] = templates.items;
  const body = { template_id: template.id, name: 'Ours', customizations: { temperature: 0.3 } };
  const made = await ask('/api/agents/from-template', { body });
  assert.deepEqual(
    [made.status, made.body.template_id, made.body.temperature],
    [201, template.id, 0.3],
    made.text,
  );

  const own = { name: 'Mine', slug: 'mine', agent: { system_prompt: 'Mine.' } };
  const professional = await ask('/api/templates', { body: own });
  assert.deepEqual(refused(professional), [422, 'TIER_LIMIT']);
  const enterprise = { tier: 'enterprise', tenant: 'big' };
  const kept = await ask('/api/templates', { body: own, ...enterprise });
  assert.equal(kept.status, 201, kept.text);
  const from = { template_id: kept.body.id, name: 'From mine' };
  assert.equal(
    (await ask('/api/agents/from-template', { body: from, ...enterprise })).body.system_prompt,
    'Mine.',
  );
  assert.equal((await ask(`/api/templates/${kept.body.id}`)).status, 404, 'it is seen by another tenant');
});

test('an update reaches a running session with its next turn; a pinned version stays', async (t) => {
  const { ask, chat, stub } = await startScene(t);
  const prompt = (index: number) => stub.request(index).then(({ body }) => body.messages[0]?.content);
  const { id } = await make(ask, { name: 'Guide', system_prompt: 'Say one.' });
  const client = await chat('acme', 's1', { query: { agent_id: id } });
  const versions = async (more = {}) => {
    const frames = await client.turn('Go.', more);
    last(frames, 'chat.response');
    const started = frames.find(({ type }) => type === 'execution.started');
    return [started?.data.agent_id, started?.data.agent_version];
  };
  assert.deepEqual(await versions(), [id, 1]);
  assert.equal((await patch(ask, id, { system_prompt: 'Say two.' })).status, 200);
  const notice = await client.see('agent_updated');
  assert.deepEqual(
    [notice.data.channel, notice.data.event, notice.seq],
    ['tenant:acme', 'agent_updated', undefined],
  );
  assert.deepEqual([notice.data.data.agent_id, notice.data.data.version], [id, 2]);
  assert.deepEqual(await versions(), [id, 2]);
  assert.deepEqual(await versions({ agent_version: 1 }), [id, 1]);
  assert.deepEqual(await versions(), [id, 2]);
  assert.deepEqual(await Promise.all([0, 1, 2, 3].map(prompt)), [
    'Say one.',
    'Say two.',
    'Say one.',
    'Say two.',
  ]);
  const task = client.frames.findLast(({ type }) => type === 'chat.response')?.task_id;
  assert.equal((await ask(`/api/chat/tasks/${task}`)).body.agent_version, 2);
});

test('an agent that is off, gone, or another tenant’s answers nobody', async (t) => {
  const { ask, chat } = await startTestNode(t);
  const { id } = await make(ask, { name: 'Guide' });
  const client = await chat('acme', 's1', { query: { agent_id: id } });
  const outcome = async () => (await client.ended(client.say('Go.'))).data.code ?? 'answered';
  assert.equal(await outcome(), 'answered');
  await patch(ask, id, { is_active: false });
  assert.equal(await outcome(), 'AGENT_INACTIVE');
  await patch(ask, id, { is_active: true });
  assert.equal(await outcome(), 'answered');
  await ask(`/api/agents/${id}`, { method: 'DELETE' });
  assert.equal(await outcome(), 'AGENT_NOT_FOUND');
  await ask(`/api/agents/${id}/restore`, { method: 'POST' });
  assert.equal(await outcome(), 'answered');

  const stranger = await chat('other', 's1', { query: { agent_id: id } });
  assert.equal((await stranger.ended(stranger.say('Go.'))).data.code, 'AGENT_NOT_FOUND');
  for (const path of ['', '/versions', '/history', '/versions/1', '/diff?from=1&to=2'])
    assert.deepEqual(
      refused(await ask(`/api/agents/${id}${path}`, { tenant: 'other' })),
      [404, 'NOT_FOUND'],
      path,
    );
  for (const method of ['PATCH', 'PUT', 'DELETE'])
    assert.equal(
      (await ask(`/api/agents/${id}`, { method, tenant: 'other', body: { name: 'Mine' } })).status,
      404,
    );
});

test('the free tier has one agent, besides the default one', async (t) => {
  const { ask } = await startTestNode(t, { env: { DEFAULT_TIER: 'free' } });
  const answers = await Promise.all(
    [1, 2, 3].map((count) => ask('/api/agents', { body: { name: `Agent ${count}` } })),
  );
  assert.deepEqual(answers.map(({ status }) => status).sort(), [201, 422, 422]);
  const over = answers.find(({ status }) => status === 422);
  assert.deepEqual(
    [over?.body.error.code, over?.body.error.details.issues[0].tier],
    ['TIER_LIMIT', 'advance'],
  );
  const sent = await ask('/api/chat/send', { body: { message: 'Go.' } });
  assert.equal(sent.status, 202);
});

test('tokens: reading and writing agents are scopes of their own', async (t) => {
  const { ask } = await startTestNode(t, { env: JWT });
  const as = async (scope: string) => ({
    tenant: null,
    headers: await bearer('acme', { scope, user: 'ann' }),
  });
  const [chatter, reader, writer] = [await as('chat'), await as('agents:read'), await as('agents:write')];
  const body = { name: 'Guide' };
  assert.equal((await ask('/api/agents', { tenant: null })).status, 401);
  for (const who of [chatter, reader])
    assert.deepEqual(refused(await ask('/api/agents', { body, ...who })), [403, 'FORBIDDEN']);
  const { id } = await make(ask, body, writer);
  assert.deepEqual(refused(await ask(`/api/agents/${id}`, chatter)), [403, 'FORBIDDEN']);
  assert.equal((await ask(`/api/agents/${id}`, reader)).status, 200);
  const { body: history } = await ask(`/api/agents/${id}/history`, reader);
  assert.equal(history.items[0].actor, 'ann');
  const other = { tenant: null, headers: await bearer('other', { scope: 'agents:read agents:write' }) };
  assert.equal((await ask(`/api/agents/${id}`, other)).status, 404);
  assert.equal((await ask('/api/agents', { headers: reader.headers, tenant: 'other' })).status, 403);
});
