/** Task messages on a whole node: from the tenant's queue to its agents, its sockets, and its queue of notices. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { AgentTaskMessage } from '../../src/domain/agent-task.ts';
import { managementQueue, tierSubscription } from '../../src/domain/queues.ts';
import { createMemoryTransport } from '../../transports/queue/memory.ts';
import type { Chatter } from '../support/chatter.ts';
import { leakFree } from '../support/leaks.ts';
import { startTestNode } from '../support/node.ts';
import { quiet } from '../support/quiet.ts';
import { action, collecting, counting } from '../support/transport.ts';
import { until } from '../support/until.ts';

const TASKS = managementQueue('tasks', 'acme');

async function open(t: TestContext) {
  leakFree(t);
  const transport = createMemoryTransport(quiet, counting());
  const node = await startTestNode(t, { parts: { transport } });
  return { transport, ...node };
}

const task = (id: string, more: Partial<AgentTaskMessage>): AgentTaskMessage => ({
  task_id: id,
  tenant_id: 'acme',
  created_at: '2026-01-02T03:04:05',
  status: 'pending',
  type: 'agent_create',
  priority: 5,
  metadata: { user_id: 'ann', source: 'orchestrator' },
  ...more,
});

/** The frame in which a task comes to its end. */
const ended = (client: Chatter, id: string) =>
  client.see((frame) => frame.task_id === id && /^task_(completed|failed)$/.test(frame.type));

test('tasks create, change and check an agent, and the tenant’s sockets hear of it', async (t) => {
  const { transport, ask, chat } = await open(t);
  const client = await chat('acme', 's1');
  const payload = { agent_id: 'guide', agent_name: 'Guide', config: { system_prompt: 'One.' } };
  const changed = { agent_id: 'guide', config: { system_prompt: 'Two.' } };
  await transport.send(TASKS, task('t1', { payload }), 'json');
  await transport.send(TASKS, task('t2', { type: 'agent_update', payload: changed }), 'msgpack');
  assert.equal((await ended(client, 't2')).type, 'task_completed');
  const { body: agent } = await ask('/api/agents/guide');
  assert.deepEqual([agent.name, agent.system_prompt, agent.version], ['Guide', 'Two.', 2]);
  const { body: history } = await ask('/api/agents/guide/history');
  assert.deepEqual([history.items[0].actor, history.items[0].source], ['ann', 'orchestrator']);

  const wrong = { agent_id: 'guide', config: { temperature: 3 } };
  const checking = task('t3', { type: 'agent_validate', payload: wrong });
  await transport.send(managementQueue('validation', 'acme'), checking, 'json');
  await ended(client, 't3');
  await transport.send(TASKS, task('t4', { type: 'agent_update', payload: wrong }), 'json');
  const failed = await ended(client, 't4');
  assert.deepEqual([failed.type, failed.data.data.error_type], ['task_failed', 'INVALID_REQUEST']);
  const told = client.frames.map(({ type, task_id }) => `${task_id} ${type}`);
  for (const one of ['t1 agent_created', 't2 agent_updated', 't3 agent_validated', 't3 validation_complete'])
    assert.ok(told.includes(one), `${one} of ${told.join(', ')}`);
  assert.deepEqual(await transport.dead.queues(), []);
});

test('a task that comes twice runs once', async (t) => {
  const { transport, ask, chat } = await open(t);
  const client = await chat('acme', 's1');
  const twice = task('t1', { payload: { agent_name: 'Guide' } });
  await transport.send(TASKS, twice, 'json');
  await transport.send(TASKS, twice, 'json');
  await transport.send(TASKS, task('t2', { payload: { agent_name: 'Other' } }), 'json');
  await ended(client, 't2');

  const { body: agents } = await ask('/api/agents?q=guide');
  assert.equal(agents.total, 1);
  const ends = client.of('t1').filter(({ type }) => type === 'task_completed');
  assert.equal(ends.length, 1);
});

test('a tenant nobody has heard of is served; what is malformed, or another’s, is dead', async (t) => {
  const { transport, ask } = await open(t);
  const created = { tenant_id: 'brand-new', payload: { agent_id: 'a1', agent_name: 'First' } };
  await transport.send(managementQueue('tasks', 'brand-new'), task('t1', created), 'json');
  const found = async () => (await ask('/api/agents/a1', { tenant: 'brand-new' })).status === 200;
  await until('the agent', found);

  transport.push(TASKS, Buffer.from('{"task_id":"t2"'));
  await transport.send(TASKS, task('t3', created), 'json');
  await until('the dead', async () => (await transport.dead.list(TASKS, 9)).length === 2);
  const codes = (await transport.dead.list(TASKS, 9)).map(({ error }) => error.code);
  assert.deepEqual(codes.toSorted(), ['FORBIDDEN', 'INVALID_REQUEST']);
  assert.equal((await ask('/api/agents/a1')).status, 404);
});

test('whoever reads the tenant’s notifications hears of every change', async (t) => {
  const { transport, ask } = await open(t);
  const heard = collecting();
  await transport.consume(
    [tierSubscription(managementQueue('notifications', 'acme'), 'free')],
    heard.listener,
    {
      credits: 1,
      read: (raw) => ({ ok: true, idGiven: false, action: action(1, { data: { raw } }) }),
    },
  );
  const { body: agent } = await ask('/api/agents', { body: { name: 'Guide' } });
  await heard.heard(1);
  assert.match(JSON.stringify(heard.deliveries[0]?.action.data), /"event":"agent_created"/);
  assert.match(JSON.stringify(heard.deliveries[0]?.action.data), new RegExp(agent.id));
});
