/** Kysely over the SQLite worker. */
import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from 'kysely';
import type { Param } from '../encode.ts';
import { classified, SqliteError } from '../failure.ts';
import type { SqliteClient, SqliteSession } from './client.ts';

export const sqliteDialect = (client: SqliteClient): Dialect => ({
  createAdapter: () => new WorkerAdapter(),
  createDriver: () => createDriver(client),
  createIntrospector: (db) => new SqliteIntrospector(db),
  createQueryCompiler: () => new SqliteQueryCompiler(),
});

/** SQLite takes DDL in transactions; with `begin immediate` that also keeps two processes from migrating at once. */
class WorkerAdapter extends SqliteAdapter {
  override get supportsTransactionalDdl(): boolean {
    return true;
  }
}

function createDriver(client: SqliteClient): Driver {
  const run = (connection: DatabaseConnection, sql: string) =>
    connection.executeQuery(CompiledQuery.raw(sql));
  const sessions = new WeakMap<DatabaseConnection, SqliteSession>();
  return {
    init: async () => {},
    async acquireConnection() {
      const session = await client.acquire();
      const connection = connectionOver(session);
      sessions.set(connection, session);
      return connection;
    },
    async beginTransaction(connection) {
      await run(connection, 'begin immediate');
    },
    async commitTransaction(connection) {
      await run(connection, 'commit');
    },
    async rollbackTransaction(connection) {
      // After some failures, as after that of a full disk, SQLite has rolled back by itself: the failure is what matters.
      await run(connection, 'rollback').catch((error: unknown) => {
        if (!(error instanceof SqliteError && error.message.includes('no transaction is active')))
          throw error;
      });
    },
    async releaseConnection(connection) {
      sessions.get(connection)?.release();
    },
    destroy: () => client.close(),
  };
}

function connectionOver(session: SqliteSession): DatabaseConnection {
  return {
    async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
      const result = await session.query(query.sql, query.parameters.map(param)).catch((error: unknown) => {
        throw classified(error);
      });
      return {
        // Kysely derived R from the query itself; SQLite has nothing to check it against.
        rows: result.rows as R[],
        numAffectedRows: BigInt(result.changes),
      };
    },
    // biome-ignore lint/correctness/useYield: the interface asks for a generator; this one only refuses
    async *streamQuery() {
      throw new Error('The SQLite worker does not stream.');
    },
  };
}

function param(value: unknown): Param {
  if (value === null || typeof value === 'string' || typeof value === 'number') return value;
  throw new TypeError(`SQLite is given a parameter of type ${typeof value}.`);
}
