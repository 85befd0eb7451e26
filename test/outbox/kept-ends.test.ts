/** Ends that the store could not take: kept in order and within bounds, written when it can, and never twice. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createKeptEnds, type KeptEndLimits } from '../../src/outbox/kept-ends.ts';
import { createRelay } from '../../src/outbox/relay.ts';
import type { Store, Write } from '../../src/ports/store.ts';
import { unavailable } from '../../src/store/failure.ts';
import { accept, answer, contents, named, page, taskOf, tenantOf } from '../store/records.ts';
import { collectingLog } from '../support/quiet.ts';
import { memoryStore, storeBehind } from '../support/stores.ts';
import { until } from '../support/until.ts';
import { fakeTransport, handReplies, outgoing, QUICK } from './relay-fixtures.ts';

/** A real store behind a switch; `asked` is what it was given while it was on. */
function scene(t: TestContext, limits: Partial<KeptEndLimits> = {}) {
  const state = { out: false, asked: [] as string[], answersAreLost: false };
  const inner = memoryStore();
  const behind = storeBehind(inner, (_, write) => {
    if (state.out) throw unavailable('out');
    if (write?.type === 'turn-ended') state.asked.push(write.turn.taskId);
  });
  const commit = async (write: Write) => {
    const outcome = await behind.commit(write);
    if (state.answersAreLost && write.type === 'turn-ended') throw unavailable('the answer was lost');
    return outcome;
  };
  const log = collectingLog();
  const store: Store = { ...behind, commit };
  const ends = createKeptEnds({ store, log, limits: { retryMs: 5, closeMs: 20, ...limits } });
  t.after(() => ends.close());
  const queues = fakeTransport();
  const { spec, replyOf } = handReplies();
  const relay = createRelay({ store, ends, transport: queues.transport, log, timing: QUICK, replyOf });
  t.after(() => relay.close());
  return { state, ends, relay, queues, store: relay.store, lines: log.lines, spec };
}

test('ends that come while the store is out are written in order once it is back', async (t) => {
  const { state, ends, store, lines } = scene(t, { chunk: 2 });
  const names = ['t1', 't2', 't3', 't4', 't5'].map((id) => named(id));
  for (const name of names) await accept(store, name);
  state.out = true;
  const outcomes = names.map((name) => answer(store, name, `answer of ${name.task}`));
  await until('all wait', () => ends.stats().waiting === 5);
  state.out = false;
  assert.deepEqual(await Promise.all(outcomes), Array(5).fill('stored'));
  assert.deepEqual(state.asked, ['t1', 't2', 't3', 't4', 't5']);
  assert.deepEqual(ends.stats(), { waiting: 0, bytes: 0, lost: 0 });
  assert.equal(contents(await page(store, named('t1')))?.at(-1), 'answer of t5');
  assert.deepEqual(
    lines.map(({ text }) => text),
    ['ends of turns wait for the store', 'all ends that waited are stored'],
  );
});

test('an end that was stored though the store did not say so is stored, and not twice', async (t) => {
  const { state, store } = scene(t);
  await accept(store, named('t1'));
  state.answersAreLost = true;
  const outcome = answer(store, named('t1'));
  await until('it was tried', () => state.asked.length > 1);
  state.answersAreLost = false;
  assert.equal(await outcome, 'stored');
  assert.equal(await answer(store, named('t1'), 'another'), 'duplicate');
  assert.deepEqual(contents(await page(store, named('t1'))), ['ask t1', 'say t1']);
});

