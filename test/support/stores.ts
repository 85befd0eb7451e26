/**
 * Stores over SQLite in memory, in the test's own thread: they are there at once, answer within a few turns of the
 * event loop, and need no closing.
 */
import type { NodeStores } from '../../src/node.ts';
import type { Store, Write } from '../../src/ports/store.ts';
import { createAgentStore } from '../../src/store/agents.ts';
import { createBatchStore } from '../../src/store/batches.ts';
import { createCallbackStore } from '../../src/store/callbacks.ts';
import { createConversations } from '../../src/store/conversations.ts';
import { SqliteError, sqliteFailure } from '../../src/store/failure.ts';
import { migrate } from '../../src/store/migrations.ts';
import { oneAtATime, type SqliteClient } from '../../src/store/sqlite/client.ts';
import { type Connection, openConnection } from '../../src/store/sqlite/connection.ts';
import { sqliteDatabase } from '../../src/store/sqlite/open.ts';
import { createTemplateStore } from '../../src/store/templates.ts';
import { createWebhookStore } from '../../src/store/webhooks.ts';

/** Made by the migrations once, since they take longer than most tests. */
const SCHEMA = await newestSchema();

/** Makes empty stores. `now`: when messages and deliveries are stored, in ms since the epoch. */
export function memoryStores(now: () => number = Date.now): NodeStores {
  const connection = openConnection({ path: ':memory:' });
  connection.db.exec(SCHEMA);
  const database = sqliteDatabase(clientOf(connection));
  const conversations = createConversations(database, {}, { now });
  return {
    conversations,
    agents: createAgentStore(database),
    templates: createTemplateStore(database),
    webhooks: createWebhookStore(database, now),
    batches: createBatchStore(database, now),
    callbacks: createCallbackStore(database, now),
    close: () => conversations.close(),
  };
}

export const memoryStore = (now?: () => number): Store => memoryStores(now).conversations;

/** A node's stores around a conversation store of the test's own. */
export const storesAround = (conversations: Store): NodeStores => ({
  ...memoryStores(),
  conversations,
  close: () => conversations.close(),
});

type Call = 'commit' | 'tenant' | 'session' | 'turn' | 'answered' | 'unsent' | 'ping';

/** A store that is called once `before` is done, or not at all where that throws. `write` is what a commit is of. */
export function storeBehind(
  store: Store,
  before: (call: Call, write?: Write) => void | Promise<void>,
): Store {
  const behind = async <T>(call: Call, deed: () => Promise<T>, write?: Write): Promise<T> => {
    const wait = before(call, write);
    if (wait) await wait;
    return deed();
  };
  return {
    ...store,
    commit: (write) => behind('commit', () => store.commit(write), write),
    tenant: (...asked) => behind('tenant', () => store.tenant(...asked)),
    session: (...asked) => behind('session', () => store.session(...asked)),
    turn: (...asked) => behind('turn', () => store.turn(...asked)),
    answered: (...asked) => behind('answered', () => store.answered(...asked)),
    unsent: (...asked) => behind('unsent', () => store.unsent(...asked)),
    ping: () => behind('ping', () => store.ping()),
  };
}

function clientOf(connection: Connection): SqliteClient {
  const attempt = async <T>(deed: () => T): Promise<T> => {
    try {
      return deed();
    } catch (error) {
      throw new SqliteError(sqliteFailure(error));
    }
  };
  return {
    acquire: oneAtATime(() => ({
      query: (sql, params) => attempt(() => connection.query(sql, params)),
      batch: (writes) => attempt(() => connection.batch(writes)),
    })),
    crash: async () => {},
    close: async () => {},
  };
}

async function newestSchema(): Promise<string> {
  const connection = openConnection({ path: ':memory:' });
  await sqliteDatabase(clientOf(connection)).read('node', (db) => migrate(db, 'sqlite'));
  const made = connection.db
    .prepare("select sql from sqlite_master where sql is not null and name not like 'sqlite_%'")
    .all();
  connection.db.close();
  return made.map(({ sql }) => `${sql};`).join('\n');
}
