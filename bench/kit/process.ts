/** Server and load processes: pinned to a core each, started, talked to over IPC, ended. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

const canPin =
  process.platform === 'linux' && availableParallelism() > 1 && spawnSync('taskset', ['-V']).status === 0;

/** What a server runs on, and what loads it. */
export const CORE = { server: 0, load: 1 } as const;
export type Core = keyof typeof CORE;

/** For a result's notes. */
export const pinning = (): string =>
  canPin
    ? 'The server process was pinned to one core, load and stub processes to the other (taskset).'
    : 'Not pinned: no taskset, or one core only; server and load took cores from each other.';

/** Words before a command that keep it on that core; none where nothing can be pinned. */
export const pinnedTo = (core: Core): readonly string[] =>
  canPin ? ['taskset', '-c', String(CORE[core])] : [];

export interface ProcessSpec {
  /** Program and arguments for this Node, from the repository's root. */
  readonly args: readonly string[];
  readonly core: Core;
  readonly env?: Readonly<Record<string, string>>;
  /** Adds to the scheduling niceness: 10 yields to others on the same core. */
  readonly nice?: number;
  /** Where it runs; the repository's root unless said otherwise. */
  readonly cwd?: string;
}

/** Starts a Node process with an IPC channel; its output goes to stderr, so that stdout stays ours. */
export function start({ args, core, env = {}, nice = 0, cwd = ROOT }: ProcessSpec): ChildProcess {
  const yielding = nice > 0 ? ['nice', '-n', String(nice)] : [];
  const [program = process.execPath, ...rest] = [
    ...pinnedTo(core),
    ...yielding,
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    ...args,
  ];
  // taskset and nice replace themselves by what they start: pid and IPC channel are Node's.
  const child = spawn(program, rest, {
    cwd,
    env: { ...process.env, ...env },
    stdio: ['ignore', 2, 2, 'ipc'],
  });
  running.add(child);
  child.once('exit', () => running.delete(child));
  return child;
}

const running = new Set<ChildProcess>();

// A bench that fails leaves nothing behind.
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

/** SIGTERM, and SIGKILL after `graceMs`. Resolves once the process is gone. */
export async function end(child: ChildProcess, graceMs = 10_000): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  const hard = setTimeout(() => child.kill('SIGKILL'), graceMs);
  child.kill('SIGTERM');
  await gone;
  clearTimeout(hard);
}

/** The next IPC message that `accepts` takes. Rejects when the process ends first, or after `timeoutMs`. */
export function heard<T>(
  child: ChildProcess,
  accepts: (message: unknown) => T | undefined,
  timeoutMs: number,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const settle = (settled: () => void): void => {
      clearTimeout(timer);
      child.off('message', listen);
      child.off('exit', left);
      settled();
    };
    const listen = (message: unknown): void => {
      const value = accepts(message);
      if (value !== undefined) settle(() => resolve(value));
    };
    const left = (code: number | null): void =>
      settle(() => reject(new Error(`${child.spawnargs.join(' ')} ended with ${code}`)));
    const timer = setTimeout(
      () => settle(() => reject(new Error(`${child.spawnargs.join(' ')} said nothing for ${timeoutMs} ms`))),
      timeoutMs,
    );
    child.on('message', listen);
    child.once('exit', left);
  });
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** Waits until `url` answers 200. Rejects when the process ends first, or after `timeoutMs`. */
export async function untilReady(child: ChildProcess, url: string, timeoutMs = 60_000): Promise<void> {
  const giveUpMs = performance.now() + timeoutMs;
  while (performance.now() < giveUpMs) {
    if (child.exitCode !== null) throw new Error(`${child.spawnargs.join(' ')} ended with ${child.exitCode}`);
    const answer = await fetch(url).catch(() => null);
    await answer?.arrayBuffer();
    if (answer?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${url} was not ready after ${timeoutMs} ms`);
}
