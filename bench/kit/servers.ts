/** The servers a load can be put on: our node, as anyone would start it, and its peers and floors. */
import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Dialect } from '../load/session.ts';
import { end, freePort, ROOT, start, untilReady } from './process.ts';

export interface ServerKind {
  readonly name: string;
  readonly dialect: Dialect;
  /** Script and its arguments, from the repository's root. */
  readonly args: readonly string[];
  /** A package of bench/package.json without which it cannot run. */
  readonly needs?: string;
  /** Where others run the model by themselves, our node is told which by its own settings. */
  readonly env: Readonly<Record<string, string>>;
}

const OURS = 'nooble';

const peer = (name: string, ...args: readonly string[]): ServerKind => ({
  name,
  dialect: 'json',
  args: args.map((arg, i) => (i === 0 ? `bench/peers/${arg}.ts` : arg)),
  env: {},
});

const nooble = (name: string, env: Readonly<Record<string, string>> = {}): ServerKind => ({
  name,
  dialect: 'json',
  args: ['src/main.ts'],
  env,
});

/** The peers know no cap on turns at once: with the tier's 500, a thousand sessions would measure our queue. */
const UNCAPPED = { TIERS_FILE: 'bench/peers/uncapped.json', NODE_MAX_EXECUTIONS: '5000' };

export const SERVERS = {
  nooble: nooble(OURS),
  noobleUncapped: nooble(OURS, UNCAPPED),
  /** What keeping turns costs, at the least: nothing outlives the process. */
  noobleMaps: { ...nooble('nooble on Maps'), args: ['bench/peers/nooble-maps.ts'] },
  /** What the conversation costs: the model is given the last message only, as it is by the peers. */
  noobleWithoutHistory: nooble('nooble without history', {
    ...UNCAPPED,
    TIERS_FILE: 'bench/peers/no-history.json',
  }),
  noobleMemory: {
    ...nooble(OURS),
    args: ['--expose-gc', '--import', './bench/preload/gc-on-signal.ts', 'src/main.ts'],
  },
  uwsCorked: peer('uWS one write', 'uws-frames', 'corked'),
  uwsWrites: peer('uWS separate writes', 'uws-frames', 'writes'),
  uwsRaw: peer('uWS + raw chunks', 'uws-answers', 'raw'),
  uwsStream: peer('uWS + model.stream', 'uws-answers', 'stream'),
  wsStream: { ...peer('ws + model.stream', 'ws-langchain'), needs: 'ws' },
  socketIoStream: {
    ...peer('Socket.IO + model.stream', 'socket-io-langchain'),
    dialect: 'socket.io',
    needs: 'socket.io',
  },
  uwsAgent: peer('uWS + createAgent', 'uws-answers', 'agent'),
  /** From here on those of an endpoint (`stubSettings`). */
  uwsChatOpenai: peer('uWS + ChatOpenAI.stream', 'uws-answers', 'stream'),
  uwsOpenai: peer('uWS + openai client', 'uws-answers', 'openai'),
  uwsDispatch: peer('uWS + undici, JSON.parse', 'uws-answers', 'dispatch'),
  uwsAgentWithTool: peer('uWS + createAgent', 'uws-answers', 'agent-with-tool'),
} as const satisfies Record<string, ServerKind>;

/** The kinds whose packages are installed; the others as a note. */
export function installed<K extends { readonly name: string; readonly needs?: string }>(
  kinds: readonly K[],
): { kinds: readonly K[]; notes: readonly string[] } {
  const missing = kinds.filter(({ needs }) => needs && !existsSync(`${ROOT}bench/node_modules/${needs}`));
  return {
    kinds: kinds.filter((kind) => !missing.includes(kind)),
    notes: missing.map(({ name }) => `${name} left out: run npm ci --prefix bench`),
  };
}

export interface Server {
  readonly name: string;
  readonly kind: ServerKind;
  readonly port: number;
  readonly pid: number;
  readonly child: ChildProcess;
  end(): Promise<void>;
}

/**
 * Settings of our node in every bench: no network, no quotas, warnings only. The store is all there, with its worker
 * and its commits, but waits for no disk; what the disk costs is measured in the bench `store`.
 */
export const NODE_SETTINGS = {
  DEFAULT_PROVIDER: 'offline',
  DEFAULT_TIER: 'enterprise',
  ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: '0',
  EXECUTION_LOG_LEVEL: 'warn',
  DATABASE_URL: 'sqlite::memory:',
} as const;

/** Starts a server on the server core with that model and waits until it is ready. */
export async function startServer(
  kind: ServerKind,
  model: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Server> {
  const port = await freePort();
  const child = start({
    args: kind.args,
    core: 'server',
    env: {
      ...NODE_SETTINGS,
      ...kind.env,
      PORT: String(port),
      DEFAULT_MODEL: model,
      BENCH_MODEL: model,
      ...env,
    },
  });
  await untilReady(child, `http://127.0.0.1:${port}/ready`);
  return { name: kind.name, kind, port, pid: child.pid ?? 0, child, end: () => end(child) };
}
