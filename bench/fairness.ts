/** What a quiet tenant feels while another floods the same node: its time to the first token, with and without. */
import { benchMain, interleaved, progress } from './kit/bench-main.ts';
import type { BenchOptions } from './kit/options.ts';
import { pinning } from './kit/process.ts';
import { type BenchFindings, compared, type Figures, medianOf, type Table, tableOf } from './kit/result.ts';
import { SERVERS, type Server, type ServerKind, startServer } from './kit/servers.ts';
import type { RunReport } from './load/commands.ts';
import { type Load, startLoad } from './load/load.ts';
import { STUB_MODEL, type StubAnswers, startStub, stubSettings } from './load/streams.ts';

/** Ten people who read an answer for a moment before they ask on. */
const QUIET = { sessions: 10, pauseMs: 20 } as const;

interface Flood {
  readonly name: string;
  readonly model: string;
  /** Where the model is an HTTP endpoint. */
  readonly endpoint?: StubAnswers;
  readonly sessions: number;
  /** Turns each session has sent at once. */
  readonly depth: number;
  /** Over which its sessions begin. */
  readonly spreadMs: number;
}

const FLOODS: readonly Flood[] = [
  // 50 tokens a second, as providers stream; a tenant at its cap of 500 executions, as many waiting.
  { name: 'realistic flood', model: 'offline-20x20', sessions: 500, depth: 2, spreadMs: 400 },
  {
    name: 'realistic flood over HTTP',
    model: STUB_MODEL,
    endpoint: { tokens: 20, tokenMs: 20 },
    sessions: 500,
    depth: 2,
    spreadMs: 400,
  },
  // 200 tokens a second, all at once, ten times what the tenant may run: more than a core can carry.
  { name: 'extreme flood', model: 'offline-20x5', sessions: 1000, depth: 5, spreadMs: 0 },
];
/** A refused turn is sent again after this long, whatever `retry_after_ms` says. */
const ERROR_PAUSE_MS = 50;
const FLOOD_LEAD_MS = 1000;
const COLUMNS = [
  'quiet first token p99 ms',
  'quiet first token p50 ms',
  'quiet turn p99 ms',
  'quiet turns/s',
  'flood turns/s',
  'flood refused/s',
  'server CPU %',
] as const;

