/** What somebody else wrote into a database, and what an older version left there, over both databases. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { type Kysely, sql } from 'kysely';
import type { Log } from '../../src/ports/telemetry.ts';
import { createConversations } from '../../src/store/conversations.ts';
import type { Database } from '../../src/store/database.ts';
import { openPostgres } from '../../src/store/postgres/open.ts';
import type { Schema } from '../../src/store/schema.ts';
import { openSqlite } from '../../src/store/sqlite/open.ts';
import { createWebhookStore } from '../../src/store/webhooks.ts';
import { leakFree } from '../support/leaks.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { quiet } from '../support/quiet.ts';
import { temporary } from '../support/temporary.ts';
import { UNDO_AGENTS_BY_CREATION, UNDO_NODES, UNDO_VERSIONS } from './agent-contract.ts';
import { outgoing, storeOutgoing, unsentIds } from './outgoing-contract.ts';
import { named, tenantOf } from './records.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

const acme = tenantOf(named('t1'));

/** Opens the same database as often as it is called. */
type Reopen = () => Promise<Database>;

const places: Readonly<Record<string, (t: TestContext) => Promise<Reopen>>> = {
  async sqlite(t) {
    const path = temporary(t).path('nooble.db');
    return () => openSqlite({ path }, quiet);
  },
  async postgres() {
    const url = await server.database();
    return () => openPostgres({ url }, quiet);
  },
};

const collectingErrors = () => {
  const reported: object[] = [];
  const log: Log = { ...quiet, error: (fields) => void reported.push(fields) };
  return { log, reported };
};

const spoil = (
  database: Database,
  change: Partial<Record<'body' | 'queue' | 'format', string>>,
  id: string,
) => database.write('node', (db) => db.updateTable('outgoing').set(change).where('id', '=', id).execute());

/** As a database was before deliveries were dated. */
async function undate(db: Kysely<Schema>, kind: Database['kind']): Promise<void> {
  await sql`drop index deliveries_settled`.execute(db);
  await sql`alter table deliveries drop column settled_at`.execute(db);
  await sql`alter table turns drop column reasoning`.execute(db);
  if (kind === 'sqlite')
    for (const table of ['batches', 'callbacks']) await sql`drop table ${sql.table(table)}`.execute(db);
  if (kind === 'postgres') for (const statement of UNDO_NODES) await sql.raw(statement).execute(db);
  for (const statement of [UNDO_VERSIONS, ...UNDO_AGENTS_BY_CREATION]) await sql.raw(statement).execute(db);
  await sql`delete from kysely_migration where name >= '005'`.execute(db);
}

for (const [name, place] of Object.entries(places)) {
  test(`${name}: stored messages that can not be read are reported once and hold up no others`, async (t) => {
    leakFree(t);
    const reopen = await place(t);
    const database = await reopen();
    const { log, reported } = collectingErrors();
    const store = createConversations(database, {}, { log });
    const ids = ['a', 'b', 'c', 'd', 'e', 'f'];
    for (const id of ids) await storeOutgoing(store, outgoing(id));
    await spoil(database, { body: '{"not":"an action"}' }, 'a');
    await spoil(database, { body: 'not JSON' }, 'c');
    await spoil(database, { queue: 'no queue at all' }, 'd');
    await spoil(database, { format: 'xml' }, 'f');

    assert.deepEqual(await unsentIds(store, 0, 10), ['b', 'e']);
    // Full pages, as the reader of pages takes a short one for the last.
    assert.deepEqual(await unsentIds(store, 0, 1), ['b']);
    const [first] = await store.unsent(0, 1);
    assert.deepEqual(await unsentIds(store, first?.seq, 1), ['e']);
    assert.equal(reported.length, 4, 'each is reported once');
    assert.deepEqual(
      reported.map((fields) => Reflect.get(fields, 'id')),
      ['a', 'c', 'd', 'f'],
    );

    await spoil(database, { body: JSON.stringify(outgoing('a').action) }, 'a');
    assert.deepEqual(await unsentIds(store), ['a', 'b', 'e'], 'what can be read again is sent');
    await store.close();
    await database.close();
  });

  test(`${name}: deliveries of an older version are dated, and forgotten in their turn`, async (t) => {
    leakFree(t);
    const reopen = await place(t);
    const older = await reopen();
    await older.write('node', async (db) => {
      const webhook = { tenant_id: acme, webhook_id: 'w1', created_at: 1, body: '{}' };
      await db.insertInto('webhooks').values(webhook).execute();
      for (const [delivery_id, status, created_at] of [
        ['old', 'delivered', 1_000],
        ['young', 'delivered', 3_000],
        ['dead', 'dead', 1_000],
        ['pending', 'pending', 1_000],
      ] as const)
        await db
          .insertInto('deliveries')
          .values({
            ...{ tenant_id: acme, webhook_id: 'w1', delivery_id, status, created_at },
            ...{ due_at: null, settled_at: null, body: '{}' },
          })
          .execute();
      await undate(db, older.kind);
    });
    await older.close();

    const database = await reopen();
    const webhooks = createWebhookStore(database);
    const limits = { deliveredBeforeMs: 2_000, deadBeforeMs: 0, perWebhook: 100 };
    assert.equal(await webhooks.expire(limits), 1);
    assert.equal(await webhooks.expire({ ...limits, deadBeforeMs: 2_000 }), 1);
    const left = await database.read('node', (db) =>
      db.selectFrom('deliveries').select('delivery_id').orderBy('delivery_id').execute(),
    );
    assert.deepEqual(
      left.map((row) => row.delivery_id),
      ['pending', 'young'],
    );
    await database.close();
  });

  test(`${name}: two nodes that forget at the same time leave as much as one alone`, async (t) => {
    leakFree(t);
    const reopen = await place(t);
    const [one, other] = [await reopen(), await reopen()];
    await one.write('node', async (db) => {
      const webhook = { tenant_id: acme, webhook_id: 'w1', created_at: 1, body: '{}' };
      await db.insertInto('webhooks').values(webhook).execute();
      const rows = Array.from({ length: 60 }, (_, n) => ({
        ...{ tenant_id: acme, webhook_id: 'w1', delivery_id: `d${n}`, status: 'delivered' },
        ...{ created_at: n, due_at: null, settled_at: n, body: '{}' },
      }));
      await db.insertInto('deliveries').values(rows).execute();
    });
    const limits = { deliveredBeforeMs: 0, deadBeforeMs: 0, perWebhook: 40 };
    const deleted = await Promise.all(
      [one, other, one, other].map((database) => createWebhookStore(database).expire(limits)),
    );

    assert.equal(
      deleted.reduce((sum, count) => sum + count, 0),
      20,
    );
    await one.close();
    await other.close();
  });
}
