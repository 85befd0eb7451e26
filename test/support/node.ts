/** A whole node on a free port of loopback, in this process or one of its own; in this one it proves that nothing is left. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type NodeParts, type RunningNode, startNode } from '../../src/node.ts';
import { parseSettings } from '../../src/settings.ts';
import { createLog } from '../../src/telemetry/log.ts';
import { type Chatter, chatter } from './chatter.ts';
import { leftovers, resources } from './leaks.ts';
import { type Lines, lineLog } from './lines.ts';
import { killed } from './processes.ts';
import { type StubModel, startStubModel } from './stub-model.ts';
import { type ConnectOptions, connect } from './websocket-client.ts';

export type Env = Readonly<Record<string, string>>;

/** One line of the node's log, parsed. */
export interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

export interface AskOptions {
  readonly method?: string;
  readonly body?: unknown;
  /** Tenant header; null for none. */
  readonly tenant?: string | null;
  readonly tier?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of every shape
  readonly body: any;
  readonly text: string;
}

export interface ChatOptions extends ConnectOptions {
  readonly query?: Readonly<Record<string, string>>;
}

/** What a test asks of a node, in this process or another. */
export interface NodeClient {
  readonly url: string;
  readonly port: number;
  /** Opens a chat socket and resolves once `session.ready` is there. */
  chat(tenant: string, session: string, options?: ChatOptions): Promise<Chatter>;
  /** A request: JSON in, JSON out where it is JSON. The tenant is `acme` unless said otherwise. */
  ask(path: string, options?: AskOptions): Promise<Answer>;
  /** The raw response, for streams. */
  fetch(path: string, options?: AskOptions): Promise<Response>;
}

export interface TestNode extends NodeClient, Lines<LogLine> {
  readonly running: RunningNode;
}

export interface Scene extends TestNode {
  readonly stub: StubModel;
}

export interface SceneOptions {
  readonly env?: Env;
  readonly parts?: NodeParts;
  /** Turns may still run when the test ends. */
  readonly busy?: boolean;
}

/** A model that needs no network, where the model does not matter. */
export const OFFLINE: Env = { DEFAULT_PROVIDER: 'offline', DEFAULT_MODEL: 'offline-3x0' };

/** The stub as the model of a node. */
export const modelledBy = (stub: StubModel): Env => ({
  DEFAULT_PROVIDER: 'openai',
  DEFAULT_MODEL: 'gpt-4.1-mini',
  OPENAI_API_KEY: 'sk-test',
  OPENAI_BASE_URL: stub.baseUrl,
  GROQ_API_KEY: 'gsk-test',
  GROQ_BASE_URL: stub.groqBaseUrl,
});

/** A node whose model is the stub, reached over HTTP. Stub, sockets and node are closed, and leaks looked for, after the test. */
export const startScene = (t: TestContext, options: SceneOptions = {}): Promise<Scene> =>
  started(t, options, startStubModel);

/** One node of several of a test, from its start to its end. */
export const life = (
  t: TestContext,
  name: string,
  options: SceneOptions,
  work: (node: Scene) => Promise<void>,
): Promise<void> => t.test(name, async (own) => work(await startScene(own, options)));

/** A node of its own for one test. Sockets and node are closed, and leaks looked for, after the test. */
export const startTestNode = (t: TestContext, options: SceneOptions = {}): Promise<TestNode> =>
  started(t, options, async () => undefined);

async function started<S extends StubModel | undefined>(
  t: TestContext,
  options: SceneOptions,
  startModel: () => Promise<S>,
): Promise<TestNode & { readonly stub: S }> {
  const before = resources();
  const stub = await startModel();
  let open: Awaited<ReturnType<typeof openNode>> | undefined;
  t.after(async () => {
    try {
      await open?.close();
    } finally {
      await stub?.close();
    }
    assert.deepEqual(await leftovers(before), [], 'the test left something behind');
  });
  open = await openNode({ ...options, env: { ...(stub ? modelledBy(stub) : OFFLINE), ...options.env } });
  return { ...open.node, stub };
}

/** What every node of a test is told besides. */
const BASE: Env = {
  PORT: '0',
  DATABASE_URL: 'sqlite::memory:',
  EXECUTION_LOG_LEVEL: 'debug',
  NODE_ID: 'test-node',
};

