/** Composition root and command line: settings, store, actors, edges; drains on SIGTERM. */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { createSystem } from '../actors/system.ts';
import { createAccess } from '../transports/access.ts';
import { mountHttp, openServer } from '../transports/http/adapter.ts';
import { createHttpApp } from '../transports/http/app.ts';
import { mountChat } from '../transports/websocket.ts';
import { sessionIdSchema, taskIdSchema } from './domain/ids.ts';
import { createModels } from './llm/models.ts';
import { createBuiltInAgents } from './llm/prompts.ts';
import { createAgentRunner } from './llm/runner.ts';
import { createTools } from './llm/tools/tool-set.ts';
import type { AgentSource, Clock, Store } from './ports.ts';
import { parseSettings, type Settings } from './settings.ts';
import { createMemoryStore } from './store/memory.ts';
import { createLog, type NodeLog } from './telemetry/log.ts';
import { createMetrics } from './telemetry/metrics.ts';

export interface RunningNode {
  readonly host: string;
  readonly port: number;
  readonly log: NodeLog;
  /** No new turns; running ones finish, or are cancelled after the settings' grace; then clients go and it closes. */
  drain(): Promise<void>;
  /** Ends everything at once. Safe to call twice. */
  close(): Promise<void>;
}

/** Parts that tests replace by others of the same port. */
export interface NodeParts {
  readonly store?: Store;
  readonly agents?: AgentSource;
  readonly log?: NodeLog;
}

/** After this long sockets that have not taken their close frame are cut off. */
const CLOSE_GRACE_MS = 1_000;

/** Starts a node. Rejects if it can not listen. */
export async function startNode(settings: Settings, parts: NodeParts = {}): Promise<RunningNode> {
  const clock: Clock = { now: Date.now };
  const version = settings.service.version ?? packageVersion();
  const log =
    parts.log ??
    createLog({ level: settings.logLevel, name: settings.service.name, version, nodeId: settings.nodeId });
  const store = parts.store ?? createMemoryStore();
  const metrics = createMetrics({ stats: () => system.stats(), sockets: () => ({ open: chat.count() }) });
  const runner = createAgentRunner({
    models: createModels(settings.models),
    tools: createTools({ clock }),
    clock,
    metrics,
    log,
    timeouts: settings.models,
  });
  const system = createSystem({
    store,
    agents: parts.agents ?? createBuiltInAgents(settings),
    runner,
    clock,
    metrics,
    log,
    tiers: settings.tiers,
    defaultTier: settings.defaultTier,
    requestsPerHour: settings.sessions.requestsPerHour,
    maxIterations: settings.execution.maxIterations,
    maxTimeMs: settings.execution.maxTimeMs,
    maxExecutions: settings.execution.maxOnNode,
    deltaWindowMs: settings.sockets.deltaWindowMs,
    idleMs: settings.sessions.idleMs,
  });
  let draining = false;
  const shared = {
    directory: system,
    access: createAccess(settings.access, clock),
    log,
    clock,
    draining: () => draining,
    newTaskId: () => taskIdSchema.parse(randomUUID()),
  };
  const server = openServer();
  const chat = mountChat(server.app, { ...shared, settings, metrics });
  const http = createHttpApp({
    ...shared,
    guardProbes: settings.access.mode === 'jwt',
    allowedOrigins: settings.access.allowedOrigins,
    newSessionId: () => sessionIdSchema.parse(randomUUID()),
    nodeId: settings.nodeId,
    version,
    checks: { store: () => store.ping() },
    metricsText: () => metrics.text(),
    overview: () => metrics.overview(),
    socketStats: () => chat.stats(),
    deltaWindowMs: settings.sockets.deltaWindowMs,
  });
  const mounted = mountHttp(server.app, http.fetch);

  let closing: Promise<void> | undefined;
  const node: RunningNode = {
    host: settings.host,
    port: await server.listen(settings.host, settings.port),
    log,
    async drain() {
      draining = true;
      log.info({ grace_ms: settings.drainMs, ...system.stats().turns }, 'draining');
      await system.drain(settings.drainMs);
      await until(() => chat.count() === 0 && mounted.pending() === 0, CLOSE_GRACE_MS);
      await node.close();
    },
    close() {
      closing ??= (async () => {
        server.close();
        await system.close();
        await runner.close();
        metrics.close();
        await store.close();
        log.info({}, 'stopped');
        await log.flush();
      })();
      return closing;
    },
  };
  return node;
}

/** Resolves when `done()` is true, looked at every 20 ms, or after `ms`. */
async function until(done: () => boolean, ms: number): Promise<void> {
  for (let left = ms; left > 0 && !done(); left -= 20)
    await new Promise((resolve) => setTimeout(resolve, 20));
}

function packageVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
  return String(version);
}

async function main(): Promise<void> {
  const parsed = parseSettings(process.env);
  if (!parsed.ok) {
    process.stderr.write(
      `nooble can not start; these settings are wrong:\n  ${parsed.problems.join('\n  ')}\n`,
    );
    process.exit(2);
  }
  const { settings } = parsed;
  const node = await startNode(settings).catch((error: unknown) => {
    process.stderr.write(`nooble can not start: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  });
  const { log } = node;
  announce(settings, node);

  let signals = 0;
  const stop = (signal: NodeJS.Signals): void => {
    signals += 1;
    if (signals > 1) process.exit(1);
    log.info({ signal }, 'signal received; a second one exits at once');
    node.drain().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ err: error }, 'drain failed');
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  const die = (kind: string) => (error: unknown) => {
    log.error({ err: error }, kind);
    log.flush().finally(() => process.exit(1));
  };
  process.on('uncaughtException', die('uncaught exception'));
  process.on('unhandledRejection', die('unhandled rejection'));
}

function announce(settings: Settings, { host, port, log }: RunningNode): void {
  const { defaultProvider, defaultModel } = settings.models;
  log.info(
    {
      url: `http://${host}:${port}`,
      auth: settings.access.mode,
      provider: defaultProvider,
      model: defaultModel,
    },
    'listening',
  );
  if (defaultProvider === 'offline')
    log.info(
      {},
      'no model key is set: answers come from the built-in offline model; set OPENAI_API_KEY or GROQ_API_KEY',
    );
  if (settings.databaseUrl || settings.redisUrl)
    log.warn(
      {},
      'DATABASE_URL and REDIS_URL have no effect in this version: conversations live in memory, on one node',
    );
  if (settings.withoutEffect.length > 0)
    log.warn(
      { variables: settings.withoutEffect },
      'these variables have no effect: nothing polls, services are not reached over HTTP',
    );
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await main();
