/** The outbox relay while the transport, the store, or the process itself fails: nothing is lost, order is kept. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import { createLines, MAX_LAGGING } from '../../src/outbox/lines.ts';
import { RELAY_TIMING } from '../../src/outbox/sender.ts';
import type { Store, Unsent } from '../../src/ports/store.ts';
import { leakFree } from '../support/leaks.ts';
import { collectingLog } from '../support/quiet.ts';
import { memoryStore } from '../support/stores.ts';
import { gate } from '../support/transport.ts';
import { loopTurns, until } from '../support/until.ts';
import {
  comeBack,
  firsts,
  goAway,
  memoryQueue,
  numbers,
  openRelay,
  outgoing,
  relayOver,
  storeAway,
  unsentIn,
  watchedStore,
} from './relay-fixtures.ts';

test('while the transport is away all is kept; once it is back all is sent, in order', async (t) => {
  const { fake, watched, log, start } = openRelay(t);
  const relay = start();
  await relay.write([outgoing(0)]);
  await until('the first', () => fake.arrived('q').length === 1);
  goAway(fake);
  for (const n of numbers(1, 20)) await relay.write([outgoing(n), outgoing(n, 'r')]);
  const calls = fake.calls();
  await until('some more tries', () => fake.calls() > calls + 3);
  comeBack(fake);
  await Promise.all(numbers(20, 40).map((n) => relay.write([outgoing(n), outgoing(n, 'r')])));
  await until('all', () => fake.arrived('q').length >= 40 && fake.arrived('r').length >= 39);
  await until('the acknowledgements', async () => (await unsentIn(watched.store)).length === 0);

  assert.deepEqual(fake.arrived('q'), numbers(0, 40));
  assert.deepEqual(fake.arrived('r'), numbers(1, 40));
  assert.equal(log.lines.filter(({ level }) => level === 'warn').length, 1);
  const reads = watched.reads();
  await relay.write([outgoing(40)]);
  await until('the last', () => fake.arrived('q').length === 41);
  assert.equal(watched.reads(), reads, 'sent from memory again');
  await relay.close();
});

test('while the transport is away few sends are tried, and none directly', async (t) => {
  const { fake, watched, start } = openRelay(t);
  goAway(fake);
  const relay = start({
    timing: { backoffMs: 60_000, maxBackoffMs: 60_000 },
  });
  await relay.write(numbers(0, 1_000).map((n) => outgoing(n, `q${n % 7}`)));
  await until('the store to be read', () => watched.reads() > 0);
  await relay.write(numbers(1_000, 1_100).map((n) => outgoing(n, `q${n % 7}`)));
  assert.ok(fake.calls() <= 7, `${fake.calls()} calls`);
  await relay.close();
  assert.equal((await unsentIn(watched.store)).length, 1_100);
});

test('a refused and yet delivered message comes twice, and order is that of the first time', async (t) => {
  const { fake, start } = openRelay(t);
  const relay = start();
  let calls = 0;
  fake.fate = () => {
    calls += 1;
    return calls % 7 === 3 ? 'refused and taken' : 'taken';
  };
  await Promise.all(numbers(0, 50).map((n) => relay.write([outgoing(n)])));
  await until('all', () => firsts(fake.arrived('q')).length === 50);
  assert.ok(fake.arrived('q').length > 50);
  assert.deepEqual(firsts(fake.arrived('q')), numbers(0, 50));
  await relay.close();
});

test('the same message twice in one go, refused: it is not taken for sent', async (t) => {
  const { fake, watched, start } = openRelay(t);
  const relay = start({ timing: { ackMs: 1, backoffMs: 100 } });
  await relay.write([outgoing(0)]);
  await until('the acknowledgement', async () => (await unsentIn(watched.store)).length === 0);
  fake.fate = (_queue, { data }) => (data.n === 2 ? 'refused' : 'taken');
  // The first is on its way alone; the other two go together.
  await relay.write([outgoing(1), outgoing(2), outgoing(2)]);
  await until('a refusal', () => fake.calls() >= 3);
  comeBack(fake);
  await until('it', () => fake.arrived('q').length === 3);
  await relay.close();
});

test('one queue that refuses does not hold up the others, and catches up by itself', async (t) => {
  const { fake, watched, start } = openRelay(t);
  fake.fate = (name) => (name === 'bad' ? 'refused' : 'taken');
  // More than a page of it stands before the rest, left by an earlier process.
  await watched.store.commit({ type: 'outgoing', outgoing: numbers(0, 30).map((n) => outgoing(n, 'bad')) });
  await watched.store.commit({ type: 'outgoing', outgoing: numbers(0, 30).map((n) => outgoing(n, 'good')) });
  const relay = start({ timing: { page: 8 } });
  await until('the good', () => fake.arrived('good').length === 30);
  await relay.write([outgoing(30, 'bad'), outgoing(30, 'good')]);
  await until('the next good', () => fake.arrived('good').length === 31);
  assert.deepEqual(fake.arrived('bad'), []);
  comeBack(fake);
  await until('the bad', () => fake.arrived('bad').length === 31);
  assert.deepEqual(fake.arrived('bad'), numbers(0, 31));
  assert.deepEqual(fake.arrived('good'), numbers(0, 31));
  await relay.close();
});

test('more queues that refuse than are told apart: all are behind, and nothing is lost', async (t) => {
  const { fake, watched, start } = openRelay(t);
  const relay = start();
  await relay.write([outgoing(0)]);
  await until('the first', () => fake.arrived('q').length === 1);
  fake.fate = () => 'refused';
  const names = numbers(0, MAX_LAGGING + 50).map((n) => `reply:${n}`);
  await Promise.all(names.map((name) => relay.write([outgoing(1, name)])));
  await relay.write([outgoing(1)]);
  comeBack(fake);
  await until('all', () => fake.ids().length === names.length + 2);
  await until('the acknowledgements', async () => (await unsentIn(watched.store)).length === 0);
  await relay.close();
});

test('what can never be sent is said once and does not block', async (t) => {
  const { fake, watched, log, start } = openRelay(t);
  const relay = start();
  fake.fate = (_queue, { data }) => (data.n === 1 ? 'never' : 'taken');
  for (const n of [0, 1, 2]) await relay.write([outgoing(n)]);
  await until('the rest', () => fake.arrived('q').length === 2);
  await until('the acknowledgements', async () => (await unsentIn(watched.store)).length === 0);
  await relay.resend(outgoing(1));
  const said = log.lines.filter(({ level }) => level === 'error').map(({ fields }) => fields);
  assert.equal(said.length, 2);
  assert.partialDeepStrictEqual(said[0], { tenant_id: 'acme', id: 'q-1', queue: 'q' });
  await relay.close();
  assert.deepEqual(fake.arrived('q'), [0, 2]);
});

/** A store that takes what no database would: messages are held as they are. */
function holdingStore(): Store {
  const held = new Map<string, Unsent>();
  let seq = 0;
  return {
    ...memoryStore(),
    async commit(write) {
      if (write.type === 'outgoing')
        for (const message of write.outgoing) held.set(message.id, { seq: ++seq, outgoing: message });
      if (write.type === 'outgoing-sent') for (const { id } of write.sent) held.delete(id);
      return 'stored';
    },
    unsent: async (afterSeq, limit) =>
      [...held.values()].filter((each) => each.seq > afterSeq).slice(0, limit),
  };
}

