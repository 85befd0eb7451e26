/** Carries out a batch of writes in one PostgreSQL transaction and, since all is sent at once, one round trip. */
import type { Pool, PoolClient } from 'pg';
import { ACCEPTED, ENDED, type EncodedWrite } from '../encode.ts';
import { classified, isUnavailable } from '../failure.ts';
import { SESSION_TOUCH_MS } from '../schema.ts';
import { acceptedOutcomes, columnsOf, planBatch, type Step } from './plan.ts';

const NUMBERS: ReadonlySet<string> = new Set([
  'agent_version',
  'created_at',
  'asked_at',
  'flags',
  'finished_at',
  'answered_at',
]);

/** `unnest` of one array a column, numbered in the order of the batch. */
const input = (columns: readonly string[]): string => {
  const arrays = columns.map((name, index) => `$${index + 1}::${NUMBERS.has(name) ? 'bigint' : 'text'}[]`);
  return `select * from unnest(${arrays.join(', ')}) with ordinality as i (${columns.join(', ')}, ord)`;
};

/** Rows are taken in one order everywhere, so that two nodes that count for one tenant do not wait for each other. */
const SQL: Readonly<Record<EncodedWrite['kind'], string>> = {
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
  /**
   * Answers with the places of those that are duplicates: there, but not changed. `coalesce` keeps the planner off
   * the index of unfinished turns, which it takes for nearly empty: 107 ms instead of 20 for 500 writes.
   */
  ended: `
    with input as materialized (${input(ENDED)}), updated as (
      update turns t set status = i.status, agent_id = i.agent_id, agent_version = i.agent_version,
        finished_at = i.finished_at, content = i.content, answer = i.answer, answered_at = i.answered_at,
        flags = (t.flags & 1) | i.flags, info = i.info, error = i.error
      from input i
      where t.tenant_id = i.tenant_id and t.task_id = i.task_id and coalesce(t.finished_at, -1) = -1
      returning i.ord
    ), missed as materialized (select * from input where ord not in (select ord from updated))
    select m.ord from missed m join turns t using (tenant_id, task_id)`,
  deleted: `
    with gone as (delete from turns where tenant_id = $1 and session_id = $2)
    delete from sessions where tenant_id = $1 and session_id = $2`,
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
  steps: readonly Step[],
): Promise<readonly number[]> {
  const begun = [client.query('begin'), client.query({ name: 'scope', text: SCOPE })];
  const answers = steps.map((step) =>
    client.query<{ key?: string; ord?: number; looked?: number }>({
      name: step.kind,
      text: SQL[step.kind],
      values: valuesOf(writes, step),
    }),
  );
  const committed = client.query('commit');
  const failed = (await Promise.allSettled([...begun, ...answers, committed])).find(
    (result) => result.status === 'rejected',
  );
  if (failed) throw failed.reason;
  if ((await committed).command !== 'COMMIT') throw new Error('PostgreSQL rolled a transaction back.');

  const outcomes = writes.map(() => 1);
  for (const [index, step] of steps.entries()) {
    const rows = (await answers[index])?.rows ?? [];
    if (step.kind === 'accepted') {
      const found = acceptedOutcomes(writes, step, new Set(rows.map((row) => row.key ?? '')));
      for (const [at, member] of step.members.entries()) outcomes[member] = found[at] ?? 0;
    }
    if (step.kind === 'ended') for (const row of rows) outcomes[step.members[(row.ord ?? 0) - 1] ?? -1] = 0;
    if (step.kind === 'expired') outcomes[step.members[0] ?? -1] = rows[0]?.looked ?? 0;
  }
  return outcomes;
}

function valuesOf(writes: readonly EncodedWrite[], step: Step): unknown[] {
  const columns = columnsOf(writes, step);
  if (step.kind === 'ended') return [...columns];
  if (step.kind === 'accepted') return [...columns.slice(0, -1), columns.at(-1)?.[0]];
  return [...(writes[step.members[0] ?? 0]?.params ?? [])];
}
