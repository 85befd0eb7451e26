/** From a client's `chat.cancel` to the closed connection at the model, while 500 sessions stream. */
import type { ChildProcess } from 'node:child_process';
import { benchMain, interleaved, progress } from './kit/bench-main.ts';
import { quantiles } from './kit/numbers.ts';
import { type BenchOptions, setting } from './kit/options.ts';
import { cpuUs } from './kit/proc-stat.ts';
import { end, heard, pinning } from './kit/process.ts';
import { type BenchFindings, compared, type Figures, medianOf, type Table, tableOf } from './kit/result.ts';
import { SERVERS, type Server, startServer } from './kit/servers.ts';
import { type CancelPlan, cancelledSchema } from './load/cancel-plan.ts';
import { STUB_MODEL, type Stub, startCancelling, startStub, stubSettings } from './load/streams.ts';

/** Tokens of providers come 10 to 50 ms apart. */
const TOKEN_MS = [100, 20] as const;
/** Between two cancels. */
const GAP_MS = 10;
const OURS = SERVERS.nooble.name;
const FLOOR = 'fetch + AbortController';
const COLUMNS = [
  'cancel to closed p99 ms',
  'cancel to closed p50 ms',
  'cancel to closed max ms',
  'cancel to chat.cancelled p50 ms',
  'cancel to chat.cancelled p99 ms',
  'cancels',
  'never closed',
  'CPU % of who streams',
  'CPU % of the other core',
] as const;

/** A connection that is not closed by then never will be. */
const PATIENCE_MS = 3000;

async function measure(
  canceller: ChildProcess,
  pids: { readonly streaming: number; readonly others: readonly number[] },
  plan: CancelPlan,
  stub: Stub,
): Promise<Figures> {
  const othersUs = (): number => pids.others.reduce((sum, pid) => sum + cpuUs(pid), 0);
  const from = { streaming: cpuUs(pids.streaming), others: othersUs(), ms: performance.now() };
  const answer = heard(canceller, (message) => cancelledSchema.parse(message), 120_000);
  canceller.send(plan);
  const { cancels } = await answer;
  const elapsedMs = performance.now() - from.ms;
  const share = (cpuUs(pids.streaming) - from.streaming) / 10 / elapsedMs;
  const othersShare = (othersUs() - from.others) / 10 / elapsedMs;
  const giveUpMs = performance.now() + PATIENCE_MS;
  while (cancels.some(({ turn }) => !stub.closed.has(turn)) && performance.now() < giveUpMs)
    await new Promise((resolve) => setTimeout(resolve, 20));
  const closedMs = cancels.flatMap(({ turn, atNs }) => {
    const closedNs = stub.closed.get(turn);
    return closedNs === undefined ? [] : [Number(closedNs - BigInt(atNs)) / 1e6];
  });
  const closed = quantiles(closedMs);
  const answered = quantiles(cancels.flatMap(({ answeredMs }) => answeredMs ?? []));
  progress(`${plan.prefix}: ${cancels.length} cancels, p99 ${closed.p99.toFixed(2)} ms`);
  return {
    'cancel to closed p99 ms': closed.p99,
    'cancel to closed p50 ms': closed.p50,
    'cancel to closed max ms': closed.max,
    'cancel to chat.cancelled p50 ms': answered.p50,
    'cancel to chat.cancelled p99 ms': answered.p99,
    cancels: cancels.length,
    'never closed': cancels.length - closedMs.length,
    'CPU % of who streams': share,
    'CPU % of the other core': othersShare,
  };
}

async function variant(tokenMs: number, streams: number, options: BenchOptions): Promise<Table> {
  const stub = await startStub({ tokenMs });
  const ends: (() => Promise<void>)[] = [stub.end];
  try {
    const server: Server = await startServer(SERVERS.nooble, STUB_MODEL, stubSettings(stub));
    ends.push(server.end);
    const client = await startCancelling('node', 'load');
    const floor = await startCancelling('fetch', 'server');
    ends.push(
      () => end(client),
      () => end(floor),
    );
    const contenders = [
      {
        ...{ name: OURS, canceller: client, port: server.port },
        pids: { streaming: server.pid, others: [stub.pid, client.pid ?? 0] },
      },
      {
        ...{ name: FLOOR, canceller: floor, port: stub.port },
        pids: { streaming: floor.pid ?? 0, others: [stub.pid] },
      },
    ];
    const rounds = await interleaved(contenders, options.rounds, ({ name, canceller, pids, port }, round) => {
      const prefix = `${name === OURS ? 'node' : 'fetch'}-${tokenMs}-r${round}-`;
      const warmupMs = options.quick ? 500 : 2000;
      const plan = { port, streams, warmupMs, durationMs: options.roundMs, gapMs: GAP_MS, prefix };
      return measure(canceller, pids, plan, stub);
    });
    return tableOf(`${streams} streams, a token each ${tokenMs} ms`, COLUMNS, rounds);
  } finally {
    await Promise.all(ends.map((stop) => stop()));
  }
}

async function run(options: BenchOptions): Promise<BenchFindings> {
  const streams = setting(options, 'streams', 500);
  const wanted = options.set.tokenMs === undefined ? TOKEN_MS : [Number(options.set.tokenMs)];
  const tables: Table[] = [];
  for (const tokenMs of wanted) tables.push(await variant(tokenMs, streams, options));
  return {
    tables,
    comparisons: tables.flatMap((table) => {
      const p99 = (name: string): number => medianOf(table, name, 'cancel to closed p99 ms');
      return [
        ...compared(`cancel to closed p99 ms: ${table.title}`, p99(OURS), { atMost: 50 }),
        ...compared(`ms beyond ${FLOOR}, p99: ${table.title}`, p99(OURS) - p99(FLOOR)),
      ];
    }),
    notes: [
      pinning(),
      `The model is an HTTP stub in OpenAI's protocol in a process of its own; a turn is cancelled every ${GAP_MS} ms and followed by a new one. The floor streams and aborts on the server's core; the client and the stub share the other.`,
    ],
  };
}

await benchMain({ name: 'cancel', rounds: 5, seconds: 5, run });
