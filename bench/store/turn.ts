/** Part 2: a chat turn of the whole node over WebSocket, on each kind of store. */
import { interleaved, progress } from '../kit/bench-main.ts';
import type { BenchOptions } from '../kit/options.ts';
import { type Comparison, compared, type Figures, medianOf, type Table, tableOf } from '../kit/result.ts';
import type { Server } from '../kit/servers.ts';
import type { Load } from '../load/load.ts';
import { IN_MEMORY, MAPS, on, withNodes } from './nodes.ts';
import { type Places, POSTGRES, SQLITE } from './places.ts';
import { TENANT } from './turns.ts';

const SESSIONS = 100;
const MODEL = 'offline-50x0';
/** Above it, the load process is what limits a round. */
const LOAD_SHARE_LIMIT = 0.9;
/** What the project asks of SQLite (issue 3). */
const TARGET = 0.8;
const COLUMNS = [
  'turns/s',
  'server CPU µs/turn',
  'accepted p50 ms',
  'accepted p99 ms',
  'first token p50 ms',
  'first token p99 ms',
  'turn p50 ms',
  'turn p99 ms',
  'server CPU %',
  'PostgreSQL CPU %',
  'load CPU %',
] as const;

export async function turnPart(
  places: Places,
  options: BenchOptions,
  load: Load,
  notes: string[],
): Promise<{ tables: readonly Table[]; comparisons: readonly Comparison[] }> {
  const table = await withNodes([MAPS, IN_MEMORY], places, MODEL, async (servers) => {
    for (const server of servers) {
      await load.open({ ...at(server), prefix: 'verify-', count: 1 });
      await load.verify();
      await load.close();
    }
    const rounds = await interleaved(servers, options.rounds, (server, round) =>
      oneRound(server, `r${round}-`, places, options, load, notes),
    );
    return tableOf(`Chat turn, 50 tokens, no delay, C = ${SESSIONS}`, COLUMNS, rounds);
  });
  const over = (name: string, target: { atLeast?: number } = {}) =>
    compared(
      `turns/s ${name} over Maps, C = ${SESSIONS}`,
      medianOf(table, `nooble on ${name}`, 'turns/s') / medianOf(table, MAPS.name, 'turns/s'),
      target,
    );
  return {
    tables: [table],
    comparisons: [...over(SQLITE, { atLeast: TARGET }), ...over('sqlite::memory:'), ...over(POSTGRES)],
  };
}

const at = ({ port, kind }: Server) => ({ port, dialect: kind.dialect, tenant: TENANT, query: '' });

async function oneRound(
  server: Server,
  prefix: string,
  places: Places,
  options: BenchOptions,
  load: Load,
  notes: string[],
): Promise<Figures> {
  await load.open({ ...at(server), prefix, count: SESSIONS });
  const warmupMs = options.quick ? 500 : 2000;
  const database = server.name === on({ name: POSTGRES }).name ? places.postgres : undefined;
  const from = { ms: performance.now(), us: database?.cpuUs() ?? Number.NaN };
  const report = await load.run({
    ...{ warmupMs, spreadMs: warmupMs * 0.8, durationMs: options.roundMs },
    ...{ pauseMs: 0, errorPauseMs: 10, depth: 1, serverPid: server.pid },
  });
  // The warm-up is in it: a share of the time, and not of a turn.
  const databaseUs = (database?.cpuUs() ?? Number.NaN) - from.us;
  const databaseMs = performance.now() - from.ms;
  await load.close();

  const perSecond = report.turns / (report.elapsedMs / 1000);
  progress(`${server.name}: ${Math.round(perSecond)} turns/s`);
  if (report.errors > 0) notes.push(`${server.name}: ${report.errors} turns failed, ${report.lastError}`);
  if (report.lost > 0) notes.push(`${server.name}: ${report.lost} sockets lost`);
  if (
    report.loadShare + (Number.isFinite(databaseUs) ? databaseUs / databaseMs / 1000 : 0) >
    LOAD_SHARE_LIMIT
  )
    notes.push(`${server.name}: the load's core was over 90 % busy; it, not the server, may be the limit`);
  const cpuUs = report.serverCpuUs ?? Number.NaN;
  return {
    'turns/s': perSecond,
    'server CPU µs/turn': cpuUs / report.turns,
    'accepted p50 ms': report.acceptedMs.p50 ?? Number.NaN,
    'accepted p99 ms': report.acceptedMs.p99 ?? Number.NaN,
    'first token p50 ms': report.ttftMs.p50 ?? Number.NaN,
    'first token p99 ms': report.ttftMs.p99 ?? Number.NaN,
    'turn p50 ms': report.turnMs.p50 ?? Number.NaN,
    'turn p99 ms': report.turnMs.p99 ?? Number.NaN,
    'server CPU %': cpuUs / report.elapsedMs / 10,
    'PostgreSQL CPU %': databaseUs / databaseMs / 10,
    'load CPU %': report.loadShare * 100,
  };
}
