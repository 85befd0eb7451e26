/** Runs the command line in this process, against stores in a folder that goes with the test. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { runCli } from '../../src/cli/cli.ts';
import { openStores, type Stores } from '../../src/store/open.ts';
import { askRedis } from '../../transports/queue/redis/ping.ts';
import { quiet } from '../support/quiet.ts';

export interface Run {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** A folder, an environment, and a way to say words to `nooble`. */
export async function openShell(t: TestContext, environment: Readonly<Record<string, string>> = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'nooble-cli-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const url = `sqlite:${join(folder, 'nooble.db')}`;
  const path = (name: string): string => join(folder, name);
  return {
    folder,
    path,
    async write(name: string, text: string): Promise<string> {
      await writeFile(path(name), text);
      return path(name);
    },
    stores: (): Promise<Stores> => openStores({ url, log: quiet }),
    async run(words: string, more: Readonly<Record<string, string>> = {}): Promise<Run> {
      const out: string[] = [];
      const err: string[] = [];
      const code = await runCli(words.split(' ').filter(Boolean), {
        environment: { DATABASE_URL: url, ...environment, ...more },
        out: (line) => out.push(line),
        err: (line) => err.push(line),
        askRedis,
        openDead: () => Promise.reject(new Error('there is no Redis in this test')),
        openStores: (settings) => openStores({ url: settings.databaseUrl, log: quiet }),
      });
      return { code, out: out.join('\n'), err: err.join('\n') };
    },
  };
}
