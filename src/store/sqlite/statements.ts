/** The statements by which a batch of writes is stored in SQLite: prepared once, run thousands of times a second. */
import type { DatabaseSync, StatementSync } from 'node:sqlite';
import { ACCEPTED, ENDED, OUTGOING, type Param, type Row } from '../encode.ts';
import { FLAG, LASTING_FLAGS, SESSION_TOUCH_MS } from '../schema.ts';

const named = (columns: readonly string[]): string => columns.map((column) => `:${column}`).join(', ');

const END = ENDED.filter((column) => column !== 'flags').map((column) => `${column} = :${column}`);

/**
 * One row each. Sets of rows over one JSON parameter, as in PostgreSQL, save no round trip here: with `json_each` an
 * accepted turn took 2.5 times as long as bound row by row, and an ended one 4 times (100 of them a transaction).
 */
const SQL = {
  accept: `insert into turns (${ACCEPTED.join(', ')}) values (${named(ACCEPTED)})
    on conflict (tenant_id, task_id) do nothing`,
  touch: `insert into sessions (tenant_id, session_id, created_at, last_at)
    values (:tenant_id, :session_id, :asked_at, :asked_at)
    on conflict (tenant_id, session_id) do update set last_at = excluded.last_at
    where sessions.last_at < excluded.last_at - ${SESSION_TOUCH_MS}`,
  touched: 'select last_at from sessions where tenant_id = :tenant_id and session_id = :session_id',
  count: `insert into daily_usage (tenant_id, day, used) values (:tenant_id, :day, :used)
    on conflict (tenant_id, day) do update set used = used + excluded.used`,
  used: 'select used from daily_usage where tenant_id = :tenant_id and day = :day',
  resume: `update turns set agent_id = :agent_id, agent_version = :agent_version, status = :status,
      finished_at = null, content = null, answer = null, answered_at = null, flags = flags & ${LASTING_FLAGS},
      info = null, error = null, reasoning = null, untold = 0
    where tenant_id = :tenant_id and task_id = :task_id and session_id = :session_id
      and untold = 1 and flags & ${FLAG.effects} = 0`,
  end: `update turns set ${END.join(', ')}, flags = (flags & ${LASTING_FLAGS}) | :flags
    where tenant_id = :tenant_id and task_id = :task_id and finished_at is null`,
  known: 'select 1 from turns where tenant_id = :tenant_id and task_id = :task_id',
  effects: `update turns set flags = flags | ${FLAG.effects}
    where tenant_id = :tenant_id and task_id = :task_id and flags & ${FLAG.effects} = 0`,
  overtaken: `update turns set seq = (select max(seq) + 1 from turns)
    where tenant_id = :tenant_id and task_id = :task_id`,
  notified: 'update turns set untold = 0 where tenant_id = :tenant_id and task_id = :task_id and untold = 1',
  interrupted: `update turns set status = 'failed', finished_at = :finished_at, error = :error, untold = 1
    where finished_at is null`,
  tier: `insert into tenants (tenant_id, tier) values (:tenant_id, :tier)
    on conflict (tenant_id) do update set tier = excluded.tier`,
  storeOutgoing: `insert into outgoing (${OUTGOING.join(', ')}) values (${named(OUTGOING)})
    on conflict (tenant_id, id) do nothing`,
  rememberSent:
    'update outgoing set unsent = 0 where tenant_id = :tenant_id and id = :id and answers is not null',
  deleteSent: 'delete from outgoing where tenant_id = :tenant_id and id = :id and answers is null',
  forgotten: `delete from outgoing where seq in (
      select seq from outgoing where unsent = 0 and created_at < :before_ms order by created_at limit :most)`,
  withdrawn: `delete from turns where tenant_id = :tenant_id and task_id = :task_id
    and created_at = :created_at and finished_at is null`,
  uncounted: `update daily_usage set used = used - 1
    where tenant_id = :tenant_id and day = :day and used > 0`,
  deleteTurns: 'delete from turns where tenant_id = :tenant_id and session_id = :session_id',
  deleteSession: 'delete from sessions where tenant_id = :tenant_id and session_id = :session_id',
  oldSessions: `select s.tenant_id, s.session_id, coalesce((
      select max(coalesce(t.answered_at, t.asked_at)) from turns t
      where t.tenant_id = s.tenant_id and t.session_id = s.session_id), 0) as last_at
    from sessions s where s.last_at < :before_ms
      and (select tier from tenants n where n.tenant_id = s.tenant_id) is :tier
    order by s.last_at limit :most`,
  correctAge: `update sessions set last_at = :last_at
    where tenant_id = :tenant_id and session_id = :session_id`,
  /** Nobody's tenant: an id is never empty. */
  probe: `insert into tenants (tenant_id, tier) values ('', null)
    on conflict (tenant_id) do update set tier = null`,
  dataVersion: 'pragma data_version',
} as const;

type Name = keyof typeof SQL;
type Found = ReturnType<StatementSync['all']>;

export interface Statements {
  /** How many rows it changed. A row may hold more columns than the statement names. */
  run(name: Name, row: Row): number;
  all(name: Name, row: Row): Found;
}

export function createStatements(db: DatabaseSync): Statements {
  const prepared = new Map<Name, Prepared>();
  const statement = (name: Name): Prepared => {
    const known = prepared.get(name) ?? prepare(db, SQL[name]);
    prepared.set(name, known);
    return known;
  };
  return {
    run(name, row) {
      const { statement: found, names } = statement(name);
      return Number(found.run(...valuesOf(row, names)).changes);
    },
    all(name, row) {
      const { statement: found, names } = statement(name);
      return found.all(...valuesOf(row, names));
    },
  };
}

interface Prepared {
  readonly statement: StatementSync;
  readonly names: readonly string[];
}

/** Named in the SQL, numbered for SQLite: node:sqlite takes half as long again to bind by name. */
function prepare(db: DatabaseSync, sql: string): Prepared {
  const names = [...new Set(sql.match(/:\w+/g))].map((name) => name.slice(1));
  const numbered = sql.replace(/:(\w+)/g, (_, name: string) => `?${names.indexOf(name) + 1}`);
  return { statement: db.prepare(numbered), names };
}

const valuesOf = (row: Row, names: readonly string[]): Param[] =>
  names.map((name) => {
    const value = row[name];
    if (value === undefined) throw new TypeError(`The row has no ${name}.`);
    return value;
  });
