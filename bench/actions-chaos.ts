/**
 * Whether a node loses actions that is killed with -9 every few seconds: each action must get its callback.
 * Exits with 1 where one got none, or two that are not the same.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deadQueue } from '../src/domain/queues.ts';
import type { Balance } from './actions/ledger.ts';
import { type MortalNode, startMortalNode } from './actions/mortal-node.ts';
import { openSender, type SendPlan } from './actions/sender.ts';
import { RUN_QUEUE } from './exchange/agent-run.ts';
import { benchMain, progress } from './kit/bench-main.ts';
import { quantiles } from './kit/numbers.ts';
import { type BenchOptions, setting } from './kit/options.ts';
import { startBenchRedis } from './kit/redis.ts';
import { type BenchFindings, type Figures, tableOf } from './kit/result.ts';

const COLUMNS = [
  'lost',
  'sent',
  'answered',
  'contradicted',
  'duplicated',
  'INTERRUPTED',
  'other errors',
  'on the dead list',
  'kills',
  'ended by itself',
  'seconds',
  'callback p50 ms',
  'callback p99 ms',
  'callback max ms',
] as const;

/** So many sent and unanswered; a node that is away for some seconds does not stop the sender. */
const MAX_OPEN = 5_000;
const PROGRESS_MS = 5_000;

interface Outcome {
  readonly figures: Figures;
  readonly notes: readonly string[];
}

async function oneRound(options: BenchOptions, model: string): Promise<Outcome> {
  const plan: SendPlan = {
    count: setting(options, 'count', options.quick ? 3_000 : 20_000),
    rate: setting(options, 'rate', options.quick ? 250 : 500),
    maxOpen: MAX_OPEN,
    patienceMs: setting(options, 'patienceMs', options.quick ? 20_000 : 60_000),
  };
  const lifeMs = setting(options, 'everyMs', options.quick ? 3_000 : 5_000);
  const folder = mkdtempSync(join(tmpdir(), 'nooble-bench-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  process.once('exit', remove);
  const ends: (() => void | Promise<void>)[] = [];
  try {
    const redis = await startBenchRedis();
    ends.push(() => redis.stop());
    const sender = await openSender(redis.url, plan);
    ends.push(() => sender.close());
    const ticker = setInterval(() => {
      const { sent, answered } = sender.ledger.balance();
      progress(`${sent} sent, ${answered} answered`);
    }, PROGRESS_MS);
    ends.push(() => clearInterval(ticker));
    const node = await startMortalNode({
      lifeMs,
      model,
      program: options.set.program ?? 'src/main.ts',
      env: { REDIS_URL: redis.url, DATABASE_URL: `sqlite:${join(folder, 'nooble.db')}` },
    });
    ends.push(() => node.end());
    const fromMs = performance.now();
    const all = await sender.send();
    await node.spare();
    const settled = await sender.settled();
    const seconds = (performance.now() - fromMs) / 1000;
    if (settled) await sender.late();
    const dead = await redis.length(deadQueue(RUN_QUEUE));
    const balance = sender.ledger.balance();
    return {
      figures: figuresOf(balance, node, { dead, seconds }),
      notes: [
        `An action each ${1000 / plan.rate} ms, model ${model}; the node is killed ${lifeMs} ms after it was ready, until all are sent.`,
        ...codes(balance),
        ...(all && settled ? [] : [`Given up: no callback came for ${plan.patienceMs} ms.`]),
        ...(balance.foreign > 0 ? [`${balance.foreign} callbacks for what nobody sent`] : []),
      ],
    };
  } finally {
    for (const end of ends.reverse()) await end();
    remove();
    process.off('exit', remove);
  }
}

function figuresOf(
  balance: Balance,
  node: MortalNode,
  { dead, seconds }: { readonly dead: number; readonly seconds: number },
): Figures {
  const { sent, answered, lost, contradicted, duplicated, errors } = balance;
  const { INTERRUPTED: interrupted = 0 } = errors;
  const failed = Object.values(errors).reduce((sum, count) => sum + count, 0);
  const took = quantiles(balance.tookMs);
  return {
    ...{ sent, answered, lost, contradicted, duplicated, seconds },
    INTERRUPTED: interrupted,
    'other errors': failed - interrupted,
    'on the dead list': dead,
    kills: node.kills(),
    'ended by itself': node.crashes(),
    'callback p50 ms': took.p50,
    'callback p99 ms': took.p99,
    'callback max ms': took.max,
  };
}

const codes = ({ errors }: Balance): readonly string[] =>
  Object.keys(errors).length === 0
    ? []
    : [
        `Errors: ${Object.entries(errors)
          .map(([code, count]) => `${count} ${code}`)
          .join(', ')}.`,
      ];

async function run(options: BenchOptions): Promise<BenchFindings> {
  const model = options.set.model ?? 'offline-20x20';
  const outcomes: Outcome[] = [];
  // One round is one long run; two would not be quick.
  const rounds = options.quick ? 1 : options.rounds;
  for (let round = 0; round < rounds; round++) outcomes.push(await oneRound(options, model));
  const figures = outcomes.map((outcome) => outcome.figures);
  const bad = figures.reduce((sum, { lost = 0, contradicted = 0 }) => sum + lost + contradicted, 0);
  if (bad > 0) process.exitCode = 1;
  const total = (column: string): number => figures.reduce((sum, each) => sum + (each[column] ?? 0), 0);
  return {
    tables: [tableOf('Killed and restarted', COLUMNS, new Map([['nooble', figures]]))],
    comparisons: ['lost', 'contradicted'].map((name) => ({
      name: `actions ${name}`,
      value: total(name),
      atMost: 0,
    })),
    notes: [...new Set(outcomes.flatMap(({ notes }) => notes))],
  };
}

await benchMain({ name: 'actions-chaos', rounds: 1, seconds: 1, run });