async function openNode({ env, parts, busy }: SceneOptions) {
  const parsed = parseSettings({ ...BASE, ...env });
  if (!parsed.ok) throw new Error(`bad settings: ${parsed.problems.join('; ')}`);
  const { settings } = parsed;
  const { lines, line, add } = logLines();
  const log = createLog(
    { level: settings.logLevel, name: 'nooble', nodeId: settings.nodeId },
    { write: (text) => add(JSON.parse(text)) },
  );
  const running = await startNode(settings, { log, ...parts });
  const chatters: Chatter[] = [];
  const node: TestNode = { ...clientOf(running.port, chatters), running, lines, line };

  return {
    node,
    async close() {
      try {
        for (const one of chatters) one.check();
        if (!busy && settings.access.mode === 'open') await idle(node);
      } finally {
        for (const one of chatters) one.destroy();
        await running.close();
      }
    },
  };
}

/** What answers at a port of loopback, a proxy perhaps. Chatters that are opened are added to `chatters`. */
export function clientOf(port: number, chatters: Chatter[] = []): NodeClient {
  const url = `http://127.0.0.1:${port}`;
  return {
    url,
    port,
    async chat(tenant, session, { query = {}, ...more } = {}) {
      const search = new URLSearchParams(query).toString();
      const client = await connect(`ws://127.0.0.1:${port}/ws/${tenant}/${session}?${search}`, more);
      const opened = chatter(client);
      chatters.push(opened);
      await opened.see('session.ready');
      return opened;
    },
    fetch: (path, asked = {}) => fetch(url + path, requestOf(asked)),
    async ask(path, asked = {}) {
      const response = await fetch(url + path, requestOf(asked));
      const text = await response.text();
      const isJson = response.headers.get('content-type')?.includes('json') ?? false;
      return {
        status: response.status,
        headers: response.headers,
        body: isJson && text !== '' ? JSON.parse(text) : undefined,
        text,
      };
    },
  };
}

function requestOf({ method, body, tenant = 'acme', tier, headers }: AskOptions): RequestInit {
  return {
    method: method ?? (body === undefined ? 'GET' : 'POST'),
    headers: {
      ...(tenant === null ? {} : { 'x-tenant-id': tenant }),
      ...(tier === undefined ? {} : { 'x-tenant-tier': tier }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  };
}

/** Fails where executions still run once every turn is over. A node that has closed already has none. */
async function idle(node: TestNode): Promise<void> {
  for (let tries = 0; ; tries += 1) {
    const answer = await node.ask('/health/detailed').catch(() => undefined);
    if (!answer) return;
    const kinds: readonly { kind: string; alive: number }[] = answer.body.stats.actors;
    const executions = kinds.find(({ kind }) => kind === 'execution')?.alive ?? 0;
    const turns: readonly { running: number; queued: number }[] = Object.values(answer.body.stats.turns);
    const open = turns.reduce((sum, { running, queued }) => sum + running + queued, 0);
    if (executions + open === 0) return;
    assert.ok(tries < MAX_TRIES, `${executions} executions and ${open} turns were left`);
  }
}

/** Requests in which a node may finish what is on its way out. */
const MAX_TRIES = 200;

const logLines = () => lineLog<LogLine>(({ msg }) => msg);

// --- Nodes in processes of their own ---

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface ChildNode extends NodeClient, Lines<LogLine> {
  /** Resolves once the process is gone. */
  kill(signal: NodeJS.Signals): Promise<Exit>;
  readonly exit: Promise<Exit>;
  /** Everything on stderr so far. */
  stderr(): string;
}

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

/** As `npm start` does it. Nothing of this process's environment: settings of the machine stay out. */
function launch(t: TestContext, env: Env): { readonly child: ChildProcess; readonly stderr: () => string } {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN], {
    env: { DATABASE_URL: 'sqlite::memory:', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.after(() => killed(child));
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return { child, stderr: () => stderr };
}

/** Starts a node on a free port and waits until it listens. It is killed after the test. */
export async function spawnNode(t: TestContext, env: Env): Promise<ChildNode> {
  const { child, stderr } = launch(t, { PORT: '0', ...env });
  const { lines, line, add, end } = logLines();
  if (child.stdout) createInterface({ input: child.stdout }).on('line', (text) => add(JSON.parse(text)));
  const exit = once(child, 'close').then(([code, signal]): Exit => {
    end(stderr);
    return { code, signal };
  });
  const { url } = await line('listening');
  return {
    ...clientOf(Number(new URL(String(url)).port)),
    lines,
    line,
    kill(signal) {
      child.kill(signal);
      return exit;
    },
    exit,
    stderr,
  };
}

/** Runs a node that is not expected to start; resolves to what it said on stderr once it has ended. */
export async function runNode(t: TestContext, env: Env): Promise<Exit & { readonly stderr: string }> {
  const { child, stderr } = launch(t, env);
  child.stdout?.resume();
  const [code, signal] = await once(child, 'close');
  return { code, signal, stderr: stderr() };
}
