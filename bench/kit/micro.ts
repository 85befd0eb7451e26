/** Timing of calls too short for a clock, and of memory too small for a process. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

let sink: unknown;

/** Nanoseconds a call, over at least `ms` of calls. `op` is told how many there were before. */
export function nsPerCall(op: (i: number) => unknown, ms: number): number {
  const BATCH = 256;
  let calls = 0;
  const startedMs = performance.now();
  let elapsedMs = 0;
  do {
    // What a call returns is kept for a moment, so that it can not be optimised away.
    for (let i = 0; i < BATCH; i++) sink = op(calls + i);
    calls += BATCH;
    elapsedMs = performance.now() - startedMs;
  } while (elapsedMs < ms);
  return (elapsedMs * 1e6) / calls;
}

/** The last result of a timed call. */
export const lastResult = (): unknown => sink;

/** Collects all garbage, also without --expose-gc. */
export function collect(): void {
  setFlagsFromString('--expose-gc');
  const gc: unknown = runInNewContext('gc');
  if (typeof gc === 'function') for (let i = 0; i < 3; i++) gc();
}

/** Bytes of heap after a collection, once what ended before has had time to let go. */
export async function heapBytes(): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, 50));
  collect();
  return process.memoryUsage().heapUsed;
}

/** µs a piece that `work` took for `count` of them. */
export async function usEach(count: number, work: () => void | Promise<void>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return ((performance.now() - startedMs) * 1000) / count;
}

/** µs a step, of as many as fit into `ms`. */
export async function usEachFor(ms: number, step: () => Promise<void>): Promise<number> {
  const startedMs = performance.now();
  let steps = 0;
  let elapsedMs = 0;
  do {
    await step();
    steps += 1;
    elapsedMs = performance.now() - startedMs;
  } while (elapsedMs < ms);
  return (elapsedMs * 1000) / steps;
}
