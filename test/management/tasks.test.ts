/** Task messages of agent management: what is done of them, what is told meanwhile, and what a try that failed means. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ErrorCode, RefusalError, refusal } from '../../src/domain/errors.ts';
import { agentIdSchema } from '../../src/domain/ids.ts';
import type { AgentStore } from '../../src/ports/management.ts';
import { openManagement, refused, someone, value } from '../actors/agent/agent-fixtures.ts';
import { TENANT } from '../actors/fixtures.ts';
import { memoryStores } from '../support/stores.ts';

const ORIGIN = { tenantId: TENANT, source: undefined };
const PAGE = { page: 1, pageSize: 20 };

type Opened = ReturnType<typeof openManagement>;

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

/** A store that refuses its next writes with these codes, one each. */
function failing(...codes: ErrorCode[]): AgentStore {
  const store = memoryStores().agents;
  return {
    ...store,
    save: async (tenant, change) => {
      const code = codes.shift();
      if (code) throw new RefusalError(refusal(code));
      return store.save(tenant, change);
    },
  };
}

const standings = ({ notices }: Opened): readonly string[] =>
  notices
    .filter(({ event }) => event.startsWith('task_'))
    .map(({ event, data }) => `${event} ${data.status}`);

test('a task that is tried again is told as failed once: when it is given up', async () => {
  const opened = openManagement({ agents: failing('OVERLOADED', 'OVERLOADED') });
  const { takeTask, notices } = opened;
  const message = task('agent_create', { agent_name: 'Helper' });
  const givenUp = refusal('OVERLOADED');
  assert.equal(refused(await takeTask(message, ORIGIN)).code, 'OVERLOADED');
  assert.equal(refused(await takeTask(message, ORIGIN)).code, 'OVERLOADED');
  for (let times = 0; times < 2; times += 1)
    assert.equal(refused(await takeTask(message, { ...ORIGIN, givenUp })).code, 'OVERLOADED');

  const once = ['task_status_update processing', 'task_status_update pending'];
  assert.deepEqual(standings(opened), [...once, ...once, 'task_failed failed']);
  const end = notices.at(-1);
  assert.deepEqual(
    [end?.task_id, end?.data.error_type, end?.data.type],
    ['task-1', 'OVERLOADED', 'agent_create'],
  );

  value(await takeTask(message, ORIGIN));
  assert.deepEqual(standings(opened).slice(-2), [
    'task_status_update processing',
    'task_completed completed',
  ]);
});

test('while the store is away a task is told to be under way once, and then what it came to', async () => {
  const opened = openManagement({ agents: failing(...Array(5).fill('STORE_UNAVAILABLE')) });
  const message = task('agent_create', { agent_name: 'Helper' });
  for (let times = 0; times < 5; times += 1)
    assert.equal(refused(await opened.takeTask(message, ORIGIN)).code, 'STORE_UNAVAILABLE');
  assert.deepEqual(standings(opened), ['task_status_update processing']);
  value(await opened.takeTask(message, ORIGIN));

  assert.deepEqual(standings(opened), ['task_status_update processing', 'task_completed completed']);
});

test('a task that came to its end is not told as failed because another copy of it was given up', async () => {
  const opened = openManagement();
  const message = task('agent_create', { agent_name: 'Helper' });
  value(await opened.takeTask(message, ORIGIN));
  value(await opened.takeTask(message, { ...ORIGIN, givenUp: refusal('POISON') }));
  const unknown = task('agent_create', { agent_name: 'Other' }, 'task-2');
  assert.equal(
    refused(await opened.takeTask(unknown, { ...ORIGIN, givenUp: refusal('POISON') })).code,
    'POISON',
  );

  assert.deepEqual(standings(opened).slice(1), ['task_completed completed', 'task_failed failed']);
  assert.equal(value(await opened.agents.list(TENANT, PAGE)).total, 1);
});

test('a malformed task, and one that names another tenant than its queue, are refused', async () => {
  const { takeTask, notices } = openManagement();

  for (const wrong of [null, 'x', {}, { ...task('agent_create', {}), type: 'agent_explode' }])
    assert.equal(refused(await takeTask(wrong, ORIGIN)).code, 'INVALID_REQUEST');
  const other = { ...task('agent_create', { agent_name: 'x' }), tenant_id: 'other' };
  assert.equal(refused(await takeTask(other, ORIGIN)).code, 'FORBIDDEN');
  assert.deepEqual(notices, []);
});
