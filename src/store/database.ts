/** What the stores ask of a database: reads and transactions that see one tenant, and batches of writes. */
import { Kysely } from 'kysely';
import type { TenantId } from '../domain/ids.ts';
import type { Log } from '../ports/telemetry.ts';
import type { EncodedWrite } from './encode.ts';
import { classified } from './failure.ts';
import { type DatabaseKind, migrate } from './migrations.ts';
import type { Schema } from './schema.ts';
import { createSqliteClient, type SqliteClient } from './sqlite/client.ts';
import { sqliteDialect } from './sqlite/dialect.ts';
import type { SqliteOptions } from './sqlite/protocol.ts';

/** Whose rows a query may see: those of a tenant, or with `node` all (PostgreSQL's row-level security holds it). */
export type Scope = TenantId | 'node';

/** Rejections that say "not now" are STORE_UNAVAILABLE; others are the statement's own. */
export interface Database {
  readonly kind: DatabaseKind;
  /** Each query on its own, in order. */
  read<T>(scope: Scope, body: (db: Kysely<Schema>) => Promise<T>): Promise<T>;
  /** One transaction; rolled back where `body` rejects. */
  write<T>(scope: Scope, body: (db: Kysely<Schema>) => Promise<T>): Promise<T>;
  /** One transaction; one outcome each (encode.ts). */
  batch(writes: readonly EncodedWrite[]): Promise<readonly number[]>;
  close(): Promise<void>;
}

export interface SqliteDatabase extends Database {
  readonly client: SqliteClient;
}

/** Opens the file (or memory) and brings it to the newest schema. Rejects where it cannot. */
export async function openSqlite(options: SqliteOptions, log: Log): Promise<SqliteDatabase> {
  const client = createSqliteClient(options, log);
  const db = new Kysely<Schema>({ dialect: sqliteDialect(client) });
  const close = async (): Promise<void> => {
    await db.destroy();
    await client.close();
  };
  try {
    const done = await migrate(db, 'sqlite');
    if (done.length > 0) log.info({ migrations: done }, 'the database schema was brought up to date');
  } catch (error) {
    await close();
    throw error;
  }
  return {
    kind: 'sqlite',
    client,
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
    close,
  };
}
