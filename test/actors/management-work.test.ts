/** Work on agents that goes on in the background or comes over a queue, templates of tenants, and the bus of notices. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MAX_BULK_ITEMS } from '../../actors/management/bulk.ts';
import { createNotices } from '../../actors/management/notices.ts';
import type { TenantNotice } from '../../src/domain/agent-record.ts';
import { type AgentId, agentIdSchema } from '../../src/domain/ids.ts';
import { openManagement, refused, someone, value } from './agent-fixtures.ts';
import { silentLog, TENANT, tenantId } from './fixtures.ts';

const NOBODY = agentIdSchema.parse('nobody');
const ORIGIN = { tenantId: TENANT, source: undefined };
const PAGE = { page: 1, pageSize: 20 };

type Opened = ReturnType<typeof openManagement>;

/** The notice that ends a task. */
const ended = ({ bus, notices }: Opened, taskId: string): Promise<TenantNotice> =>
  new Promise((resolve) => {
    const ends = ({ event, task_id }: TenantNotice): boolean =>
      task_id === taskId && (event === 'task_completed' || event === 'task_failed');
    const known = notices.find(ends);
    if (known) return resolve(known);
    bus.listen((notice) => ends(notice) && resolve(notice));
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

const task = (type: string, payload: object, id = 'task-1') => ({
  task_id: id,
  tenant_id: TENANT,
  created_at: '2026-01-01T00:00:00.000Z',
  status: 'pending',
  type,
  priority: 5,
  metadata: { user_id: 'bob', source: 'orchestrator' },
  payload,
});

test('a task message makes an agent, and its notices carry the task', async () => {
  const { takeTask, agents, notices } = openManagement();
  const payload = {
    agent_id: 'front-desk',
    agent_name: 'Front Desk',
    agent_type: 'conversational',
    version: '1.0',
    config: { temperature: 0 },
    tools: ['current_time'],
  };
  const answer = value(await takeTask(task('agent_create', payload), ORIGIN));
  const id = agentIdSchema.parse('front-desk');

  assert.deepEqual(answer, { agent_id: id, agent_name: 'Front Desk', version: 1 });
  const agent = value(await agents.get(TENANT, id));
  assert.deepEqual([agent.temperature, agent.tools], [0, ['current_time']]);
  const [entry] = value(await agents.history(TENANT, id, PAGE)).items;
  assert.deepEqual([entry?.actor, entry?.source], ['bob', 'orchestrator']);
  assert.deepEqual(
    notices.map(({ event, task_id }) => [event, task_id]),
    [
      ['task_status_update', 'task-1'],
      ['agent_created', 'task-1'],
      ['task_completed', 'task-1'],
    ],
  );
});

test('a task that comes twice is answered as before and done once', async () => {
  const { takeTask, agents } = openManagement();
  const message = task('agent_create', { agent_name: 'Helper' });
  const [one, two] = await Promise.all([takeTask(message, ORIGIN), takeTask(message, ORIGIN)]);

  assert.deepEqual(one, two);
  assert.deepEqual(await takeTask(message, ORIGIN), one);
  assert.equal(value(await agents.list(TENANT, PAGE)).total, 1);
});

test('a task updates with an expected version, validates, and notifies', async () => {
  const { takeTask, agents, notices, invalidated } = openManagement();
  const { id } = value(await agents.create(someone(), { name: 'Helper' }));
  const take = (type: string, payload: object, task_id: string) =>
    takeTask(task(type, payload, task_id), ORIGIN);

  const updated = await take('agent_update', { agent_id: id, version: 1, config: { temperature: 0 } }, 't1');
  assert.deepEqual(value(updated), { agent_id: id, agent_name: 'Helper', version: 2 });
  const stale = await take('agent_update', { agent_id: id, version: '1', config: { temperature: 1 } }, 't2');
  assert.equal(refused(stale).code, 'CONFLICT');
  assert.deepEqual([notices.at(-1)?.event, notices.at(-1)?.data.error_type], ['task_failed', 'CONFLICT']);

  const checked = await take('agent_validate', { agent_id: id, tools: ['abacus'] }, 't3');
  assert.equal(Reflect.get(Object(value(checked)), 'valid'), false);
  assert.equal(notices.at(-1)?.event, 'task_completed');
  value(await take('agent_notify', { agent_id: id }, 't4'));
  assert.deepEqual(invalidated, [id]);
  assert.equal(notices.at(-2)?.event, 'agent_updated');
  assert.equal(refused(await take('agent_update', { config: {} }, 't5')).code, 'INVALID_REQUEST');
  assert.equal(refused(await take('agent_notify', { agent_id: 'nobody' }, 't6')).code, 'NOT_FOUND');
});

test('a malformed task, and one that names another tenant than its queue, are refused', async () => {
  const { takeTask, notices } = openManagement();

  for (const wrong of [null, 'x', {}, { ...task('agent_create', {}), type: 'agent_explode' }])
    assert.equal(refused(await takeTask(wrong, ORIGIN)).code, 'INVALID_REQUEST');
  const other = { ...task('agent_create', { agent_name: 'x' }), tenant_id: 'other' };
  assert.equal(refused(await takeTask(other, ORIGIN)).code, 'FORBIDDEN');
  assert.deepEqual(notices, []);
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
  const bus = createNotices(silentLog);
  bus.listen(() => {
    throw new Error('deaf');
  });
  const leave = bus.listen(({ event }) => heard.push(event));
  value(await opened.agents.create(someone(), { name: 'Helper' }));
  const [notice] = opened.notices;
  assert.ok(notice);
  bus.publish(notice);
  leave();
  bus.publish(notice);

  assert.deepEqual(heard, ['agent_created']);
});