test('hostile messages over a real codec: too large, circular, too deep; the rest goes on', async (t) => {
  leakFree(t);
  const { transport, heard } = await memoryQueue();
  const [watched, log] = [watchedStore(holdingStore()), collectingLog()];
  const relay = relayOver(transport, watched.store, { log });
  const circular: Record<string, unknown> = { n: 2 };
  circular.self = circular;
  const deep = JSON.parse(`${'['.repeat(50_000)}${']'.repeat(50_000)}`);
  const hostile = [{ n: 1, text: 'x'.repeat(5_000_000) }, circular, { n: 3, deep }];
  for (const [at, data] of hostile.entries()) {
    const base = outgoing(at + 1);
    await relay.write([{ ...base, action: base.action && { ...base.action, data } }]);
  }
  await relay.write([outgoing(9)]);
  await heard.heard(1);
  await until('the acknowledgements', async () => (await unsentIn(watched.store)).length === 0);
  assert.deepEqual(heard.numbers(), [9]);
  assert.equal(log.lines.filter(({ level }) => level === 'error').length, hostile.length);
  await relay.close();
  await transport.close();
});

test('the next process sends what one left, in order, before what it keeps itself', async (t) => {
  const { fake, watched, start } = openRelay(t);
  goAway(fake);
  const first = start({ timing: { page: 4 } });
  await first.write(numbers(0, 10).map((n) => outgoing(n)));
  await first.close();
  comeBack(fake);
  const second = start({ timing: { page: 4 } });
  await Promise.all(numbers(10, 20).map((n) => second.write([outgoing(n)])));
  await until('all', () => fake.arrived('q').length === 20);
  assert.deepEqual(fake.arrived('q'), numbers(0, 20));
  await second.close();
  assert.deepEqual(await unsentIn(watched.store), []);
});

