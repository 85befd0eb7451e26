/** Batches of executions over a database. */
import type { Kysely, Selectable } from 'kysely';
import { z } from 'zod';
import { defined } from '../domain/defined.ts';
import { errorDataSchema } from '../domain/errors.ts';
import { sessionIdSchema, taskIdSchema, tenantIdSchema } from '../domain/ids.ts';
import type { TurnRecord } from '../domain/turn.ts';
import { readRequest, storableRequest } from '../domain/turn-request.ts';
import type { BatchStore, ItemRequest, LeftBatch, StoredBatch } from '../ports/batches.ts';
import { lockTenant } from './agents.ts';
import type { Database } from './database.ts';
import { databaseNow, dueIn } from './due.ts';
import { turnOf } from './encode.ts';
import type { BatchTable, Schema } from './schema.ts';

/** Batches that one transaction deletes. */
const DELETE_AT_ONCE = 200;

/**
 * Makes the store; `database` stays the caller's to close. `unguarded`: the same for what nobody waits for, and whose failure
 * is no sign of an outage to others. `now`: when batches are made, in ms.
 */
export function createBatchStore(
  database: Database,
  now: () => number = Date.now,
  unguarded: Database = database,
): BatchStore {
  const { kind } = database;
  return {
    add: (batch, requests, most, termMs) =>
      database.write(batch.tenantId, async (db) => {
        const { tenantId } = batch;
        await lockTenant(db, kind, tenantId);
        const { open } = await db
          .selectFrom('batches')
          .select(({ fn }) => fn.countAll<number>().as('open'))
          .where('tenant_id', '=', tenantId)
          .where('due_at', 'is not', null)
          .executeTakeFirstOrThrow();
        if (Number(open) >= most) return false;
        await db
          .insertInto('batches')
          .values({
            tenant_id: tenantId,
            batch_id: batch.id,
            created_at: now(),
            due_at: dueIn(kind, now, termMs),
            concurrency: batch.concurrency,
            items: JSON.stringify(batch.items),
            requests: JSON.stringify(requests.map(storable)),
          })
          .execute();
        return true;
      }),
    find: (tenantId, batchId) =>
      database.read(tenantId, async (db) => {
        const row = await db
          .selectFrom('batches')
          .select(['tenant_id', 'batch_id', 'due_at', 'concurrency', 'items'])
          .where('tenant_id', '=', tenantId)
          .where('batch_id', '=', batchId)
          .executeTakeFirst();
        if (!row) return null;
        const batch = batchOf(row);
        return { batch, turns: await turnsOf(db, batch) };
      }),
    claim: (limit, termMs) =>
      unguarded.write('node', async (db) => {
        const rows = await db
          .selectFrom('batches')
          .selectAll()
          .where('due_at', '<=', databaseNow(kind, now))
          .orderBy('due_at')
          .limit(limit)
          .$if(kind === 'postgres', (query) => query.forUpdate().skipLocked())
          .execute();
        await renew(db, rows, dueIn(kind, now, termMs));
        const left: LeftBatch[] = [];
        for (const row of rows) {
          const batch = batchOf(row);
          left.push({ ...batch, requests: requestsOf(row.requests), turns: await turnsOf(db, batch) });
        }
        return left;
      }),
    renew: (batches, termMs) =>
      unguarded.write('node', (db) => {
        const rows = batches.map(({ tenantId, id }) => ({ tenant_id: tenantId, batch_id: id }));
        return renew(db, rows, dueIn(kind, now, termMs));
      }),
    save: ({ tenantId, id, items, isOver }) =>
      database.write(tenantId, async (db) => {
        await db
          .updateTable('batches')
          .set({ items: JSON.stringify(items), ...(isOver ? { due_at: null, requests: null } : {}) })
          .where('tenant_id', '=', tenantId)
          .where('batch_id', '=', id)
          .execute();
      }),
    async free() {
      if (kind === 'sqlite')
        await unguarded.write('node', (db) =>
          db.updateTable('batches').set({ due_at: now() }).where('due_at', 'is not', null).execute(),
        );
    },
    async expire(beforeMs) {
      for (let total = 0; ; ) {
        const deleted = await database.write('node', (db) => deleteOver(db, beforeMs));
        total += deleted;
        if (deleted < DELETE_AT_ONCE) return total;
      }
    },
  };
}

type BatchKey = Pick<BatchTable, 'tenant_id' | 'batch_id'>;

/** One that is over stays so. */
async function renew(
  db: Kysely<Schema>,
  rows: readonly BatchKey[],
  dueAt: ReturnType<typeof dueIn>,
): Promise<void> {
  if (rows.length === 0) return;
  await db
    .updateTable('batches')
    .set({ due_at: dueAt })
    .where(({ eb, refTuple, tuple }) =>
      eb(
        refTuple('tenant_id', 'batch_id'),
        'in',
        rows.map((row) => tuple(row.tenant_id, row.batch_id)),
      ),
    )
    .where('due_at', 'is not', null)
    .execute();
}

async function deleteOver(db: Kysely<Schema>, beforeMs: number): Promise<number> {
  const old = await db
    .selectFrom('batches')
    .select(['tenant_id', 'batch_id'])
    .where('due_at', 'is', null)
    .where('created_at', '<', beforeMs)
    .orderBy('created_at')
    .limit(DELETE_AT_ONCE)
    .execute();
  if (old.length === 0) return 0;
  const { numDeletedRows } = await db
    .deleteFrom('batches')
    .where(({ eb, refTuple, tuple }) =>
      eb(
        refTuple('tenant_id', 'batch_id'),
        'in',
        old.map((row) => tuple(row.tenant_id, row.batch_id)),
      ),
    )
    .executeTakeFirst();
  return Number(numDeletedRows);
}

async function turnsOf(db: Kysely<Schema>, { tenantId, items }: StoredBatch): Promise<readonly TurnRecord[]> {
  const rows = await db
    .selectFrom('turns')
    .selectAll()
    .where('tenant_id', '=', tenantId)
    .where(
      'task_id',
      'in',
      items.map(({ taskId }) => taskId),
    )
    .execute();
  return rows.map(turnOf);
}

const itemsSchema = z.array(
  z.object({ taskId: taskIdSchema, sessionId: sessionIdSchema, error: errorDataSchema.optional() }),
);

type BatchRow = Pick<Selectable<BatchTable>, 'tenant_id' | 'batch_id' | 'due_at' | 'concurrency' | 'items'>;

/** Throws where the row holds no batch: then somebody else wrote it. */
const batchOf = (row: BatchRow): StoredBatch => ({
  id: row.batch_id,
  tenantId: tenantIdSchema.parse(row.tenant_id),
  concurrency: row.concurrency,
  items: itemsSchema.parse(JSON.parse(row.items)),
  isOver: row.due_at === null,
});

const storable = ({ request, callbackUrl }: ItemRequest): object =>
  defined({ request: storableRequest(request), callbackUrl });

const requestsSchema = z.array(z.object({ request: z.unknown(), callbackUrl: z.string().optional() }));

const requestsOf = (text: string | null): readonly ItemRequest[] =>
  requestsSchema
    .parse(text === null ? [] : JSON.parse(text))
    .map(({ request, callbackUrl }) => ({ request: readRequest(request), callbackUrl }));
