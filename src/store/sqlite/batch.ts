/** Carries out a batch of writes in one SQLite transaction. Runs in the worker: nothing here may be asynchronous. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { EncodedWrite, Param } from '../encode.ts';
import { SESSION_TOUCH_MS } from '../schema.ts';

/** The statements of the hot path, written by hand: they are prepared once and run thousands of times a second. */
const SQL = {
  accept: `insert into turns (tenant_id, task_id, session_id, agent_id, agent_version, status, created_at,
      asked, asked_at, flags) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    on conflict (tenant_id, task_id) do nothing`,
  touch: `insert into sessions (tenant_id, session_id, created_at, last_at) values (?1, ?2, ?3, ?4)
    on conflict (tenant_id, session_id) do update set last_at = excluded.last_at
    where sessions.last_at < excluded.last_at - ${SESSION_TOUCH_MS}`,
  count: `insert into daily_usage (tenant_id, day, used) values (?, ?, ?)
    on conflict (tenant_id, day) do update set used = used + excluded.used`,
  end: `update turns set status = ?, agent_id = ?, agent_version = ?, finished_at = ?, content = ?, answer = ?,
      answered_at = ?, flags = (flags & 1) | ?, info = ?, error = ?
    where tenant_id = ? and task_id = ? and finished_at is null`,
  known: 'select 1 from turns where tenant_id = ? and task_id = ?',
  deleteTurns: 'delete from turns where tenant_id = ? and session_id = ?',
  deleteSession: 'delete from sessions where tenant_id = ? and session_id = ?',
  told: 'update turns set untold = 0 where tenant_id = ? and task_id = ? and untold = 1',
  tier: `insert into tenants (tenant_id, tier) values (?, ?)
    on conflict (tenant_id) do update set tier = excluded.tier`,
  interrupt: `update turns set status = 'failed', finished_at = ?, error = ?, untold = 1
    where finished_at is null`,
  old: `select s.tenant_id, s.session_id, coalesce((
      select max(coalesce(t.answered_at, t.asked_at)) from turns t
      where t.tenant_id = s.tenant_id and t.session_id = s.session_id), 0) as last_at
    from sessions s where s.last_at < ?2
      and (select tier from tenants n where n.tenant_id = s.tenant_id) is ?1
    order by s.last_at limit ?3`,
  /** Nobody's tenant: an id is never empty. */
  probe: `insert into tenants (tenant_id, tier) values ('', null)
    on conflict (tenant_id) do update set tier = null`,
  age: 'update sessions set last_at = ?3 where tenant_id = ?1 and session_id = ?2',
} as const;

export type RunBatch = (writes: readonly EncodedWrite[]) => readonly number[];

/** Stores all writes or none. The outcome of each is 1 (0: a duplicate), of `expired` the sessions it looked at. */
export function createBatch(db: DatabaseSync): RunBatch {
  const prepared = new Map<keyof typeof SQL, StatementSync>();
  const statement = (name: keyof typeof SQL): StatementSync => {
    const known = prepared.get(name) ?? db.prepare(SQL[name]);
    prepared.set(name, known);
    return known;
  };
  const changes = (name: keyof typeof SQL, ...params: Param[]): number =>
    Number(statement(name).run(...params).changes);

  /** Accepted turns by tenant and day, counted once a batch. */
  let used = new Map<string, { readonly tenantId: Param; readonly day: Param; count: number }>();

  function accept(params: readonly Param[]): number {
    const [tenantId = null, task = null, session = null, agent = null, version = null] = params;
    const [status = null, createdAt = null, asked = null, askedAt = null, flags = null] = params.slice(5);
    const day = params[10] ?? null;
    if (
      changes('accept', tenantId, task, session, agent, version, status, createdAt, asked, askedAt, flags) ===
      0
    )
      return 0;
    statement('touch').run(tenantId, session, askedAt, askedAt);
    const key = `${tenantId} ${day}`;
    const tally = used.get(key);
    if (tally) tally.count += 1;
    else used.set(key, { tenantId, day, count: 1 });
    return 1;
  }

  /** A turn that is not there (deleted meanwhile) is left alone; one that has ended is a duplicate. */
  function end(params: readonly Param[]): number {
    if (changes('end', ...params) > 0) return 1;
    return statement('known').get(params[10] ?? null, params[11] ?? null) === undefined ? 1 : 0;
  }

  function forget(tenantId: Param, sessionId: Param): number {
    statement('deleteTurns').run(tenantId, sessionId);
    statement('deleteSession').run(tenantId, sessionId);
    return 1;
  }

  /** `last_at` of a session may lag behind its messages: those that are young after all are put right. */
  function expire(params: readonly Param[]): number {
    const rows = statement('old').all(...params);
    const beforeMs = Number(params[1]);
    for (const row of rows) {
      const [tenantId, sessionId, lastAt] = [
        String(row.tenant_id),
        String(row.session_id),
        Number(row.last_at),
      ];
      if (lastAt < beforeMs) forget(tenantId, sessionId);
      else statement('age').run(tenantId, sessionId, lastAt);
    }
    return rows.length;
  }

  function apply({ kind, params }: EncodedWrite): number {
    switch (kind) {
      case 'accepted':
        return accept(params);
      case 'ended':
        return end(params);
      case 'deleted':
        return forget(params[0] ?? null, params[1] ?? null);
      case 'told':
        changes('told', ...params);
        return 1;
      case 'tier':
        changes('tier', ...params);
        return 1;
      case 'interrupted':
        changes('interrupt', ...params);
        return 1;
      case 'expired':
        return expire(params);
      case 'probe':
        return changes('probe');
    }
  }

  return (writes) => {
    db.exec('begin immediate');
    try {
      used = new Map();
      const outcomes = writes.map(apply);
      for (const { tenantId, day, count } of used.values()) statement('count').run(tenantId, day, count);
      db.exec('commit');
      return outcomes;
    } catch (error) {
      rollBack(db);
      throw error;
    }
  };
}

/** SQLite has rolled back by itself after some failures (full disk); then there is nothing to do. */
function rollBack(db: DatabaseSync): void {
  if (db.isTransaction) db.exec('rollback');
}
