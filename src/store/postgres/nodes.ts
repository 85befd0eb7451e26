/** The table of nodes in PostgreSQL: a boot's registration, its beats on a connection of their own, and burials. */
import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import pg from 'pg';
import { z } from 'zod';
import { sessionIdSchema, tenantIdSchema } from '../../domain/ids.ts';
import type { Boot, Burial, Look, NodeTable } from '../../ports/cluster.ts';
import type { Database } from '../database.ts';
import { classified, interruptedError, superseded } from '../failure.ts';
import type { Fence } from './fence.ts';

/** What this version's nodes understand of each other. */
const SPEAKS = 1;
/** The class of the advisory lock that a beat's connection holds, by its boot. */
const LOCK_CLASS = 7_746;

const TIMEOUTS = { connectionTimeoutMillis: 2_000, statement_timeout: 2_000, query_timeout: 3_000 };

/** Sessions that one beat says are wanted: what is left comes with the next, when these have moved. */
const MOST_WANTED = 500;

/** Beats have no time limit between them, so that the connection stays. */
const BEAT = `
  with me as (
    update nodes set beat = beat + 1, beat_at = now() where boot = $1 and nonce = $2 and state <> 'dead' returning state
  ), adopted as (
    update outgoing set boot = $1 where boot is null and unsent = 1 and exists (select from me) returning 1
  ), held as (
    select l.objid::bigint as boot from pg_locks l join pg_database d on d.oid = l.database
    where d.datname = current_database() and l.locktype = 'advisory' and l.classid = ${LOCK_CLASS} and l.granted
  )
  select n.boot, n.node_id, n.state, n.beat, n.version, n.boot in (select boot from held) as connected,
    (select state from me) as mine, (select count(*)::int from adopted) as adopted,
    (select json_agg(w) from (
      select tenant_id, session_id, epoch, wanted from owners where boot = $1 and wanted is not null limit ${MOST_WANTED}
    ) w) as wanted
  from nodes n where n.state <> 'dead' order by n.boot`;

const bigint = z.coerce.number().int();
const stateSchema = z.enum(['live', 'draining', 'dead']);
const lookSchema = z.array(
  z.object({
    boot: bigint,
    node_id: z.string(),
    state: stateSchema,
    beat: bigint,
    version: z.string(),
    connected: z.boolean(),
    mine: stateSchema.nullable(),
    adopted: z.number(),
    wanted: z
      .array(
        z.object({ tenant_id: tenantIdSchema, session_id: sessionIdSchema, epoch: bigint, wanted: bigint }),
      )
      .nullable(),
  }),
);
const registeredSchema = z.array(z.object({ boot: bigint })).length(1);
const databaseSchema = z.array(z.object({ name: z.string() })).length(1);
const burialSchema = z.array(z.object({ outcome: z.enum(['buried', 'renewed', 'dead already']) })).length(1);

export interface PostgresNodes extends NodeTable {
  close(): Promise<void>;
}

/** `database` is for what may wait: a burial waits for a batch that is being committed, and must not hold up beats. */
export function createPostgresNodes(
  url: string,
  database: Pick<Database, 'write'>,
  fence: Fence,
): PostgresNodes {
  const line = createBeatLine(url);
  return {
    async register({ nodeId, version }) {
      const nonce = randomUUID();
      const rows = await database.write('node', (db) =>
        sql`insert into nodes (nonce, node_id, speaks, version) values (${nonce}, ${nodeId}, ${SPEAKS}, ${version})
          returning boot`
          .execute(db)
          .then((result) => result.rows),
      );
      const [{ boot } = never()] = registeredSchema.parse(rows);
      fence.hold({ boot, nonce });
      return boot;
    },
    async database() {
      const rows = await database.write('node', (db) =>
        sql`select s.system_identifier || '-' || d.oid as name
          from pg_control_system() s, pg_database d where d.datname = current_database()`
          .execute(db)
          .then((result) => result.rows),
      );
      const [{ name } = never()] = databaseSchema.parse(rows);
      return name;
    },
    async drain() {
      const { boot, nonce } = fence.identity() ?? never();
      await database.write('node', (db) =>
        sql`update nodes set state = 'draining' where boot = ${boot} and nonce = ${nonce} and state = 'live'`.execute(
          db,
        ),
      );
    },
    async beat(): Promise<Look> {
      const { boot, nonce } = fence.identity() ?? never();
      const rows = lookSchema.parse(await line.ask(boot, BEAT, [String(boot), nonce]));
      const mine = rows[0]?.mine ?? null;
      if (mine === null) fence.heed(superseded());
      const members = rows.map((row) => ({
        boot: row.boot,
        nodeId: row.node_id,
        state: row.state,
        beat: row.beat,
        version: row.version,
        connected: row.connected,
      }));
      const wanted = (rows[0]?.wanted ?? []).map(
        ({ tenant_id: tenantId, session_id: sessionId, ...row }) => ({
          ...{ key: { tenantId, sessionId }, epoch: row.epoch, by: row.wanted },
        }),
      );
      return { mine, members, adopted: rows[0]?.adopted ?? 0, wanted };
    },
    async bury(boot: Boot, seen: number | undefined): Promise<Burial> {
      const rows = await database.write('node', (db) =>
        sql`select nooble_bury(${boot}, ${seen ?? null}, ${interruptedError}) as outcome`
          .execute(db)
          .then((result) => result.rows),
      );
      const [{ outcome } = never()] = burialSchema.parse(rows);
      return outcome;
    },
    onSuperseded: fence.onSuperseded,
    close: () => line.close(),
  };
}

function never(): never {
  throw new Error('The node has no boot yet.');
}

/** One connection, made anew where it broke, which holds the lock that says that it is there. */
function createBeatLine(url: string) {
  let client: pg.Client | undefined;

  async function connect(boot: Boot): Promise<pg.Client> {
    const fresh = new pg.Client({
      connectionString: url,
      application_name: 'nooble beat',
      keepAlive: true,
      ...TIMEOUTS,
    });
    const drop = (): void => {
      if (client === fresh) client = undefined;
    };
    fresh.on('error', drop).on('end', drop);
    await fresh.connect();
    await fresh.query("select set_config('nooble.scope', 'node', false)");
    await fresh.query('select pg_try_advisory_lock($1::int, $2::int)', [LOCK_CLASS, boot]);
    return fresh;
  }

  return {
    async ask(boot: Boot, text: string, values: readonly string[]): Promise<readonly unknown[]> {
      try {
        client ??= await connect(boot);
        const { rows } = await client.query(text, [...values]);
        return rows;
      } catch (error) {
        // Whatever it was: the next one begins on a new connection, perhaps to another server.
        const old = client;
        client = undefined;
        void old?.end().catch(() => {});
        throw classified(error);
      }
    },
    async close(): Promise<void> {
      await client?.end().catch(() => {});
    },
  };
}
