/** The part of the stores' contract about the life of what is stored: deletion, restarts, retention, texts, closing. */
import assert from 'node:assert/strict';
import type { Tier } from '../../src/domain/tiers.ts';
import {
  accept,
  answer,
  contents,
  DAY,
  forget,
  named,
  type Over,
  page,
  taskOf,
  tenantOf,
} from './records.ts';

/** Adds its sentences to the suite of `storeContract`. */
export function lifeContract(over: Over): void {
  over('a deleted session is gone with its turns, and its task ids can be used again', async (store) => {
    const name = named('t1');
    await accept(store, name);
    await answer(store, name);
    await accept(store, named('kept', 's2'));

    assert.equal(await forget(store, name), 'stored');
    assert.equal(await page(store, name), null);
    assert.equal(await store.turn(tenantOf(name), taskOf(name)), null);
    assert.deepEqual(contents(await page(store, named('kept', 's2'))), ['ask kept']);
    assert.equal(await accept(store, name, 'anew'), 'stored');
    assert.deepEqual(contents(await page(store, name)), ['anew']);
  });

  over('deleting what is not there is no mistake', async (store) => {
    assert.equal(await forget(store, named('t1')), 'stored');
  });

  over('an end that comes after the session was deleted brings nothing back', async (store) => {
    const name = named('t1');
    await accept(store, name);
    await forget(store, name);
    await answer(store, name);

    assert.equal(await page(store, name), null);
    assert.equal(await store.turn(tenantOf(name), taskOf(name)), null);
  });

  over('requests are counted by day, deleted ones too', async (store) => {
    const tenantId = tenantOf(named('t1'));
    await accept(store, named('t1'));
    await accept(store, named('t2', 's2'));
    await forget(store, named('t1'));
    const used = async (day: string) => (await store.tenant(tenantId, day))?.used;

    assert.equal(await used(DAY), 2);
    assert.equal(await used('2024-05-02'), 0);
    await accept(store, named('t3'), 'x', '2024-05-02');
    assert.equal(await used('2024-05-02'), 1);
    assert.equal((await store.tenant(tenantId, DAY))?.tier, undefined);
  });

  over('texts come back as they were, whatever characters they hold', async (store) => {
    const texts = [
      '\u0000 nul',
      'lone \ud800 surrogate \udfff',
      '😀 e\u0301',
      "'; DROP TABLE turns; --",
      '',
      '\r\n\t',
    ];
    for (const [index, text] of texts.entries()) {
      await accept(store, named(`t${index}`), text);
      await answer(store, named(`t${index}`), text);
    }

    assert.deepEqual(
      contents(await page(store, named('t0'))),
      texts.flatMap((text) => [text, text]),
    );
    assert.equal((await store.turn(tenantOf(named('t1')), taskOf(named('t1'))))?.content, texts[1]);
  });

  over(
    'turns that a stopped process left unfinished end as interrupted until a client was told',
    async (store) => {
      const [left, done] = [named('left'), named('done')];
      await accept(store, done);
      await answer(store, done);
      await accept(store, left);
      await store.commit({ type: 'unfinished-interrupted', atMs: 1_700_000_009_000 });
      const ended = await store.turn(tenantOf(left), taskOf(left));

      assert.equal(ended?.status, 'failed');
      assert.equal(ended?.finishedAtMs, 1_700_000_009_000);
      assert.equal(ended?.error?.code, 'INTERRUPTED');
      assert.equal((await store.turn(tenantOf(done), taskOf(done)))?.status, 'completed');
      assert.deepEqual((await page(store, left))?.interrupted, [ended]);

      await store.commit({ type: 'turn-notified', tenantId: tenantOf(left), taskId: taskOf(left) });
      assert.equal((await page(store, left))?.interrupted, undefined);
      assert.equal((await page(store, left))?.messages.length, 3);
    },
  );

  over("a tenant's tier is stored, also for one that never asked anything", async (store) => {
    const tenantId = tenantOf(named('t1'));
    await store.commit({ type: 'tenant-tier', tenantId, tier: 'free' });
    await accept(store, named('t1'));
    await store.commit({ type: 'tenant-tier', tenantId, tier: 'enterprise' });

    assert.deepEqual(await store.tenant(tenantId, DAY), { tenantId, tier: 'enterprise', day: DAY, used: 1 });
  });

  over('sessions whose last message is too old are deleted, those of the tier alone', async (store) => {
    const [free, none] = [named('t1', 's1', 'free-one'), named('t1', 's1', 'nobody')];
    await store.commit({ type: 'tenant-tier', tenantId: tenantOf(free), tier: 'free' });
    for (const name of [free, none]) await accept(store, name);
    const expire = (tier: Tier | null, beforeMs: number) =>
      store.commit({ type: 'history-expired', tier, beforeMs });

    await expire('free', 1_700_000_000_001);
    assert.notEqual(await page(store, free), null, 'a message of that very moment is not older');
    await expire('free', 1_700_000_000_002);
    assert.equal(await page(store, free), null);
    assert.equal(await store.turn(tenantOf(free), taskOf(free)), null);
    assert.notEqual(await page(store, none), null);
    await expire(null, 1_700_000_000_002);
    assert.equal(await page(store, none), null);
  });

  over('a session that was deleted and begun anew expires like any other', async (store) => {
    const name = named('t1');
    await accept(store, name);
    await Promise.all([forget(store, name), accept(store, name), accept(store, named('t2'))]);
    await store.commit({ type: 'history-expired', tier: null, beforeMs: 1_700_000_000_002 });
    assert.equal(await page(store, name), null);

    await accept(store, name);
    await store.commit({ type: 'history-expired', tier: null, beforeMs: 1_700_000_000_002 });
    assert.equal(await page(store, name), null);
  });

  over('no method answers in the same tick', async (store) => {
    let answers = 0;
    const calls = [
      store.ping(),
      accept(store, named('t1')),
      page(store, named('t1')),
      store.turn(tenantOf(named('t1')), taskOf(named('t1'))),
      store.tenant(tenantOf(named('t1')), DAY),
    ].map((call) =>
      call.then(() => {
        answers += 1;
      }),
    );

    assert.equal(answers, 0);
    await Promise.all(calls);
    assert.equal(answers, 5);
  });

  over(
    'a closed store finishes what was begun, refuses what comes later, and may be closed again',
    async (store) => {
      const begun = accept(store, named('t1'));
      await store.close();

      assert.equal(await begun, 'stored');
      await assert.rejects(accept(store, named('t2')));
      await assert.rejects(page(store, named('t1')));
      await assert.rejects(store.ping());
      await store.close();
    },
  );
}
