/** A PostgreSQL database: one connection that writes in batches, a pool for everything else. */
import { Kysely, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import type { Log } from '../../ports/telemetry.ts';
import type { Database, Scope } from '../database.ts';
import { classified } from '../failure.ts';
import { migrate } from '../migrations.ts';
import type { Schema } from '../schema.ts';
import { runBatch } from './batch.ts';

/** Connections of a node beside the one that writes batches. */
const POOL_SIZE = 8;
/** The server gives a statement up first, the client later, for a server that does not answer at all. */
const TIMEOUTS = {
  connectionTimeoutMillis: 3_000,
  lock_timeout: 3_000,
  statement_timeout: 4_000,
  query_timeout: 6_000,
  idle_in_transaction_session_timeout: 15_000,
};

const INT8 = 20;

interface PostgresOptions {
  readonly url: string;
  readonly poolSize?: number;
}

/** Connects, brings the schema up to date, and warns where row-level security would not hold. Rejects where it can not. */
export async function openPostgres(options: PostgresOptions, log: Log): Promise<Database> {
  await prepare(options.url, log);
  const pool = openPool(
    { connectionString: options.url, max: options.poolSize ?? POOL_SIZE, pipeline: true, ...TIMEOUTS },
    log,
  );
  const writer = openPool({ connectionString: options.url, max: 1, pipeline: true, ...TIMEOUTS }, log);
  const db = new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) });

  /** Sent together with `begin` or right behind it: the connections pipeline. */
  const enter = (scope: Scope, trx: Kysely<Schema>): Promise<unknown> =>
    scope === 'node'
      ? sql`select set_config('nooble.scope', 'node', true)`.execute(trx)
      : sql`select set_config('nooble.tenant_id', ${scope}, true)`.execute(trx);

  async function write<T>(scope: Scope, body: (db: Kysely<Schema>) => Promise<T>): Promise<T> {
    try {
      return await db.transaction().execute(async (trx) => {
        await enter(scope, trx);
        return body(trx);
      });
    } catch (error) {
      throw classified(error);
    }
  }

  /** By hand, since Kysely waits for each answer: opening a session is three round trips, not five. */
  async function read<T>(scope: Scope, body: (db: Kysely<Schema>) => Promise<T>): Promise<T> {
    try {
      return await db.connection().execute(async (connection) => {
        await Promise.all([sql`begin read only`.execute(connection), enter(scope, connection)]);
        try {
          return await body(connection);
        } finally {
          await sql`commit`.execute(connection);
        }
      });
    } catch (error) {
      throw classified(error);
    }
  }

  return {
    kind: 'postgres',
    read,
    write,
    batch: (writes) => runBatch(writer, writes),
    async close() {
      await db.destroy();
      await Promise.all([pool, writer].map((each) => (each.ended ? undefined : each.end())));
    },
  };
}

/** `pipeline` is younger than the types. */
function openPool(config: pg.PoolConfig & { readonly pipeline?: boolean }, log: Log): pg.Pool {
  const pool = new pg.Pool({
    ...config,
    application_name: 'nooble',
    keepAlive: true,
    /** bigint as a number: times and counts stay far below 2^53. */
    types: {
      getTypeParser: (oid: number, format?: 'text' | 'binary') =>
        oid === INT8
          ? Number
          : format === 'binary'
            ? pg.types.getTypeParser(oid, 'binary')
            : pg.types.getTypeParser(oid),
    },
  });
  /** A connection that breaks fails its queries; without a listener its event would end the process as well. */
  pool.on('connect', (client) => client.on('error', () => {}));
  /** An idle connection broke; the pool has dropped it already. */
  pool.on('error', (error) => log.warn({ err: error }, 'a database connection was lost'));
  return pool;
}

/** Migrations may take long and wait for another node's: they run without time limits, on a connection of their own. */
async function prepare(url: string, log: Log): Promise<void> {
  const pool = openPool(
    { connectionString: url, max: 1, connectionTimeoutMillis: TIMEOUTS.connectionTimeoutMillis },
    log,
  );
  const db = new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) });
  try {
    const done = await migrate(db, 'postgres');
    if (done.length > 0) log.info({ migrations: done }, 'the database schema was brought up to date');
    const role = await sql<{ bypass: boolean }>`
      select rolsuper or rolbypassrls as bypass from pg_roles where rolname = current_user`.execute(db);
    if (role.rows[0]?.bypass)
      log.warn({}, 'the database role bypasses row-level security; give the node a role of its own');
  } catch (error) {
    throw classified(error);
  } finally {
    await db.destroy();
    if (!pool.ended) await pool.end();
  }
}
