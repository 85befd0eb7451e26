/** SQLite's bad days: a locked file, a full disk, a dead worker. Nothing is acknowledged then, and it passes. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import { RefusalError } from '../../src/domain/errors.ts';
import type { Store } from '../../src/ports/store.ts';
import { createConversations } from '../../src/store/conversations.ts';
import { openStores } from '../../src/store/open.ts';
import { openSqlite, type SqliteDatabase } from '../../src/store/sqlite/open.ts';
import type { SqliteOptions } from '../../src/store/sqlite/protocol.ts';
import { leakFree } from '../support/leaks.ts';
import { killed } from '../support/processes.ts';
import { quiet } from '../support/quiet.ts';
import { temporary } from '../support/temporary.ts';
import { UNDO_AGENTS_BY_CREATION, UNDO_VERSIONS } from './agent-contract.ts';
import { endWith, outgoing, sent, storeOutgoing, unsentIds } from './outgoing-contract.ts';
import { accept, contents, forget, named, page, taskOf, tenantOf } from './records.ts';

interface Scene {
  readonly path: string;
  readonly database: SqliteDatabase;
  readonly store: Store;
}

async function scene(t: TestContext, options: Partial<SqliteOptions> = {}): Promise<Scene> {
  const path = options.path ?? temporary(t).path('nooble.db');
  const database = await openSqlite({ ...options, path }, quiet);
  const store = createConversations(database);
  t.after(async () => {
    await store.close();
    await database.close();
  });
  return { path, database, store };
}

const refused = (error: unknown): boolean =>
  error instanceof RefusalError &&
  error.data.code === 'STORE_UNAVAILABLE' &&
  (error.data.retry_after_ms ?? 0) > 0;

/** Another process that begins a write transaction and stays in it. Returns what kills it. */
async function holdLock(path: string): Promise<() => Promise<void>> {
  const code = `const { DatabaseSync } = require('node:sqlite');
    new DatabaseSync(${JSON.stringify(path)}).exec('begin immediate');
    console.log('held'); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--no-warnings', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return () => killed(child);
}

test('while another process holds the file writes are refused, reads go on, and then all is well', async (t) => {
  const { path, store } = await scene(t, { busyTimeoutMs: 50 });
  await accept(store, named('t1'));
  const release = await holdLock(path);

  await assert.rejects(accept(store, named('t2')), refused);
  await assert.rejects(store.ping(), refused);
  assert.deepEqual(contents(await page(store, named('t1'))), ['ask t1']);
  await release();
  assert.equal(await accept(store, named('t2')), 'stored');
  await store.ping();
});

test('a full disk is named as the reason where agents are written, and the next write can go on', async (t) => {
  const { database } = await scene(t, { maxPages: 60 });
  const full = (error: unknown): boolean =>
    refused(error) &&
    error instanceof RefusalError &&
    /disk of the database is full/.test(error.data.message) &&
    error.cause instanceof Error &&
    /full/.test(error.cause.message);
  const put = (tenant: string, tier: string) =>
    database.write('node', (db) => db.insertInto('tenants').values({ tenant_id: tenant, tier }).execute());
  await assert.rejects(async () => {
    for (let at = 0; ; at += 1) await put(`${at}`, 'x'.repeat(30_000));
  }, full);
  await assert.rejects(put('more', 'x'.repeat(300_000)), full);
  await put('small', 'free');
});

test('a full disk refuses what does not fit and keeps what was stored; room makes it take writes again', async (t) => {
  const { store } = await scene(t, { maxPages: 100 });
  const text = 'x'.repeat(30_000);
  let stored = 0;
  await assert.rejects(async () => {
    for (; ; stored += 1) await accept(store, named(`t${stored}`, `s${stored}`), text);
  }, refused);

  assert.ok(stored > 3);
  for (let turn = 0; turn < stored; turn += 1)
    assert.deepEqual(contents(await page(store, named(`t${turn}`, `s${turn}`))), [text]);
  await forget(store, named('t0', 's0'));
  assert.equal(await accept(store, named('again', 's0'), text.slice(0, 20_000)), 'stored');
});

test('an end whose message finds no room is not stored either, and both are once there is room', async (t) => {
  const { store } = await scene(t, { maxPages: 200 });
  const [name, other] = [named('t1'), named('t2', 's2')];
  await accept(store, name);
  await accept(store, other, 'x'.repeat(500_000));
  const heavy = outgoing('a', { answers: 'r1', queue: undefined });
  const large = {
    ...heavy,
    action: heavy.action && { ...heavy.action, data: { text: 'x'.repeat(400_000) } },
  };
  await assert.rejects(endWith(store, name, large), refused);

  assert.equal((await store.turn(tenantOf(name), taskOf(name)))?.status, 'processing');
  assert.equal(await store.answered(tenantOf(name), 'r1'), null);
  await forget(store, other);
  assert.equal(await endWith(store, name, large), 'stored');
  assert.deepEqual(await store.answered(tenantOf(name), 'r1'), large);
});

test('what is to be sent outlives its process, and a number is never given out twice', async (t) => {
  const url = temporary(t).database;
  const [first, second] = [outgoing('a', { answers: 'r1' }), outgoing('b')];
  const before = await openStores({ url, log: quiet });
  await storeOutgoing(before.conversations, first, second);
  await before.close();

  const after = await openStores({ url, log: quiet });
  const found = await after.conversations.unsent(0, 9);
  assert.deepEqual(
    found.map((each) => each.outgoing),
    [first, second],
  );
  await sent(after.conversations, first, second);
  await storeOutgoing(after.conversations, second);
  assert.deepEqual(await unsentIds(after.conversations, found.at(-1)?.seq), ['b']);
  assert.deepEqual(await after.conversations.answered(first.tenantId, 'r1'), first);
  await after.close();
});

test('a database from before there was an outbox gets one and keeps what it has', async (t) => {
  const path = temporary(t).path('nooble.db');
  const before = await openStores({ url: `sqlite:${path}`, log: quiet });
  await accept(before.conversations, named('t1'));
  await before.close();
  const db = new DatabaseSync(path);
  db.exec(
    'drop table outgoing; drop index deliveries_settled; alter table deliveries drop column settled_at',
  );
  db.exec('alter table turns drop column reasoning; drop table batches; drop table callbacks');
  for (const statement of [UNDO_VERSIONS, ...UNDO_AGENTS_BY_CREATION]) db.exec(statement);
  db.exec("delete from kysely_migration where name >= '004'");
  db.close();

  const after = await openStores({ url: `sqlite:${path}`, log: quiet });
  assert.equal(await endWith(after.conversations, named('t1'), outgoing('a')), 'stored');
  assert.deepEqual(await unsentIds(after.conversations), ['a']);
  await after.close();
});

test('when the worker dies its calls are refused, the next ones find a new one and all that was stored', async (t) => {
  const { database, store } = await scene(t);
  await accept(store, named('t1'));
  const lost = assert.rejects(
    database.write('node', async (db) => {
      await db.insertInto('tenants').values({ tenant_id: 'lost', tier: null }).execute();
      await database.client.crash();
      await db.insertInto('tenants').values({ tenant_id: 'never', tier: null }).execute();
    }),
    refused,
  );
  await lost;

  assert.equal(await accept(store, named('t2')), 'stored');
  assert.deepEqual(contents(await page(store, named('t1'))), ['ask t1', 'ask t2']);
  const tenants = await database.read('node', (db) => db.selectFrom('tenants').selectAll().execute());
  assert.deepEqual(tenants, [], 'nothing of the broken transaction is there');
});

test('a database in memory is gone with its worker, and says so', async (t) => {
  const { database, store } = await scene(t, { path: ':memory:' });
  await accept(store, named('t1'));
  await database.client.crash();

  await assert.rejects(accept(store, named('t2')), refused);
});

test('a session that a failed transaction or another process took away is there again with its next turn', async (t) => {
  const { path, store } = await scene(t);
  const expire = () => store.commit({ type: 'history-expired', tier: null, beforeMs: 1_700_000_000_002 });
  const other = new DatabaseSync(path);
  t.after(() => other.close());
  other.exec('alter table outgoing rename to away');
  const [kept, lost] = await Promise.allSettled([
    accept(store, named('t1')),
    storeOutgoing(store, outgoing('a')),
  ]);
  assert.deepEqual([kept.status, lost.status], ['fulfilled', 'rejected']);
  await expire();
  assert.equal(await page(store, named('t1')), null);

  await accept(store, named('t2'));
  other.exec('delete from turns; delete from sessions');
  await accept(store, named('t3'));
  await expire();
  assert.equal(await page(store, named('t3')), null);
});

test('a file that is no database stops the start with a line that names it', async (t) => {
  const { folder } = temporary(t);
  leakFree(t);

  await assert.rejects(
    openStores({ url: `sqlite:${folder}`, log: quiet }),
    /sqlite:.*can not be opened: unable to open/,
  );
  await assert.rejects(openStores({ url: 'mysql://x', log: quiet }), /must be sqlite:path/);
});

test('two processes that open a new file at once agree on its schema', async (t) => {
  const url = temporary(t).database;
  leakFree(t);
  const both = await Promise.all([openStores({ url, log: quiet }), openStores({ url, log: quiet })]);

  for (const [index, { conversations }] of both.entries()) await accept(conversations, named(`t${index}`));
  await Promise.all(both.map((stores) => stores.close()));
});

test('SQLite runs in the worker alone: nothing else loads it, and nothing else loads what runs it', async () => {
  const folder = new URL('../../src/', import.meta.url);
  const files = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith('.ts'));
  const loads = async (pattern: RegExp): Promise<readonly string[]> => {
    const found = await Promise.all(
      files.map(async (name) => (pattern.test(await readFile(new URL(name, folder), 'utf8')) ? [name] : [])),
    );
    return found.flat().sort();
  };

  assert.deepEqual(await loads(/^import (?!type).*'node:sqlite'/m), [
    'store/sqlite/connection.ts',
    'store/sqlite/lock.ts',
  ]);
  assert.deepEqual(await loads(/^import (?!type)[^;]*\/lock\.ts'/m), ['store/sqlite/connection.ts']);
  assert.deepEqual(await loads(/^import (?!type)[^;]*\/connection\.ts'/m), ['store/sqlite/worker.ts']);
  assert.deepEqual(await loads(/^import [^;]*sqlite\/worker\.ts'/m), []);
  assert.deepEqual(await loads(/^import (?!type)[^;]*'\.\.?\/(sqlite\/)?batch\.ts'/m), [
    'store/postgres/open.ts',
    'store/sqlite/connection.ts',
  ]);
});
