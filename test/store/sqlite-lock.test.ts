/** The lock of a SQLite file: one node has it, whoever asks, until it closes. */
import assert from 'node:assert/strict';
import { existsSync, symlinkSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { openStores, type Stores } from '../../src/store/open.ts';
import { lockFile } from '../../src/store/sqlite/lock.ts';
import { openSqlite } from '../../src/store/sqlite/open.ts';
import { leakFree } from '../support/leaks.ts';
import { quiet } from '../support/quiet.ts';
import { temporary } from '../support/temporary.ts';

const openAs = (url: string, nodeId: string): Promise<Stores> => openStores({ url, log: quiet, nodeId });

test('two nodes in one process are two nodes, also of one name; one that has closed is none', async (t) => {
  leakFree(t);
  const { database } = temporary(t);
  const first = await openAs(database, 'one');
  await assert.rejects(
    openAs(database, 'one'),
    /the database .* can not be opened: node one \(process \d+ on /,
  );
  await first.close();
  const second = await openAs(database, 'two');
  await second.conversations.ping();
  await second.close();
});

test('what has no node name, as commands have none, works beside one', async (t) => {
  leakFree(t);
  const { database } = temporary(t);
  const node = await openAs(database, 'one');
  const command = await openStores({ url: database, log: quiet });
  await command.conversations.ping();
  await command.close();
  await assert.rejects(openAs(database, 'two'), /node one /);
  await node.close();
});

test('of many that start at once on a new database one gets it, and the others hear of it', async (t) => {
  leakFree(t);
  const { database } = temporary(t);
  const all = await Promise.allSettled(['a', 'b', 'c', 'd'].map((name) => openAs(database, name)));
  const stores = all.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  assert.equal(stores.length, 1);
  for (const each of all) if (each.status === 'rejected') assert.match(String(each.reason), /node [abcd] \(/);
  await stores[0]?.close();
});

test('nothing is written to a database whose lock another has, and it is not even made', async (t) => {
  const { path, database } = temporary(t);
  writeFileSync(path('nooble.db'), '');
  const lock = lockFile(path('nooble.db'), 'one');
  await assert.rejects(openAs(database, 'two'), /node one /);
  assert.equal(existsSync(path('nooble.db-wal')), false);
  lock.release();
});

test('links lead to the same lock, the first of all and those whose file is not there yet', (t) => {
  const { path } = temporary(t);
  symlinkSync(path('real.db'), path('link.db'));
  symlinkSync(path('link.db'), path('link-to-link.db'));
  const lock = lockFile(path('link-to-link.db'), 'one');
  for (const name of ['real.db', 'link.db', 'link-to-link.db'])
    assert.throws(() => lockFile(path(name), 'two'), /node one /, name);
  lock.release();
  lockFile(path('link.db'), 'two').release();
});

test('a worker that died gets its lock back with its successor, and nobody else in between', async (t) => {
  leakFree(t);
  const { path, database } = temporary(t);
  const sqlite = await openSqlite({ path: path('nooble.db'), nodeId: 'one' }, quiet);
  await sqlite.client.crash();
  await sqlite.read('node', (db) => db.selectFrom('turns').selectAll().execute());
  await assert.rejects(openAs(database, 'two'), /node one /);
  await sqlite.close();
});

test('databases in memory are each their own', async (t) => {
  leakFree(t);
  const all = await Promise.all([openAs('sqlite::memory:', 'one'), openAs('sqlite::memory:', 'two')]);
  await Promise.all(all.map((each) => each.close()));
});
