/** A PostgreSQL database: one connection that writes in batches, a pool for everything else. */
import { Kysely, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import type { NodeTable, OwnerTable } from '../../ports/cluster.ts';
import type { Log } from '../../ports/telemetry.ts';
import type { Database, Scope } from '../database.ts';
import { classified, isReadOnly, isRefused, readOnlyServer, unknownOutcome } from '../failure.ts';
import { migrate } from '../migrations.ts';
import type { Schema } from '../schema.ts';
import { runBatch } from './batch.ts';
import { createFence, type Fence } from './fence.ts';
import { createPostgresNodes } from './nodes.ts';
import { createOwnership } from './ownership.ts';

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

/** So long a transaction whose commit was not answered is asked for, and this often. */
const SETTLE_MS = 5_000;
const ASK_EVERY_MS = 200;

/** Between two times that connections are dropped since their server is read-only. */
const RENEW_MS = 1_000;

const INT8 = 20;

export interface PostgresDatabase extends Required<Database> {
  readonly nodes: NodeTable;
  readonly owners: OwnerTable;
  readonly fence: Fence;
}

interface PostgresOptions {
  readonly url: string;
  readonly poolSize?: number;
}

/** Connects, brings the schema up to date, and warns where row-level security would not hold. Rejects where it can not. */
export async function openPostgres(options: PostgresOptions, log: Log): Promise<PostgresDatabase> {
  await prepare(options.url, log);
  const shared = { connectionString: options.url, pipeline: true, ...TIMEOUTS };
  const pool = renewable(() => openPool({ ...shared, max: options.poolSize ?? POOL_SIZE }, log));
  // One, and a proof rests on it: batches of one node follow each other (docs/decisions/0018).
  const writer = renewable(() =>
    openPool({ ...shared, max: 1, idle_in_transaction_session_timeout: 5_000 }, log),
  );
  const fence = createFence();
  const db = new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) });

  const setScope = (scope: Scope) =>
    sql`set_config(${scope === 'node' ? 'nooble.scope' : 'nooble.tenant_id'}, ${scope}, true)`;

  /** Sent together with `begin`: the connections pipeline. Says whether the server takes no writes. */
  async function enterRead(scope: Scope, connection: Kysely<Schema>): Promise<boolean> {
    const { rows } = await sql<{ read_only: boolean }>`select ${setScope(scope)},
      pg_is_in_recovery() or current_setting('default_transaction_read_only') = 'on' as read_only`.execute(
      connection,
    );
    return rows[0]?.read_only ?? false;
  }

  async function enterWrite(scope: Scope, trx: Kysely<Schema>): Promise<TransactionName> {
    const { rows } = await sql<TransactionName>`select ${setScope(scope)}, pg_current_xact_id()::text as id,
      pg_postmaster_start_time()::text as server`.execute(trx);
    const [name] = rows;
    if (!name) throw new Error('PostgreSQL did not name its transaction.');
    return name;
  }

  /**
   * Whether a transaction whose commit was not answered is stored all the same. Undefined where that can not be found
   * out: the server was started anew or is another one, where the number may be that of another transaction.
   */
  async function isCommitted({ id, server }: TransactionName): Promise<boolean | undefined> {
    const untilMs = performance.now() + SETTLE_MS;
    while (performance.now() < untilMs) {
      const asked = await sql<{ same: boolean; status: string | null }>`
        select pg_postmaster_start_time()::text = ${server} as same,
          case when pg_postmaster_start_time()::text = ${server} then pg_xact_status(${id}::xid8) end as status`
        .execute(db)
        .catch(() => undefined);
      const row = asked?.rows[0];
      if (row && (!row.same || row.status === null)) return undefined;
      if (row && row.status !== 'in progress') return row.status === 'committed';
      await new Promise((resolve) => setTimeout(resolve, ASK_EVERY_MS));
    }
    return undefined;
  }

  let renewedAtMs = Number.NEGATIVE_INFINITY;
  /**
   * After a fail-over warm connections lead to a server that is read-only now, where reads find what is old: the first
   * call that is told so drops them all, and is made once more. While there is no other primary that is not done for
   * each call.
   */
  async function onPrimary<T>(deed: (isLast: boolean) => Promise<T>): Promise<T> {
    const beganAtMs = performance.now();
    try {
      return await deed(false);
    } catch (error) {
      if (!isReadOnly(error)) throw classified(error);
      if (renewedAtMs < beganAtMs && performance.now() - renewedAtMs > RENEW_MS) {
        renewedAtMs = performance.now();
        log.warn({}, 'the database has become read-only: connecting anew');
        pool.renew();
        writer.renew();
      }
      return deed(true).catch((again: unknown) => {
        throw classified(again);
      });
    }
  }

  const write = <T>(scope: Scope, body: (db: Kysely<Schema>) => Promise<T>): Promise<T> =>
    onPrimary(async () => {
      let last: { readonly name: TransactionName; readonly value: T } | undefined;
      try {
        return await db.transaction().execute(async (trx) => {
          const name = await enterWrite(scope, trx);
          const value = await body(trx);
          last = { name, value };
          return value;
        });
      } catch (error) {
        if (!last || isRefused(error)) throw error;
        const committed = await isCommitted(last.name);
        if (committed === undefined) throw unknownOutcome(error);
        if (!committed) throw error;
        return last.value;
      }
    });

  /** By hand, since Kysely waits for each answer: opening a session is three round trips, not five. */
  const read = <T>(scope: Scope, body: (db: Kysely<Schema>) => Promise<T>): Promise<T> =>
    onPrimary((isLast) =>
      db.connection().execute(async (connection) => {
        const [, readOnly] = await Promise.all([
          sql`begin read only`.execute(connection),
          enterRead(scope, connection),
        ]);
        try {
          if (readOnly && !isLast) throw readOnlyServer();
          return await body(connection);
        } finally {
          await sql`commit`.execute(connection);
        }
      }),
    );

  const nodes = createPostgresNodes(options.url, { write }, fence);
  const table = createOwnership(pool, fence);
  const owners: OwnerTable = {
    claim: (keys) => onPrimary(() => table.claim(keys)),
    runner: (tenantId, taskId) => onPrimary(() => table.runner(tenantId, taskId)),
    want: (key, owner) => onPrimary(() => table.want(key, owner)),
    sweep: () => onPrimary(table.sweep),
  };
  return {
    kind: 'postgres',
    ...{ nodes, owners, fence },
    boot: () => fence.identity()?.boot,
    read,
    write,
    batch: (writes) => onPrimary(() => runBatch(writer, fence, writes)),
    statement: (body) => onPrimary(() => body(db)),
    async close() {
      await db.destroy();
      await Promise.all([pool.end(), writer.end(), nodes.close()]);
    },
  };
}

/** A transaction by its number, which holds as long as the server runs. */
interface TransactionName {
  readonly id: string;
  readonly server: string;
}

/** A pool that a fresh one can take the place of. Connections of the old one are closed as they are given back. */
function renewable(open: () => pg.Pool) {
  let pool = open();
  const ending = new Set<Promise<void>>();
  const retire = (): void => {
    if (pool.ended || pool.ending) return;
    const end = pool
      .end()
      .catch(() => {})
      .finally(() => ending.delete(end));
    ending.add(end);
  };
  return {
    connect: () => pool.connect(),
    get options() {
      return pool.options;
    },
    renew(): void {
      retire();
      pool = open();
    },
    async end(): Promise<void> {
      retire();
      await Promise.all(ending);
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
