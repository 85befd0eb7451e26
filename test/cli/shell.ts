/** Runs the command line in this process, against stores in a folder that goes with the test. */
import type { TestContext } from 'node:test';
import { runCli } from '../../src/cli/cli.ts';
import { askOneToken } from '../../src/llm/one-token.ts';
import { openStores, type Stores } from '../../src/store/open.ts';
import { askRedis } from '../../transports/queue/redis/ping.ts';
import { quiet } from '../support/quiet.ts';
import { temporary } from '../support/temporary.ts';

export interface Run {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** A folder, an environment, and a way to say words to `nooble`. */
export async function openShell(t: TestContext, environment: Readonly<Record<string, string>> = {}) {
  const place = temporary(t);
  const url = place.database;
  return {
    ...place,
    stores: (): Promise<Stores> => openStores({ url, log: quiet }),
    async run(words: string, more: Readonly<Record<string, string>> = {}): Promise<Run> {
      const out: string[] = [];
      const err: string[] = [];
      const code = await runCli(words.split(' ').filter(Boolean), {
        environment: { DATABASE_URL: url, ...environment, ...more },
        out: (line) => out.push(line),
        err: (line) => err.push(line),
        askRedis,
        askModel: askOneToken,
        openDead: () => Promise.reject(new Error('there is no Redis in this test')),
        openStores: (settings) => openStores({ url: settings.databaseUrl, log: quiet }),
      });
      return { code, out: out.join('\n'), err: err.join('\n') };
    },
  };
}
