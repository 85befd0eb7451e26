/** What the outbox asks of a database: what is unsent, and what was answered. */
import { sql } from 'kysely';
import type { ActionLog, Unsent } from '../ports/store.ts';
import type { Log } from '../ports/telemetry.ts';
import type { Database } from './database.ts';
import { needsEscape, OUTGOING_ROW, type OutgoingRow, outgoingOf } from './encode.ts';

/** Unreadable rows that are reported; beyond, the log has seen enough. */
const MAX_REPORTED = 1_000;

/** Asks the database at once: a caller that must see pending writes waits for them first. */
export function createActionLog(database: Database, log?: Log): ActionLog {
  const readable = createReader(log);

  const rowsBehind = (afterSeq: number, limit: number): Promise<readonly OutgoingRow[]> => {
    const boot = database.boot?.();
    return database.read('node', (db) =>
      db
        .selectFrom('outgoing')
        .select(OUTGOING_ROW)
        // A literal, not a parameter: only then does SQLite take the index of unsent rows.
        .where(sql<boolean>`unsent = 1`)
        .$if(boot !== undefined, (query) => query.where('boot', '=', boot ?? null))
        .where('seq', '>', afterSeq)
        .orderBy('seq')
        .limit(limit)
        .execute(),
    );
  };

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
        found.push(...rows.flatMap(readable));
        after = rows.at(-1)?.seq ?? after;
        if (rows.length < asked) break;
      }
      return found;
    },
  };
}

/**
 * Reads rows as messages. One that holds none is passed over, so that it holds up no others, and reported once. It
 * stays unsent: a newer node beside this one may know how to read it.
 */
function createReader(log: Log | undefined): (row: OutgoingRow) => readonly Unsent[] {
  const reported = new Set<number>();
  return (row) => {
    try {
      return [{ seq: row.seq, outgoing: outgoingOf(row) }];
    } catch (error) {
      const { seq, tenant_id, id } = row;
      if (reported.has(seq) || reported.size >= MAX_REPORTED) return [];
      reported.add(seq);
      log?.error({ err: error, seq, tenant_id, id }, 'a stored message can not be read and is not sent');
      return [];
    }
  };
}
