/** Chat turns over WebSocket from a second process: our node beside floors and peers on the same offline model. */
import { benchMain, interleaved, progress } from './kit/bench-main.ts';
import type { BenchOptions } from './kit/options.ts';
import { pinning } from './kit/process.ts';
import {
  type BenchFindings,
  type Comparison,
  compared,
  type Figures,
  medianOf,
  type Table,
  tableOf,
} from './kit/result.ts';
import { installed, SERVERS, type Server, type ServerKind, startServer } from './kit/servers.ts';
import type { RunReport } from './load/commands.ts';
import { type Load, startLoad } from './load/load.ts';

const { noobleUncapped: nooble, uwsWrites, uwsStream, socketIoStream, uwsAgent } = SERVERS;

interface Pace {
  readonly title: string;
  readonly model: string;
  readonly contenders: readonly ServerKind[];
}

const PACES: readonly Pace[] = [
  {
    title: '50 tokens, no delay',
    model: 'offline-50x0',
    contenders: [
      nooble,
      SERVERS.noobleWithoutHistory,
      SERVERS.uwsCorked,
      uwsWrites,
      SERVERS.uwsRaw,
      uwsStream,
      SERVERS.wsStream,
      socketIoStream,
      uwsAgent,
    ],
  },
  {
    title: '50 tokens, one loop turn apart',
    model: 'offline-50xtick',
    contenders: [
      nooble,
      SERVERS.noobleWithoutHistory,
      uwsWrites,
      SERVERS.uwsRaw,
      uwsStream,
      SERVERS.wsStream,
      socketIoStream,
      uwsAgent,
    ],
  },
];

const COLUMNS = [
  'turns/s',
  'server CPU µs/turn',
  'first token p50 ms',
  'first token p99 ms',
  'turn p50 ms',
  'turn p99 ms',
  'server CPU %',
  'load CPU %',
] as const;

/** Above it, the load process is what limits a round. */
const LOAD_SHARE_LIMIT = 0.9;
const SESSIONS = [1, 100, 1000] as const;

function figures(report: RunReport): Figures {
  const cpuUs = report.serverCpuUs ?? Number.NaN;
  return {
    'turns/s': report.turns / (report.elapsedMs / 1000),
    'server CPU µs/turn': cpuUs / report.turns,
    'first token p50 ms': report.ttftMs.p50 ?? Number.NaN,
    'first token p99 ms': report.ttftMs.p99 ?? Number.NaN,
    'turn p50 ms': report.turnMs.p50 ?? Number.NaN,
    'turn p99 ms': report.turnMs.p99 ?? Number.NaN,
    'server CPU %': cpuUs / report.elapsedMs / 10,
    'load CPU %': report.loadShare * 100,
  };
}

async function benchPace(
  pace: Pace,
  sessions: readonly number[],
  options: BenchOptions,
  load: Load,
  notes: string[],
) {
  const wanted = pace.contenders.filter(
    ({ name }) => options.only.length === 0 || options.only.includes(name),
  );
  const { kinds, notes: missing } = installed(wanted);
  notes.push(...missing);
  const servers: Server[] = [];
  try {
    for (const kind of kinds) servers.push(await startServer(kind, pace.model));
    await verifyAll(servers, load);
    const tables: Table[] = [];
    for (const count of sessions) {
      const title = `${pace.title}, C = ${count}`;
      const rounds = await interleaved(servers, options.rounds, (server, round) =>
        oneRound(server, count, `r${round}c${count}-`, options, load, notes),
      );
      tables.push(tableOf(title, COLUMNS, rounds));
    }
    return tables;
  } finally {
    await Promise.all(servers.map((server) => server.end()));
  }
}

/** Everybody's turn must say the same. */
async function verifyAll(servers: readonly Server[], load: Load): Promise<void> {
  let said: string | undefined;
  for (const server of servers) {
    await load.open({ ...at(server), prefix: 'verify-', count: 1 });
    const turn = await load.verify();
    await load.close();
    progress(`${server.name}: a turn has ${turn.frames} frames, ${turn.deltas} deltas, ${turn.bytes} bytes`);
    said ??= turn.content;
    if (turn.content !== said) throw new Error(`${server.name} answers ${turn.content} and not ${said}`);
  }
}

const at = ({ port, kind }: Server) => ({ port, dialect: kind.dialect, tenant: 'bench', query: '' });

async function oneRound(
  server: Server,
  count: number,
  prefix: string,
  options: BenchOptions,
  load: Load,
  notes: string[],
): Promise<Figures> {
  await load.open({ ...at(server), prefix, count });
  // A thousand turns at once take seconds: they need longer to fall out of step, and to be counted.
  const longer = count >= 1000 ? 2 : 1;
  const warmupMs = (options.quick ? 500 : 2000) * longer;
  const report = await load.run({
    warmupMs,
    spreadMs: warmupMs * 0.8,
    durationMs: options.roundMs * longer,
    pauseMs: 0,
    errorPauseMs: 10,
    depth: 1,
    serverPid: server.pid,
  });
  await load.close();
  const one = figures(report);
  progress(`${server.name}, C = ${count}: ${Math.round(one['turns/s'] ?? 0)} turns/s`);
  if (report.errors > 0)
    notes.push(`${server.name}, C = ${count}: ${report.errors} errors, ${report.lastError}`);
  if (report.lost > 0) notes.push(`${server.name}, C = ${count}: ${report.lost} sockets lost`);
  if (report.loadShare > LOAD_SHARE_LIMIT)
    notes.push(
      `${server.name}, C = ${count}: the load process used ${Math.round(report.loadShare * 100)} % of its core; it, not the server, may be the limit`,
    );
  return one;
}

function comparisons(tables: readonly Table[]): Comparison[] {
  const over = (table: Table, peer: ServerKind, target: { atLeast?: number } = {}) =>
    compared(
      `turns/s over ${peer.name}: ${table.title}`,
      medianOf(table, nooble.name, 'turns/s') / medianOf(table, peer.name, 'turns/s'),
      target,
    );
  return tables.flatMap((table) => {
    const isTarget = table.title.endsWith('C = 100');
    const isPaced = table.title.includes('loop turn');
    const first = 'first token p50 ms';
    const added = medianOf(table, nooble.name, first) - medianOf(table, uwsStream.name, first);
    return [
      ...over(table, uwsWrites),
      ...over(table, uwsStream, isTarget ? { atLeast: isPaced ? 1.5 : 1 } : {}),
      ...over(table, socketIoStream, isTarget ? { atLeast: 2.5 } : {}),
      ...over(table, uwsAgent, isTarget ? { atLeast: 6 } : {}),
      ...(table.title.endsWith('C = 1')
        ? compared(`ms to first token beyond ${uwsStream.name}: ${table.title}`, added, { atMost: 0.3 })
        : []),
    ];
  });
}

async function run(options: BenchOptions): Promise<BenchFindings> {
  const notes = [
    pinning(),
    'nooble: executions at once raised over the tier by TIERS_FILE and NODE_MAX_EXECUTIONS, everything else as it comes.',
  ];
  const only = Number(options.set.sessions ?? 0);
  const sessions = only > 0 ? [only] : SESSIONS;
  const paces = PACES.filter(({ model }) => options.set.model === undefined || options.set.model === model);
  const load = await startLoad();
  try {
    const tables: Table[] = [];
    for (const pace of paces) tables.push(...(await benchPace(pace, sessions, options, load, notes)));
    return { tables, comparisons: comparisons(tables), notes: [...new Set(notes)] };
  } finally {
    await load.end();
  }
}

await benchMain({ name: 'chat-turn', rounds: 5, seconds: 5, run });
