/** Proof that a test left nothing behind: no socket, timer, worker or child process that was not there before. */
import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import type { TestContext } from 'node:test';
import type { Worker } from 'node:worker_threads';

/** How long what was closed may take to go: sockets part over the kernel, children and workers take a moment. */
const SETTLE_MS = 10_000;
/** Standard streams come and go by themselves; Immediate is this file's own waiting. */
const IGNORED = new Set(['TTYWrap', 'PipeWrap', 'Immediate']);

/** Node does not list workers among its resources, but it announces them, a moment after they were made. */
const workers = new Set<Worker>();
process.on('worker', (worker) => {
  workers.add(worker);
  worker.once('exit', () => workers.delete(worker));
});

/** The loader that runs the tests has a worker too: it counts as there before. */
await new Promise((resolve) => setImmediate(resolve));

type Counts = ReadonlyMap<string, number>;

/**
 * Watches one test: call it first thing. When the test and all its `after` hooks are done, everything must be as it
 * was, or the test fails and says what was left. `allowed` names kinds that may stay. Unreferenced timers are not
 * seen, since they keep no process alive.
 */
export function leakFree(t: TestContext, allowed: readonly string[] = []): void {
  const before = resources();
  const check = async (): Promise<void> => {
    assert.deepEqual(await leftovers(before, allowed), [], 'the test left something behind');
  };
  /** Hooks run in the order of their registration: one that is registered by the first runs after all others. */
  t.after(() => t.after(check));
}

/** What is there beyond `before` once `settleMs` have passed, or at once when nothing is. */
export async function leftovers(
  before: Counts,
  allowed: readonly string[] = [],
  settleMs: number = SETTLE_MS,
): Promise<readonly string[]> {
  const deadline = performance.now() + settleMs;
  for (;;) {
    const left = beyond(before, resources(), allowed);
    if (left.length === 0 || performance.now() >= deadline) return left;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** What the process holds now, by kind. */
export function resources(): Counts {
  const counts = new Map<string, number>();
  for (const kind of process.getActiveResourcesInfo())
    if (!IGNORED.has(kind)) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  counts.set('socket descriptor', socketDescriptors());
  counts.set('worker', workers.size);
  return counts;
}

/** uWebSockets.js opens its sockets past Node, which does not know them; the kernel does (Linux only, else 0). */
function socketDescriptors(): number {
  let names: readonly string[];
  try {
    names = readdirSync('/proc/self/fd');
  } catch {
    return 0;
  }
  return names.filter((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`).startsWith('socket:');
    } catch {
      return false;
    }
  }).length;
}

function beyond(before: Counts, now: Counts, allowed: readonly string[]): readonly string[] {
  return [...now]
    .map(([kind, count]) => ({ kind, more: count - (before.get(kind) ?? 0) }))
    .filter(({ kind, more }) => more > 0 && !allowed.includes(kind))
    .map(({ kind, more }) => `${more} × ${kind}`);
}
