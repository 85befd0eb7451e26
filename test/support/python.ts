/** Runs examples/python-peer: a peer that lives, and clients that run to their end, in processes of their own. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { type DomainAction, parseDomainAction } from '../../src/domain/domain-action.ts';
import { type Lines, lineLog } from './lines.ts';
import type { Env } from './node.ts';
import type { RedisServer } from './redis.ts';
import { beforeRedisStops, redisFor } from './redis-node.ts';

const EXAMPLE = fileURLToPath(new URL('../../examples/python-peer/', import.meta.url));

/** Debian's packages belong to Debian's Python, which need not be the first on the path. */
const PYTHONS = ['python3', '/usr/bin/python3'];

let found: Promise<string> | undefined;

/** The first Python that has redis-py. Rejects with one line that says what to do where none has. */
function python(): Promise<string> {
  found ??= (async () => {
    for (const each of PYTHONS) {
      const { code } = await run(each, ['-c', 'import redis']);
      if (code === 0) return each;
    }
    throw new Error('python3-redis is not installed: run .ci/setup');
  })();
  return found;
}

/** Compiled files stay out of the tree; settings of the machine stay out of the processes, but for the path. */
const environment = (redisUrl: string): Env => ({
  PATH: process.env.PATH ?? '',
  PYTHONDONTWRITEBYTECODE: '1',
  REDIS_URL: redisUrl,
});

const lineSchema = z.looseObject({ event: z.string() });
/** One line of the peer's log. */
export type PeerLine = z.infer<typeof lineSchema>;

export interface PythonPeer extends Lines<PeerLine> {
  /** The actions logged so far, as `action_type outcome`. */
  actions(): readonly string[];
  kill(signal: NodeJS.Signals): void;
  /** Resolves to the exit code, null after a signal. */
  readonly exit: Promise<number | null>;
}

/** Starts a peer; it takes actions once it says `ready`. Whoever starts it stops it. */
async function startPeer(redisUrl: string): Promise<PythonPeer> {
  const child = spawn(await python(), [`${EXAMPLE}peer.py`], {
    env: environment(redisUrl),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  return watched(child);
}

/** Ends a peer that may have ended already. */
export async function stopped(peer: PythonPeer): Promise<void> {
  peer.kill('SIGKILL');
  await peer.exit;
}

function watched(child: ChildProcess): PythonPeer {
  const { lines, line, add, end } = lineLog<PeerLine>(({ event }) => event);
  if (child.stdout)
    createInterface({ input: child.stdout }).on('line', (text) => add(lineSchema.parse(JSON.parse(text))));
  const exit = once(child, 'close').then(([code]): number | null => {
    end(() => JSON.stringify(lines));
    return code;
  });
  return {
    lines,
    line,
    actions: () =>
      lines.filter(({ event }) => event === 'action').map((line) => `${line.action_type} ${line.outcome}`),
    kill: (signal) => void child.kill(signal),
    exit,
  };
}

export interface ClientRun {
  readonly code: number;
  /** What it printed, each line parsed. */
  readonly replies: readonly z.infer<typeof replySchema>[];
  readonly err: string;
}

const replySchema = z.looseObject({ action_type: z.string(), data: z.record(z.string(), z.unknown()) });

/** Runs the client to its end; `input` is what it reads from standard input. */
export async function runClient(
  redisUrl: string,
  words: readonly string[],
  input: string = '',
): Promise<ClientRun> {
  const env = environment(redisUrl);
  const { code, out, err } = await run(await python(), [`${EXAMPLE}client.py`, ...words], env, input);
  const lines = out.split('\n').filter(Boolean);
  return { code, replies: lines.map((line) => replySchema.parse(JSON.parse(line))), err };
}

const run = (file: string, words: readonly string[], env?: Env, input: string = '') =>
  new Promise<{ readonly code: number; readonly out: string; readonly err: string }>((resolve) => {
    const child = execFile(file, words, { env }, (error, out, err) =>
      resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, out, err }),
    );
    child.stdin?.end(input);
  });

/** A Redis for one test, and the peers beside it. */
export interface PythonCluster {
  readonly redis: RedisServer;
  /** Starts a peer and waits until it takes actions; it is killed, and Redis stopped, when all else of the test is closed. */
  peer(): Promise<PythonPeer>;
}

export async function pythonCluster(t: TestContext): Promise<PythonCluster> {
  const redis = await redisFor(t, { appendOnly: true });
  return {
    redis,
    async peer() {
      const peer = await startPeer(redis.url);
      beforeRedisStops(t, () => stopped(peer));
      await peer.line('ready');
      return peer;
    },
  };
}

// --- Actions as a stranger writes them ---

/** An action in JSON's form. */
export const request = (type: string, data: object, more: object = {}) => ({
  action_id: randomUUID(),
  action_type: type,
  tenant_id: 'acme',
  data,
  metadata: {},
  timestamp: new Date().toISOString(),
  ...more,
});

/** An action off a list, as a node would read it. */
export function parsed(body: string | null | undefined): DomainAction {
  assert.ok(body, 'nothing came');
  const read = parseDomainAction(JSON.parse(body), Date.now(), randomUUID);
  assert.ok(read.ok, read.ok ? '' : read.error.message);
  return read.action;
}
