/** Carries out a batch of writes in one SQLite transaction. Runs in the worker: nothing here may be asynchronous. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import type { EncodedWrite, Param } from '../encode.ts';
import { FLAG, KEPT_FLAGS, OUTGOING, SESSION_TOUCH_MS } from '../schema.ts';
import { createTouches } from './touches.ts';

/** The statements of the hot path, written by hand: they are prepared once and run thousands of times a second. */
const SQL = {
  accept: `insert into turns (tenant_id, task_id, session_id, agent_id, agent_version, status, created_at,
      asked, asked_at, flags) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    on conflict (tenant_id, task_id) do nothing`,
  touch: `insert into sessions (tenant_id, session_id, created_at, last_at) values (?1, ?2, ?3, ?4)
    on conflict (tenant_id, session_id) do update set last_at = excluded.last_at
    where sessions.last_at < excluded.last_at - ${SESSION_TOUCH_MS}`,
  touched: 'select last_at from sessions where tenant_id = ? and session_id = ?',
  version: 'pragma data_version',
  count: `insert into daily_usage (tenant_id, day, used) values (?, ?, ?)
    on conflict (tenant_id, day) do update set used = used + excluded.used`,
  end: `update turns set status = ?, agent_id = ?, agent_version = ?, finished_at = ?, content = ?, answer = ?,
      answered_at = ?, flags = (flags & ${KEPT_FLAGS}) | ?, info = ?, error = ?
    where tenant_id = ? and task_id = ? and finished_at is null`,
  resume: `update turns set agent_id = ?4, agent_version = ?5, status = ?6, finished_at = null, content = null,
      answer = null, answered_at = null, flags = flags & ${KEPT_FLAGS}, info = null, error = null, untold = 0
    where tenant_id = ?1 and task_id = ?2 and session_id = ?3 and untold = 1 and flags & ${FLAG.effects} = 0`,
  effects: `update turns set flags = flags | ${FLAG.effects}
    where tenant_id = ? and task_id = ? and flags & ${FLAG.effects} = 0`,
  keep: `insert into outgoing (${OUTGOING.join(', ')}) values (${OUTGOING.map(() => '?').join(', ')})
    on conflict (tenant_id, id) do nothing`,
  sent: 'update outgoing set unsent = 0 where tenant_id = ? and id = ? and answers is not null',
  drop: 'delete from outgoing where tenant_id = ? and id = ? and answers is null',
  forget: `delete from outgoing where seq in (
      select seq from outgoing where unsent = 0 and created_at < ? order by created_at limit ?)`,
  known: 'select 1 from turns where tenant_id = ? and task_id = ?',
  deleteTurns: 'delete from turns where tenant_id = ? and session_id = ?',
  deleteSession: 'delete from sessions where tenant_id = ? and session_id = ?',
  overtaken: 'update turns set seq = (select max(seq) + 1 from turns) where tenant_id = ? and task_id = ?',
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

  const touches = createTouches();
  let version: unknown;

  function touch(tenantId: Param, session: Param, atMs: number): void {
    const changed = changes('touch', tenantId, session, atMs, atMs) > 0;
    const lastAtMs = changed ? atMs : statement('touched').get(tenantId, session)?.last_at;
    touches.note(tenantId, session, Number(lastAtMs));
  }

  /** Another process may have deleted sessions: SQLite tells whether one has written since the last batch. */
  function heed(): void {
    const found = statement('version').get()?.data_version;
    if (found !== version) touches.clear();
    version = found;
  }

  /** Accepted turns by tenant and day, counted once a batch. */
  let used = new Map<string, { readonly tenantId: Param; readonly day: Param; count: number }>();

  function accept({ params, again }: EncodedWrite): number {
    const [tenantId = null, task = null, session = null, agent = null, version = null] = params;
    const [status = null, createdAt = null, asked = null, askedAt = null, flags = null] = params.slice(5);
    const day = params[10] ?? null;
    if (
      changes('accept', tenantId, task, session, agent, version, status, createdAt, asked, askedAt, flags) ===
      0
    )
      return again ? changes('resume', tenantId, task, session, agent, version, status) : 0;
    if (!touches.fresh(tenantId, session, Number(askedAt))) touch(tenantId, session, Number(askedAt));
    const key = `${tenantId} ${day}`;
    const tally = used.get(key);
    if (tally) tally.count += 1;
    else used.set(key, { tenantId, day, count: 1 });
    return 1;
  }

  /** A turn that is not there (deleted meanwhile) is left alone; one that has ended is a duplicate. */
  function end({ params, outgoing }: EncodedWrite): number {
    if (
      changes('end', ...params) === 0 &&
      statement('known').get(params[10] ?? null, params[11] ?? null) !== undefined
    )
      return 0;
    return outgoing ? keep(outgoing) : 1;
  }

  function keep(rows: EncodedWrite['outgoing'] = []): number {
    for (const row of rows) changes('keep', ...row);
    return 1;
  }

  /** Answers are remembered, the rest is deleted. */
  function send(params: readonly Param[]): number {
    for (let at = 0; at < params.length; at += 2) {
      const key = [params[at] ?? null, params[at + 1] ?? null] as const;
      if (changes('sent', ...key) === 0) changes('drop', ...key);
    }
    return 1;
  }

  function forget(tenantId: Param, sessionId: Param): number {
    statement('deleteTurns').run(tenantId, sessionId);
    statement('deleteSession').run(tenantId, sessionId);
    touches.drop(tenantId, sessionId);
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

  function apply(write: EncodedWrite): number {
    const { kind, params } = write;
    switch (kind) {
      case 'accepted':
        return accept(write);
      case 'ended':
        return end(write);
      case 'effects':
        changes('effects', ...params);
        return 1;
      case 'outgoing':
        return keep(write.outgoing);
      case 'sent':
        return send(params);
      case 'forgotten':
        return changes('forget', ...params);
      case 'deleted':
        return forget(params[0] ?? null, params[1] ?? null);
      case 'overtaken':
      case 'told':
        changes(kind, ...params);
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
      heed();
      used = new Map();
      const outcomes = writes.map(apply);
      for (const { tenantId, day, count } of used.values()) statement('count').run(tenantId, day, count);
      db.exec('commit');
      return outcomes;
    } catch (error) {
      touches.clear();
      rollBack(db);
      throw error;
    }
  };
}

/** SQLite has rolled back by itself after some failures (full disk); then there is nothing to do. */
function rollBack(db: DatabaseSync): void {
  if (db.isTransaction) db.exec('rollback');
}
