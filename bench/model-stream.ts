/** Answers streamed from an HTTP endpoint of chat completions: what a token costs, how many sessions a core carries. */
import { benchMain, interleaved, progress } from './kit/bench-main.ts';
import type { BenchOptions } from './kit/options.ts';
import { cpuUs } from './kit/proc-stat.ts';
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
import { SERVERS, type Server, type ServerKind, startServer } from './kit/servers.ts';
import type { RunReport } from './load/commands.ts';
import { type Load, startLoad } from './load/load.ts';
import { STUB_MODEL, type Stub, type StubAnswers, startStub, stubSettings } from './load/streams.ts';

const { noobleUncapped: nooble, uwsChatOpenai, uwsOpenai, uwsDispatch, uwsAgentWithTool } = SERVERS;

/** As providers stream: fifty tokens a second. */
const STREAM: StubAnswers = { tokens: 50, tokenMs: 20 };
const SESSIONS = [50, 100, 300] as const;
/** At which first tokens are compared. */
const FIRST_AT = 100;
/** As fast as it can be read, so that turns wait for the server alone. */
const TOOLS = { tokens: 20, tokenMs: 1 } as const;
const CALLS = [1, 5] as const;
const TOOL_SESSIONS = 50;

/** The numbers of sessions that are tried: each an eighth more than the one before. */
const STEPS: readonly number[] = Array.from({ length: 38 }, (_, i) => Math.round(25 * 1.125 ** i));
/** Up to which sessions count as carried. */
const MAX_DELAY_P99_MS = 50;
/** Of the tokens that the endpoint would stream to so many sessions if no turn had to begin. */
const MIN_RATE = 0.9;
const PROBE = {
  durationMs: 2500,
  attempts: 2,
  /** % of its core from which on a server is at its limit. */
  busy: 85,
  shown: ['token delay p99 ms', 'tokens/s', 'server CPU %', 'load CPU %', 'endpoint CPU %'],
} as const;

const CPU = 'server CPU µs/token';
const MOST = 'sessions';
const FIRST = { p50: 'added p50 ms', p99: 'added p99 ms' } as const;
const COLUMNS = {
  stream: [
    ...[CPU, 'tokens/s', 'token delay p50 ms', 'token delay p99 ms'],
    ...['server CPU %', 'load CPU %', 'endpoint CPU %'],
  ],
  first: [FIRST.p50, FIRST.p99, 'first tokens'],
  most: [MOST, 'token delay p99 ms', 'tokens/s', CPU, 'server CPU %', 'load CPU %', 'endpoint CPU %'],
  tools: ['turns/s', 'server CPU µs/turn', 'turn p50 ms', 'turn p99 ms', 'server CPU %', 'endpoint CPU %'],
} as const;

interface Bench {
  readonly options: BenchOptions;
  readonly load: Load;
  readonly stub: Stub;
  readonly notes: string[];
}

const orNaN = (value: number | null | undefined): number => value ?? Number.NaN;

function figures(report: RunReport, stubUs: number): Figures {
  const seconds = report.elapsedMs / 1000;
  const serverUs = orNaN(report.serverCpuUs);
  const percent = (us: number): number => us / report.elapsedMs / 10;
  return {
    [CPU]: serverUs / report.tokenMs.count,
    'tokens/s': report.tokenMs.count / seconds,
    'token delay p50 ms': orNaN(report.tokenMs.p50),
    'token delay p99 ms': orNaN(report.tokenMs.p99),
    [FIRST.p50]: orNaN(report.addedMs.p50),
    [FIRST.p99]: orNaN(report.addedMs.p99),
    'first tokens': report.addedMs.count,
    'turns/s': report.turns / seconds,
    'server CPU µs/turn': serverUs / report.turns,
    'turn p50 ms': orNaN(report.turnMs.p50),
    'turn p99 ms': orNaN(report.turnMs.p99),
    'server CPU %': percent(serverUs),
    'load CPU %': report.loadShare * 100,
    'endpoint CPU %': percent(stubUs),
  };
}

const at = ({ port, kind }: Server) => ({ port, dialect: kind.dialect, tenant: 'bench', query: '' });
let windows = 0;

