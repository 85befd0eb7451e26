/** `execution.agent_run` over Redis until its callback: our node beside workers that stream the same model. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExchangeName } from './exchange/contenders.ts';
import { type AskerProcess, figuresOf, remarks, startAnswerer, startAsker } from './exchange/sides.ts';
import { benchMain, interleaved, progress } from './kit/bench-main.ts';
import type { BenchOptions } from './kit/options.ts';
import { pinning } from './kit/process.ts';
import { type BenchRedis, startBenchRedis } from './kit/redis.ts';
import { type BenchFindings, compared, medianOf, type Table, tableOf } from './kit/result.ts';
import { installed, SERVERS, startServer } from './kit/servers.ts';

interface Kind {
  readonly name: string;
  readonly exchange: ExchangeName;
  readonly needs?: string;
}

const OURS: Kind = { name: 'nooble', exchange: 'agent-run' };
const FLOOR: Kind = { name: 'LPUSH + BRPOP + model.stream', exchange: 'lists-model' };
const BULLMQ: Kind = { name: 'BullMQ + model.stream', exchange: 'bullmq-model', needs: 'bullmq' };
const PUBLISHED: Kind = {
  name: 'BullMQ + model.stream + PUBLISH',
  exchange: 'bullmq-model-published',
  needs: 'bullmq',
};
const KINDS: readonly Kind[] = [OURS, FLOOR, BULLMQ, PUBLISHED];

const IN_FLIGHT = [1, 64] as const;
const COLUMNS = [
  'actions/s',
  'p50 ms',
  'p99 ms',
  'answerer CPU µs',
  'asker CPU µs',
  'Redis CPU µs',
  'answerer CPU %',
  'asker CPU %',
] as const;

interface Contender {
  readonly name: string;
  readonly asker: AskerProcess;
  readonly answererPid: number;
}

/** Starts who answers: the node, or a worker. Its end goes to `ends`. */
async function answererPid(
  kind: Kind,
  redis: BenchRedis,
  { model, folder, program }: { model: string; folder: string; program: string },
  ends: (() => Promise<void>)[],
): Promise<number> {
  if (kind !== OURS) {
    const answerer = await startAnswerer(kind.exchange, redis, { BENCH_MODEL: model });
    ends.push(answerer.end);
    return answerer.pid;
  }
  const server = await startServer({ ...SERVERS.nooble, args: [program] }, model, {
    REDIS_URL: redis.url,
    DATABASE_URL: `sqlite:${join(folder, 'nooble.db')}`,
  });
  ends.push(server.end);
  return server.pid;
}

/** Everybody must answer, and say the same. */
async function verify(contenders: readonly Contender[]): Promise<void> {
  let said: string | undefined;
  for (const { name, asker } of contenders) {
    const answer = await asker.ask();
    said ??= answer;
    if (answer !== said) throw new Error(`${name} answers ${answer} and not ${said}`);
  }
}

async function table(
  contenders: readonly Contender[],
  inFlight: number,
  options: BenchOptions,
  redis: BenchRedis,
  notes: string[],
): Promise<Table> {
  const rounds = await interleaved(contenders, options.rounds, async ({ name, asker, answererPid }) => {
    const ran = await asker.run({
      inFlight,
      warmupMs: options.quick ? 500 : 2_000,
      durationMs: options.roundMs,
      answererPid,
      redisPid: redis.pid,
    });
    const figures = figuresOf(ran, 'actions');
    progress(`${name}, ${inFlight} in flight: ${Math.round(figures['actions/s'] ?? 0)} actions/s`);
    notes.push(...remarks(`${name}, ${inFlight} in flight`, ran));
    return figures;
  });
  return tableOf(`${inFlight} in flight`, COLUMNS, rounds);
}

const comparisons = (tables: readonly Table[]) =>
  tables.flatMap((each) =>
    [FLOOR, BULLMQ, PUBLISHED].flatMap(({ name }) =>
      ['actions/s', 'p99 ms'].flatMap((column) =>
        compared(
          `${column} over ${name}, ${each.title}`,
          medianOf(each, OURS.name, column) / medianOf(each, name, column),
        ),
      ),
    ),
  );

async function run(options: BenchOptions): Promise<BenchFindings> {
  const { model = 'offline-50x0', program = 'src/main.ts' } = options.set;
  const wanted = KINDS.filter(({ name }) => options.only.length === 0 || options.only.includes(name));
  const { kinds, notes: missing } = installed(wanted);
  const notes = [
    pinning(),
    `Model ${model}. The node commits each run to a SQLite file under ${tmpdir()}, with its reply; the peers keep theirs in Redis, which shares the asker's core and writes nothing to disk here.`,
    ...missing,
  ];
  const folder = mkdtempSync(join(tmpdir(), 'nooble-bench-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  process.once('exit', remove);
  const ends: (() => Promise<void>)[] = [];
  const redis = await startBenchRedis();
  try {
    const contenders: Contender[] = [];
    for (const kind of kinds) {
      const pid = await answererPid(kind, redis, { model, folder, program }, ends);
      const asker = await startAsker(kind.exchange, redis);
      ends.push(asker.end);
      contenders.push({ name: kind.name, asker, answererPid: pid });
    }
    await verify(contenders);
    const tables: Table[] = [];
    for (const inFlight of IN_FLIGHT) tables.push(await table(contenders, inFlight, options, redis, notes));
    return { tables, comparisons: comparisons(tables), notes: [...new Set(notes)] };
  } finally {
    await Promise.all(ends.map((stop) => stop()));
    await redis.stop();
    remove();
    process.off('exit', remove);
  }
}

await benchMain({ name: 'actions', rounds: 5, seconds: 4, run });
