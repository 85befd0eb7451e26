/** The statements by which a batch of writes is stored in PostgreSQL: a set of rows each, as one JSON parameter. */
import { ACCEPTED, ENDED, OUTGOING } from '../encode.ts';
import { FLAG, LASTING_FLAGS, SESSION_TOUCH_MS } from '../schema.ts';
import type { PlanStep } from './plan.ts';

const NUMBERS: ReadonlySet<string> = new Set([
  'agent_version',
  'created_at',
  'asked_at',
  'flags',
  'finished_at',
  'answered_at',
  'unsent',
  'end',
  'most',
  'epoch',
]);

/** The rows of a parameter, numbered from 1 (`ord`). `json` and not `jsonb`: it is read once, and keeps its numbers. */
const input = (columns: readonly string[], param = '$1'): string => {
  const typed = columns.map((name) => `"${name}" ${NUMBERS.has(name) ? 'bigint' : 'text'}`);
  const names = columns.map((name) => `"${name}"`);
  return `select * from rows from (json_to_recordset(${param}::json) as (${typed.join(', ')}))
    with ordinality as i (${names.join(', ')}, ord)`;
};

/** A column of the only row. Not `input`: the planner must see the value. */
const value = (name: string, type = 'text'): string => `($1::json -> 0 ->> '${name}')::${type}`;

const KEY = ['tenant_id', 'task_id'];
const LIST = ACCEPTED.join(', ');
const MESSAGE = OUTGOING.join(', ');
const BEFORE = value('before_ms', 'bigint');
const MOST = value('most', 'bigint');

/** Whose batch it is; null where the node has the database to itself. */
const BOOT = "nullif(current_setting('nooble.boot', true), '')::bigint";

/** Whether that boot owns the session of such a row by the row's epoch. A run's own session has the negated boot. */
const owned = (row: string, epoch: string): string => `(${BOOT} is null or ${epoch} = -${BOOT} or exists (
  select from owners o where o.tenant_id = ${row}.tenant_id and o.session_id = ${row}.session_id
    and o.boot = ${BOOT} and o.epoch = ${epoch}))`;
/** Whether a turn `t` is that boot's, accepted by that epoch: it needs no look at the owners. */
const ownTurn = (epoch: string): string => `(${BOOT} is null or (t.boot = ${BOOT} and t.epoch = ${epoch}))`;

/**
 * `duplicate` are the numbers of the rows whose turn is there, but was not changed: `fenced` where it has not ended. `coalesce` keeps the planner off the
 * index of unfinished turns, which it takes for nearly empty: 107 ms instead of 20 for 500 writes.
 */
const ENDED_SQL = `
  with input as materialized (${input([...KEY, ...ENDED, 'epoch'])}), updated as (
    update turns t set status = i.status, agent_id = i.agent_id, agent_version = i.agent_version,
      finished_at = i.finished_at, content = i.content, answer = i.answer, answered_at = i.answered_at,
      flags = (t.flags & ${LASTING_FLAGS}) | i.flags, info = i.info, error = i.error, reasoning = i.reasoning
    from input i
    where t.tenant_id = i.tenant_id and t.task_id = i.task_id and coalesce(t.finished_at, -1) = -1
      and ${ownTurn('i.epoch')}
    returning i.ord
  ), missed as materialized (
    select * from input where ord not in (select ord from updated)
  ), duplicate as materialized (
    select m.ord, t.finished_at is null and not ${ownTurn('m.epoch')} as fenced
    from missed m join turns t using (tenant_id, task_id)
  )`;

/** Of the rows of an acceptance those whose session is the boot's. */
const OWN = `own as materialized (
      select i.* from input i left join owners o on o.tenant_id = i.tenant_id and o.session_id = i.session_id
        and o.boot = ${BOOT} and o.epoch = i.epoch
      where o.boot is not null or ${BOOT} is null or i.epoch = -${BOOT}
    )`;

/** What follows once the turns are `stored`: their sessions, and the count of their day. */
const NOTED = `
    touched as (
      insert into sessions (tenant_id, session_id, created_at, last_at)
      select tenant_id, session_id, min(asked_at), max(asked_at) from stored group by 1, 2 order by 1, 2
      on conflict (tenant_id, session_id) do update set last_at = excluded.last_at
      where sessions.last_at < excluded.last_at - ${SESSION_TOUCH_MS}
    ), counted as (
      insert into daily_usage (tenant_id, day, used)
      select tenant_id, (select day from input limit 1), count(*) from stored group by 1 order by 1
      on conflict (tenant_id, day) do update set used = daily_usage.used + excluded.used
    )`;