test('the store failing at outgoing-sent: told later; a process that dies before sends twice', async (t) => {
  const { fake, watched, log, start } = openRelay(t);
  let failed = 0;
  watched.fault = ({ type }) => {
    if (type !== 'outgoing-sent') return undefined;
    failed += 1;
    return { error: storeAway() };
  };
  const first = start();
  await first.write(numbers(0, 5).map((n) => outgoing(n)));
  await until('three failures', () => failed >= 3);
  assert.deepEqual(fake.arrived('q'), numbers(0, 5));
  assert.equal(log.lines.filter(({ level }) => level === 'warn').length, 1);
  await first.close();
  assert.equal((await unsentIn(watched.store)).length, 5);

  const second = start();
  await until('all a second time', () => fake.arrived('q').length === 10);
  watched.fault = () => undefined;
  await until('the acknowledgements', async () => (await unsentIn(watched.store)).length === 0);
  assert.deepEqual(fake.arrived('q'), [...numbers(0, 5), ...numbers(0, 5)]);
  await second.close();
});

test('sent, but not told to the store: not sent again when the queue falls behind meanwhile', async (t) => {
  const { fake, watched, start } = openRelay(t);
  watched.fault = ({ type }) => (type === 'outgoing-sent' ? { error: storeAway() } : undefined);
  const relay = start();
  await relay.write([outgoing(0), outgoing(1)]);
  await until('both', () => fake.arrived('q').length === 2);
  goAway(fake);
  await relay.write([outgoing(2)]);
  await until('a try', () => fake.calls() > 2);
  comeBack(fake);
  await until('the third', () => fake.arrived('q').length === 3);
  watched.fault = () => undefined;
  await until('the acknowledgements', async () => (await unsentIn(watched.store)).length === 0);
  assert.deepEqual(fake.arrived('q'), [0, 1, 2]);
  await relay.close();
});

test('a store that can not be read is read again, and a refused write that it carried out is sent', async (t) => {
  const { fake, watched, log, start } = openRelay(t);
  watched.readFault = storeAway;
  const relay = start();
  await until('some tries', () => watched.reads() >= 3);
  watched.readFault = () => undefined;
  await relay.write([outgoing(0)]);
  await until('the first', () => fake.arrived('q').length === 1);
  assert.equal(log.lines.filter(({ level }) => level === 'warn').length, 1);

  watched.fault = ({ type }) => (type === 'outgoing' ? { error: storeAway(), done: true } : undefined);
  await assert.rejects(relay.write([outgoing(1)]), RefusalError);
  watched.fault = () => undefined;
  await relay.write([outgoing(2)]);
  await until('all', () => fake.arrived('q').length === 3);
  assert.deepEqual(fake.arrived('q'), [0, 1, 2]);
  await relay.close();
});

