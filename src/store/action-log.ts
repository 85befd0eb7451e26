/** The questions of ActionLog over a database. */
import { sql } from 'kysely';
import type { ActionLog, Unsent } from '../action-ports.ts';
import type { Database } from './database.ts';
import { OUTGOING_ROW, outgoingOf } from './encode.ts';
import { needsEscape } from './text.ts';

/** Asks the database at once; who must see writes that are on their way waits before. */
export function createActionLog(database: Database): ActionLog {
  return {
    async answered(tenantId, actionId) {
      if (needsEscape(actionId)) return null;
      return database.read(tenantId, async (db) => {
        const row = await db
          .selectFrom('outgoing')
          .select(OUTGOING_ROW)
          .where('tenant_id', '=', tenantId)
          .where('answers', '=', actionId)
          .orderBy('seq')
          .limit(1)
          .executeTakeFirst();
        return row ? outgoingOf(row) : null;
      });
    },
    unsent: (afterSeq, limit) =>
      database.read('node', async (db) => {
        const rows = await db
          .selectFrom('outgoing')
          .select(OUTGOING_ROW)
          // Written out, not as a parameter: only so does SQLite see at once that the index of these rows will do.
          .where(sql<boolean>`unsent = 1`)
          .where('seq', '>', afterSeq)
          .orderBy('seq')
          .limit(limit)
          .execute();
        return rows.map((row): Unsent => ({ seq: row.seq, outgoing: outgoingOf(row) }));
      }),
  };
}
