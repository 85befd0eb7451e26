/** Changes that every node must know of: written with what they tell of, and read by all that share the database. */
import { type Kysely, sql } from 'kysely';
import { agentIdSchema, tenantIdSchema } from '../domain/ids.ts';
import { CHANGES_MS, type ChangeFeed, type StoredChange } from '../ports/cluster.ts';
import type { Database } from './database.ts';
import type { DatabaseKind } from './migrations.ts';
import type { Schema } from './schema.ts';

/** A transaction may end so long after it noted its change, ms. */
const COMMIT_MS = 5_000;
/** Rows that one question brings, newest last; more in that time means that all is to be read anew. */
const MAX_ROWS = 5_000;
/** Rows that one transaction deletes. */
const FORGET_AT_ONCE = 5_000;

interface NotedChange {
  readonly tenantId: string;
  /** A change of a tier is noted by the statement that writes it (postgres/statements.ts). */
  readonly kind: 'agent' | 'template';
  readonly id: string;
  readonly version?: number;
  readonly slug?: string;
}

/** `db` is the transaction of what changed. Who has a database to itself need not be told. */
export async function noteChange(
  db: Kysely<Schema>,
  database: DatabaseKind,
  { tenantId, kind, id, version, slug }: NotedChange,
): Promise<void> {
  if (database === 'sqlite') return;
  await db
    .insertInto('changes')
    .values({ tenant_id: tenantId, kind, id, version: version ?? null, slug: slug ?? null })
    .execute();
}

/** Makes the feed; `database` stays the caller's to close. */
export function createChangeFeed(database: Database): ChangeFeed {
  return {
    recent: () =>
      database.read('node', async (db) => {
        const rows = await db
          .selectFrom('changes')
          .select(['seq', 'tenant_id', 'kind', 'id', 'version', 'slug'])
          .where(
            sql<boolean>`at > clock_timestamp() - ${(CHANGES_MS + COMMIT_MS) / 1000} * interval '1 second'`,
          )
          .orderBy('seq')
          .limit(MAX_ROWS + 1)
          .execute();
        if (rows.length > MAX_ROWS) throw new Error('More has changed than can be followed one by one.');
        return rows.flatMap(changeOf);
      }),
    forget: () =>
      database.write('node', async (db) => {
        const old = db
          .selectFrom('changes')
          .select('seq')
          .where(sql<boolean>`at < now() - interval '1 hour'`)
          .limit(FORGET_AT_ONCE);
        await db.deleteFrom('changes').where('seq', 'in', old).execute();
      }),
  };
}

/** What a newer version of a node notes, and this one does not know, is passed over. */
function changeOf(row: {
  readonly seq: number;
  readonly tenant_id: string;
  readonly kind: string;
  readonly id: string;
  readonly version: number | null;
  readonly slug: string | null;
}): readonly StoredChange[] {
  const { seq, kind, id, version, slug } = row;
  const tenantId = tenantIdSchema.parse(row.tenant_id);
  if (kind === 'tier' || kind === 'template') return [{ seq, type: kind, tenantId, id }];
  if (kind !== 'agent') return [];
  const named = { ...(version === null ? {} : { version }), ...(slug === null ? {} : { slug }) };
  return [{ seq, type: 'agent', news: { tenantId, agentId: agentIdSchema.parse(id), ...named } }];
}