/** So many new sessions, each with one turn after another. The endpoint's CPU is that of warm-up and window alike. */
async function measure(
  server: Server,
  count: number,
  durationMs: number,
  { options, load, stub, notes }: Bench,
): Promise<Figures> {
  windows += 1;
  await load.open({ ...at(server), prefix: `w${windows}-`, count });
  const warmupMs = options.quick ? 1000 : 2000;
  const from = { stub: cpuUs(stub.pid), ms: performance.now() };
  const report = await load.run({
    ...{ warmupMs, durationMs, spreadMs: 1000, pauseMs: 0, errorPauseMs: 10, depth: 1 },
    serverPid: server.pid,
  });
  // Its turns end in about the time that they took to begin.
  const share = (cpuUs(stub.pid) - from.stub) / (performance.now() - from.ms);
  await load.close();
  if (report.errors > 0)
    notes.push(`${server.name}, C = ${count}: ${report.errors} errors, ${report.lastError}`);
  if (report.lost > 0) notes.push(`${server.name}, C = ${count}: ${report.lost} sockets lost`);
  return figures(report, share * report.elapsedMs);
}

const line = (figures: Figures, names: readonly string[]): string =>
  names.map((name) => `${name} ${figures[name]?.toFixed(1)}`).join(', ');

/** What so many sessions cost, and how long tokens and first tokens take. */
async function streamTables(servers: readonly Server[], bench: Bench): Promise<readonly Table[]> {
  const { roundMs, rounds, set } = bench.options;
  const sessions = set.sessions === undefined ? SESSIONS : [Number(set.sessions)];
  const tables: Table[] = [];
  for (const count of sessions) {
    const measured = await interleaved(servers, rounds, async (server) => {
      const one = await measure(server, count, roundMs, bench);
      progress(`${server.name}, C = ${count}: ${line(one, [CPU, 'token delay p99 ms', FIRST.p99])}`);
      return one;
    });
    tables.push(tableOf(`${count} sessions, a token each 20 ms`, COLUMNS.stream, measured));
    if (count === FIRST_AT || set.sessions !== undefined)
      tables.push(
        tableOf(`First token beyond the endpoint's own, ${count} sessions`, COLUMNS.first, measured),
      );
  }
  return tables;
}

/** The most of STEPS that a server carries, by halving what is left of them. */
async function mostSessions(server: Server, bench: Bench): Promise<Figures> {
  let best: Figures = { [MOST]: 0 };
  let [low, high] = [0, STEPS.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    const count = STEPS[middle] ?? 0;
    const carried = await probe(server, count, bench);
    if (carried) {
      best = { ...carried, [MOST]: count };
      low = middle + 1;
    } else high = middle;
  }
  return best;
}

/** The figures of so many sessions where they are carried. Who had time left was kept waiting by others: once more. */
async function probe(server: Server, count: number, bench: Bench): Promise<Figures | undefined> {
  for (let attempt = 1; attempt <= PROBE.attempts; attempt++) {
    const one = await measure(server, count, PROBE.durationMs, bench);
    const carried =
      orNaN(one['token delay p99 ms']) < MAX_DELAY_P99_MS &&
      orNaN(one['tokens/s']) > (count * MIN_RATE * 1000) / STREAM.tokenMs;
    progress(`${server.name}, C = ${count}: ${carried ? 'carried' : 'too many'}, ${line(one, PROBE.shown)}`);
    if (carried) return one;
    if (orNaN(one['server CPU %']) > PROBE.busy) return undefined;
  }
  return undefined;
}

async function withServers<T>(
  answers: StubAnswers,
  wanted: readonly ServerKind[],
  bench: Omit<Bench, 'stub'>,
  body: (servers: readonly Server[], bench: Bench) => Promise<T>,
): Promise<T> {
  const { options, load } = bench;
  const kinds = wanted.filter(({ name }) => options.only.length === 0 || options.only.includes(name));
  const stub = await startStub(answers);
  const servers: Server[] = [];
  try {
    for (const kind of kinds) servers.push(await startServer(kind, STUB_MODEL, stubSettings(stub)));
    const lengths = new Set<number>();
    for (const server of servers) {
      await load.open({ ...at(server), prefix: 'verify-', count: 1 });
      const turn = await load.verify();
      await load.close();
      progress(`${server.name}: a turn has ${turn.frames} frames, ${turn.deltas} deltas`);
      lengths.add(turn.content.length);
      await measure(server, 50, 2000, { ...bench, stub });
    }
    if (lengths.size > 1) throw new Error(`answers of different lengths: ${[...lengths].join(', ')}`);
    return await body(servers, { ...bench, stub });
  } finally {
    await Promise.all([...servers.map((server) => server.end()), stub.end()]);
  }
}

