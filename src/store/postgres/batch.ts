/** Carries out a batch of writes in one PostgreSQL transaction and, since all is sent at once, one round trip. */
import type { Pool, PoolClient } from 'pg';
import { ACCEPTED, ENDED, type EncodedWrite, RESUMED } from '../encode.ts';
import { classified, isUnavailable } from '../failure.ts';
import { FLAG, KEPT_FLAGS, OUTGOING, SESSION_TOUCH_MS } from '../schema.ts';
import {
  acceptedOutcomes,
  columnsOf,
  endsOf,
  outgoingOf,
  type PlanStep,
  pairsOf,
  planBatch,
  transposed,
} from './plan.ts';

type Statement = PlanStep['kind'];
const KEY = ['tenant_id', 'task_id'];

const NUMBERS: ReadonlySet<string> = new Set([
  'agent_version',
  'created_at',
  'asked_at',
  'flags',
  'finished_at',
  'answered_at',
  'unsent',
  'place',
]);

/** `unnest` of one array a column, the first of them parameter `from`; numbered in the order of the batch. */
const input = (columns: readonly string[], from = 1): string => {
  const arrays = columns.map((name, index) => `$${from + index}::${NUMBERS.has(name) ? 'bigint' : 'text'}[]`);
  return `select * from unnest(${arrays.join(', ')}) with ordinality as i (${columns.join(', ')}, ord)`;
};

/**
 * Answers with the places of those that are duplicates: there, but not changed. `coalesce` keeps the planner off
 * the index of unfinished turns, which it takes for nearly empty: 107 ms instead of 20 for 500 writes.
 */
const ENDED_SQL = `
  with input as materialized (${input(ENDED)}), updated as (
    update turns t set status = i.status, agent_id = i.agent_id, agent_version = i.agent_version,
      finished_at = i.finished_at, content = i.content, answer = i.answer, answered_at = i.answered_at,
      flags = (t.flags & ${KEPT_FLAGS}) | i.flags, info = i.info, error = i.error
    from input i
    where t.tenant_id = i.tenant_id and t.task_id = i.task_id and coalesce(t.finished_at, -1) = -1
    returning i.ord
  ), missed as materialized (select * from input where ord not in (select ord from updated))`;

const DUPLICATES = 'select m.ord from missed m join turns t using (tenant_id, task_id)';

