/** Request and reply between two processes over one Redis: our transport beside the floor, Redis itself and peers. */
import type { ExchangeName } from './exchange/contenders.ts';
import { COMMANDS, redisBenchmark } from './exchange/redis-benchmark.ts';
import {
  type AnswererProcess,
  type AskerProcess,
  figuresOf,
  remarks,
  startAnswerer,
  startAsker,
} from './exchange/sides.ts';
import { benchMain, interleaved, progress } from './kit/bench-main.ts';
import type { BenchOptions } from './kit/options.ts';
import { pinning } from './kit/process.ts';
import { type BenchRedis, startBenchRedis } from './kit/redis.ts';
import { type BenchFindings, compared, type Figures, medianOf, type Table, tableOf } from './kit/result.ts';
import { installed } from './kit/servers.ts';

interface Kind {
  readonly name: string;
  readonly exchange: ExchangeName;
  readonly needs?: string;
}

const JSON_OURS: Kind = { name: 'nooble json', exchange: 'nooble-json' };
const MSGPACK_OURS: Kind = { name: 'nooble msgpack', exchange: 'nooble-msgpack' };
const FLOOR: Kind = { name: 'LPUSH + BRPOP', exchange: 'lists' };
const BULLMQ: Kind = { name: 'BullMQ', exchange: 'bullmq', needs: 'bullmq' };
const MOLECULER: Kind = { name: 'Moleculer', exchange: 'moleculer', needs: 'moleculer' };
const KINDS: readonly Kind[] = [JSON_OURS, MSGPACK_OURS, FLOOR, BULLMQ, MOLECULER];

const IN_FLIGHT = [1, 256] as const;
/** The first column of a table has its rounds printed. */
const COLUMNS = {
  latency: ['p50 ms', 'p99 ms', 'requests/s'],
  throughput: ['requests/s', 'p50 ms', 'p99 ms'],
  cpu: ['asker CPU µs', 'answerer CPU µs', 'Redis CPU µs', 'asker CPU %', 'answerer CPU %'],
} as const;

interface Contender {
  readonly name: string;
  measure(inFlight: number, options: BenchOptions): Promise<Figures>;
}

interface Pair {
  readonly asker: AskerProcess;
  readonly answerer: AnswererProcess;
}

function pairContender(kind: Kind, { asker, answerer }: Pair, redis: BenchRedis, notes: string[]): Contender {
  return {
    name: kind.name,
    async measure(inFlight, options) {
      const ran = await asker.run({
        inFlight,
        warmupMs: options.quick ? 300 : 1_500,
        durationMs: options.roundMs,
        answererPid: answerer.pid,
        redisPid: redis.pid,
      });
      notes.push(...remarks(`${kind.name}, ${inFlight} in flight`, ran));
      return figuresOf(ran, 'requests');
    },
  };
}

const itself = (redis: BenchRedis): readonly Contender[] =>
  COMMANDS.map((command) => ({
    name: `redis-benchmark ${command}`,
    measure: (inFlight, { roundMs }) => redisBenchmark(redis, command, inFlight, roundMs),
  }));

/** All replies must say the same. */
async function verify(pairs: ReadonlyMap<Kind, Pair>): Promise<void> {
  const answers = new Set<string>();
  for (const { asker } of pairs.values()) answers.add(await asker.ask());
  if (answers.size > 1) throw new Error(`the answers differ: ${[...answers].join(' | ')}`);
}

function comparisons([alone, many]: readonly Table[]) {
  if (!alone || !many) return [];
  const peers = [FLOOR, BULLMQ, MOLECULER];
  return [
    ...peers.flatMap(({ name }) =>
      compared(
        `requests/s over ${name}, 256 in flight`,
        medianOf(many, JSON_OURS.name, 'requests/s') / medianOf(many, name, 'requests/s'),
      ),
    ),
    ...['p50 ms', 'p99 ms'].flatMap((column) =>
      peers.flatMap(({ name }) =>
        compared(
          `${column} over ${name}, one in flight`,
          medianOf(alone, JSON_OURS.name, column) / medianOf(alone, name, column),
        ),
      ),
    ),
  ];
}

async function run(options: BenchOptions): Promise<BenchFindings> {
  const isWanted = ({ name }: { readonly name: string }): boolean =>
    options.only.length === 0 || options.only.some((part) => name.startsWith(part));
  const { kinds, notes: missing } = installed(KINDS.filter(isWanted));
  const notes = [
    pinning(),
    'Redis shares the core of the asking process, and writes nothing to disk; the answering process has the other.',
    ...missing,
  ];
  const redis = await startBenchRedis();
  const ends: (() => Promise<void>)[] = [];
  try {
    const pairs = new Map<Kind, Pair>();
    for (const kind of kinds) {
      const answerer = await startAnswerer(kind.exchange, redis);
      ends.push(answerer.end);
      const asker = await startAsker(kind.exchange, redis);
      ends.push(asker.end);
      pairs.set(kind, { asker, answerer });
    }
    await verify(pairs);
    notes.push(`Redis ${redis.version}.`);
    const contenders = [
      ...[...pairs].map(([kind, pair]) => pairContender(kind, pair, redis, notes)),
      ...itself(redis).filter(isWanted),
    ];
    const tables: Table[] = [];
    for (const inFlight of IN_FLIGHT) {
      const rounds = await interleaved(contenders, options.rounds, async (contender) => {
        const figures = await contender.measure(inFlight, options);
        progress(`${contender.name}, ${inFlight} in flight: ${Math.round(figures['requests/s'] ?? 0)}/s`);
        return figures;
      });
      const first = inFlight === 1 ? COLUMNS.latency : COLUMNS.throughput;
      tables.push(tableOf(`${inFlight} in flight`, [...first, ...COLUMNS.cpu], rounds));
    }
    return { tables, comparisons: comparisons(tables), notes: [...new Set(notes)] };
  } finally {
    await Promise.all(ends.map((stop) => stop()));
    await redis.stop();
  }
}

await benchMain({ name: 'redis', rounds: 5, seconds: 3, run });
