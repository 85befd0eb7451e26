/** A SQLite database: one connection for everything, which one user has at a time. */
import { Kysely } from 'kysely';
import type { Log } from '../../ports/telemetry.ts';
import type { Database } from '../database.ts';
import { classified } from '../failure.ts';
import { migrate } from '../migrations.ts';
import type { Schema } from '../schema.ts';
import { createSqliteClient, type SqliteClient } from './client.ts';
import { sqliteDialect } from './dialect.ts';
import type { SqliteOptions } from './protocol.ts';

export interface SqliteDatabase extends Database {
  readonly client: SqliteClient;
}

/** Opens the file (or memory) and brings it to the newest schema. Rejects where it cannot. */
export async function openSqlite(options: SqliteOptions, log: Log): Promise<SqliteDatabase> {
  const client = createSqliteClient(options, log);
  const database = sqliteDatabase(client);
  try {
    // Not a transaction: the migrations make their own.
    const done = await database.read('node', (db) => migrate(db, 'sqlite'));
    if (done.length > 0) log.info({ migrations: done }, 'the database schema was brought up to date');
  } catch (error) {
    await database.close();
    throw error;
  }
  return { ...database, client };
}

/** The database behind a client, whatever its schema. Closing it closes the client. */
export function sqliteDatabase(client: SqliteClient): Database {
  const db = new Kysely<Schema>({ dialect: sqliteDialect(client) });
  return {
    kind: 'sqlite',
    read: (_scope, body) => body(db),
    write: (_scope, body) =>
      db
        .transaction()
        .execute(body)
        .catch((error: unknown) => {
          throw classified(error);
        }),
    async batch(writes) {
      const session = await client.acquire();
      try {
        return await session.batch(writes);
      } catch (error) {
        throw classified(error);
      } finally {
        session.release();
      }
    },
    async close() {
      await db.destroy();
      // Kysely ends the client only where it has been used.
      await client.close();
    },
  };
}