interface Loads {
  readonly quiet: Load;
  readonly flood: Load;
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Contender {
  readonly name: string;
  readonly server: Server;
  readonly flood: Flood | undefined;
}

async function measure(
  { name, server, flood }: Contender,
  round: number,
  options: BenchOptions,
  loads: Loads,
  notes: string[],
): Promise<Figures> {
  const target = { port: server.port, dialect: server.kind.dialect, query: '', prefix: `r${round}-` };
  const warmupMs = options.quick ? 300 : 1000;
  const loop = { pauseMs: 0, errorPauseMs: ERROR_PAUSE_MS, serverPid: server.pid };
  await loads.quiet.open({ ...target, tenant: 'quiet', count: QUIET.sessions });
  let flooding: Promise<RunReport> | undefined;
  if (flood) {
    const { sessions, depth, spreadMs } = flood;
    await loads.flood.open({ ...target, tenant: 'flood', count: sessions });
    const durationMs = FLOOD_LEAD_MS + warmupMs + options.roundMs;
    flooding = loads.flood.run({ ...loop, warmupMs: 0, durationMs, depth, spreadMs });
    await sleep(FLOOD_LEAD_MS);
  }
  const { pauseMs } = QUIET;
  const quiet = await loads.quiet.run({
    ...{ ...loop, pauseMs, spreadMs: warmupMs / 2 },
    ...{ warmupMs, durationMs: options.roundMs, depth: 1 },
  });
  const flooded = await flooding;
  await Promise.all([loads.quiet.close(), loads.flood.close()]);

  progress(`${name}: first token p99 ${quiet.ttftMs.p99?.toFixed(2)} ms over ${quiet.ttftMs.count} turns`);
  if (quiet.errors > 0) notes.push(`${name}: ${quiet.errors} quiet turns failed, ${quiet.lastError}`);
  if (flooded && flooded.lost > 0) notes.push(`${name}: ${flooded.lost} of the flood's sockets were closed`);
  const floodSeconds = (flooded?.elapsedMs ?? Number.NaN) / 1000;
  return {
    'quiet first token p99 ms': quiet.ttftMs.p99 ?? Number.NaN,
    'quiet first token p50 ms': quiet.ttftMs.p50 ?? Number.NaN,
    'quiet turn p99 ms': quiet.turnMs.p99 ?? Number.NaN,
    'quiet turns/s': quiet.turns / (quiet.elapsedMs / 1000),
    'flood turns/s': (flooded?.turns ?? Number.NaN) / floodSeconds,
    'flood refused/s': (flooded?.errors ?? Number.NaN) / floodSeconds,
    'server CPU %': (quiet.serverCpuUs ?? Number.NaN) / quiet.elapsedMs / 10,
  };
}

const alone = ({ name }: ServerKind): string => `${name}, quiet alone`;
const flooded = ({ name }: ServerKind): string => `${name}, beside the flood`;

/** One kind of flood, on its own servers: each contender first without, then with it, round after round. */
async function scenario(flood: Flood, options: BenchOptions, loads: Loads, notes: string[]): Promise<Table> {
  const kinds = [SERVERS.nooble, SERVERS.uwsStream].filter(
    ({ name }) => options.only.length === 0 || options.only.includes(name),
  );
  const stub = flood.endpoint && (await startStub(flood.endpoint));
  const servers: Server[] = [];
  try {
    for (const kind of kinds)
      servers.push(await startServer(kind, flood.model, stub ? stubSettings(stub) : {}));
    const contenders = servers.flatMap((server): Contender[] => [
      { name: alone(server.kind), server, flood: undefined },
      { name: flooded(server.kind), server, flood },
    ]);
    const rounds = await interleaved(contenders, options.rounds, (contender, round) =>
      measure(contender, round, options, loads, notes),
    );
    return tableOf(
      `${flood.name}: ${flood.sessions} sessions with ${flood.depth} turns sent each, model ${flood.model}`,
      COLUMNS,
      rounds,
    );
  } finally {
    await Promise.all([...servers.map((server) => server.end()), stub?.end()]);
  }
}

function comparisons(table: Table): BenchFindings['comparisons'] {
  const p99 = (row: string): number => medianOf(table, row, 'quiet first token p99 ms');
  const ratio = (kind: ServerKind, target: { atMost?: number }) =>
    compared(
      `p99 of the quiet tenant's first token over the same without, ${table.title.split(':')[0]}: ${kind.name}`,
      p99(flooded(kind)) / p99(alone(kind)),
      target,
    );
  return [...ratio(SERVERS.nooble, { atMost: 1.5 }), ...ratio(SERVERS.uwsStream, {})];
}

async function run(options: BenchOptions): Promise<BenchFindings> {
  const notes = [
    pinning(),
    "Both tenants are of tier enterprise and so weigh the same. The flooding client yields to the quiet one on their core (nice 10), so that the quiet one's clock is not what waits.",
    `Quiet: ${QUIET.sessions} sessions, ${QUIET.pauseMs} ms between a turn and the next. A refused turn is sent again after ${ERROR_PAUSE_MS} ms, whatever retry_after_ms says.`,
  ];
  const loads: Loads = { quiet: await startLoad(), flood: await startLoad(10) };
  try {
    const tables: Table[] = [];
    const wanted = FLOODS.filter(
      ({ model }) => options.set.model === undefined || options.set.model === model,
    );
    for (const flood of wanted) tables.push(await scenario(flood, options, loads, notes));
    return { tables, comparisons: tables.flatMap(comparisons), notes: [...new Set(notes)] };
  } finally {
    await Promise.all([loads.quiet.end(), loads.flood.end()]);
  }
}

await benchMain({ name: 'fairness', rounds: 5, seconds: 10, run });
