/** Migration 011: what nodes tell each other by rows, jobs that run once, batches of executions, and their callbacks. */
import { type Kysely, sql } from 'kysely';

/** Lets only a tenant and the node itself see the rows of some tables. */
type SecureRows = (db: Kysely<unknown>, tables: readonly string[]) => Promise<void>;

export async function createWork(
  db: Kysely<unknown>,
  kind: 'sqlite' | 'postgres',
  secureRows: SecureRows,
): Promise<void> {
  await createBatches(db);
  if (kind === 'sqlite') return;
  await createChanges(db);
  await createJobs(db);
  await secureRows(db, ['batches', 'callbacks', 'changes']);
}

/**
 * `due_at` of a batch: when another node may take it over; null once all of its items have ended. `requests` is what its
 * items ask for, for as long as it is needed. A callback is due when its turn has ended, or at its next attempt.
 */
async function createBatches(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable('batches')
    .addColumn('tenant_id', 'text', (column) => column.notNull())
    .addColumn('batch_id', 'text', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addColumn('due_at', 'bigint')
    .addColumn('concurrency', 'integer', (column) => column.notNull())
    .addColumn('items', 'text', (column) => column.notNull())
    .addColumn('requests', 'text')
    .addPrimaryKeyConstraint('batches_key', ['tenant_id', 'batch_id'])
    .execute();
  await sql`create index batches_due on batches (due_at) where due_at is not null`.execute(db);
  await sql`create index batches_ended on batches (created_at) where due_at is null`.execute(db);

  await db.schema
    .createTable('callbacks')
    .addColumn('tenant_id', 'text', (column) => column.notNull())
    .addColumn('task_id', 'text', (column) => column.notNull())
    .addColumn('url', 'text', (column) => column.notNull())
    .addColumn('batch_id', 'text')
    .addColumn('attempts', 'integer', (column) => column.notNull())
    .addColumn('due_at', 'bigint', (column) => column.notNull())
    .addColumn('created_at', 'bigint', (column) => column.notNull())
    .addPrimaryKeyConstraint('callbacks_key', ['tenant_id', 'task_id', 'url'])
    .execute();
  await sql`create index callbacks_due on callbacks (due_at)`.execute(db);
}

/** Read by all nodes with their beats, and kept for an hour. `at` is the database's clock, and no order. */
async function createChanges(db: Kysely<unknown>): Promise<void> {
  await sql`create table changes (
    seq bigint generated always as identity primary key,
    tenant_id text not null,
    kind text not null,
    id text not null,
    version bigint,
    slug text,
    at timestamptz not null default clock_timestamp()
  )`.execute(db);
  await sql`create index changes_by_age on changes (at)`.execute(db);
}

/** Who inserts the row of a day runs the job on that day. */
async function createJobs(db: Kysely<unknown>): Promise<void> {
  await sql`create table job_runs (
    job text not null,
    day date not null,
    boot bigint,
    at timestamptz not null default now(),
    primary key (job, day)
  )`.execute(db);
}