/** Rows are taken in one order everywhere, so that two nodes that count for one tenant do not wait for each other. */
const SQL: Readonly<Record<Statement, string>> = {
  accepted: `
    with input as materialized (${input(ACCEPTED.slice(0, -1))}), stored as (
      insert into turns (${ACCEPTED.slice(0, -1).join(', ')})
      select ${ACCEPTED.slice(0, -1).join(', ')} from input order by ord
      on conflict (tenant_id, task_id) do nothing
      returning tenant_id, task_id, session_id, asked_at
    ), touched as (
      insert into sessions (tenant_id, session_id, created_at, last_at)
      select tenant_id, session_id, min(asked_at), max(asked_at) from stored group by 1, 2 order by 1, 2
      on conflict (tenant_id, session_id) do update set last_at = excluded.last_at
      where sessions.last_at < excluded.last_at - ${SESSION_TOUCH_MS}
    ), counted as (
      insert into daily_usage (tenant_id, day, used)
      select tenant_id, $${ACCEPTED.length}, count(*) from stored group by 1 order by 1
      on conflict (tenant_id, day) do update set used = daily_usage.used + excluded.used
    )
    select tenant_id || ' ' || task_id as key from stored`,
  resumed: `
    update turns t set agent_id = i.agent_id, agent_version = i.agent_version, status = i.status,
      finished_at = null, content = null, answer = null, answered_at = null,
      flags = t.flags & ${KEPT_FLAGS}, info = null, error = null, untold = 0
    from (${input(RESUMED)}) i
    where t.tenant_id = i.tenant_id and t.task_id = i.task_id and t.session_id = i.session_id
      and t.untold = 1 and t.flags & ${FLAG.effects} = 0
    returning i.ord`,
  effects: `
    update turns t set flags = t.flags | ${FLAG.effects} from (${input(KEY)}) i
    where t.tenant_id = i.tenant_id and t.task_id = i.task_id and t.flags & ${FLAG.effects} = 0`,
  ended: `${ENDED_SQL} ${DUPLICATES}`,
  /** What is to be sent for an end is kept with it; for one that is a duplicate nothing is. */
  outgoing: `
    ${ENDED_SQL}, duplicate as materialized (${DUPLICATES}), kept as (
      insert into outgoing (${OUTGOING.join(', ')})
      select ${OUTGOING.join(', ')} from (${input([...OUTGOING, 'place'], ENDED.length + 1)}) o
      where place not in (select ord from duplicate) order by ord
      on conflict (tenant_id, id) do nothing
    )
    select ord from duplicate`,
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
      select tenant_id, id from outgoing where unsent = 0 and created_at < $1 order by created_at limit $2
    )
    delete from outgoing o using old where o.tenant_id = old.tenant_id and o.id = old.id`,
  deleted: `
    with gone as (delete from turns where tenant_id = $1 and session_id = $2)
    delete from sessions where tenant_id = $1 and session_id = $2`,
  overtaken: 'update turns set seq = default where tenant_id = $1 and task_id = $2',
  told: 'update turns set untold = 0 where tenant_id = $1 and task_id = $2 and untold = 1',
  tier: `insert into tenants (tenant_id, tier) values ($1, $2)
    on conflict (tenant_id) do update set tier = excluded.tier`,
  interrupted: `update turns set status = 'failed', finished_at = $1, error = $2, untold = 1
    where finished_at is null`,
  expired: `
    with old as materialized (
      select s.tenant_id, s.session_id, coalesce((
        select max(coalesce(t.answered_at, t.asked_at)) from turns t
        where t.tenant_id = s.tenant_id and t.session_id = s.session_id), 0) as last_at
      from sessions s where s.last_at < $2
        and (select tier from tenants n where n.tenant_id = s.tenant_id) is not distinct from $1
      order by s.last_at limit $3
    ), gone as (
      delete from turns t using old o
      where t.tenant_id = o.tenant_id and t.session_id = o.session_id and o.last_at < $2
    ), closed as (
      delete from sessions s using old o
      where s.tenant_id = o.tenant_id and s.session_id = o.session_id and o.last_at < $2
    ), aged as (
      update sessions s set last_at = o.last_at from old o
      where s.tenant_id = o.tenant_id and s.session_id = o.session_id and o.last_at >= $2
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
const SCOPE = `select set_config('nooble.scope', 'node', true), set_config('enable_hashjoin', 'off', true),
  set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true),
  set_config('plan_cache_mode', 'force_custom_plan', true)`;

/** Stores all writes or none. The pool's connections must pipeline. Outcomes as in sqlite/batch.ts. */
export async function runBatch(pool: Pool, writes: readonly EncodedWrite[]): Promise<readonly number[]> {
  const steps = planBatch(writes);
  const client = await pool.connect().catch((error: unknown) => {
    throw classified(error);
  });
  let failure: unknown;
  try {
    return await transaction(client, writes, steps);
  } catch (error) {
    failure = classified(error);
    throw failure;
  } finally {
    client.release(isUnavailable(failure));
  }
}

/** Everything is sent before the first answer is read; after a failed statement PostgreSQL skips the rest. */
async function transaction(
  client: PoolClient,
  writes: readonly EncodedWrite[],
  steps: readonly PlanStep[],
): Promise<readonly number[]> {
  const begun = [client.query('begin'), client.query({ name: 'scope', text: SCOPE })];
  const answers = steps.map((step) =>
    client.query<{ key?: string; ord?: number; looked?: number }>(queryOf(writes, step)),
  );
  const committed = client.query('commit');
  const failed = (await Promise.allSettled([...begun, ...answers, committed])).find(
    (result) => result.status === 'rejected',
  );
  if (failed) throw failed.reason;
  if ((await committed).command !== 'COMMIT') throw new Error('PostgreSQL rolled a transaction back.');

  const outcomes = writes.map(() => 1);
  for (const [index, step] of steps.entries()) {
    const answer = await answers[index];
    const rows = answer?.rows ?? [];
    if (step.kind === 'accepted') {
      const found = acceptedOutcomes(writes, step, new Set(rows.map((row) => row.key ?? '')));
      for (const [at, member] of step.members.entries()) outcomes[member] = found[at] ?? 0;
    }
    if (step.kind === 'resumed') for (const row of rows) outcomes[step.members[(row.ord ?? 0) - 1] ?? -1] = 1;
    if (step.kind === 'ended') {
      const ends = endsOf(writes, step);
      for (const row of rows) outcomes[ends[(row.ord ?? 0) - 1] ?? -1] = 0;
    }
    if (step.kind === 'expired') outcomes[step.members[0] ?? -1] = rows[0]?.looked ?? 0;
    if (step.kind === 'forgotten') outcomes[step.members[0] ?? -1] = answer?.rowCount ?? 0;
  }
  return outcomes;
}

/** Every statement has a name of its own, by which each connection prepares it once. */
function queryOf(
  writes: readonly EncodedWrite[],
  step: PlanStep,
): { readonly name: Statement; readonly text: string; readonly values: unknown[] } {
  const { kind, members } = step;
  const query = (name: Statement, values: readonly unknown[]) => ({
    name,
    text: SQL[name],
    values: [...values],
  });
  switch (kind) {
    case 'accepted': {
      const columns = columnsOf(writes, members, ACCEPTED.length);
      return query(kind, [...columns.slice(0, -1), columns.at(-1)?.[0]]);
    }
    case 'resumed':
      return query(kind, columnsOf(writes, members, RESUMED.length));
    case 'effects':
      return query(kind, columnsOf(writes, members, KEY.length));
    case 'ended': {
      const ends = columnsOf(writes, endsOf(writes, step), ENDED.length);
      const rows = outgoingOf(writes, step);
      if (rows.length === 0) return query(kind, ends);
      return query('outgoing', [...ends, ...transposed(rows, OUTGOING.length + 1)]);
    }
    case 'sent':
      return query(
        kind,
        transposed(
          members.flatMap((member) => pairsOf(writes[member]?.params ?? [])),
          2,
        ),
      );
    default:
      return query(kind, writes[members[0] ?? 0]?.params ?? []);
  }
}
