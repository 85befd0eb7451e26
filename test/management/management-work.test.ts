/** Work on agents that goes on in the background, templates of tenants, and the bus of notices. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TenantNotice } from '../../src/domain/agent-record.ts';
import { type AgentId, agentIdSchema } from '../../src/domain/ids.ts';
import { MAX_BULK_ITEMS } from '../../src/management/bulk.ts';
import { createNotices } from '../../src/management/notices.ts';
import { openManagement, refused, someone, value } from '../actors/agent/agent-fixtures.ts';
import { tenantId } from '../actors/fixtures.ts';
import { quiet } from '../support/quiet.ts';

const NOBODY = agentIdSchema.parse('nobody');

type Opened = ReturnType<typeof openManagement>;

/** The notice that ends a task. */
const ended = ({ bus, notices }: Opened, taskId: string): Promise<TenantNotice> =>
  new Promise((resolve) => {
    const ends = ({ event, task_id }: TenantNotice): boolean =>
      task_id === taskId && (event === 'task_completed' || event === 'task_failed');
    const known = notices.find(ends);
    if (known) return resolve(known);
    bus.listen('once', (notice) => ends(notice) && resolve(notice));
  });

async function withAgents(count: number): Promise<Opened & { readonly ids: readonly AgentId[] }> {
  const opened = openManagement();
  const ids: AgentId[] = [];
  for (let index = 0; index < count; index += 1)
    ids.push(value(await opened.agents.create(someone('enterprise'), { name: `Agent ${index}` })).id);
  return { ...opened, ids };
}

test('a bulk update goes on past single failures and tells its progress and every result', async () => {
  const opened = await withAgents(5);
  const { agents, notices, ids } = opened;
  const items = [
    ...ids.map((id) => ({ id, changes: { temperature: 0 } })),
    { id: NOBODY, changes: { temperature: 0 } },
    { id: ids[0] ?? NOBODY, changes: { temperature: 'hot' } },
    { id: ids[1] ?? NOBODY, changes: { name: 'Late' }, version: 1 },
  ];
  const { taskId } = value(await agents.bulk(someone(), items));
  const end = await ended(opened, taskId);

  assert.equal(end.event, 'task_completed');
  assert.deepEqual(end.data.progress, { done: 8, failed: 3, total: 8 });
  const { status, succeeded, failed, total, error } = end.data;
  assert.deepEqual(
    [status, succeeded, failed, total, error],
    ['completed', 5, 3, 8, '3 of 8 updates could not be made.'],
  );
  const results = end.data.results;
  assert.ok(Array.isArray(results));
  assert.deepEqual(
    results.map((result) => result.version ?? result.error.code),
    [2, 2, 2, 2, 2, 'NOT_FOUND', 'INVALID_REQUEST', 'CONFLICT'],
  );
  const steps = notices.filter(({ event }) => event === 'task_status_update');
  assert.deepEqual(
    steps.map(({ data }) => Reflect.get(Object(data.progress), 'done')),
    [0, 1, 2, 3, 4, 5, 6, 7],
  );
  assert.ok(steps.every(({ task_id }) => task_id === taskId));
  assert.equal(
    notices.filter(({ event, task_id }) => event === 'agent_updated' && task_id === taskId).length,
    5,
  );
});

test('a bulk update of which nothing could be done has failed', async () => {
  const opened = openManagement();
  const { taskId } = value(await opened.agents.bulk(someone(), [{ id: NOBODY, changes: {} }]));
  const end = await ended(opened, taskId);

  assert.deepEqual([end.event, end.data.status], ['task_failed', 'failed']);
  assert.deepEqual([end.data.succeeded, end.data.failed, end.data.total], [0, 1, 1]);
});

test('a bulk update of which all could be done speaks of no error', async () => {
  const opened = await withAgents(1);
  const items = opened.ids.map((id) => ({ id, changes: { temperature: 0 } }));
  const { taskId } = value(await opened.agents.bulk(someone(), items));
  const { event, data } = await ended(opened, taskId);
  assert.deepEqual([event, data.succeeded, data.failed, 'error' in data], ['task_completed', 1, 0, false]);
});

