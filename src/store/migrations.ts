/** The migrations: one set for both databases, with the few steps that only one of them needs. */
import { type CreateTableBuilder, type Kysely, sql } from 'kysely';
import { type Migration, Migrator } from 'kysely/migration';
import { createWork } from './migration-work.ts';
import { createLimits } from './postgres/migration-limits.ts';
import { createOwners } from './postgres/migration-owners.ts';
import type { Schema } from './schema.ts';
import { createVersions, fits } from './versions.ts';

export type DatabaseKind = 'sqlite' | 'postgres';

/**
 * Brings a database to the newest schema. Safe to run from several processes at once: PostgreSQL's advisory lock,
 * or SQLite's write lock, lets one do it and the others find it done. A database that a newer version has changed stays
 * as it is, where that version says that this one still fits. Rejects where a migration fails; then nothing of it is
 * stored.
 */
export async function migrate(db: Kysely<Schema>, kind: DatabaseKind): Promise<readonly string[]> {
  const known = migrations(kind);
  const migrator = new Migrator({ db, provider: { getMigrations: async () => known } });
  const { error, results = [] } = await migrator.migrateToLatest();
  if (!error) return results.map((result) => result.migrationName);
  const strange = /previously executed migration (\S+) is missing/.exec(String(error))?.[1];
  if (strange === undefined) throw error;
  // The migrator takes a database of a newer version for a broken one.
  if (await fits(db, Object.keys(known))) return [];
  throw new Error(
    `it was written by a newer version of Nooble, whose change ${strange} this one does not know and does not fit; start that version, or go back to a copy from before it`,
  );
}

/** Names sort in the order of application. An applied migration is never changed: write a new one. */
function migrations(kind: DatabaseKind): Record<string, Migration> {
  return {
    '001-conversations': { up: (db) => createConversations(db, kind) },
    '002-management': { up: createManagement },
    ...(kind === 'postgres'
      ? { '003-row-level-security': { up: (db) => secureRows(db, FIRST_TABLES) } }
      : {}),
    '004-outgoing': { up: (db) => createOutgoing(db, kind) },
    '005-settled-deliveries': { up: (db) => dateDeliveries(db, kind) },
    '006-reasoning': { up: addReasoning },
    '007-agents-by-creation': { up: (db) => dateAgents(db, kind) },
    ...(kind === 'postgres'
      ? {
          '008-nodes': { up: createNodes },
          '009-owners': { up: (db) => createOwners(db).then(() => secureRows(db, ['owners'])) },
          '010-limits': { up: shareLimits },
        }
      : {}),
    '011-work': { up: (db) => createWork(db, kind, secureRows) },
    '012-versions': { up: createVersions },
  };
}

type Table = CreateTableBuilder<string, never>;

