/** The rows of nodes and owners as an operator reads and changes them. */
import { sql } from 'kysely';
import { z } from 'zod';
import type { Boot } from '../../ports/cluster.ts';
import type { ClusterAdmin } from '../../ports/cluster-admin.ts';
import type { Database } from '../database.ts';
import { interruptedError } from '../failure.ts';

const count = z.coerce.number().int();
const stateSchema = z.enum(['live', 'draining', 'dead']);
const nodeSchema = z
  .object({
    boot: count,
    node_id: z.string(),
    state: stateSchema,
    version: z.string(),
    started_at_ms: z.coerce.number(),
    beat_age_ms: z.coerce.number(),
    running: count,
    owned: count,
    wanted: count,
    unsent: count,
  })
  .transform((row) => ({
    boot: row.boot,
    nodeId: row.node_id,
    state: row.state,
    version: row.version,
    startedAtMs: row.started_at_ms,
    beatAgeMs: row.beat_age_ms,
    running: row.running,
    owned: row.owned,
    wanted: row.wanted,
    unsent: row.unsent,
  }));
const sessionSchema = z
  .object({
    boot: count,
    node_id: z.string(),
    state: stateSchema,
    epoch: count,
    wanted: count.nullable(),
  })
  .transform(({ boot, node_id, state, epoch, wanted }) => ({
    ...{ boot, nodeId: node_id, state, epoch },
    wantedBy: wanted ?? undefined,
  }));
const bootsSchema = z.array(z.object({ boot: count })).transform((rows) => rows.map(({ boot }) => boot));

export const createClusterAdmin = ({ read, write }: Pick<Database, 'read' | 'write'>): ClusterAdmin => ({
  status: () =>
    read('node', async (db) => {
      const { rows } = await sql`
        select n.boot, n.node_id, n.state, n.version,
          round(extract(epoch from n.started_at) * 1000) as started_at_ms,
          greatest(0, round(extract(epoch from clock_timestamp() - n.beat_at) * 1000)) as beat_age_ms,
          (select count(*) from turns t where t.boot = n.boot and t.finished_at is null) as running,
          (select count(*) from owners o where o.boot = n.boot) as owned,
          (select count(*) from owners o where o.boot = n.boot and o.wanted is not null) as wanted,
          (select count(*) from outgoing m where m.boot = n.boot and m.unsent = 1) as unsent
        from nodes n where n.state <> 'dead' or n.beat_at > now() - interval '10 minutes' order by n.boot`.execute(
        db,
      );
      return z.array(nodeSchema).parse(rows);
    }),
  where: (tenantId, sessionId) =>
    read('node', async (db) => {
      const { rows } = await sql`
        select o.boot, coalesce(n.node_id, '') as node_id, coalesce(n.state, 'dead') as state, o.epoch, o.wanted
        from owners o left join nodes n on n.boot = o.boot
        where o.tenant_id = ${tenantId} and o.session_id = ${sessionId}`.execute(db);
      return z.array(sessionSchema).parse(rows)[0];
    }),
  drain: (nodeId) =>
    write('node', async (db) => {
      await sql`update nodes set state = 'draining' where node_id = ${nodeId} and state = 'live'`.execute(db);
      return living(db, nodeId);
    }),
  bury: (nodeId) =>
    write('node', async (db) => {
      const boots = await living(db, nodeId);
      for (const boot of boots) await sql`select nooble_bury(${boot}, null, ${interruptedError})`.execute(db);
      return boots;
    }),
});

async function living(
  db: Parameters<Parameters<Database['read']>[1]>[0],
  nodeId: string,
): Promise<readonly Boot[]> {
  const { rows } = await sql`
    select boot from nodes where node_id = ${nodeId} and state <> 'dead' order by boot`.execute(db);
  return bootsSchema.parse(rows);
}
