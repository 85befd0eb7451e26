/** `nooble <words>` in a process of its own. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Env } from './node.ts';

export interface CommandRun {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

/** Runs it to its end. Nothing of this process's environment: settings of the machine stay out. */
export const nooble = (words: readonly string[], env: Env = {}): Promise<CommandRun> =>
  new Promise((resolve) => {
    const args = ['--disable-warning=ExperimentalWarning', MAIN, ...words];
    execFile(process.execPath, args, { env: { ...env } }, (error, out, err) =>
      resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, out, err }),
    );
  });
