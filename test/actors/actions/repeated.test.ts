/** Actions that come twice, and what fails under them: each is performed once and answered alike, or requeued. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseDomainAction } from '../../../src/domain/domain-action.ts';
import { refusal } from '../../../src/domain/errors.ts';
import { tenantIdSchema } from '../../../src/domain/ids.ts';
import { TIER_TABLE } from '../../../src/domain/tiers.ts';
import type { ConsumeOptions } from '../../../src/ports/transport.ts';
import { createMemoryTransport, type MemoryTransport } from '../../../transports/queue/memory.ts';
import { quiet } from '../../support/quiet.ts';
import { counting, queue } from '../../support/transport.ts';
import { until } from '../../support/until.ts';
import { ACME, BACK, envelope, idOf, openActionNode, run, task, WORK } from './action-node.ts';

test('a new run asks the store nothing that is only for repetitions', async (t) => {
  const node = await openActionNode(t);
  node.push(run('a1', 'hi', { session_id: 's1' }));
  await node.reply();
  assert.equal(node.reads.filter((what) => what === 'answered').length, 0);
});

test('a repeated action is run once, and answered with the same reply', async (t) => {
  const node = await openActionNode(t);
  node.push(run('a1', 'wait'));
  node.push(run('a1', 'wait'));
  await node.script.ran(1);
  node.push(run('a1', 'wait'));
  node.script.open();
  const first = await node.reply(0);
  await node.reply(2);
  node.push(run('a1', 'wait'));
  await node.reply(3);
  for (const repeated of node.replies()) assert.deepEqual(repeated, first);
  assert.equal(node.script.plans.length, 1);

  node.push({ ...run('a1', 'wait', { callback_queue: 'caller:other' }), correlation_id: 'c2' });
  const elsewhere = await node.read('caller:other');
  await elsewhere.heard(1);
  const moved = elsewhere.deliveries[0]?.action;
  assert.deepEqual([moved?.action_id, moved?.correlation_id], [first.action_id, 'c2']);
  assert.equal(node.script.plans.length, 1);
});

test('who did not want an answer at first can have it later', async (t) => {
  const node = await openActionNode(t);
  node.push(run('a1', 'hi', { callback_queue: null }));
  await node.script.ran(1);
  await until('what is remembered', async () => (await node.store.answered(ACME, 'a1')) !== null);
  node.push(run('a1', 'hi'));
  assert.equal((await node.reply()).data.response, 'echo: hi');
  assert.equal(node.script.plans.length, 1);
});

test('without an action_id nothing is deduplicated, with a task_id its turn is', async (t) => {
  const node = await openActionNode(t);
  const anonymous = run('', 'hi', { action_id: null });
  node.push(anonymous);
  node.push(anonymous);
  await node.reply(1);
  assert.equal(node.script.plans.length, 2);
  for (const id of ['b1', 'b2']) node.push(run(id, 'hi', { task_id: 't1', session_id: 's1' }));
  await node.reply(3);
  node.push(run('b3', 'hi', { task_id: 't1' }));
  const third = await node.reply(4);
  assert.equal(node.script.plans.length, 3);
  assert.deepEqual([third.action_id, third.session_id, third.task_id], [idOf('b3', 'reply'), 's1', 't1']);
});

test('ids of another tenant are other ids', async (t) => {
  const node = await openActionNode(t);
  node.push(run('a1', 'mine', { task_id: 't1', session_id: 's1' }));
  await node.reply(0);
  node.push(run('a1', 'theirs', { task_id: 't1', session_id: 's1', tenant_id: 'globex' }));
  const theirs = await node.reply(1);
  assert.deepEqual([theirs.tenant_id, theirs.data.response], ['globex', 'echo: theirs']);
  assert.equal(node.script.plans.at(-1)?.history.length, 1);
  assert.equal(await node.store.answered(tenantIdSchema.parse('initech'), 'a1'), null);
});

test('while the store is away a run waits, and is answered when it is back', async (t) => {
  const node = await openActionNode(t);
  node.weather.store = 'down';
  node.push(run('a1', 'hi'));
  await until('several tries', () => node.reads.filter((what) => what === 'tenant').length >= 2);
  assert.deepEqual(node.replies(), []);
  node.weather.store = 'up';
  assert.equal((await node.reply()).data.status, 'success');
  assert.deepEqual(await node.transport.dead.queues(), []);
});

test('an end that the store does not take is answered all the same, and a cancel needs no store', async (t) => {
  const node = await openActionNode(t);
  node.weather.store = 'no ends';
  node.push(run('a1', 'hi'));
  const reply = await node.reply();
  assert.deepEqual([reply.action_id, reply.data.error_code], [idOf('a1', 'reply'), 'STORE_UNAVAILABLE']);
  node.weather.store = 'up';
  node.push(run('a1', 'hi'));
  assert.deepEqual(await node.reply(1), reply, 'its turn looks as if it ran for ever, but it was answered');

  node.push(run('a2', 'wait', { task_id: 't2' }));
  await node.script.ran(2);
  await until('it is stored', async () => (await node.store.turn(ACME, task('t2'))) !== null);
  node.weather.store = 'down';
  node.push({ ...envelope('execution.cancel', 'c1'), callback_queue: BACK, data: { task_id: 't2' } });
  const cancelled = [await node.reply(2), await node.reply(3)];
  assert.ok(cancelled.some(({ action_id }) => action_id === idOf('c1', 'cancelled')));
});

test('a tier that does not wait for the store is answered, too', async (t) => {
  const tiers = { ...TIER_TABLE, professional: { ...TIER_TABLE.professional, wait_for_persistence: false } };
  const node = await openActionNode(t, { tiers });
  node.push(run('a1', 'hi'));
  const first = await node.reply();
  assert.equal(first.data.response, 'echo: hi');
  await until('what is remembered', async () => (await node.store.answered(ACME, 'a1')) !== null);
  node.push(run('a1', 'hi'));
  assert.equal((await node.reply(1)).action_id, first.action_id);
  assert.equal(node.script.plans.length, 1);
});

test('while the transport is away stored answers wait, and what can not be answered is requeued', async (t) => {
  const node = await openActionNode(t);
  node.weather.transport = 'down';
  node.push(run('a1', 'hi'));
  await until('it is stored', async () => (await node.store.answered(ACME, 'a1')) !== null);
  node.push({ ...envelope('chat.status', 'q1'), task_id: 'a1', callback_queue: BACK });
  await until('it was asked for', () => node.reads.filter((what) => what === 'turn').length >= 5);
  node.weather.transport = 'up';
  const types = [(await node.reply(0)).action_type, (await node.reply(1)).action_type];
  assert.deepEqual(types.toSorted(), ['chat.status.response', 'execution.callback']);
  assert.deepEqual(await node.transport.dead.queues(), [], 'that was not its fault');
});

test('a repeated cancel is answered as before', async (t) => {
  const node = await openActionNode(t);
  node.push(run('a1', 'wait', { task_id: 't1' }));
  await node.script.ran(1);
  await until('it is stored', async () => (await node.store.turn(ACME, task('t1'))) !== null);
  const cancel = { ...envelope('execution.cancel', 'c1'), callback_queue: BACK, data: { task_id: 't1' } };
  node.push(cancel);
  await node.reply(1);
  node.push(cancel);
  await node.reply(2);
  const answers = node.replies().filter(({ action_id }) => action_id === idOf('c1', 'cancelled'));
  assert.equal(answers.length, 2);
  assert.deepEqual(answers[0], answers[1]);
});

test('what ran when a node died is run by the next one, unless it may have done what must not be done twice', async (t) => {
  const before = await openActionNode(t);
  before.push(run('a1', 'wait'));
  before.push(run('a2', 'effects'));
  await before.script.ran(2);
  await until('both are stored', async () => {
    const turns = [await before.store.turn(ACME, task('a1')), await before.store.turn(ACME, task('a2'))];
    return turns.every((turn) => turn !== null) && before.script.operations() === 1;
  });
  await before.die();
  assert.deepEqual(before.replies(), []);
  const { store, transport } = before;
  const after = await openActionNode(t, { store, transport, start: false });
  after.script.open();
  await after.worker.start();
  await until('both answers', () => before.replies().length + after.replies().length === 2);
  const replies = new Map([...before.replies(), ...after.replies()].map((reply) => [reply.action_id, reply]));
  assert.equal(replies.get(idOf('a1', 'reply'))?.data.response, 'echo: wait');
  assert.equal(
    replies.get(idOf('a2', 'reply'))?.data.error_code,
    'INTERRUPTED',
    'it may have done what must not be done twice',
  );
  assert.equal(after.script.plans.length, 1);
  assert.deepEqual(await transport.dead.queues(), []);
});

test('a node that closes at once requeues what runs, and its turn’s end is the answer', async (t) => {
  const before = await openActionNode(t);
  before.push(run('a1', 'wait'));
  await before.script.ran(1);
  await until('it is stored', async () => (await before.store.turn(ACME, task('a1'))) !== null);
  await before.close();
  const { store, transport } = before;
  const after = await openActionNode(t, { store, transport });
  await until('the answer', () => before.replies().length + after.replies().length === 1);
  const [reply] = [...before.replies(), ...after.replies()];
  assert.deepEqual([reply?.action_id, reply?.data.error_code], [idOf('a1', 'reply'), 'INTERRUPTED']);
  assert.equal(after.script.plans.length, 0);
});

test('a node that drains finishes what runs, and requeues what waits for a better moment', async (t) => {
  const node = await openActionNode(t);
  node.push(run('a1', 'wait'));
  await node.script.ran(1);
  await until('it is stored', async () => (await node.store.turn(ACME, task('a1'))) !== null);
  node.weather.store = 'down';
  node.push(run('a2', 'hi', { tenant_id: 'globex' }));
  await until('it waits', () => node.reads.filter((what) => what === 'tenant').length >= 2);
  node.worker.drain();
  node.weather.store = 'up';
  node.script.open();
  assert.equal((await node.reply()).action_id, idOf('a1', 'reply'));
  await node.close();
  assert.equal(node.replies().length, 1);
  const left = await node.read(WORK);
  await left.heard(1);
  assert.equal(left.deliveries[0]?.action.action_id, 'a2');
});

test('whoever waits for an action that made its receiver fail is answered', async (t) => {
  const node = await openActionNode(t, {
    directory: {
      cancel: async () => {
        throw new Error('canary');
      },
    },
  });
  node.push({ ...envelope('execution.cancel', 'c1'), callback_queue: BACK, task_id: 't1' });
  const reply = await node.reply();
  assert.deepEqual(
    [reply.action_type, reply.action_id, reply.task_id],
    ['execution.error', idOf('c1', 'dead'), 't1'],
  );
  assert.equal(reply.data.error, refusal('INTERNAL').message);
  await node.dead(1);
  assert.equal(await node.store.answered(ACME, 'c1'), null, 'it may be sent anew');
});

test('what was answered before it died is answered alike once more, and not contradicted', async (t) => {
  const inner = createMemoryTransport(quiet, counting());
  let onDead: ConsumeOptions['onDead'];
  const transport: MemoryTransport = {
    ...inner,
    consume(lanes, listener, options) {
      onDead ??= options.onDead;
      return inner.consume(lanes, listener, options);
    },
  };
  const put = (name: string, text: string) => inner.push(queue(name), Buffer.from(text));
  const node = await openActionNode(t, { transport, put });
  const body = run('a1', 'hi');
  node.push(body);
  const first = await node.reply(0);
  const parsed = parseDomainAction(body, Date.now(), () => 'none');
  assert.ok(parsed.ok && onDead);
  onDead({ action: parsed.action, idGiven: true, format: 'json', queue: WORK }, refusal('POISON'));
  assert.deepEqual(await node.reply(1), first);
});
