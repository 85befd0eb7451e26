/** What the stores ask of a database: reads and transactions that see one tenant, and batches of writes. */
import type { Kysely } from 'kysely';
import type { TenantId } from '../domain/ids.ts';
import type { Boot } from '../ports/cluster.ts';
import type { EncodedWrite } from './encode.ts';
import type { DatabaseKind } from './migrations.ts';
import type { Schema } from './schema.ts';

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
  /** One statement that is a transaction by itself and sets its own scope. Of PostgreSQL alone. */
  statement?<T>(body: (db: Kysely<Schema>) => Promise<T>): Promise<T>;
  /** The boot that batches write as; undefined where the node has the database to itself. */
  boot?(): Boot | undefined;
  close(): Promise<void>;
}
