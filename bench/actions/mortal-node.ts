/** A node that is killed with -9 again and again, and started anew on the same database and Redis. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { SERVERS, startServer } from '../kit/servers.ts';

export interface MortalNode {
  /** How often it was killed, and how often it ended by itself, which it must not. */
  readonly kills: () => number;
  readonly crashes: () => number;
  /** Kills it no more; resolves when the last one that was killed is back. */
  spare(): Promise<void>;
  /** Ends it for good. */
  end(): Promise<void>;
}

interface Fate {
  /** How long it lives once it is ready. */
  readonly lifeMs: number;
  /** The node's program. */
  readonly program: string;
  readonly model: string;
  readonly env: Readonly<Record<string, string>>;
}

/** Resolves when it is ready for the first time. Rejects where it does not start. */
export async function startMortalNode({ lifeMs, program, model, env }: Fate): Promise<MortalNode> {
  let kills = 0;
  let crashes = 0;
  let mortal = true;
  let over = false;
  const release = new AbortController();

  const start = () => startServer({ ...SERVERS.nooble, args: [program] }, model, env);
  let node = await start();

  const live = async (): Promise<void> => {
    while (mortal) {
      const { child } = node;
      const died = exited(child);
      await Promise.race([died, pause(lifeMs, release.signal)]);
      if (over) return;
      if (child.exitCode !== null || child.signalCode !== null) crashes += 1;
      else if (mortal) {
        child.kill('SIGKILL');
        await died;
        kills += 1;
      } else return;
      node = await start();
    }
  };
  const living = live();
  living.catch(() => {});

  const spare = async (): Promise<void> => {
    mortal = false;
    release.abort();
    await living;
  };
  return {
    kills: () => kills,
    crashes: () => crashes,
    spare,
    async end() {
      over = true;
      await spare().catch(() => {});
      await node.end();
    },
  };
}

const exited = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
};

/** Resolves early, and leaves no timer, when the signal aborts. */
const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
    if (signal.aborted) done();
  });
