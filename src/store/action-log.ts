/** The questions of ActionLog over a database. */
import { sql } from 'kysely';
import type { ActionLog, Unsent } from '../ports/store.ts';
import type { Log } from '../ports/telemetry.ts';
import type { Database } from './database.ts';
import { OUTGOING_ROW, type OutgoingRow, outgoingOf } from './encode.ts';
import { needsEscape } from './text.ts';

/** Unreadable rows that are told; beyond, the log has seen enough. */
const MAX_TOLD = 1_000;

/** Asks the database at once; who must see writes that are on their way waits before. */
export function createActionLog(database: Database, log?: Log): ActionLog {
  const read = createReading(log);

  const rowsBehind = (afterSeq: number, limit: number): Promise<readonly OutgoingRow[]> =>
    database.read('node', (db) =>
      db
        .selectFrom('outgoing')
        .select(OUTGOING_ROW)
        // Written out, not as a parameter: only so does SQLite see at once that the index of these rows will do.
        .where(sql<boolean>`unsent = 1`)
        .where('seq', '>', afterSeq)
        .orderBy('seq')
        .limit(limit)
        .execute(),
    );

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
    /** Reads on past rows that can not be read: fewer than `limit` means that there are no more. */
    async unsent(afterSeq, limit) {
      const found: Unsent[] = [];
      for (let after = afterSeq; found.length < limit; ) {
        const asked = limit - found.length;
        const rows = await rowsBehind(after, asked);
        found.push(...rows.flatMap(read));
        after = rows.at(-1)?.seq ?? after;
        if (rows.length < asked) break;
      }
      return found;
    },
  };
}

/**
 * A row as its message, or as nothing where it holds none: it must not keep all others from being sent. It stays
 * unsent, for a newer node beside this one may know how to read it, and is told once.
 */
function createReading(log: Log | undefined): (row: OutgoingRow) => readonly Unsent[] {
  const told = new Set<number>();
  return (row) => {
    try {
      return [{ seq: row.seq, outgoing: outgoingOf(row) }];
    } catch (error) {
      const { seq, tenant_id, id } = row;
      if (told.has(seq) || told.size >= MAX_TOLD) return [];
      told.add(seq);
      log?.error({ err: error, seq, tenant_id, id }, 'a kept message can not be read and is not sent');
      return [];
    }
  };
}