async function createConversations(db: Kysely<unknown>, kind: DatabaseKind): Promise<void> {
  const small = clustered(kind);
  await db.schema
    .createTable('turns')
    .$call(ordered(kind))
    .addColumn('tenant_id', 'text', (column) => column.notNull())
    .addColumn('task_id', 'text', (column) => column.notNull())
    .addColumn('session_id', 'text', (column) => column.notNull())
    .addColumn('agent_id', 'text', (column) => column.notNull())
    .addColumn('agent_version', 'integer')
    .addColumn('status', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('finished_at', 'bigint')
    .addColumn('asked', 'text', (column) => column.notNull())
    .addColumn('asked_at', 'bigint', (column) => column.notNull())
    .addColumn('content', 'text')
    .addColumn('answer', 'text')
    .addColumn('answered_at', 'bigint')
    .addColumn('flags', 'integer', (column) => column.notNull())
    .addColumn('info', 'text')
    .addColumn('error', 'text')
    .addColumn('untold', 'integer', (column) => column.notNull().defaultTo(0))
    .execute();
  if (kind === 'sqlite')
    await sql`create unique index turns_by_task on turns (tenant_id, task_id)`.execute(db);
  else await sql`alter table turns add constraint turns_by_task primary key (tenant_id, task_id)`.execute(db);
  await sql`create index turns_by_session on turns (tenant_id, session_id, seq)`.execute(db);
  await sql`create index turns_unfinished on turns (seq) where finished_at is null`.execute(db);
  await sql`create index turns_untold on turns (tenant_id, session_id) where untold = 1`.execute(db);

  await db.schema
    .createTable('sessions')
    .addColumn('tenant_id', 'text', (column) => column.notNull())
    .addColumn('session_id', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('last_at', 'bigint', (column) => column.notNull())
    .addPrimaryKeyConstraint('sessions_key', ['tenant_id', 'session_id'])
    .$call(small)
    .execute();
  await sql`create index sessions_by_age on sessions (last_at)`.execute(db);

  await db.schema
    .createTable('tenants')
    .addColumn('tenant_id', 'text', (column) => column.primaryKey().notNull())
    .addColumn('tier', 'text')
    .$call(small)
    .execute();
  await db.schema
    .createTable('daily_usage')
    .addColumn('tenant_id', 'text', (column) => column.notNull())
    .addColumn('day', 'text', (column) => column.notNull())
    .addColumn('used', 'integer', (column) => column.notNull())
    .addPrimaryKeyConstraint('daily_usage_key', ['tenant_id', 'day'])
    .$call(small)
    .execute();
}

/** The order of acceptance. In SQLite it is the primary key, so that rows lie on the disk in that order. */
const ordered =
  (kind: DatabaseKind) =>
  (table: Table): Table =>
    kind === 'sqlite'
      ? table.addColumn('seq', 'integer', (column) => column.primaryKey())
      : table.addColumn('seq', 'bigint', (column) => column.generatedAlwaysAsIdentity().notNull());

/** Small rows found by key alone: SQLite keeps them in the key's own tree. */
const clustered =
  (kind: DatabaseKind) =>
  <T extends { modifyEnd(end: ReturnType<typeof sql>): T }>(table: T): T =>
    kind === 'sqlite' ? table.modifyEnd(sql`without rowid`) : table;

async function createManagement(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('agents')
    .addColumn('tenant_id', 'text', (column) => column.notNull())
    .addColumn('agent_id', 'text', (column) => column.notNull())
    .addColumn('version', 'integer', (column) => column.notNull())
    .addColumn('slug', 'text', (column) => column.notNull())
    .addColumn('type', 'text', (column) => column.notNull())
    .addColumn('tags', 'text', (column) => column.notNull())
    .addColumn('search', 'text', (column) => column.notNull())
    .addColumn('deleted', 'integer', (column) => column.notNull())
    .addColumn('updated_at', 'bigint', (column) => column.notNull())
    .addColumn('body', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('agents_key', ['tenant_id', 'agent_id'])
    .execute();
  await sql`create unique index agents_by_slug on agents (tenant_id, slug) where deleted = 0`.execute(db);
  await sql`create index agents_by_change on agents (tenant_id, deleted, updated_at)`.execute(db);

  await db.schema
    .createTable('agent_versions')
    .addColumn('tenant_id', 'text', (column) => column.notNull())
    .addColumn('agent_id', 'text', (column) => column.notNull())
    .addColumn('version', 'integer', (column) => column.notNull())
    .addColumn('body', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('agent_versions_key', ['tenant_id', 'agent_id', 'version'])
    .execute();
  await db.schema
    .createTable('agent_history')
    .addColumn('tenant_id', 'text', (column) => column.notNull())
    .addColumn('agent_id', 'text', (column) => column.notNull())
    .addColumn('entry', 'integer', (column) => column.notNull())
    .addColumn('body', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('agent_history_key', ['tenant_id', 'agent_id', 'entry'])
    .execute();
  await createTemplatesAndWebhooks(db);
}

async function createTemplatesAndWebhooks(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('templates')
    .addColumn('tenant_id', 'text', (column) => column.notNull())
    .addColumn('template_id', 'text', (column) => column.notNull())
    .addColumn('slug', 'text', (column) => column.notNull())
    .addColumn('version', 'integer', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('body', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('templates_key', ['tenant_id', 'template_id'])
    .execute();
  await sql`create unique index templates_by_slug on templates (tenant_id, slug)`.execute(db);

  await db.schema
    .createTable('webhooks')
    .addColumn('tenant_id', 'text', (column) => column.notNull())
    .addColumn('webhook_id', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('body', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('webhooks_key', ['tenant_id', 'webhook_id'])
    .execute();
  await db.schema
    .createTable('deliveries')
    .addColumn('tenant_id', 'text', (column) => column.notNull())
    .addColumn('delivery_id', 'text', (column) => column.notNull())
    .addColumn('webhook_id', 'text', (column) => column.notNull())
    .addColumn('status', 'text', (column) => column.notNull())
    .addColumn('due_at', 'bigint')
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('body', 'text', (column) => column.notNull())
    .addPrimaryKeyConstraint('deliveries_key', ['tenant_id', 'delivery_id'])
    .addForeignKeyConstraint(
      'deliveries_webhook',
      ['tenant_id', 'webhook_id'],
      'webhooks',
      ['tenant_id', 'webhook_id'],
      (constraint) => constraint.onDelete('cascade'),
    )
    .execute();
  await sql`create index deliveries_by_webhook on deliveries (tenant_id, webhook_id, created_at)`.execute(db);
  await sql`create index deliveries_due on deliveries (due_at) where status = 'pending'`.execute(db);
}

/**
 * Numbers that never come twice. Without `autoincrement` SQLite gives the number of a deleted last row to the next one,
 * and a reader that goes on from it would miss that row.
 */
const numbered =
  (kind: DatabaseKind) =>
  (table: Table): Table =>
    kind === 'sqlite'
      ? table.addColumn('seq', 'integer', (column) => column.primaryKey().autoIncrement())
      : ordered(kind)(table);

async function createOutgoing(db: Kysely<unknown>, kind: DatabaseKind): Promise<void> {
  await db.schema
    .createTable('outgoing')
    .$call(numbered(kind))
    .addColumn('tenant_id', 'text', (column) => column.notNull())
    .addColumn('id', 'text', (column) => column.notNull())
    .addColumn('answers', 'text')
    .addColumn('queue', 'text')
    .addColumn('format', 'text', (column) => column.notNull())
    .addColumn('body', 'text')
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('unsent', 'integer', (column) => column.notNull())
    .execute();
  await sql`create unique index outgoing_by_id on outgoing (tenant_id, id)`.execute(db);
  await sql`create index outgoing_by_answers on outgoing (tenant_id, answers, seq)
    where answers is not null`.execute(db);
  await sql`create index outgoing_unsent on outgoing (seq) where unsent = 1`.execute(db);
  await sql`create index outgoing_by_age on outgoing (created_at) where unsent = 0`.execute(db);
  if (kind === 'postgres') await secureRows(db, ['outgoing']);
}

/** When older deliveries were settled is not known: the time at which they were made stands for it. */
async function dateDeliveries(db: Kysely<unknown>, kind: DatabaseKind): Promise<void> {
  await db.schema.alterTable('deliveries').addColumn('settled_at', 'bigint').execute();
  // Without it row-level security would show no row to change; it holds for this transaction alone.
  if (kind === 'postgres') await sql`select set_config('nooble.scope', 'node', true)`.execute(db);
  await sql`update deliveries set settled_at = created_at where status <> 'pending'`.execute(db);
  await sql`create index deliveries_settled on deliveries (tenant_id, webhook_id, settled_at)
    where settled_at is not null`.execute(db);
}

async function addReasoning(db: Kysely<unknown>): Promise<void> {
  await db.schema.alterTable('turns').addColumn('reasoning', 'text').execute();
}

/** Lists are in the order of creation, which no later write changes. */
async function dateAgents(db: Kysely<unknown>, kind: DatabaseKind): Promise<void> {
  await db.schema
    .alterTable('agents')
    .addColumn('created_at', 'bigint', (column) => column.notNull().defaultTo(0))
    .execute();
  if (kind === 'postgres') {
    await sql`select set_config('nooble.scope', 'node', true)`.execute(db);
    // No function of PostgreSQL reads JSON that holds \u0000.
    await sql`update agents set created_at = coalesce(
      extract(epoch from substring(body from '"created_at":"([0-9TZ:.-]+)"')::timestamptz) * 1000, 0)`.execute(
      db,
    );
  } else
    await sql`update agents set created_at =
      cast(round(unixepoch(json_extract(body, '$.created_at'), 'subsec') * 1000) as integer)`.execute(db);
  await sql`drop index agents_by_change`.execute(db);
  await sql`create index agents_by_creation on agents (tenant_id, deleted, created_at, agent_id)`.execute(db);
}

/**
 * Several nodes share a PostgreSQL database. `nodes` has a row for each start of one (ports/cluster.ts); `nonce` tells a
 * boot apart that is minted again after a fail-over lost it, and `beat_at` is for people. A batch takes its boot's row for
 * share (`nooble_alive`), a burial takes it alone: a batch is committed before its node's death, or not at all. What an
 * unfenced node of an older version writes has no boot.
 */
async function createNodes(db: Kysely<unknown>): Promise<void> {
  await sql`create table nodes (
    boot bigint generated always as identity primary key,
    nonce uuid not null,
    node_id text not null,
    state text not null default 'live' check (state in ('live', 'draining', 'dead')),
    beat bigint not null default 0,
    speaks int not null,
    version text not null,
    started_at timestamptz not null default now(),
    beat_at timestamptz not null default now()
  ) with (fillfactor = 50)`.execute(db);
  await sql`create index nodes_not_dead on nodes (boot) where state <> 'dead'`.execute(db);
  await sql`alter table turns add column boot bigint`.execute(db);
  await sql`alter table outgoing add column boot bigint`.execute(db);
  await sql`create index turns_running on turns (boot) where finished_at is null`.execute(db);
  await sql`drop index turns_unfinished`.execute(db);
  await sql`create index outgoing_of_boot on outgoing (boot, seq) where unsent = 1`.execute(db);
  for (const [name, strength] of [
    ['nooble_alive', 'for key share'],
    ['nooble_alive_alone', 'for update'],
  ] as const)
    await sql`create function ${sql.id(name)}(b bigint, n uuid) returns void language plpgsql as $$
      begin
        perform 1 from nodes where boot = b and nonce = n and state <> 'dead' ${sql.raw(strength)};
        if not found then raise exception 'node is superseded' using errcode = 'NB409'; end if;
      end $$`.execute(db);
  await sql`create function nooble_bury(dead bigint, seen bigint, why text) returns text language plpgsql as $$
    declare b bigint; s text;
    begin
      select beat, state into b, s from nodes where boot = dead for update;
      if s is null or s = 'dead' then return 'dead already'; end if;
      if seen is not null and b <> seen then return 'renewed'; end if;
      update nodes set state = 'dead' where boot = dead;
      update turns set status = 'failed', error = why, untold = 1,
        finished_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
      where boot = dead and finished_at is null;
      update outgoing set boot = null where boot = dead and unsent = 1;
      return 'buried';
    end $$`.execute(db);
}

async function shareLimits(db: Kysely<unknown>): Promise<void> {
  await createLimits(db);
  await secureRows(db, ['limits', 'limit_leases']);
}

/** The tables from before row-level security; later migrations secure their own. */
const FIRST_TABLES = [
  'turns',
  'sessions',
  'tenants',
  'daily_usage',
  'agents',
  'agent_versions',
  'agent_history',
  'templates',
  'webhooks',
  'deliveries',
];

/**
 * Rows show themselves to the tenant named in the transaction, or to the node itself (`scope`): a query that says
 * neither sees and writes nothing. FORCE, since a node usually owns its tables; superusers pass all the same.
 */
async function secureRows(db: Kysely<unknown>, tables: readonly string[]): Promise<void> {
  const visible = sql`(
    tenant_id = current_setting('nooble.tenant_id', true)
    or current_setting('nooble.scope', true) = 'node'
  )`;
  for (const table of tables) {
    await sql`alter table ${sql.table(table)} enable row level security`.execute(db);
    await sql`alter table ${sql.table(table)} force row level security`.execute(db);
    await sql`create policy tenant on ${sql.table(table)} using ${visible} with check ${visible}`.execute(db);
  }
}
