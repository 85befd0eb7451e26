/** SQLite's bad days: a locked file, a full disk, a dead worker. Nothing is acknowledged then, and it passes. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { RefusalError } from '../../src/domain/errors.ts';
import type { Store } from '../../src/ports.ts';
import { createConversations } from '../../src/store/conversations.ts';
import { openSqlite, type SqliteDatabase } from '../../src/store/database.ts';
import { openStores } from '../../src/store/open.ts';
import type { SqliteOptions } from '../../src/store/sqlite/protocol.ts';
import { leakFree } from '../support/leaks.ts';
import { quiet } from './quiet.ts';
import { accept, contents, forget, named, page } from './records.ts';

interface Scene {
  readonly path: string;
  readonly database: SqliteDatabase;
  readonly store: Store;
}

async function scene(t: TestContext, options: Partial<SqliteOptions> = {}): Promise<Scene> {
  const folder = await mkdtemp(join(tmpdir(), 'nooble-sqlite-'));
  const path = options.path ?? join(folder, 'nooble.db');
  const database = await openSqlite({ ...options, path }, quiet);
  const store = createConversations(database);
  t.after(async () => {
    await store.close();
    await database.close();
    await rm(folder, { recursive: true, force: true });
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
  return async () => {
    child.kill('SIGKILL');
    await once(child, 'exit');
  };
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
  assert.equal(await accept(store, named('again', 's0'), text), 'stored');
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

test('a file that is no database stops the start with a line that names it', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'nooble-sqlite-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  leakFree(t);

  await assert.rejects(
    openStores({ url: `sqlite:${folder}`, log: quiet }),
    /sqlite:.*can not be opened: unable to open/,
  );
  await assert.rejects(openStores({ url: 'mysql://x', log: quiet }), /must be sqlite:path/);
});

test('two processes that open a new file at once agree on its schema', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'nooble-sqlite-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  leakFree(t);
  const url = `sqlite:${join(folder, 'nooble.db')}`;
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

  assert.deepEqual(await loads(/^import (?!type).*'node:sqlite'/m), ['store/sqlite/worker.ts']);
  assert.deepEqual(await loads(/^import .*\/worker\.ts'/m), []);
  assert.deepEqual(await loads(/^import (?!type)[^;]*'\.\.?\/(sqlite\/)?batch\.ts'/m), [
    'store/postgres/open.ts',
    'store/sqlite/worker.ts',
  ]);
});
