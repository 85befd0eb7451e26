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
  const db = new Kysely<Schema>({ dialect: sqliteDialect(client) });
  const database = sqliteDatabase(client, db);
  try {
    const done = await migrate(db, 'sqlite');
    if (done.length > 0) log.info({ migrations: done }, 'the database schema was brought up to date');
  } catch (error) {
    await database.close();
    throw error;
  }
  return { ...database, client };
}

/** The database behind a client, whose schema is the newest. `db` is Kysely over the same client. */
export function sqliteDatabase(client: SqliteClient, db: Kysely<Schema>): Database {
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
      await client.close();
    },
  };
}
