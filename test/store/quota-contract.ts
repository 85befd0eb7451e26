/** The part of the stores' contract about the turns that a tenant's day may count. */
import assert from 'node:assert/strict';
import type { Store } from '../../src/ports/store.ts';
import {
  accept,
  acceptWithin,
  answer,
  contents,
  DAY,
  named,
  type Over,
  page,
  taskOf,
  tenantOf,
} from './records.ts';

const acme = tenantOf(named('t1'));
const usedOf = async (store: Store, tenant = acme, day = DAY) => (await store.tenant(tenant, day))?.used;
const names = (count: number, prefix = 't', tenant = 'acme') =>
  Array.from({ length: count }, (_, index) => named(`${prefix}${index}`, `s${index % 3}`, tenant));

/** Adds its sentences to the suite of `storeContract`. */
export function quotaContract(over: Over): void {
  over('a day counts as many turns as it may, and what is over is not stored', async (store) => {
    const outcomes = await Promise.all(names(7).map((name) => acceptWithin(store, name, 5)));
    assert.deepEqual(outcomes, [...Array(5).fill('stored'), 'over', 'over']);
    assert.equal(await usedOf(store), 5);
    assert.equal(await store.turn(acme, taskOf(named('t6'))), null);
    assert.equal(await acceptWithin(store, named('late'), 5), 'over');
    assert.equal(await page(store, named('late', 'new')), null);
    assert.equal(await acceptWithin(store, named('more'), 6), 'stored');
  });

  over(
    'a turn that is there is a duplicate, also when the day is used up, and takes nothing of it',
    async (store) => {
      const again = await Promise.all([
        acceptWithin(store, named('t1'), 2),
        acceptWithin(store, named('t1'), 2),
        acceptWithin(store, named('t2'), 2),
        acceptWithin(store, named('t1'), 2),
        acceptWithin(store, named('t3'), 2),
        acceptWithin(store, named('t2'), 2),
      ]);
      assert.deepEqual(again, ['stored', 'duplicate', 'stored', 'duplicate', 'over', 'duplicate']);
      await answer(store, named('t1'));
      assert.equal(await acceptWithin(store, named('t1'), 2), 'duplicate');
      assert.equal(await acceptWithin(store, named('t1'), 0), 'duplicate');
      assert.equal(await usedOf(store), 2);
    },
  );

  over('tenants and days count for themselves, with and without a limit side by side', async (store) => {
    const outcomes = await Promise.all([
      ...names(3).map((name) => acceptWithin(store, name, 2)),
      ...names(3, 'u', 'umbrella').map((name) => acceptWithin(store, name, 1)),
      ...names(3, 'w', 'wayne').map((name) => accept(store, name)),
      acceptWithin(store, named('next'), 2, { day: '2024-05-02' }),
      accept(store, named('free')),
      acceptWithin(store, named('shut'), 0),
    ]);
    assert.deepEqual(outcomes, [
      ...['stored', 'stored', 'over'],
      ...['stored', 'over', 'over'],
      ...['stored', 'stored', 'stored'],
      ...['stored', 'stored', 'over'],
    ]);
    assert.equal(await usedOf(store), 3);
    assert.equal(await usedOf(store, acme, '2024-05-02'), 1);
    assert.equal(await usedOf(store, tenantOf(named('u', 's', 'umbrella'))), 1);
  });

  over(
    'an interrupted turn goes on though the day is used up, and one that ended in its batch is there',
    async (store) => {
      await acceptWithin(store, named('t1'), 1);
      await store.commit({ type: 'unfinished-interrupted', atMs: 1_700_000_009_000 });
      assert.equal(await acceptWithin(store, named('t1'), 1, { resumable: true }), 'stored');
      assert.equal(await acceptWithin(store, named('t2'), 1, { resumable: true }), 'over');
      const both = [answer(store, named('t1')), acceptWithin(store, named('t1'), 1)];
      assert.deepEqual(await Promise.all(both), ['stored', 'duplicate']);
      assert.deepEqual(contents(await page(store, named('t1'))), ['ask t1', 'say t1']);
      assert.equal(await usedOf(store), 1);
    },
  );
}
