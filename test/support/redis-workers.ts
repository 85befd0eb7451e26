/** Starts consumers in processes of their own, and kills them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { killed } from './processes.ts';

const SCRIPT = fileURLToPath(new URL('./worker-node.ts', import.meta.url));

export interface WorkerOptions {
  readonly url: string;
  readonly queue: string;
  readonly credits: number;
  /** How long one action takes; undefined: for ever. */
  readonly workMs?: number;
}

/** `heard` is told of every action that is begun. It is killed after the test at the latest. */
export function startWorker(
  t: TestContext,
  { url, queue, credits, workMs }: WorkerOptions,
  heard: (n: number) => void,
): ChildProcess {
  const words = [url, queue, String(credits), ...(workMs === undefined ? [] : [String(workMs)])];
  const child = spawn(process.execPath, ['--import', 'tsx', SCRIPT, ...words], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => killed(child));
  createInterface({ input: child.stdout ?? process.stdin }).on('line', (line) => {
    if (line !== 'taking') heard(Number(line));
  });
  return child;
}