test('a bulk task is bounded in items, and a tenant in tasks', async () => {
  const opened = await withAgents(1);
  const [id = NOBODY] = opened.ids;
  const item = { id, changes: {} };
  const start = (count: number) => opened.agents.bulk(someone(), new Array(count).fill(item));

  assert.equal(refused(await start(0)).code, 'INVALID_REQUEST');
  assert.equal(refused(await start(MAX_BULK_ITEMS + 1)).code, 'INVALID_REQUEST');
  const replies = await Promise.all([1, 2, 3, 4, 5].map(() => start(50)));
  assert.deepEqual(
    replies.map(({ ok }) => ok),
    [true, true, true, true, false],
  );
  await opened.close();
  assert.equal(refused(await start(1)).code, 'DRAINING');
});

test('closing ends a bulk task early and says which items were not done', async () => {
  const opened = await withAgents(1);
  const [id = NOBODY] = opened.ids;
  const items = Array.from({ length: 100 }, (_, index) => ({ id, changes: { description: `${index}` } }));
  const { taskId } = value(await opened.agents.bulk(someone(), items));
  await opened.close();
  const end = await ended(opened, taskId);

  assert.ok(Array.isArray(end.data.results));
  assert.equal(end.data.results.at(-1).error.code, 'DRAINING');
  assert.equal(end.data.results.length, 100);
});

test('an enterprise tenant writes templates of its own, and makes agents from them', async () => {
  const { templates, agents, notices } = openManagement();
  const boss = someone('enterprise');
  const input = { name: 'Ours', slug: 'ours', agent: { temperature: 0, tools: ['calculator'] } };
  const made = value(await templates.create(boss, input));

  assert.deepEqual([made.version, made.tenant_id, made.description], [1, 'acme', '']);
  assert.deepEqual(value(await templates.get(boss, made.id)), made);
  assert.deepEqual(
    value(await templates.list(boss)).map(({ slug }) => slug),
    ['customer_service', 'knowledge_base', 'sales_assistant', 'ours'],
  );
  const changed = { ...input, agent: { temperature: 1 } };
  assert.equal(value(await templates.update(boss, made.id, changed, { version: 1 })).version, 2);
  assert.equal(value(await templates.update(boss, made.id, changed, { version: undefined })).version, 2);
  assert.equal(refused(await templates.update(boss, made.id, input, { version: 1 })).code, 'CONFLICT');
  const agent = value(await agents.fromTemplate(boss, made.id, { name: 'One' }));
  assert.deepEqual([agent.temperature, agent.template_id], [1, made.id]);
  value(await templates.remove(boss, made.id));
  assert.equal(refused(await templates.get(boss, made.id)).code, 'NOT_FOUND');
  assert.deepEqual(
    notices.map(({ event }) => event),
    ['agent_template_created', 'template_updated', 'agent_created', 'template_updated'],
  );
});

test('templates of others, of a lower tier, and the built-in ones are out of reach', async () => {
  const { templates } = openManagement();
  const boss = someone('enterprise');
  const input = { name: 'Ours', slug: 'ours', agent: {} };
  const { id } = value(await templates.create(boss, input));

  assert.deepEqual(refused(await templates.create(someone('professional'), input)), {
    code: 'TIER_LIMIT',
    issues: ['template_id own_templates'],
  });
  assert.equal(refused(await templates.create(boss, input)).code, 'CONFLICT');
  assert.equal(
    refused(await templates.create(boss, { ...input, slug: 'customer_service' })).code,
    'CONFLICT',
  );
  assert.equal(refused(await templates.get({ ...boss, tenantId: tenantId('other') }, id)).code, 'NOT_FOUND');
  assert.deepEqual(
    value(await templates.list(someone('free'))).map(({ slug }) => slug),
    ['customer_service'],
  );
  assert.equal(refused(await templates.get(someone('free'), 'sales_assistant')).code, 'TIER_LIMIT');
  assert.equal(refused(await templates.remove(boss, 'customer_service')).code, 'CONFLICT');
  assert.equal(
    refused(await templates.update(boss, 'customer_service', input, { version: undefined })).code,
    'CONFLICT',
  );
});

test('a listener that throws does not keep a notice from others, and one that left hears no more', async () => {
  const opened = openManagement();
  const heard: string[] = [];
  const bus = createNotices(quiet);
  bus.listen('once', () => {
    throw new Error('deaf');
  });
  const leave = bus.listen('once', ({ event }) => heard.push(event));
  value(await opened.agents.create(someone(), { name: 'Helper' }));
  const [notice] = opened.notices;
  assert.ok(notice);
  bus.publish(notice);
  leave();
  bus.publish(notice);

  assert.deepEqual(heard, ['agent_created']);
});
