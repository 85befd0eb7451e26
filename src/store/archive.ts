/** A tenant's agents and conversations, read and written whole, over a database. */
import type { Insertable, Kysely } from 'kysely';
import { agentIdSchema, type SessionId, sessionIdSchema, type TaskId, type TenantId } from '../domain/ids.ts';
import type { Archive, ArchivedTurn, ImportCount } from '../ports/management.ts';
import { restoreAgent } from './agents.ts';
import type { Database } from './database.ts';
import { askedColumns, endedColumns, messagesOf, turnOf } from './encode.ts';
import { FLAG, type Schema, type TurnTable } from './schema.ts';

/** Turns of one INSERT: databases bound the parameters of a statement (17 a turn). */
const INSERT_AT_ONCE = 200;

/** Makes the archive; `database` stays the caller's to close. */
export function createArchive(database: Database): Archive {
  return {
    agents: (tenantId, after, limit) =>
      database.read(tenantId, async (db) => {
        const rows = await db
          .selectFrom('agents')
          .select('agent_id')
          .where('tenant_id', '=', tenantId)
          .where('agent_id', '>', after ?? '')
          .orderBy('agent_id')
          .limit(limit)
          .execute();
        return rows.map((row) => agentIdSchema.parse(row.agent_id));
      }),
    restoreAgent: (tenantId, versions) =>
      database.write(tenantId, (db) => restoreAgent(db, database.kind, tenantId, versions)),
    sessions: (tenantId, after, limit) =>
      database.read(tenantId, async (db) => {
        const rows = await db
          .selectFrom('sessions')
          .select('session_id')
          .where('tenant_id', '=', tenantId)
          .where('session_id', '>', after ?? '')
          .orderBy('session_id')
          .limit(limit)
          .execute();
        return rows.map((row) => sessionIdSchema.parse(row.session_id));
      }),
    turns: (tenantId, ...asked) => database.read(tenantId, (db) => turns(db, tenantId, ...asked)),
    restore: (tenantId, archived) => database.write(tenantId, (db) => restore(db, tenantId, archived)),
  };
}

async function turns(
  db: Kysely<Schema>,
  tenantId: TenantId,
  sessionId: SessionId,
  after: TaskId | undefined,
  limit: number,
): Promise<readonly ArchivedTurn[]> {
  const rows = await db
    .selectFrom('turns')
    .selectAll()
    .where('tenant_id', '=', tenantId)
    .where('session_id', '=', sessionId)
    .$if(after !== undefined, (query) =>
      query.where('seq', '>', (nested) =>
        nested
          .selectFrom('turns as mark')
          .select('mark.seq')
          .where('mark.tenant_id', '=', tenantId)
          .where('mark.task_id', '=', after ?? ''),
      ),
    )
    .orderBy('seq')
    .limit(limit)
    .execute();
  return rows.map((row) => ({
    turn: turnOf(row),
    messages: messagesOf(row),
    ...(row.flags & FLAG.unrun ? { unrun: true as const } : {}),
  }));
}

async function restore(
  db: Kysely<Schema>,
  tenantId: TenantId,
  archived: readonly ArchivedTurn[],
): Promise<ImportCount> {
  let stored = 0;
  for (let from = 0; from < archived.length; from += INSERT_AT_ONCE) {
    const rows = archived.slice(from, from + INSERT_AT_ONCE).map((turn) => rowOf(tenantId, turn));
    const inserted = await db
      .insertInto('turns')
      .values(rows)
      .onConflict((conflict) => conflict.columns(['tenant_id', 'task_id']).doNothing())
      .returning('session_id')
      .execute();
    stored += inserted.length;
    const touched = new Set(inserted.map((row) => row.session_id));
    if (touched.size === 0) continue;
    await db
      .insertInto('sessions')
      .values([...touched].sort().map((session) => sessionRow(tenantId, session, rows)))
      .onConflict((conflict) => conflict.columns(['tenant_id', 'session_id']).doNothing())
      .execute();
  }
  return { stored, skipped: archived.length - stored };
}

/** `last_at` may lag behind (schema.ts), so that a session that is there stays as it is. */
function sessionRow(tenantId: TenantId, sessionId: string, rows: readonly Insertable<TurnTable>[]) {
  const times = rows.filter((row) => row.session_id === sessionId).map((row) => row.asked_at);
  return {
    tenant_id: tenantId,
    session_id: sessionId,
    created_at: Math.min(...times),
    last_at: Math.max(...times),
  };
}

/** Throws where the turn has no question: then it is not from an archive. */
function rowOf(tenantId: TenantId, { turn, messages, unrun }: ArchivedTurn): Insertable<TurnTable> {
  const asked = messages.find((message) => message.role === 'user');
  if (!asked) throw new TypeError(`The turn ${turn.taskId} has no question.`);
  const question = askedColumns(turn, asked);
  const end = endedColumns(
    turn,
    messages.find((message) => message.role === 'assistant'),
  );
  const flags = question.flags | end.flags | (unrun ? FLAG.unrun : 0);
  return { ...question, ...end, tenant_id: tenantId, flags, untold: 0 };
}
