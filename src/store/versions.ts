/** Which versions of the code fit a database: an older one may go on, or come back, beside a newer one that has changed it. */
import { type Kysely, sql } from 'kysely';
import type { Schema } from './schema.ts';

/**
 * The number of the oldest migration that code must know to work on this database. A change that older code can live with
 * (a new table, a new column with a default) leaves it alone; one that it can not (a column that goes, a meaning that
 * changes) raises it, a version after the code that no longer needs the old.
 */
export async function createVersions(db: Kysely<unknown>): Promise<void> {
  await sql`create table schema_version (oldest integer not null)`.execute(db);
  await sql`insert into schema_version (oldest) values (12)`.execute(db);
}

/** Whether code that knows these migrations works on a database on which others were executed besides. */
export async function fits(db: Kysely<Schema>, known: readonly string[]): Promise<boolean> {
  const executed = await sql<{ name: string }>`select name from kysely_migration`.execute(db);
  const names = new Set(executed.rows.map(({ name }) => name));
  if (known.some((name) => !names.has(name))) return false;
  const asked = await sql<{ oldest: number }>`select oldest from schema_version`
    .execute(db)
    .catch(() => undefined);
  const oldest = asked?.rows[0]?.oldest;
  return oldest !== undefined && oldest <= Math.max(...known.map(numberOf));
}

const numberOf = (name: string): number => Number.parseInt(name, 10);
