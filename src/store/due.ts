/** When something is due: by the database's clock where several nodes share it, so that no two clocks are compared. */
import { type RawBuilder, sql } from 'kysely';
import type { DatabaseKind } from './migrations.ts';

/** In ms since the epoch. `now`: the clock of a node that has its database to itself. */
export const databaseNow = (kind: DatabaseKind, now: () => number): RawBuilder<number> =>
  kind === 'postgres'
    ? sql<number>`(extract(epoch from clock_timestamp()) * 1000)::bigint`
    : sql<number>`${now()}`;

/** So many ms from then. */
export const dueIn = (kind: DatabaseKind, now: () => number, ms: number): RawBuilder<number> =>
  sql<number>`${databaseNow(kind, now)} + ${Math.ceil(ms)}`;