test('commits that resolve in another order are sent in the order of their calls', async (t) => {
  const { fake, watched } = openRelay(t);
  const doors = [gate(), gate(), gate()];
  let commits = 0;
  const { commit } = watched.store;
  const store = {
    ...watched.store,
    commit: async (write: Parameters<typeof commit>[0]) => {
      if (write.type !== 'outgoing') return commit(write);
      const door = doors[commits];
      commits += 1;
      const outcome = await commit(write);
      await door?.opened;
      return outcome;
    },
  };
  const relay = relayOver(fake.transport, store);
  await until('the first read', () => watched.reads() === 1);
  await loopTurns();
  const keeping = [0, 1, 2].map((n) => relay.write([outgoing(n)]));
  doors[2]?.open();
  doors[1]?.open();
  await keeping[2];
  assert.equal(fake.calls(), 0);
  doors[0]?.open();
  await Promise.all(keeping);
  await relay.close();
  assert.deepEqual(fake.arrived('q'), [0, 1, 2]);
});

test('10,000 kept while the transport is away: they are not held in memory, and all are sent', async (t) => {
  const { fake, watched, start } = openRelay(t);
  goAway(fake);
  const relay = start();
  for (let from = 0; from < 10_000; from += 100)
    await relay.write(numbers(from, from + 100).map((n) => outgoing(n, `q${n % 3}`)));
  comeBack(fake);
  await until('all', () => fake.ids().length >= 10_000, 20_000);
  await until('the acknowledgements', async () => (await watched.store.unsent(0, 1)).length === 0, 20_000);
  for (const q of [0, 1, 2])
    assert.deepEqual(
      fake.arrived(`q${q}`),
      numbers(0, 10_000).filter((n) => n % 3 === q),
    );
  await relay.close();
});

test('a transport that is too slow: what is beyond the bound is read from the store, in order', async (t) => {
  const { fake, watched, start } = openRelay(t);
  const relay = start({ timing: { maxInMemory: 20, page: 4 } });
  await relay.write([outgoing(0)]);
  await until('the first', () => fake.arrived('q').length === 1);
  const reads = watched.reads();
  const doors = gate();
  fake.pace = () => doors.opened;
  await Promise.all(numbers(1, 300).map((n) => relay.write([outgoing(n, n % 3 ? 'q' : 'r')])));
  assert.ok(fake.calls() <= 9, `${fake.calls()} calls`);
  doors.open();
  await until('all', () => fake.ids().length >= 300);
  assert.ok(watched.reads() > reads);
  assert.deepEqual(
    fake.arrived('q'),
    numbers(0, 300).filter((n) => n === 0 || n % 3),
  );
  await relay.close();
});

test('lines hold as much as they may, whatever is on its way, and let go of it where a queue falls', async () => {
  const fallen: string[] = [];
  let sends = 0;
  const timing = { ...RELAY_TIMING, maxInMemory: 100, page: 10 };
  const doors = gate();
  const send = async (): Promise<boolean> => {
    sends += 1;
    await doors.opened;
    return true;
  };
  const lines = createLines({ send, timing, onLag: (name) => fallen.push(name) });
  for (const n of numbers(0, 50)) lines.post(outgoing(n));
  assert.equal(sends, 0, 'before the first pass all is behind');
  await lines.beginPass();
  lines.endPass(new Set());
  for (const n of numbers(0, 500)) lines.post(outgoing(n));
  assert.deepEqual([...new Set(fallen)], ['q']);
  for (const n of numbers(0, 500)) lines.post(outgoing(n, 'r'));
  assert.deepEqual([...new Set(fallen)], ['q', 'r']);
  doors.open();
  await lines.drain();
  assert.equal(sends, 2, 'of each queue only what was on its way');
});

test('refusals of any other passing kind are tried again too', async (t) => {
  const { fake, watched } = openRelay(t);
  let tries = 0;
  const transport = {
    ...fake.transport,
    async send(...args: Parameters<typeof fake.transport.send>): Promise<void> {
      tries += 1;
      if (tries <= 2) throw new RefusalError(refusal('OVERLOADED'));
      await fake.transport.send(...args);
    },
  };
  const relay = relayOver(transport, watched.store);
  await relay.write([outgoing(0)]);
  await until('it', () => fake.arrived('q').length === 1);
  await relay.close();
});
