/** Callbacks of executions over a database. */
import { type Kysely, sql } from 'kysely';
import { taskIdSchema, tenantIdSchema } from '../domain/ids.ts';
import type { CallbackStore } from '../ports/batches.ts';
import type { Database } from './database.ts';
import { databaseNow, dueIn } from './due.ts';
import { turnOf } from './encode.ts';
import type { CallbackTable, Schema } from './schema.ts';

/** A callback whose turn was never stored: whoever asked for it was not told that it would run. */
const WITHOUT_TURN_MS = 3_600_000;

/**
 * Makes the store; `database` stays the caller's to close. `unguarded`: the same for what nobody waits for, and whose failure
 * is no sign of an outage to others. `now`: when callbacks are made, in ms.
 */
export function createCallbackStore(
  database: Database,
  now: () => number = Date.now,
  unguarded: Database = database,
): CallbackStore {
  const { kind } = database;
  return {
    add: ({ tenantId, taskId, url, batchId = null }, termMs) =>
      database.write(tenantId, async (db) => {
        const due_at = dueIn(kind, now, termMs);
        await db
          .insertInto('callbacks')
          .values({
            ...{ tenant_id: tenantId, task_id: taskId, url, batch_id: batchId },
            ...{ attempts: 0, due_at, created_at: databaseNow(kind, now) },
          })
          .onConflict((conflict) =>
            conflict.columns(['tenant_id', 'task_id', 'url']).doUpdateSet({ attempts: 0, due_at }),
          )
          .execute();
      }),
    claim: (limit, termMs) =>
      unguarded.write('node', async (db) => {
        const due = await claimRows(db, database, now, limit, termMs);
        const ended = [];
        for (const { batch_id, ...row } of due) {
          const turn = await db
            .selectFrom('turns')
            .selectAll()
            .where('tenant_id', '=', row.tenant_id)
            .where('task_id', '=', row.task_id)
            .executeTakeFirst();
          if (!turn && row.isOld) await of(db.deleteFrom('callbacks'), row).execute();
          if (!turn || turn.finished_at === null) continue;
          const ids = {
            tenantId: tenantIdSchema.parse(row.tenant_id),
            taskId: taskIdSchema.parse(row.task_id),
          };
          const batch = batch_id === null ? {} : { batchId: batch_id };
          ended.push({
            callback: { ...ids, ...batch, url: row.url, attempts: row.attempts },
            turn: turnOf(turn),
          });
        }
        return ended;
      }),
    put: ({ tenantId, taskId, url, attempts }, afterMs) =>
      database.write(tenantId, async (db) => {
        const row = { tenant_id: tenantId, task_id: taskId, url };
        const due_at = dueIn(kind, now, afterMs);
        await of(db.updateTable('callbacks'), row).set({ attempts, due_at }).execute();
      }),
    async free() {
      if (kind === 'sqlite')
        await unguarded.write('node', (db) => db.updateTable('callbacks').set({ due_at: now() }).execute());
    },
    remove: ({ tenantId, taskId, url }) =>
      database.write(tenantId, async (db) => {
        await of(db.deleteFrom('callbacks'), { tenant_id: tenantId, task_id: taskId, url }).execute();
      }),
  };
}

type CallbackKey = Pick<CallbackTable, 'tenant_id' | 'task_id' | 'url'>;

/** A statement about one callback. */
const of = <S extends { where(column: 'tenant_id' | 'task_id' | 'url', is: '=', value: string): S }>(
  statement: S,
  { tenant_id, task_id, url }: CallbackKey,
): S => statement.where('tenant_id', '=', tenant_id).where('task_id', '=', task_id).where('url', '=', url);

/** Those that are due, but for first attempts of a batch whose node goes on with it. */
async function claimRows(
  db: Kysely<Schema>,
  { kind }: Database,
  now: () => number,
  limit: number,
  termMs: number,
) {
  const rows = await db
    .selectFrom('callbacks as c')
    .select(['c.tenant_id', 'c.task_id', 'c.url', 'c.batch_id', 'c.attempts'])
    .select(sql<boolean>`c.created_at < ${dueIn(kind, now, -WITHOUT_TURN_MS)}`.as('isOld'))
    .where('c.due_at', '<=', databaseNow(kind, now))
    .where((either) =>
      either.or([
        either('c.attempts', '>', 0),
        either.not(
          either.exists(
            either
              .selectFrom('batches as b')
              .select('b.batch_id')
              .whereRef('b.tenant_id', '=', 'c.tenant_id')
              .whereRef('b.batch_id', '=', 'c.batch_id')
              .where('b.due_at', 'is not', null),
          ),
        ),
      ]),
    )
    .orderBy('c.due_at')
    .limit(limit)
    .$if(kind === 'postgres', (query) => query.forUpdate('c').skipLocked())
    .execute();
  for (const row of rows)
    await of(db.updateTable('callbacks'), row)
      .set({ due_at: dueIn(kind, now, termMs) })
      .execute();
  return rows;
}
