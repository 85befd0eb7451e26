/** The two processes of an exchange, seen from the bench that started them. */
import type { ChildProcess } from 'node:child_process';
import { z } from 'zod';
import { end, heard, start } from '../kit/process.ts';
import type { BenchRedis } from '../kit/redis.ts';
import type { Figures } from '../kit/result.ts';
import { askedSchema, type Command, type Ran, type RunCommand, ranSchema } from './commands.ts';
import type { ExchangeName } from './contenders.ts';

const START_MS = 60_000;
const ASK_MS = 30_000;
/** Beyond warm-up and window: what a process may take to settle. */
const SPARE_MS = 30_000;

const failedSchema = z.object({ error: z.string() });

export interface AskerProcess {
  /** What one reply says. */
  ask(): Promise<string>;
  run(command: Omit<RunCommand, 'do'>): Promise<Ran>;
  end(): Promise<void>;
}

/** Asks from the load's core. */
export async function startAsker(name: ExchangeName, redis: BenchRedis): Promise<AskerProcess> {
  const child = await startSide('asker', name, redis, {});
  const tell = async <T>(command: Command, reply: z.ZodType<T>, timeoutMs: number): Promise<T> => {
    const answer = heard(child, (message) => message, timeoutMs);
    child.send(command);
    const message = await answer;
    const failed = failedSchema.safeParse(message);
    if (failed.success) throw new Error(`${name}: ${failed.data.error}`);
    return reply.parse(message);
  };
  return {
    ask: async () => (await tell({ do: 'ask' }, askedSchema, ASK_MS)).answer,
    run: (command) =>
      tell({ do: 'run', ...command }, ranSchema, command.warmupMs + command.durationMs + SPARE_MS),
    end: () => end(child),
  };
}

export interface AnswererProcess {
  readonly pid: number;
  end(): Promise<void>;
}

/** Answers from the server's core. */
export async function startAnswerer(
  name: ExchangeName,
  redis: BenchRedis,
  env: Readonly<Record<string, string>> = {},
): Promise<AnswererProcess> {
  const child = await startSide('answerer', name, redis, env);
  return { pid: child.pid ?? 0, end: () => end(child) };
}

async function startSide(
  side: 'asker' | 'answerer',
  name: ExchangeName,
  redis: BenchRedis,
  env: Readonly<Record<string, string>>,
): Promise<ChildProcess> {
  const child = start({
    args: ['bench/exchange/side.ts', side, name],
    core: side === 'asker' ? 'load' : 'server',
    env: { BENCH_REDIS_URL: redis.url, ...env },
  });
  await heard(child, (message) => message, START_MS);
  return child;
}

/** A round as the tables show it; `unit` is what is counted: `requests`, `actions`. */
export function figuresOf(ran: Ran, unit: string): Figures {
  const each = (us: number | null): number => (us ?? Number.NaN) / ran.count;
  const share = (us: number | null): number => (us ?? Number.NaN) / ran.elapsedMs / 10;
  return {
    [`${unit}/s`]: ran.count / (ran.elapsedMs / 1000),
    'p50 ms': ran.p50Ms ?? Number.NaN,
    'p99 ms': ran.p99Ms ?? Number.NaN,
    'asker CPU µs': each(ran.askerCpuUs),
    'answerer CPU µs': each(ran.answererCpuUs),
    'Redis CPU µs': each(ran.redisCpuUs),
    'asker CPU %': share(ran.askerCpuUs),
    'answerer CPU %': share(ran.answererCpuUs),
  };
}

/** What a round has to say besides its figures. */
export function remarks(who: string, ran: Ran): readonly string[] {
  return [
    ...(ran.errors > 0 ? [`${who}: ${ran.errors} errors, ${ran.lastError}`] : []),
    ...(ran.unanswered > 0 ? [`${who}: ${ran.unanswered} were never answered`] : []),
  ];
}
