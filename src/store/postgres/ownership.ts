/** The table of owners in PostgreSQL: sessions are claimed many at once, and asked for where their node does not answer. */
import type { Pool, PoolClient } from 'pg';
import { z } from 'zod';
import type { Boot, Claimed, OwnerTable, SessionKey } from '../../ports/cluster.ts';
import { classified, isUnavailable, superseded } from '../failure.ts';
import type { Fence } from './fence.ts';

const NODE_SCOPE =
  "select set_config('nooble.scope', 'node', true), set_config('enable_seqscan', 'off', true)";

/**
 * No lock on `nodes`: a boot that is dead by the time of the commit has a row that is free, as all its others. The row of
 * a living boot stays, this one's own too: what an earlier claim got whose answer was lost.
 */
const CLAIM = `
  insert into owners as o (tenant_id, session_id, boot, epoch)
  select tenant_id, session_id, $3::bigint, nextval('epochs')
  from unnest($1::text[], $2::text[]) i (tenant_id, session_id) order by 1, 2
  on conflict (tenant_id, session_id) do update set boot = excluded.boot, epoch = excluded.epoch, wanted = null
    where exists (select from nodes n where n.boot = o.boot and n.state = 'dead')
  returning tenant_id, session_id, boot, epoch`;

const LOOK = `
  select o.tenant_id, o.session_id, o.boot, o.epoch
  from unnest($1::text[], $2::text[]) i (tenant_id, session_id) join owners o using (tenant_id, session_id)`;

const WANT = `update owners set wanted = $4::bigint
  where tenant_id = $1 and session_id = $2 and boot = $3::bigint and boot <> $4::bigint`;

const RUNNER = 'select boot from turns where tenant_id = $1 and task_id = $2 and finished_at is null';

/** Rows of dead boots; and, where nothing is left that names them, those boots themselves, a week after. */
const SWEEP = [
  "delete from owners o using nodes n where n.boot = o.boot and n.state = 'dead'",
  `delete from nodes n where n.state = 'dead' and n.beat_at < now() - interval '7 days'
    and not exists (select from owners o where o.boot = n.boot)
    and not exists (select from turns t where t.boot = n.boot and t.finished_at is null)
    and not exists (select from outgoing g where g.boot = n.boot and g.unsent = 1)`,
];

const rowsSchema = z.array(
  z.object({
    tenant_id: z.string(),
    session_id: z.string(),
    boot: z.coerce.number().int(),
    epoch: z.coerce.number().int(),
  }),
);

const runnerSchema = z.array(z.object({ boot: z.coerce.number().int().nullable() }));

/** So often a session is looked for that is given up between the claim and the look at who has it. */
const TRIES = 3;

type Statement = readonly [name: string, text: string, values: readonly unknown[]];

/** `pool`: its connections must pipeline. Claims may overlap: nothing of the fence rests on them. */
export function createOwnership(pool: Pick<Pool, 'connect'>, fence: Fence): OwnerTable {
  const me = (): Boot => {
    const { boot } = fence.identity() ?? {};
    if (boot === undefined) throw superseded();
    return boot;
  };

  /** Each statement in a transaction of its own with the scope, and all in one round trip. */
  async function run(statement: Statement): Promise<{ rows: unknown[]; rowCount: number | null }> {
    const client = await pool.connect().catch((error: unknown) => {
      throw classified(error);
    });
    let failure: unknown;
    try {
      return await transaction(client, statement);
    } catch (error) {
      failure = classified(error);
      throw failure;
    } finally {
      client.release(isUnavailable(failure));
    }
  }

  async function ask(name: string, text: string, keys: readonly SessionKey[], more: readonly unknown[]) {
    const columns = [keys.map(({ tenantId }) => tenantId), keys.map(({ sessionId }) => sessionId)];
    return rowsSchema.parse((await run([name, text, [...columns, ...more]])).rows);
  }

  return {
    async claim(keys) {
      const boot = me();
      const found = new Map<string, Claimed>();
      const missing = (): readonly SessionKey[] => keys.filter((key) => !found.has(idOf(key)));
      for (let tries = 0; tries < TRIES && missing().length > 0; tries += 1) {
        const rows = await ask('claim', CLAIM, missing(), [boot]);
        for (const row of rows) found.set(`${row.tenant_id} ${row.session_id}`, row);
        if (missing().length === 0) break;
        for (const row of await ask('owners', LOOK, missing(), []))
          found.set(`${row.tenant_id} ${row.session_id}`, row);
      }
      return keys.map((key) => {
        const row = found.get(idOf(key));
        return row && { boot: row.boot, epoch: row.epoch };
      });
    },
    async want({ tenantId, sessionId }, owner) {
      await run(['want', WANT, [tenantId, sessionId, owner, me()]]);
    },
    async runner(tenantId, taskId) {
      const { rows } = await run(['runner', RUNNER, [tenantId, taskId]]);
      return runnerSchema.parse(rows)[0]?.boot ?? undefined;
    },
    async sweep() {
      let swept = 0;
      for (const [index, text] of SWEEP.entries())
        swept += (await run([`sweep${index}`, text, []])).rowCount ?? 0;
      return swept;
    },
  };
}

const idOf = ({ tenantId, sessionId }: SessionKey): string => `${tenantId} ${sessionId}`;

async function transaction(client: PoolClient, [name, text, values]: Statement) {
  const sent = [
    client.query('begin'),
    client.query({ name: 'nodeScope', text: NODE_SCOPE }),
    client.query({ name, text, values: [...values] }),
    client.query('commit'),
  ] as const;
  const failed = (await Promise.allSettled(sent)).find((result) => result.status === 'rejected');
  if (failed) throw failed.reason;
  return sent[2];
}
