/** The tables and functions by which nodes share the limits of tenants (migration 010). PostgreSQL only. */
import { type Kysely, sql } from 'kysely';

/**
 * `limits` has a row for each limit of a tenant, whose lock lets one node at a time take of it; of a rate it holds the
 * tokens that nobody has. `limit_leases` is what each boot holds, and wanted in vain. What dead boots hold does not count:
 * their slots are deleted with their burial, their tokens with the next question.
 */
export async function createLimits(db: Kysely<unknown>): Promise<void> {
  await sql`create table limits (
    tenant_id text not null,
    kind text not null,
    tokens double precision not null,
    at timestamptz not null,
    primary key (tenant_id, kind)
  ) with (fillfactor = 70)`.execute(db);
  await sql`create table limit_leases (
    tenant_id text not null,
    kind text not null,
    boot bigint not null,
    held integer not null,
    wants integer not null,
    asked bigint not null,
    at timestamptz not null,
    primary key (tenant_id, kind, boot)
  ) with (fillfactor = 70)`.execute(db);
  await sql`create index limit_leases_of_boot on limit_leases (boot)`.execute(db);
  await createLease(db);
  await freeAtBurial(db);
}

/**
 * Answers questions, those of all tenants in one order. A node says what it holds, so that an answer which it never got is
 * made good by its next question; a question that comes after a later one is left alone. A bucket has filled up to what
 * nodes were known not to hold meanwhile, the dead included: tokens that wait on a node, or were spent there, are not there
 * twice.
 */
async function createLease(db: Kysely<unknown>): Promise<void> {
  await sql`create function nooble_lease(b bigint, n uuid, questions json)
    returns table (place bigint, given integer, retry_ms double precision, share double precision)
    language plpgsql as $$
    declare
      q record; l record; last_held integer; held_by_others bigint; held_by_dead bigint; rivals bigint; parties bigint; last_asked bigint;
      have double precision; more integer; kept integer; now_at timestamptz;
    begin
      perform set_config('nooble.scope', 'node', true);
      perform 1 from nodes d where d.boot = b and d.nonce = n and d.state <> 'dead';
      if not found then raise exception 'node is superseded' using errcode = 'NB409'; end if;
      for q in
        select * from rows from (json_to_recordset(questions) as (tenant_id text, kind text, most integer,
          per_ms double precision, held integer, back integer, want integer, spends integer, asked bigint))
          with ordinality as i (tenant_id, kind, most, per_ms, held, back, want, spends, asked, ord)
        order by 1, 2, i.asked
      loop
        insert into limits as r (tenant_id, kind, tokens, at)
        values (q.tenant_id, q.kind, q.most, clock_timestamp())
        on conflict (tenant_id, kind) do update set tokens = r.tokens where false;
        select r.tokens, r.at into l from limits r where r.tenant_id = q.tenant_id and r.kind = q.kind;
        place := q.ord; given := 0; retry_ms := null; share := null;

        select x.asked, x.held into last_asked, last_held from limit_leases x
        where x.tenant_id = q.tenant_id and x.kind = q.kind and x.boot = b;
        if last_asked >= q.asked then return next; continue; end if;

        now_at := clock_timestamp();
        select coalesce(sum(x.held) filter (where d.boot is not null), 0),
          coalesce(sum(x.held) filter (where d.boot is null), 0),
          count(d.boot) filter (where x.wants > 0 and x.at > now_at - interval '1 second'),
          count(d.boot) filter (where x.held > 0 or x.at > now_at - interval '1 second')
        into held_by_others, held_by_dead, rivals, parties
        from limit_leases x left join nodes d on d.boot = x.boot and d.state <> 'dead'
        where x.tenant_id = q.tenant_id and x.kind = q.kind and x.boot <> b;

        if q.per_ms is null then
          more := greatest(0, least(q.want, q.most - held_by_others - q.held));
          if rivals > 0 then share := q.most::double precision / (parties + 1); end if;
          if more < q.want then retry_ms := 0; end if;
        else
          have := least(l.tokens + greatest(0, extract(epoch from now_at - l.at)::double precision * 1000) * q.per_ms,
            greatest(l.tokens, q.most - held_by_others - held_by_dead - coalesce(last_held, 0)));
          have := greatest(0, least(have + q.back, q.most - held_by_others - q.held));
          if held_by_dead > 0 then
            delete from limit_leases x where x.tenant_id = q.tenant_id and x.kind = q.kind and x.boot <> b
              and not exists (select from nodes d where d.boot = x.boot and d.state <> 'dead');
          end if;
          more := least(q.want, floor(have + 0.000001));
          have := greatest(0, have - more);
          update limits r set tokens = have, at = now_at where r.tenant_id = q.tenant_id and r.kind = q.kind;
          if more < q.want then
            retry_ms := case when q.per_ms > 0 then ceil((1 - have) / q.per_ms) else 86400000 end;
          end if;
        end if;

        kept := q.held + more - least(more, q.spends);
        if kept = 0 and q.want <= more then
          delete from limit_leases x where x.tenant_id = q.tenant_id and x.kind = q.kind and x.boot = b;
        else
          insert into limit_leases as x (tenant_id, kind, boot, held, wants, asked, at)
          values (q.tenant_id, q.kind, b, kept, q.want - more, q.asked, now_at)
          on conflict (tenant_id, kind, boot)
          do update set held = excluded.held, wants = excluded.wants, asked = excluded.asked, at = excluded.at;
        end if;
        given := more;
        return next;
      end loop;
    end $$`.execute(db);
}

/** The function of migration 008, which an older version goes on calling, with one deed more. */
async function freeAtBurial(db: Kysely<unknown>): Promise<void> {
  await sql`create or replace function nooble_bury(dead bigint, seen bigint, why text) returns text language plpgsql as $$
    declare b bigint; s text;
    begin
      select beat, state into b, s from nodes where boot = dead for update;
      if s is null or s = 'dead' then return 'dead already'; end if;
      if seen is not null and b <> seen then return 'renewed'; end if;
      update nodes set state = 'dead' where boot = dead;
      update turns set status = 'failed', error = why, untold = 1,
        finished_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
      where boot = dead and finished_at is null;
      update outgoing set boot = null where boot = dead and unsent = 1;
      delete from limit_leases where boot = dead and kind <> 'minute';
      return 'buried';
    end $$`.execute(db);
}
