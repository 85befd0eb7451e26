/** Newest pages that are asked for together are read together, and say what each would say alone. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openStores } from '../../src/store/open.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { quiet } from '../support/quiet.ts';
import { accept, answer, named, page } from './records.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

test('pages that are read together are those that are read alone, of each tenant its own', async (t) => {
  const stores = await openStores({ url: await server.database(), log: quiet });
  t.after(() => stores.close());
  const { conversations: store } = stores;
  const asked = ['acme', 'globex'].flatMap((tenant) =>
    ['none', 'one', 'open', 'long', 'left'].map((session) => named(`${tenant}-${session}`, session, tenant)),
  );
  for (const name of asked) {
    const turn = (n: number) => ({ ...name, task: `${name.task}-${n}` });
    if (name.session === 'one') await accept(store, turn(0)).then(() => answer(store, turn(0)));
    if (name.session === 'open' || name.session === 'left') await accept(store, turn(0));
    if (name.session === 'long') for (let n = 0; n < 9; n += 1) await accept(store, turn(n));
  }
  await store.commit({ type: 'unfinished-interrupted', atMs: 1_700_000_001_000 });
  for (const limit of [1, 4, 8, 100]) {
    const alone = [];
    for (const name of asked) alone.push(await page(store, name, { limit }));
    const together = await Promise.all(asked.map((name) => page(store, name, { limit })));
    assert.deepEqual(together, alone);
    assert.equal(together[0], null);
    assert.equal(together[2]?.interrupted?.length, 1);
  }
  const many = await Promise.all(Array.from({ length: 200 }, () => page(store, asked[1] ?? named('never'))));
  assert.ok(many.every((each) => each?.messages.length === 2));
});
