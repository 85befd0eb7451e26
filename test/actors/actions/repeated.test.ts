/** Actions that come twice, and what fails under them: each is done once and answered alike, or given back. */
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
import { ACME, BACK, envelope, idOf, openDesk, run, task, WORK } from './action-node.ts';

test('a new run asks the store nothing that is only for repetitions', async (t) => {
  const world = await openDesk(t);
  world.push(run('a1', 'hi', { session_id: 's1' }));
  await world.reply();
  assert.equal(world.reads.filter((what) => what === 'answered').length, 0);
});

test('an action that comes again is run once, and answered with the same reply', async (t) => {
  const world = await openDesk(t);
  world.push(run('a1', 'wait'));
  world.push(run('a1', 'wait'));
  await world.script.ran(1);
  world.push(run('a1', 'wait'));
  world.script.open();
  const first = await world.reply(0);
  await world.reply(2);
  world.push(run('a1', 'wait'));
  await world.reply(3);
  for (const again of world.replies()) assert.deepEqual(again, first);
  assert.equal(world.script.plans.length, 1);

  world.push({ ...run('a1', 'wait', { callback_queue: 'caller:other' }), correlation_id: 'c2' });
  const elsewhere = await world.read('caller:other');
  await elsewhere.heard(1);
  const moved = elsewhere.deliveries[0]?.action;
  assert.deepEqual([moved?.action_id, moved?.correlation_id], [first.action_id, 'c2']);
  assert.equal(world.script.plans.length, 1);
});

test('who did not want an answer at first can have it later', async (t) => {
  const world = await openDesk(t);
  world.push(run('a1', 'hi', { callback_queue: null }));
  await world.script.ran(1);
  await until('what is remembered', async () => (await world.store.answered(ACME, 'a1')) !== null);
  world.push(run('a1', 'hi'));
  assert.equal((await world.reply()).data.response, 'echo: hi');
  assert.equal(world.script.plans.length, 1);
});

test('without an action_id nothing is deduplicated, with a task_id its turn is', async (t) => {
  const world = await openDesk(t);
  const anonymous = run('', 'hi', { action_id: null });
  world.push(anonymous);
  world.push(anonymous);
  await world.reply(1);
  assert.equal(world.script.plans.length, 2);
  for (const id of ['b1', 'b2']) world.push(run(id, 'hi', { task_id: 't1', session_id: 's1' }));
  await world.reply(3);
  world.push(run('b3', 'hi', { task_id: 't1' }));
  const third = await world.reply(4);
  assert.equal(world.script.plans.length, 3);
  assert.deepEqual([third.action_id, third.session_id, third.task_id], [idOf('b3', 'reply'), 's1', 't1']);
});

test('ids of another tenant are other ids', async (t) => {
  const world = await openDesk(t);
  world.push(run('a1', 'mine', { task_id: 't1', session_id: 's1' }));
  await world.reply(0);
  world.push(run('a1', 'theirs', { task_id: 't1', session_id: 's1', tenant_id: 'globex' }));
  const theirs = await world.reply(1);
  assert.deepEqual([theirs.tenant_id, theirs.data.response], ['globex', 'echo: theirs']);
  assert.equal(world.script.plans.at(-1)?.history.length, 1);
  assert.equal(await world.store.answered(tenantIdSchema.parse('initech'), 'a1'), null);
});

test('while the store is away a run waits, and is answered when it is back', async (t) => {
  const world = await openDesk(t);
  world.weather.store = 'down';
  world.push(run('a1', 'hi'));
  await until('several tries', () => world.reads.filter((what) => what === 'tenant').length >= 2);
  assert.deepEqual(world.replies(), []);
  world.weather.store = 'up';
  assert.equal((await world.reply()).data.status, 'success');
  assert.deepEqual(await world.transport.dead.queues(), []);
});

test('an end that the store does not take is told all the same, and a cancel needs no store', async (t) => {
  const world = await openDesk(t);
  world.weather.store = 'no ends';
  world.push(run('a1', 'hi'));
  const reply = await world.reply();
  assert.deepEqual([reply.action_id, reply.data.error_code], [idOf('a1', 'reply'), 'STORE_UNAVAILABLE']);
  world.weather.store = 'up';
  world.push(run('a1', 'hi'));
  assert.deepEqual(await world.reply(1), reply, 'its turn looks as if it ran for ever, but it was answered');

  world.push(run('a2', 'wait', { task_id: 't2' }));
  await world.script.ran(2);
  await until('it is kept', async () => (await world.store.turn(ACME, task('t2'))) !== null);
  world.weather.store = 'down';
  world.push({ ...envelope('execution.cancel', 'c1'), callback_queue: BACK, data: { task_id: 't2' } });
  const cancelled = [await world.reply(2), await world.reply(3)];
  assert.ok(cancelled.some(({ action_id }) => action_id === idOf('c1', 'cancelled')));
});

