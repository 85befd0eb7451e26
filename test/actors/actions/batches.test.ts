/** Batches off the work queues: a reply for each item, one for all, and repeated batches. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TIER_TABLE } from '../../../src/domain/tiers.ts';
import { until } from '../../support/until.ts';
import { ACME, BACK, envelope, idOf, openActionNode, task, WORK } from './action-node.ts';

const batch = (id: string, items: readonly object[], more: object = {}) => ({
  ...envelope('execution.batch', id),
  callback_queue: BACK,
  trace_id: 'tr',
  data: { items },
  ...more,
});

test('each item is answered by itself, and then all of them together', async (t) => {
  const node = await openActionNode(t);
  const items = [
    { input: 'one' },
    { message: 'two', task_id: 'own', session_id: 's2', agent_id: null },
    { input: 'fail:MODEL_ERROR' },
    { input: 'four', agent_id: 'nobody' },
  ];
  node.push(batch('b1', items, { task_id: 't1', agent_id: 'a1' }));
  await node.reply(4);
  const replies = node.replies();
  const last = replies.at(-1);
  assert.equal(last?.action_type, 'execution.batch_completed');
  assert.deepEqual([last?.action_id, last?.task_id, last?.trace_id], [idOf('b1', 'completed'), 't1', 'tr']);
  const { task_id, total, completed, failed, items: ends } = last?.data ?? {};
  assert.deepEqual(
    { task_id, total, completed, failed, ends },
    {
      task_id: 't1',
      total: 4,
      completed: 2,
      failed: 2,
      ends: [
        { task_id: 't1:0', status: 'success' },
        { task_id: 'own', status: 'success' },
        { task_id: 't1:2', status: 'failed' },
        { task_id: 't1:3', status: 'failed' },
      ],
    },
  );
  const answers = replies
    .slice(0, 4)
    .map(({ action_id, task_id: id, session_id, data }) => [
      action_id,
      id,
      session_id,
      data.index,
      data.response ?? data.error_code,
    ]);
  assert.deepEqual(
    answers.toSorted((a, b) => Number(a[3]) - Number(b[3])),
    [
      [idOf('b1', 'reply.0'), 't1:0', 'execution-t1:0', 0, 'echo: one'],
      [idOf('b1', 'reply.1'), 'own', 's2', 1, 'echo: two'],
      [idOf('b1', 'reply.2'), 't1:2', 'execution-t1:2', 2, 'MODEL_ERROR'],
      [idOf('b1', 'reply.3.refused'), 't1:3', 'execution-t1:3', 3, 'AGENT_NOT_FOUND'],
    ],
  );
  assert.equal(node.script.plans.find(({ taskId }) => taskId === task('t1:0'))?.agent.id, 'a1');

  node.push(batch('b1', items, { task_id: 't1', agent_id: 'a1' }));
  await node.reply(9);
  assert.deepEqual(
    node
      .replies()
      .slice(5)
      .map(({ action_id }) => action_id)
      .toSorted(),
    replies.map(({ action_id }) => action_id).toSorted(),
  );
  assert.equal(node.script.plans.length, 3, 'nothing runs twice');
});

test('items begin a few at a time, and one that a limit refuses is started again', async (t) => {
  const tiers = { ...TIER_TABLE, free: { ...TIER_TABLE.free, executions: 1, waiting: 0 } };
  const node = await openActionNode(t, { tiers });
  const items = Array.from({ length: 3 }, (_, n) => ({ input: n === 0 ? 'wait' : `item ${n}` }));
  node.push(batch('b1', items, { tenant_tier: 'free', data: { items, concurrency: 3 } }));
  await node.script.ran(1);
  node.script.open();
  await node.reply(3);
  assert.deepEqual([node.replies().at(-1)?.data.completed, node.script.plans.length], [3, 3]);
});

test('a batch that was interrupted goes on with the next node, and no item runs twice', async (t) => {
  const before = await openActionNode(t);
  const items = [{ input: 'done' }, { input: 'wait' }, { input: 'later' }];
  before.push(batch('b1', items, { task_id: 't1', data: { items, concurrency: 1 } }));
  await before.script.ran(2);
  await until('the second is stored', async () => (await before.store.turn(ACME, task('t1:1'))) !== null);
  await before.reply(0);
  await before.die();

  const { store, transport } = before;
  const after = await openActionNode(t, { store, transport, start: false });
  after.script.open();
  await after.worker.start();
  const all = () => [...before.replies(), ...after.replies()];
  const last = () => all().find(({ action_type }) => action_type === 'execution.batch_completed');
  await until('its end', () => last() !== undefined);
  assert.equal(last()?.data.completed, 3);
  assert.deepEqual(
    after.script.plans.map(({ taskId }) => taskId),
    ['t1:1', 't1:2'],
  );
  // What was answered before may be sent again: it has the same id.
  const ids = new Set(all().map(({ action_id }) => action_id));
  const expected = ['completed', 'reply.0', 'reply.1', 'reply.2'].map((name) => idOf('b1', name));
  assert.deepEqual(ids, new Set(expected));
  assert.deepEqual(await transport.dead.queues(), []);
});

test('a batch that nobody waits for runs, and says so when it is repeated', async (t) => {
  const node = await openActionNode(t);
  const items = [{ input: 'one' }, { input: 'two' }];
  node.push(batch('b1', items, { callback_queue: null }));
  await until('it is remembered', async () => (await node.store.answered(ACME, 'b1')) !== null);
  node.push(batch('b1', items, { callback_queue: null }));
  await node.settled();
  assert.equal(node.script.plans.length, 2);
  assert.deepEqual(node.replies(), []);
});

test('a batch that nobody waited for is answered once it is repeated by somebody who does', async (t) => {
  const node = await openActionNode(t);
  const items = [{ input: 'one' }, { input: 'two', agent_id: 'nobody' }];
  const unasked = { callback_queue: null, task_id: 't1', data: { items, concurrency: 1 } };
  node.push(batch('b1', items, unasked));
  await until('it is remembered', async () => (await node.store.answered(ACME, 'b1')) !== null);
  node.push(batch('b1', items, { ...unasked, callback_queue: BACK }));
  await node.reply(2);
  await node.settled();
  const answers = node.replies().map(({ data }) => data.response ?? data.error_code ?? data.items);
  assert.deepEqual(answers, [
    'echo: one',
    'AGENT_NOT_FOUND',
    [
      { task_id: 't1:0', status: 'success' },
      { task_id: 't1:1', status: 'failed' },
    ],
  ]);
  assert.equal(node.script.plans.length, 1, 'nothing runs twice');
});

test('a batch whose items wait for a limit is requeued when the node goes', async (t) => {
  const tiers = { ...TIER_TABLE, free: { ...TIER_TABLE.free, requests_per_minute: 1 } };
  const node = await openActionNode(t, { tiers });
  node.push(batch('b1', [{ input: 'one' }, { input: 'two' }], { tenant_tier: 'free' }));
  await node.reply(0);
  await node.close();
  assert.equal(node.replies().length, 1);
  const left = await node.read(WORK);
  await left.heard(1);
  assert.equal(left.deliveries[0]?.action.action_id, 'b1');
});