const toolsTitle = (calls: number): string =>
  `With tools: ${calls} ${calls === 1 ? 'call' : 'calls'}, then ${TOOLS.tokens} tokens; ${TOOL_SESSIONS} sessions`;

async function toolTables(bench: Omit<Bench, 'stub'>): Promise<readonly Table[]> {
  const tables: Table[] = [];
  for (const calls of CALLS) {
    const answers = { ...TOOLS, calls };
    const measured = await withServers(answers, [nooble, uwsAgentWithTool], bench, (servers, inner) =>
      interleaved(servers, bench.options.rounds, async (server) => {
        const one = await measure(server, TOOL_SESSIONS, bench.options.roundMs * 2, inner);
        progress(`${server.name}, ${calls} calls: ${line(one, ['turns/s', 'server CPU µs/turn'])}`);
        return one;
      }),
    );
    tables.push(tableOf(toolsTitle(calls), COLUMNS.tools, measured));
  }
  return tables;
}

function comparisons(tables: readonly Table[]): readonly Comparison[] {
  const ratio = (table: Table, peer: ServerKind, column: string): number =>
    medianOf(table, nooble.name, column) / medianOf(table, peer.name, column);
  return tables.flatMap((table) => {
    const { columns, title } = table;
    if (columns[0] === CPU)
      return [
        ...compared(`${CPU} over ${uwsChatOpenai.name}: ${title}`, ratio(table, uwsChatOpenai, CPU), {
          atMost: 0.35,
        }),
        ...compared(`${CPU} over ${uwsOpenai.name}: ${title}`, ratio(table, uwsOpenai, CPU)),
        ...compared(`${CPU} over ${uwsDispatch.name}: ${title}`, ratio(table, uwsDispatch, CPU), {
          atMost: 1.6,
        }),
      ];
    if (columns[0] === MOST)
      return [
        ...compared(`sessions over ${uwsChatOpenai.name}`, ratio(table, uwsChatOpenai, MOST), {
          atLeast: 2.5,
        }),
        ...compared(`sessions over ${uwsDispatch.name}`, ratio(table, uwsDispatch, MOST)),
      ];
    if (columns[0] === FIRST.p50)
      return [
        ...compared('ms to first token added, p50', medianOf(table, nooble.name, FIRST.p50), { atMost: 1 }),
        ...compared('ms to first token added, p99', medianOf(table, nooble.name, FIRST.p99), { atMost: 5 }),
      ];
    return compared(
      `turns/s over ${uwsAgentWithTool.name}: ${title}`,
      ratio(table, uwsAgentWithTool, 'turns/s'),
    );
  });
}

const PARTS = ['stream', 'most', 'tools'] as const;

async function run(options: BenchOptions): Promise<BenchFindings> {
  const notes = [
    pinning(),
    `The endpoint writes each token as an event of its own, with the time in its text; answers have ${STREAM.tokens} tokens. It shares a core with the load.`,
    'Sessions of nooble keep their conversation and send it with each question, and the definitions of two tools; those of the peers have none.',
    `Carried: p99 of a token's delay, from the endpoint's write to the client, under ${MAX_DELAY_P99_MS} ms, and at least ${MIN_RATE * 100} % of the tokens of as many endless streams. Each step is an eighth more sessions; a failed one is tried again where the server used less than ${PROBE.busy} % of its core.`,
  ];
  const has = (part: (typeof PARTS)[number]): boolean =>
    options.set.part === undefined || options.set.part === part;
  const load = await startLoad();
  const bench = { options, load, notes };
  try {
    const tables: Table[] = [];
    if (has('stream') || has('most')) {
      const kinds = [nooble, uwsChatOpenai, uwsOpenai, uwsDispatch];
      await withServers(STREAM, kinds, bench, async (servers, inner) => {
        if (has('stream')) tables.push(...(await streamTables(servers, inner)));
        if (!has('most')) return;
        const most = await interleaved(servers, Math.ceil(options.rounds / 2), (server) =>
          mostSessions(server, inner),
        );
        tables.push(tableOf('Most sessions at fifty tokens a second each', COLUMNS.most, most));
      });
    }
    if (has('tools')) tables.push(...(await toolTables(bench)));
    return { tables, comparisons: [...comparisons(tables)], notes: [...new Set(notes)] };
  } finally {
    await load.end();
  }
}

await benchMain({ name: 'model-stream', rounds: 2, seconds: 3, run });
