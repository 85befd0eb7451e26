/** What every store must do, whatever is behind it. Each implementation runs this suite over itself. */
import assert from 'node:assert/strict';
import { refusal } from '../../src/domain/errors.ts';
import type { PageRequest, Store } from '../../src/ports/store.ts';
import { lifeContract } from './contract-life.ts';
import { outgoingContract } from './outgoing-contract.ts';
import { quotaContract } from './quota-contract.ts';
import {
  accept,
  answer,
  answered,
  contents,
  DAY,
  forget,
  message,
  named,
  overEach,
  page,
  taskOf,
  tenantOf,
  turnOf,
} from './records.ts';
import { resumableContract } from './resumable-contract.ts';

/** Runs the contract over stores that `open` makes; each test opens its own and closes it. */
export function storeContract(name: string, open: () => Promise<Store>): void {
  const over = overEach(name, open);

  over('what nobody stored is null', async (store) => {
    const name = named('t1');

    assert.equal(await store.tenant(tenantOf(name), DAY), null);
    assert.equal(await page(store, name), null);
    assert.equal(await store.turn(tenantOf(name), taskOf(name)), null);
  });

  over('an accepted turn is found with its message', async (store) => {
    const name = named('t1');

    assert.equal(await accept(store, name), 'stored');
    assert.deepEqual(await store.turn(tenantOf(name), taskOf(name)), turnOf(name));
    assert.deepEqual(await page(store, name), {
      messages: [message(name, 'user', 'ask t1')],
      hasMore: false,
    });
  });

  over('an ended turn is found with its answer, its numbers and its time', async (store) => {
    const name = named('t1');
    await accept(store, name);

    assert.equal(await answer(store, name), 'stored');
    assert.deepEqual(await store.turn(tenantOf(name), taskOf(name)), answered(name, 'say t1'));
    assert.deepEqual(await page(store, name), {
      messages: [message(name, 'user', 'ask t1'), message(name, 'assistant', 'say t1')],
      hasMore: false,
    });
  });

  over('a turn that failed without a word keeps its error and adds no message', async (store) => {
    const name = named('t1');
    const failed = turnOf(name, {
      status: 'failed',
      finishedAtMs: 1_700_000_000_500,
      error: refusal('RATE_LIMITED', { retryAfterMs: 5, details: { field: 'model', deep: [1, null, 'x'] } }),
    });
    await accept(store, name);
    await store.commit({ type: 'turn-ended', turn: failed, message: undefined });

    assert.deepEqual(await store.turn(tenantOf(name), taskOf(name)), failed);
    assert.deepEqual(contents(await page(store, name)), ['ask t1']);
  });

  over('a task id that the tenant has used is a duplicate: nothing is written or counted', async (store) => {
    const name = named('t1');
    await accept(store, name);
    await answer(store, name);

    assert.equal(await accept(store, name, 'again'), 'duplicate');
    assert.equal(await accept(store, named('t1', 'other'), 'again'), 'duplicate');
    assert.equal((await store.turn(tenantOf(name), taskOf(name)))?.status, 'completed');
    assert.deepEqual(contents(await page(store, name)), ['ask t1', 'say t1']);
    assert.equal(await page(store, named('t1', 'other')), null);
    assert.equal((await store.tenant(tenantOf(name), DAY))?.used, 1);
  });

  over('of two turns with one task id at the same time exactly one is stored', async (store) => {
    const name = named('t1');
    const outcomes = await Promise.all([
      accept(store, name, 'a'),
      accept(store, name, 'b'),
      accept(store, name, 'c'),
    ]);

    assert.deepEqual(outcomes, ['stored', 'duplicate', 'duplicate']);
    assert.deepEqual(contents(await page(store, name)), ['a']);
  });

  over('an end that is written twice, as after a lost answer, counts once', async (store) => {
    const name = named('t1');
    await accept(store, name);
    await answer(store, name, 'first');

    assert.equal(await answer(store, name, 'second'), 'duplicate');
    assert.deepEqual(contents(await page(store, name)), ['ask t1', 'first']);
  });

  over('another tenant with the same ids sees nothing and disturbs nothing', async (store) => {
    const [mine, theirs] = [named('t1'), named('t1', 's1', 'umbrella')];
    await accept(store, mine);

    assert.equal(await store.turn(tenantOf(theirs), taskOf(theirs)), null);
    assert.equal(await page(store, theirs), null);
    assert.equal(await store.tenant(tenantOf(theirs), DAY), null);
    assert.equal(await accept(store, theirs, 'theirs'), 'stored');
    await forget(store, theirs);
    assert.deepEqual(contents(await page(store, mine)), ['ask t1']);
    assert.ok(await store.turn(tenantOf(mine), taskOf(mine)));
  });

  over('writes take effect in the order of the calls, and reads see those before them', async (store) => {
    const name = named('t1');
    const [outcomes, before] = await Promise.all([
      Promise.all([accept(store, name), answer(store, name), accept(store, named('t2'))]),
      page(store, name),
    ]);
    const [, after] = await Promise.all([forget(store, name), page(store, name)]);

    assert.deepEqual(outcomes, ['stored', 'stored', 'stored']);
    assert.deepEqual(contents(before), ['ask t1', 'say t1', 'ask t2']);
    assert.equal(after, null);
  });

  over(
    'a turn that waited stands with its answer, in the order in which turns were accepted',
    async (store) => {
      await accept(store, named('t1'));
      await accept(store, named('t2'));
      await answer(store, named('t1'));
      await answer(store, named('t2'));

      assert.deepEqual(contents(await page(store, named('t1'))), ['ask t1', 'say t1', 'ask t2', 'say t2']);
    },
  );

  over('pages hold whole turns, newest last, and together every message once', async (store) => {
    for (const task of ['t1', 't2', 't3', 't4', 't5']) {
      await accept(store, named(task));
      if (task !== 't3') await answer(store, named(task));
    }
    const seen: string[] = [];
    let before: PageRequest['before'];
    for (let more = true; more; ) {
      const found = await page(store, named('t1'), { limit: 3, before });
      assert.ok(found);
      assert.ok(found.messages.length <= 3);
      seen.unshift(...(contents(found) ?? []));
      before = found.messages[0]?.taskId;
      more = found.hasMore;
    }

    assert.deepEqual(seen, [
      ...['ask t1', 'say t1', 'ask t2', 'say t2', 'ask t3'],
      ...['ask t4', 'say t4', 'ask t5', 'say t5'],
    ]);
  });

  over('a page holds a whole turn, also where that is more than was asked for', async (store) => {
    await accept(store, named('t1'));
    await answer(store, named('t1'));

    assert.deepEqual(await page(store, named('t1'), { limit: 1 }), {
      messages: [message(named('t1'), 'user', 'ask t1'), message(named('t1'), 'assistant', 'say t1')],
      hasMore: false,
    });
  });

  over('before the first turn, and before an unknown one, there is an empty page', async (store) => {
    await accept(store, named('t1'));
    const empty = { messages: [], hasMore: false };

    assert.deepEqual(await page(store, named('t1'), { before: taskOf(named('t1')) }), empty);
    assert.deepEqual(await page(store, named('t1'), { before: taskOf(named('unknown')) }), empty);
  });

  lifeContract(over);
  resumableContract(over);
  quotaContract(over);
  outgoingContract(over);
}
