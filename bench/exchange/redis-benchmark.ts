/** Redis' own load program: what the server could do if nobody else were in the way. */
import { spawn } from 'node:child_process';
import { pinnedTo } from '../kit/process.ts';
import type { BenchRedis } from '../kit/redis.ts';
import type { Figures } from '../kit/result.ts';
import { BODY_BYTES } from './messages.ts';

export const COMMANDS = ['PING', 'LPUSH'] as const;
export type BenchmarkCommand = (typeof COMMANDS)[number];

/** It counts requests, not seconds: about as many as it does in one on a slow machine. */
const PER_SECOND = { alone: 10_000, many: 50_000 } as const;
const SLOWEST = 20;
const LIST = 'bench:redis-benchmark';

/** So many clients with one request each, from the server's core. Rejects where the program fails or hangs. */
export async function redisBenchmark(
  redis: BenchRedis,
  command: BenchmarkCommand,
  clients: number,
  durationMs: number,
): Promise<Figures> {
  const perSecond = clients === 1 ? PER_SECOND.alone : PER_SECOND.many;
  const requests = Math.max(1_000, Math.round((perSecond * durationMs) / 1000));
  const words = command === 'PING' ? ['PING'] : ['LPUSH', LIST, 'x'.repeat(BODY_BYTES)];
  const settings = ['-p', String(redis.port), '-c', String(clients), '-n', String(requests), '--csv'];
  const text = await said(
    [...pinnedTo('server'), 'redis-benchmark', ...settings, ...words],
    durationMs * SLOWEST,
  );
  await redis.drop(LIST);
  return figuresIn(text);
}

/** Reads the lines of `--csv`: "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95…","p99…","max…". */
export function figuresIn(csv: string): Figures {
  const lines = csv.trim().split('\n').slice(-2);
  const [names = [], values = []] = lines.map((line) =>
    line.split('","').map((cell) => cell.replace(/"/g, '')),
  );
  const of = (name: string): number => Number(values[names.indexOf(name)] ?? Number.NaN);
  return { 'requests/s': of('rps'), 'p50 ms': of('p50_latency_ms'), 'p99 ms': of('p99_latency_ms') };
}

function said([program = '', ...args]: readonly string[], timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    // Without a server it tries for ever.
    const child = spawn(program, args, {
      stdio: ['ignore', 'pipe', 'inherit'],
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
    });
    const orphaned = (): void => void child.kill('SIGKILL');
    process.once('exit', orphaned);
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (more: string) => {
      text += more;
    });
    child.once('error', reject);
    child.once('close', (code, signal) => {
      process.off('exit', orphaned);
      if (code === 0) resolve(text);
      else reject(new Error(`redis-benchmark ended with ${signal ?? code}`));
    });
  });
}
