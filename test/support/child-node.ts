/** A node in a process of its own, for tests of signals, exit codes and the command line. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Env, LogLine } from './node.ts';

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ChildNode {
  readonly url: string;
  readonly port: number;
  readonly lines: readonly LogLine[];
  /** Resolves to the first log line, past or future, of that text. Rejects if the process ends without it. */
  line(text: string): Promise<LogLine>;
  /** Everything on stderr so far. */
  stderr(): string;
  kill(signal: NodeJS.Signals): void;
  readonly exit: Promise<Exit>;
}

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

function launch(t: TestContext, env: Env): ChildProcess {
  // As `npm start` does it. Nothing of this process's environment: settings of the machine stay out.
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN], {
    env: { DATABASE_URL: 'sqlite::memory:', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  return child;
}

/** Starts a node on a free port and waits until it listens. It is killed after the test. */
export async function spawnNode(t: TestContext, env: Env): Promise<ChildNode> {
  const child = launch(t, { PORT: '0', ...env });
  const lines: LogLine[] = [];
  const watchers = new Set<() => void>();
  let over = false;
  let complaints = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaints += text;
  });
  const look = (): void => {
    for (const watcher of [...watchers]) watcher();
  };
  if (child.stdout)
    createInterface({ input: child.stdout }).on('line', (text) => {
      lines.push(JSON.parse(text));
      look();
    });
  const exit = once(child, 'close').then(([code, signal]): Exit => {
    over = true;
    look();
    return { code, signal };
  });
  const line = (wanted: string): Promise<LogLine> =>
    new Promise((resolve, reject) => {
      const watcher = (): void => {
        const found = lines.find(({ msg }) => msg === wanted);
        if (!found && !over) return;
        watchers.delete(watcher);
        if (found) resolve(found);
        else reject(new Error(`the node ended without saying "${wanted}": ${complaints}`));
      };
      watchers.add(watcher);
      watcher();
    });

  const url = String((await line('listening')).url);
  return {
    url,
    port: Number(new URL(url).port),
    lines,
    line,
    stderr: () => complaints,
    kill: (signal) => void child.kill(signal),
    exit,
  };
}

/** Runs a node that is not expected to start; resolves to what it said on stderr once it has ended. */
export async function runNode(t: TestContext, env: Env): Promise<Exit & { readonly stderr: string }> {
  const child = launch(t, env);
  let stderr = '';
  child.stdout?.resume();
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [code, signal] = await once(child, 'close');
  return { code, signal, stderr };
}