/** Rows are taken in one order everywhere, so that two nodes that count for one tenant do not wait for each other. */
export const SQL: Readonly<Record<PlanStep['kind'] | 'endedWithOutgoing', string>> = {
  accepted: `
    with input as materialized (${input([...ACCEPTED, 'day', 'epoch'])}), ${OWN}, stored as (
      insert into turns (${LIST}, boot, epoch) select ${LIST}, ${BOOT}, epoch from own order by ord
      on conflict (tenant_id, task_id) do nothing
      returning tenant_id, task_id, session_id, asked_at
    ), ${NOTED}
    select tenant_id || ' ' || task_id as key, null::bigint as ord from stored
    union all select null, ord from input where ord not in (select ord from own)`,
  /**
   * Locks the counts of days that have a limit, and makes those that are missing: until it commits no other node stores a
   * turn of these tenants, and what the next statement sees is all there is.
   */
  counting: `
    insert into daily_usage (tenant_id, day, used) select tenant_id, day, 0 from (${input(['tenant_id', 'day'])}) i
    order by tenant_id, day
    on conflict (tenant_id, day) do update set used = daily_usage.used where false`,
  /** Of the turns that are new the first ones that find room in their tenant's day; \`over\` are the others. */
  acceptedWithin: `
    with input as materialized (${input([...ACCEPTED, 'day', 'most', 'epoch'])}), ${OWN}, looked as materialized (
      select i.*, t.task_id is null
        and row_number() over (partition by i.tenant_id, i.task_id order by i.ord) = 1 as is_new
      from own i left join turns t on t.tenant_id = i.tenant_id and t.task_id = i.task_id
    ), placed as materialized (
      select l.*, count(*) filter (where is_new) over (partition by l.tenant_id order by l.ord) as place
      from looked l
    ), judged as materialized (
      select p.*, p.most is null or p.place <= p.most - coalesce(u.used, 0) as fits
      from placed p left join daily_usage u on u.tenant_id = p.tenant_id and u.day = p.day
      where p.is_new
    ), stored as (
      insert into turns (${LIST}, boot, epoch) select ${LIST}, ${BOOT}, epoch from judged where fits order by ord
      on conflict (tenant_id, task_id) do nothing
      returning tenant_id, task_id, session_id, asked_at
    ), ${NOTED}
    select tenant_id || ' ' || task_id as key, null::bigint as ord, false as over from stored
    union all select tenant_id || ' ' || task_id, null, true from judged where not fits
    union all select null, ord, false from input where ord not in (select ord from own)`,
  resumed: `
    update turns t set agent_id = i.agent_id, agent_version = i.agent_version, status = i.status,
      finished_at = null, content = null, answer = null, answered_at = null,
      flags = t.flags & ${LASTING_FLAGS}, info = null, error = null, reasoning = null, untold = 0, boot = ${BOOT},
      epoch = i.epoch
    from (${input([...KEY, 'session_id', 'agent_id', 'agent_version', 'status', 'epoch'])}) i
    where t.tenant_id = i.tenant_id and t.task_id = i.task_id and t.session_id = i.session_id
      and t.untold = 1 and t.flags & ${FLAG.effects} = 0 and ${owned('i', 'i.epoch')}
    returning i.ord`,
  effects: `
    with input as materialized (${input([...KEY, 'epoch'])}), noted as (
      update turns t set flags = t.flags | ${FLAG.effects} from input i
      where t.tenant_id = i.tenant_id and t.task_id = i.task_id and t.flags & ${FLAG.effects} = 0
        and ${ownTurn('i.epoch')}
    )
    select i.ord from input i join turns t using (tenant_id, task_id) where not ${ownTurn('i.epoch')}`,
  ended: `${ENDED_SQL} select ord, fenced from duplicate`,
  /** What is to be sent for an end is stored with it; for one that is a duplicate nothing is. */
  endedWithOutgoing: `
    ${ENDED_SQL}, stored as (
      insert into outgoing (${MESSAGE}, boot) select ${MESSAGE}, ${BOOT} from (${input([...OUTGOING, 'end'], '$2')}) o
      where "end" not in (select ord from duplicate) order by ord
      on conflict (tenant_id, id) do nothing
    )
    select ord, fenced from duplicate`,
  /** Answers are remembered, the rest is deleted. */
  sent: `
    with input as materialized (${input(['tenant_id', 'id'])}), remembered as (
      update outgoing o set unsent = 0 from input i
      where o.tenant_id = i.tenant_id and o.id = i.id and o.answers is not null
    )
    delete from outgoing o using input i
    where o.tenant_id = i.tenant_id and o.id = i.id and o.answers is null`,
  forgotten: `
    with old as materialized (
      select tenant_id, id from outgoing where unsent = 0 and created_at < ${BEFORE}
      order by created_at limit ${MOST}
    )
    delete from outgoing o using old where o.tenant_id = old.tenant_id and o.id = old.id`,
  /** It is taken out of the count of its day, too. */
  withdrawn: `
    with gone as (
      delete from turns where tenant_id = ${value('tenant_id')} and task_id = ${value('task_id')}
        and created_at = ${value('created_at', 'bigint')} and finished_at is null
      returning tenant_id, created_at
    )
    update daily_usage u set used = u.used - 1 from gone g
    where u.tenant_id = g.tenant_id and u.used > 0
      and u.day = to_char(to_timestamp(g.created_at / 1000.0) at time zone 'UTC', 'YYYY-MM-DD')`,
  deleted: `
    with own as materialized (
      select i.* from (select ${value('tenant_id')} as tenant_id, ${value('session_id')} as session_id) i
      where ${owned('i', value('epoch', 'bigint'))}
    ), gone as (
      delete from turns t using own i where t.tenant_id = i.tenant_id and t.session_id = i.session_id
    ), closed as (
      delete from sessions s using own i where s.tenant_id = i.tenant_id and s.session_id = i.session_id
    )
    select count(*)::int as looked from own`,
  overtaken: `update turns t set seq = default
    where tenant_id = ${value('tenant_id')} and task_id = ${value('task_id')} and ${ownTurn(value('epoch', 'bigint'))}`,
  /** An earlier boot ran it: it is the session that must be this one's. */
  notified: `update turns t set untold = 0
    where tenant_id = ${value('tenant_id')} and task_id = ${value('task_id')} and untold = 1
      and ${owned('t', value('epoch', 'bigint'))}`,
  released: `
    delete from owners o using (${input(['tenant_id', 'session_id', 'epoch'])}) i
    where o.tenant_id = i.tenant_id and o.session_id = i.session_id and o.boot = ${BOOT} and o.epoch = i.epoch`,
  tier: `
    with given as (
      insert into tenants (tenant_id, tier) values (${value('tenant_id')}, ${value('tier')})
      on conflict (tenant_id) do update set tier = excluded.tier
    )
    insert into changes (tenant_id, kind, id) values (${value('tenant_id')}, 'tier', ${value('tier')})`,
  interrupted: `update turns
    set status = 'failed', finished_at = ${value('finished_at', 'bigint')}, error = ${value('error')}, untold = 1
    where finished_at is null and (boot is null or ${BOOT} is null)`,
  expired: `
    with old as materialized (
      select s.tenant_id, s.session_id, coalesce((
        select max(coalesce(t.answered_at, t.asked_at)) from turns t
        where t.tenant_id = s.tenant_id and t.session_id = s.session_id), 0) as last_at
      from sessions s where s.last_at < ${BEFORE}
        and (select tier from tenants n where n.tenant_id = s.tenant_id) is not distinct from ${value('tier')}
      order by s.last_at limit ${MOST}
    ), gone as (
      delete from turns t using old o
      where t.tenant_id = o.tenant_id and t.session_id = o.session_id and o.last_at < ${BEFORE}
    ), closed as (
      delete from sessions s using old o
      where s.tenant_id = o.tenant_id and s.session_id = o.session_id and o.last_at < ${BEFORE}
    ), aged as (
      update sessions s set last_at = o.last_at from old o
      where s.tenant_id = o.tenant_id and s.session_id = o.session_id and o.last_at >= ${BEFORE}
    )
    select count(*)::int as looked from old`,
  /** Nobody's tenant: an id is never empty. */
  probe: `insert into tenants (tenant_id, tier) values ('', null)
    on conflict (tenant_id) do update set tier = null`,
};

/**
 * Every row is found by its key. The planner must not learn otherwise from statistics that are older than a load
 * that began a minute ago: its plans are kept. And plans are made anew each time: a generic one, settled on while the
 * table was nearly empty, made a batch of ends sixty times slower at 12,000 turns.
 */
export const SCOPE = `select set_config('nooble.scope', 'node', true), set_config('enable_hashjoin', 'off', true),
  set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true),
  set_config('plan_cache_mode', 'force_custom_plan', true)`;

const fenced = (alive: string): string =>
  `${SCOPE}, set_config('nooble.boot', $1, true), ${alive}($1::text::bigint, $2::text::uuid)`;
/** The same for a boot, which must not be dead. Said with the scope: no statement more, no round trip. */
export const FENCED_SCOPE = fenced('nooble_alive');
export const LONE_FENCED_SCOPE = fenced('nooble_alive_alone');