test('a tier that does not wait for the store is answered, too', async (t) => {
  const tiers = { ...TIER_TABLE, professional: { ...TIER_TABLE.professional, wait_for_persistence: false } };
  const world = await openDesk(t, { tiers });
  world.push(run('a1', 'hi'));
  const first = await world.reply();
  assert.equal(first.data.response, 'echo: hi');
  await until('what is remembered', async () => (await world.store.answered(ACME, 'a1')) !== null);
  world.push(run('a1', 'hi'));
  assert.equal((await world.reply(1)).action_id, first.action_id);
  assert.equal(world.script.plans.length, 1);
});

test('while the transport is away kept answers wait, and what can not be answered is given back', async (t) => {
  const world = await openDesk(t);
  world.weather.transport = 'down';
  world.push(run('a1', 'hi'));
  await until('it is kept', async () => (await world.store.answered(ACME, 'a1')) !== null);
  world.push({ ...envelope('chat.status', 'q1'), task_id: 'a1', callback_queue: BACK });
  await until('it was asked for', () => world.reads.filter((what) => what === 'turn').length >= 5);
  world.weather.transport = 'up';
  const types = [(await world.reply(0)).action_type, (await world.reply(1)).action_type];
  assert.deepEqual(types.toSorted(), ['chat.status.response', 'execution.callback']);
  assert.deepEqual(await world.transport.dead.queues(), [], 'that was not its fault');
});

test('a cancel that comes again is answered as before', async (t) => {
  const world = await openDesk(t);
  world.push(run('a1', 'wait', { task_id: 't1' }));
  await world.script.ran(1);
  await until('it is kept', async () => (await world.store.turn(ACME, task('t1'))) !== null);
  const cancel = { ...envelope('execution.cancel', 'c1'), callback_queue: BACK, data: { task_id: 't1' } };
  world.push(cancel);
  await world.reply(1);
  world.push(cancel);
  await world.reply(2);
  const answers = world.replies().filter(({ action_id }) => action_id === idOf('c1', 'cancelled'));
  assert.equal(answers.length, 2);
  assert.deepEqual(answers[0], answers[1]);
});

test('what ran when a node died is run by the next one, unless it may have done what must not be done twice', async (t) => {
  const before = await openDesk(t);
  before.push(run('a1', 'wait'));
  before.push(run('a2', 'effects'));
  await before.script.ran(2);
  await until('both are kept', async () => {
    const turns = [await before.store.turn(ACME, task('a1')), await before.store.turn(ACME, task('a2'))];
    return turns.every((turn) => turn !== null) && before.script.deeds() === 1;
  });
  await before.die();
  assert.deepEqual(before.replies(), []);
  const { store, transport } = before;
  const after = await openDesk(t, { store, transport, start: false });
  after.script.open();
  await after.desk.start();
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

test('a node that closes at once gives back what runs, and its turn’s end is the answer', async (t) => {
  const before = await openDesk(t);
  before.push(run('a1', 'wait'));
  await before.script.ran(1);
  await until('it is kept', async () => (await before.store.turn(ACME, task('a1'))) !== null);
  await before.close();
  const { store, transport } = before;
  const after = await openDesk(t, { store, transport });
  await until('the answer', () => before.replies().length + after.replies().length === 1);
  const [reply] = [...before.replies(), ...after.replies()];
  assert.deepEqual([reply?.action_id, reply?.data.error_code], [idOf('a1', 'reply'), 'INTERRUPTED']);
  assert.equal(after.script.plans.length, 0);
});

test('a node that drains finishes what runs, and gives back what waits for a better moment', async (t) => {
  const world = await openDesk(t);
  world.push(run('a1', 'wait'));
  await world.script.ran(1);
  await until('it is kept', async () => (await world.store.turn(ACME, task('a1'))) !== null);
  world.weather.store = 'down';
  world.push(run('a2', 'hi', { tenant_id: 'globex' }));
  await until('it waits', () => world.reads.filter((what) => what === 'tenant').length >= 2);
  world.desk.drain();
  world.weather.store = 'up';
  world.script.open();
  assert.equal((await world.reply()).action_id, idOf('a1', 'reply'));
  await world.close();
  assert.equal(world.replies().length, 1);
  const left = await world.read(WORK);
  await left.heard(1);
  assert.equal(left.deliveries[0]?.action.action_id, 'a2');
});

test('whoever waits for an action that made its receiver fail is told', async (t) => {
  const world = await openDesk(t, {
    directory: {
      cancel: async () => {
        throw new Error('canary');
      },
    },
  });
  world.push({ ...envelope('execution.cancel', 'c1'), callback_queue: BACK, task_id: 't1' });
  const reply = await world.reply();
  assert.deepEqual(
    [reply.action_type, reply.action_id, reply.task_id],
    ['execution.error', idOf('c1', 'dead'), 't1'],
  );
  assert.equal(reply.data.error, refusal('INTERNAL').message);
  await world.dead(1);
  assert.equal(await world.store.answered(ACME, 'c1'), null, 'it may be sent anew');
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
  const world = await openDesk(t, { transport, put });
  const body = run('a1', 'hi');
  world.push(body);
  const first = await world.reply(0);
  const parsed = parseDomainAction(body, Date.now(), () => 'none');
  assert.ok(parsed.ok && onDead);
  onDead({ action: parsed.action, idGiven: true, format: 'json', queue: WORK }, refusal('POISON'));
  assert.deepEqual(await world.reply(1), first);
});
