/** The migration of owners: which boot has which session, and by which epoch a turn was accepted. PostgreSQL only. */
import { type Kysely, sql } from 'kysely';

/**
 * `owners` has a row for each session that a node holds in memory (ports/cluster.ts). It is claimed unless its boot lives,
 * and deleted by its owner through the line of its writes; rows of dead boots are free, and the nightly job deletes what
 * is left of them. `wanted`: the boot of a node that could not reach the owner. Epochs are compared for equality only. A
 * node of an older version knows of no epochs: its turns have none, and only it writes to them.
 */
export async function createOwners(db: Kysely<unknown>): Promise<void> {
  await sql`create sequence epochs`.execute(db);
  await sql`create table owners (
    tenant_id text not null,
    session_id text not null,
    boot bigint not null,
    epoch bigint not null,
    wanted bigint,
    primary key (tenant_id, session_id)
  ) with (autovacuum_vacuum_scale_factor = 0.02)`.execute(db);
  await sql`create index owners_by_boot on owners (boot)`.execute(db);
  await sql`create index owners_wanted on owners (boot) where wanted is not null`.execute(db);
  await sql`alter table turns add column epoch bigint`.execute(db);
}