test('what waits is bounded in bytes and number: beyond, an end is lost, said so, and stored as failed where it can', async (t) => {
  const { state, ends, store, lines } = scene(t, { maxWrites: 4, maxBytes: 12_000 });
  const names = ['t1', 't2', 't3', 't4', 't5'].map((id) => named(id));
  for (const name of names) await accept(store, name);
  state.out = true;
  const first = answer(store, named('t1'));
  await until('it waits', () => ends.stats().waiting === 1);
  await assert.rejects(answer(store, named('t2'), 'x'.repeat(20_000)), /Too many ends/);
  const others = ['t3', 't4'].map((id) => answer(store, named(id)));
  await assert.rejects(answer(store, named('t5')), /Too many ends/);
  assert.equal(ends.stats().waiting, 4);
  assert.equal(ends.stats().lost, 2);
  assert.ok(ends.stats().bytes <= 14_000);
  state.out = false;
  await Promise.all([first, ...others]);
  await until('all is written', () => ends.stats().waiting === 0);

  const turns = await Promise.all(names.map((name) => store.turn(tenantOf(name), taskOf(name))));
  assert.deepEqual(
    turns.map((turn) => turn?.status),
    ['completed', 'failed', 'completed', 'completed', 'processing'],
  );
  assert.equal(turns[1]?.error?.code, 'STORE_UNAVAILABLE');
  assert.deepEqual(
    lines.filter(({ level }) => level === 'error').map(({ fields }) => 'task_id' in fields && fields.task_id),
    ['t2', 't5'],
  );
});

test('an end that waits is what is told of its turn, while the others are read from the store', async (t) => {
  const { state, store, ends } = scene(t);
  for (const name of [named('t1'), named('t2')]) await accept(store, name);
  state.out = true;
  const outcome = answer(store, named('t1'));
  await until('it waits', () => ends.stats().waiting === 1);
  assert.equal((await store.turn(tenantOf(named('t1')), taskOf(named('t1'))))?.status, 'completed');
  await assert.rejects(store.turn(tenantOf(named('t2')), taskOf(named('t2'))), /out/);
  const other = named('t1', 's1', 'other');
  await assert.rejects(store.turn(tenantOf(other), taskOf(other)), /out/);
  state.out = false;
  await outcome;
});

test('beginnings are refused at once, an end that the store will never take fails, and closing ends the waiting', async (t) => {
  const { state, store, ends, lines } = scene(t);
  await accept(store, named('t1'));
  state.out = true;
  await assert.rejects(accept(store, named('t2')), /out/);
  const waiting = assert.rejects(answer(store, named('t1')), /closed/);
  await until('it waits', () => ends.stats().waiting === 1);
  await ends.close();
  await waiting;
  await assert.rejects(answer(store, named('t1')), /out/);
  assert.equal(ends.stats().lost, 1);
  assert.equal(lines.at(-1)?.text, 'the end of a turn was lost');
});

for (const how of ['refused', 'stored, and the answer lost'] as const)
  test(`a reply is written with its end and sent once, behind those before it: ${how}`, async (t) => {
    const { state, store, ends, relay, queues, spec } = scene(t);
    relay.start();
    const names = [named('t1'), named('t2')];
    for (const name of names) await accept(store, name);
    const replies = names.map(({ task }, index) => spec(task, () => outgoing(index + 1)));
    const states = () => names.map((name) => relay.replied(tenantOf(name), name.task)?.state);
    state.out = how === 'refused';
    state.answersAreLost = how !== 'refused';
    const outcomes = names.map((name, at) => answer(store, name, 'four', replies.slice(at, at + 1)));
    await until('both wait', () => ends.stats().waiting === 2);
    const refused = how === 'refused' ? relay.write([outgoing(3)]) : undefined;
    if (refused) await assert.rejects(refused, /out/);
    assert.deepEqual([queues.arrived('q'), states()], [[], ['storing', 'storing']]);
    state.out = false;
    state.answersAreLost = false;
    assert.deepEqual(await Promise.all(outcomes), ['stored', 'stored']);
    await relay.write([outgoing(4)]);
    await until('all are sent', () => queues.arrived('q').length >= 3);
    assert.deepEqual(queues.arrived('q'), [1, 2, 4]);
    assert.deepEqual(states(), ['stored', 'stored']);
  });
