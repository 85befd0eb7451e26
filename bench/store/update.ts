/** Part 4: an agent gets a new version, and a session that never pauses runs it. */
import { z } from 'zod';
import { interleaved, progress } from '../kit/bench-main.ts';
import type { BenchOptions } from '../kit/options.ts';
import { type Figures, type Table, tableOf } from '../kit/result.ts';
import type { Server } from '../kit/servers.ts';
import type { Load } from '../load/load.ts';
import { MAPS, withNodes } from './nodes.ts';
import type { Places } from './places.ts';
import { TENANT } from './turns.ts';

const MODEL = 'offline-5x0';
const COUNT = { quick: 50, full: 200 } as const;
/** Updates of a round that are not counted. */
const WARM = 20;
const COLUMNS = [
  'in force p99 ms',
  'in force p50 ms',
  'PATCH answered p50 ms',
  'PATCH answered p99 ms',
  'turns meanwhile',
  'stale turns',
] as const;

const madeSchema = z.object({ id: z.string() });

export async function updatePart(
  places: Places,
  options: BenchOptions,
  load: Load,
  notes: string[],
): Promise<{ tables: readonly Table[] }> {
  const rounds = await withNodes([MAPS], places, MODEL, async (servers) => {
    const contenders = [];
    for (const server of servers)
      contenders.push({ name: server.name, server, agentId: await makeAgent(server) });
    return interleaved(contenders, options.rounds, ({ server, agentId }, round) =>
      oneRound(server, agentId, round, options, load, notes),
    );
  });
  return { tables: [tableOf('A new version of an agent reaches a running session', COLUMNS, rounds)] };
}

async function makeAgent({ port }: Server): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${port}/api/agents`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'x-tenant-id': TENANT },
    body: JSON.stringify({ name: 'Harbour guide', provider: 'offline', model: MODEL }),
  });
  if (response.status !== 201)
    throw new Error(`POST /api/agents: ${response.status} ${await response.text()}`);
  return madeSchema.parse(await response.json()).id;
}

async function oneRound(
  server: Server,
  agentId: string,
  round: number,
  options: BenchOptions,
  load: Load,
  notes: string[],
): Promise<Figures> {
  const { inForceMs, answeredMs, turns, stale } = await load.update({
    ...{ port: server.port, tenant: TENANT, session: `r${round}`, agentId },
    ...{ count: options.quick ? COUNT.quick : COUNT.full, warm: WARM },
  });
  progress(
    `${server.name}: in force after ${inForceMs.p50?.toFixed(2)} ms, p99 ${inForceMs.p99?.toFixed(2)} ms`,
  );
  if (stale > 0)
    notes.push(`${server.name}: ${stale} turns ran an older version than the PATCH had answered`);
  return {
    'in force p99 ms': inForceMs.p99 ?? Number.NaN,
    'in force p50 ms': inForceMs.p50 ?? Number.NaN,
    'PATCH answered p50 ms': answeredMs.p50 ?? Number.NaN,
    'PATCH answered p99 ms': answeredMs.p99 ?? Number.NaN,
    'turns meanwhile': turns,
    'stale turns': stale,
  };
}
