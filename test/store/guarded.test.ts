/** The guard of the database: when it stops asking, when it tries again, and what it never counts as an outage. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError } from '../../src/domain/errors.ts';
import type { Database } from '../../src/store/database.ts';
import { unavailable } from '../../src/store/failure.ts';
import { guarded } from '../../src/store/guarded.ts';
import { quiet } from '../support/quiet.ts';

const OPEN_MS = 30;

interface Scene {
  readonly database: Database;
  /** What the database does from now on. */
  next: () => Promise<readonly number[]>;
  asked: number;
  readonly logged: readonly string[];
}

function scene(timeoutMs = 1_000): Scene {
  const logged: string[] = [];
  const note = (_: object, text: string): void => {
    logged.push(text);
  };
  const raw: Database = {
    kind: 'sqlite',
    read: () => Promise.reject(new Error('not used')),
    write: () => Promise.reject(new Error('not used')),
    batch: () => {
      state.asked += 1;
      return state.next();
    },
    close: async () => {},
  };
  const log = { ...quiet, error: note, info: note };
  const state: Scene = {
    database: guarded(raw, { log, timeoutMs, failures: 3, openMs: OPEN_MS }),
    next: async () => [1],
    asked: 0,
    logged,
  };
  return state;
}

const out = (): Promise<never> => Promise.reject(unavailable('out'));
const openFor = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, OPEN_MS + 5));

/** The refusal's wait, for a call that must be refused. */
async function refused({ database }: Scene): Promise<number> {
  try {
    await database.batch([]);
  } catch (error) {
    assert.ok(error instanceof RefusalError);
    assert.equal(error.data.code, 'STORE_UNAVAILABLE');
    assert.ok(error.data.retry_after_ms !== undefined && error.data.retry_after_ms > 0);
    return error.data.retry_after_ms;
  }
  assert.fail('the call went through');
}

test('after so many outages in a row the database is left alone, and callers are told how long', async () => {
  const store = scene();
  store.next = out;
  for (let call = 0; call < 5; call += 1) await refused(store);

  assert.equal(store.asked, 3);
  assert.ok((await refused(store)) <= OPEN_MS);
  assert.deepEqual(store.logged, ['store unavailable']);
});

test('then one call tries, and the others wait for what it finds', async () => {
  const store = scene();
  store.next = out;
  for (let call = 0; call < 3; call += 1) await refused(store);
  await openFor();
  store.next = async () => [1];

  const all = await Promise.all([1, 2, 3].map(() => store.database.batch([])));
  assert.deepEqual(all, [[1], [1], [1]]);
  assert.deepEqual(store.logged, ['store unavailable', 'store available again']);
});

test('a trial that fails closes the door for as long again', async () => {
  const store = scene();
  store.next = out;
  for (let call = 0; call < 3; call += 1) await refused(store);
  await openFor();
  await refused(store);
  await refused(store);

  assert.equal(store.asked, 4);
});

test('successes between outages, and statements that are refused for what they say, open nothing', async () => {
  const store = scene();
  for (let round = 0; round < 4; round += 1) {
    store.next = out;
    await refused(store);
    await refused(store);
    store.next = () => Promise.reject(new Error('constraint failed'));
    await assert.rejects(store.database.batch([]), /constraint failed/);
    store.next = async () => [1];
    await store.database.batch([]);
  }

  assert.deepEqual(store.logged, []);
});

test('a database that does not answer is given up after the time limit, and that counts as an outage', async () => {
  const store = scene(5);
  store.next = () => new Promise(() => {});
  for (let call = 0; call < 5; call += 1) await refused(store);

  assert.equal(store.asked, 3);
});
