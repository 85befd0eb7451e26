/** A database that an older version wrote is opened, read and gone on with. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import { agentIdSchema } from '../../src/domain/ids.ts';
import { openStores } from '../../src/store/open.ts';
import { leakFree } from '../support/leaks.ts';
import { quiet } from '../support/quiet.ts';
import { temporary } from '../support/temporary.ts';
import { unsentIds } from './outgoing-contract.ts';
import { answer, contents, DAY, message, named, page, taskOf, tenantOf, turnOf } from './records.ts';

const dump = readFileSync(new URL('./fixtures/database-005.sql', import.meta.url), 'utf8');
const acme = tenantOf(named('completed'));

function olderDatabase(t: TestContext): string {
  const path = temporary(t).path('older.db');
  const db = new DatabaseSync(path);
  db.exec(dump);
  db.close();
  return path;
}

/** Every table and index, as the database itself writes them down. */
function schemaOf(path: string): readonly unknown[] {
  const db = new DatabaseSync(path);
  const rows = db.prepare('select name, sql from sqlite_master where sql is not null order by name').all();
  db.close();
  return rows.map(({ name, sql }) => [name, sql]);
}

test('turns of an older database are read in every state', async (t) => {
  leakFree(t);
  const stores = await openStores({ url: `sqlite:${olderDatabase(t)}`, log: quiet });
  const store = stores.conversations;
  const turn = (task: string) => store.turn(acme, taskOf(named(task)));

  assert.deepEqual(await turn('queued'), turnOf(named('queued')));
  assert.equal((await turn('completed'))?.content, 'say completed');
  assert.deepEqual((await turn('completed'))?.info?.tools_used, ['calculator']);
  assert.equal((await turn('strange'))?.content, 'say \u0000 \udc00');
  assert.equal((await turn('cancelled'))?.content, 'half an \u0000');
  assert.equal((await turn('failed'))?.error?.code, 'MODEL_UNAVAILABLE');
  assert.equal((await turn('notified'))?.error?.code, 'INTERRUPTED');
  const found = await page(store, named('completed'));
  assert.deepEqual(contents(found)?.slice(-7), [
    ...['ask completed', 'say completed', 'ask \u0000 \ud800', 'say \u0000 \udc00'],
    ...['ask cancelled', 'ask failed', 'ask queued'],
  ]);
  assert.deepEqual(
    found?.interrupted?.map(({ taskId }) => taskId),
    ['interrupted', 'affected'],
  );
  assert.deepEqual(await store.tenant(acme, DAY), { tenantId: acme, tier: 'advance', day: DAY, used: 8 });
  await stores.close();
});

/** A database as a newer version leaves it behind: with a change that this one does not know. */
async function newerDatabase(t: TestContext, more: string): Promise<string> {
  const path = temporary(t).path('newer.db');
  await (await openStores({ url: `sqlite:${path}`, log: quiet })).close();
  const db = new DatabaseSync(path);
  db.exec("insert into kysely_migration values ('999-of-tomorrow', '2030-01-01T00:00:00.000Z')");
  db.exec('alter table turns add column tomorrow text');
  db.exec(more);
  db.close();
  return path;
}

for (const [why, more] of [
  ['that this one does not fit any more', 'update schema_version set oldest = 999'],
  ['that knows nothing of versions', 'drop table schema_version'],
  [
    'that lacks a change of this one',
    "delete from kysely_migration where name = '012-versions'; update schema_version set oldest = 1",
  ],
] as const)
  test(`a database of a newer version ${why} is refused as one, and nothing is changed`, async (t) => {
    leakFree(t);
    const path = await newerDatabase(t, more);
    const before = schemaOf(path);
    for (const nodeId of [undefined, 'one'])
      await assert.rejects(
        openStores({ url: `sqlite:${path}`, log: quiet, ...(nodeId === undefined ? {} : { nodeId }) }),
        /can not be opened: it was written by a newer version of Nooble, whose change 999-of-tomorrow/,
      );
    assert.deepEqual(schemaOf(path), before);
  });

test('a database of a newer version that this one fits is worked on as it stands', async (t) => {
  leakFree(t);
  const path = await newerDatabase(t, '');
  const before = schemaOf(path);
  const stores = await openStores({ url: `sqlite:${path}`, log: quiet });
  const store = stores.conversations;
  const name = named('new');
  assert.equal(
    await store.commit({
      ...{ type: 'turn-accepted', turn: turnOf(name), day: DAY },
      message: message(name, 'user', 'ask'),
    }),
    'stored',
  );
  await stores.close();
  assert.deepEqual(schemaOf(path), before);
});

test('an older database is written on', async (t) => {
  leakFree(t);
  const stores = await openStores({ url: `sqlite:${olderDatabase(t)}`, log: quiet });
  const store = stores.conversations;
  const resume = (task: string) =>
    store.commit({
      ...{ type: 'turn-accepted', turn: turnOf(named(task)), day: DAY, resumable: true },
      message: message(named(task), 'user', 'ask'),
    });

  assert.equal(await resume('interrupted'), 'stored');
  assert.equal(await resume('affected'), 'duplicate');
  assert.equal(await resume('notified'), 'duplicate');
  assert.equal(await answer(store, named('queued')), 'stored');
  assert.equal(await answer(store, named('completed')), 'duplicate');
  assert.deepEqual(await unsentIds(store), ['a']);
  assert.equal((await store.answered(acme, 'request-1'))?.id, 'b');
  assert.equal((await store.answered(acme, 'request-2'))?.id, 'c');
  await store.commit({ type: 'unfinished-interrupted', atMs: 1_700_000_001_000 });
  assert.equal((await store.turn(acme, taskOf(named('queued'))))?.status, 'completed');
  assert.equal((await store.turn(acme, taskOf(named('interrupted'))))?.status, 'failed');
  await stores.close();
});

test('what an older database holds of agent management is found', async (t) => {
  leakFree(t);
  const stores = await openStores({ url: `sqlite:${olderDatabase(t)}`, log: quiet });

  assert.equal((await stores.agents.get(acme, agentIdSchema.parse('a1')))?.name, 'Harbour guide');
  assert.equal((await stores.templates.get(acme, 't1'))?.slug, 'guide');
  assert.deepEqual(
    (await stores.webhooks.claimDue(Date.parse('2024-05-02'), Date.parse('2024-05-03'), 10)).claimed.map(
      ({ webhook, delivery }) => [webhook.id, delivery.id],
    ),
    [['w1', 'd1']],
  );
  await stores.close();
});

test('a new database has the tables and indexes that an older one has once it is brought up to date', async (t) => {
  leakFree(t);
  const older = olderDatabase(t);
  const newer = temporary(t).path('newer.db');
  for (const path of [older, newer]) await (await openStores({ url: `sqlite:${path}`, log: quiet })).close();

  assert.deepEqual(schemaOf(newer), schemaOf(older));
});
