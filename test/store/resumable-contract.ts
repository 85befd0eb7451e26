/** The part of the stores' contract about turns that a stopped process left behind and that run anew. */
import assert from 'node:assert/strict';
import { agentIdSchema, sessionIdSchema } from '../../src/domain/ids.ts';
import type { Store } from '../../src/ports/store.ts';
import {
  accept,
  answer,
  contents,
  DAY,
  message,
  named,
  type Over,
  page,
  taskOf,
  tenantOf,
  turnOf,
} from './records.ts';

const name = named('t1');
const acme = tenantOf(name);
const AGENT = { agentId: agentIdSchema.parse('other'), agentVersion: 7 };

/** Accepts a turn of this name once more, as a redelivered action does. */
const resume = (store: Store, of = name) =>
  store.commit({
    type: 'turn-accepted',
    turn: turnOf(of, { ...AGENT, createdAtMs: 1_700_000_100_000 }),
    message: { ...message(of, 'user', 'asked anew'), atMs: 1_700_000_100_000 },
    day: DAY,
    resumable: true,
  });

const interrupt = (store: Store) => store.commit({ type: 'unfinished-interrupted', atMs: 1_700_000_009_000 });
const affect = (store: Store, of = name) =>
  store.commit({ type: 'turn-effects', tenantId: tenantOf(of), taskId: taskOf(of) });
const statusOf = async (store: Store) => (await store.turn(acme, taskOf(name)))?.status;

/** Adds its sentences to the suite of `storeContract`. */
export function resumableContract(over: Over): void {
  over('a new turn that may be resumable is stored like any other', async (store) => {
    assert.equal(await resume(store), 'stored');
    assert.equal(await resume(store), 'duplicate');
    assert.equal((await store.tenant(acme, DAY))?.used, 1);
    assert.deepEqual(contents(await page(store, name)), ['asked anew']);
  });

  over('an interrupted turn goes on, with its question and its age, and is counted once', async (store) => {
    const unsafe = 'ask \u0000';
    await accept(store, name, unsafe);
    await accept(store, named('t2'));
    await interrupt(store);
    assert.equal(await resume(store), 'stored');

    assert.deepEqual(await store.turn(acme, taskOf(name)), turnOf(name, AGENT));
    assert.equal((await store.tenant(acme, DAY))?.used, 2);
    const found = await page(store, name);
    assert.deepEqual(contents(found), [unsafe, 'ask t2']);
    assert.deepEqual(
      found?.interrupted?.map((turn) => turn.taskId),
      [taskOf(named('t2'))],
    );
    assert.equal(await resume(store), 'duplicate', 'it runs');

    assert.equal(await answer(store, name), 'stored');
    assert.deepEqual(contents(await page(store, name)), [unsafe, 'say t1', 'ask t2']);
    assert.equal((await store.turn(acme, taskOf(name)))?.createdAtMs, turnOf(name).createdAtMs);
    assert.equal(await resume(store), 'duplicate', 'it ended');
  });

  over('an interrupted turn goes on as often as it is interrupted', async (store) => {
    await accept(store, name);
    for (let round = 0; round < 3; round += 1) {
      await interrupt(store);
      assert.equal(await resume(store), 'stored');
    }
    assert.equal((await store.tenant(acme, DAY))?.used, 1);
  });

  over('without being told so an interrupted turn is a duplicate', async (store) => {
    await accept(store, name);
    await interrupt(store);

    assert.equal(await accept(store, name), 'duplicate');
    assert.equal(await statusOf(store), 'failed');
  });

  over('a turn that had effects does not go on, whenever they are stored', async (store) => {
    const late = named('t2');
    for (const each of [name, late]) await accept(store, each, 'half \ud800');
    assert.equal(await affect(store), 'stored');
    assert.equal(await affect(store), 'stored');
    await interrupt(store);
    await affect(store, late);

    assert.equal(await resume(store), 'duplicate');
    assert.equal(await resume(store, late), 'duplicate');
    assert.equal(await statusOf(store), 'failed');
    assert.deepEqual(contents(await page(store, name)), ['half \ud800', 'half \ud800']);
  });

  over(
    'effects change nothing that is seen of a turn, and a turn that is unknown has none',
    async (store) => {
      await accept(store, name, 'nul \u0000');
      assert.equal(await affect(store, named('unknown')), 'stored');
      await affect(store, named('t1', 's1', 'umbrella'));
      await affect(store);
      assert.deepEqual(await store.turn(acme, taskOf(name)), turnOf(name));
      await answer(store, name, 'half \ud800');

      assert.deepEqual(contents(await page(store, name)), ['nul \u0000', 'half \ud800']);
      assert.equal((await store.turn(acme, taskOf(name)))?.content, 'half \ud800');
    },
  );

  over("another tenant's effects leave a turn free to go on", async (store) => {
    await accept(store, name);
    await affect(store, named('t1', 's1', 'umbrella'));
    await interrupt(store);

    assert.equal(await resume(store), 'stored');
  });

  over('a turn that is notified, or of another session, does not go on', async (store) => {
    await accept(store, name);
    await interrupt(store);
    assert.equal(await resume(store, named('t1', 'other')), 'duplicate');
    assert.equal(await page(store, named('t1', 'other')), null);
    await store.commit({ type: 'turn-notified', tenantId: acme, taskId: taskOf(name) });

    assert.equal(await resume(store), 'duplicate');
    assert.equal(await statusOf(store), 'failed');
    assert.equal((await store.turn(acme, taskOf(name)))?.sessionId, sessionIdSchema.parse('s1'));
  });

  over('writes about a turn that goes on take effect in the order of the calls', async (store) => {
    await accept(store, name);
    const outcomes = await Promise.all([
      interrupt(store),
      resume(store),
      resume(store),
      accept(store, name),
      affect(store),
      answer(store, name),
      resume(store),
      answer(store, name, 'twice'),
    ]);

    assert.deepEqual(outcomes, [
      ...['stored', 'stored', 'duplicate', 'duplicate'],
      ...['stored', 'stored', 'duplicate', 'duplicate'],
    ]);
    assert.deepEqual(contents(await page(store, name)), ['ask t1', 'say t1']);
  });
}
