/** Composition root: a node out of settings, from its store and transport over its actors to its edges. */
import { randomUUID } from 'node:crypto';
import { createAgentTasks } from '../actors/actions/agent-tasks.ts';
import { createPlaces, withPlaces } from '../actors/actions/places.ts';
import { createActionWorker, workSubscriptions } from '../actors/actions/worker.ts';
import { createAgents } from '../actors/agent/agents.ts';
import { createChangeReader } from '../actors/cluster/changes.ts';
import { createEverywhere } from '../actors/cluster/everywhere.ts';
import { createExecutions } from '../actors/executions/executions.ts';
import { createTurnObserver } from '../actors/executions/turn-observer.ts';
import { createActorSystem } from '../actors/runtime/actor-system.ts';
import { createSystem } from '../actors/system.ts';
import { createLeaseKeeper } from '../actors/tenant/lease-keeper.ts';
import { createSocketSlots } from '../actors/tenant/socket-slots.ts';
import { mountHttp, openServer, type Server } from '../transports/http/adapter.ts';
import { createHttpApp } from '../transports/http/app.ts';
import { createDescriptors } from '../transports/http/descriptors.ts';
import { createMemoryTransport } from '../transports/queue/memory.ts';
import { openRedisTransport } from '../transports/queue/redis/transport.ts';
import { createCallbacks } from '../transports/webhooks/callbacks.ts';
import { createWebhooks } from '../transports/webhooks/webhooks.ts';
import { mountChat } from '../transports/websocket/chat.ts';
import { mountTaskUpdates } from '../transports/websocket/service-notices.ts';
import { createAccess, createProxyCheck } from '../transports/wire/access.ts';
import { createClusterSide } from './cluster-side.ts';
import { namedTools } from './domain/agent-rules.ts';
import type { AgentNews } from './domain/broadcast.ts';
import { defaultAgent } from './domain/default-agent.ts';
import { CLOSE } from './domain/errors.ts';
import { sessionIdSchema, taskIdSchema } from './domain/ids.ts';
import { knownProviders } from './domain/providers.ts';
import { dayOf } from './domain/rate-limit.ts';
import { createAnswerSchemas } from './llm/answer-schemas.ts';
import { createModels } from './llm/models.ts';
import { createAgentRunner } from './llm/runner.ts';
import { createManagement } from './management/management.ts';
import { createNotices } from './management/notices.ts';
import { createTenantAdmin } from './management/tenants.ts';
import { createPeerSide } from './peer-side.ts';
import type { Broadcast } from './ports/broadcast.ts';
import type { Executions } from './ports/executions.ts';
import type { AgentSource } from './ports/runner.ts';
import type { Directory } from './ports/sessions.ts';
import type { Clock, Log } from './ports/telemetry.ts';
import type { Transport, TransportMeter } from './ports/transport.ts';
import type { Settings } from './settings.ts';
import { openStores, type Stores } from './store/open.ts';
import { createRetention } from './store/retention.ts';
import { createLog, type NodeLog } from './telemetry/log.ts';
import { createMetrics } from './telemetry/metrics.ts';
import { createRefusals } from './telemetry/refusals.ts';

export interface RunningNode {
  readonly host: string;
  readonly port: number;
  readonly server: Server;
  readonly log: NodeLog;
  /** Says in `/ready`, from then on, that a setting can not work. */
  warn(text: string): void;
  /** No new turns; running ones finish, or are cancelled after the settings' grace; then clients go and it closes. */
  drain(): Promise<void>;
  /** Ends everything at once. Safe to call twice. */
  close(): Promise<void>;
  /** Resolves if an operator has the node leave (`nooble cluster drain`): whoever started it drains it. */
  readonly leaving: Promise<void>;
  /**
   * Resolves if the other nodes gave this one up, once all of it but its port is closed: its sockets with 4409, its
   * actors without a write. Rejects where that takes too long.
   */
  readonly superseded: Promise<void>;
}

/** Parts that tests replace by others of the same port. */
export interface NodeParts {
  readonly stores?: NodeStores;
  readonly agents?: AgentSource;
  readonly log?: NodeLog;
  /** The port of a node that was given up before. */
  readonly server?: Server;
  /** Closed with the node. */
  readonly transport?: Transport;
  /** How the other nodes of the database are told what holds on all. */
  readonly broadcast?: Broadcast;
  /** False lets webhooks and callbacks reach this machine. */
  readonly blockPrivate?: boolean;
}

/** What a node needs of its stores. */
export type NodeStores = Omit<Stores, 'archive'>;

/** After this long sockets that have not taken their close frame, and callbacks on their way, are cut off. */
const CLOSE_GRACE_MS = 1_000;
/** Beyond, a node that was given up is not closed properly. */
const GIVE_UP_MS = 15_000;

/** Starts a node. Rejects if its database can not be opened or it can not listen. */
export async function startNode(settings: Settings, parts: NodeParts = {}): Promise<RunningNode> {
  const clock: Clock = { now: Date.now };
  const { nodeId, logLevel: level, databaseUrl: url } = settings;
  const { version } = settings.service;
  const log = parts.log ?? createLog({ ...settings.service, level, nodeId });
  const stores = parts.stores ?? (await openStores({ url, log, nodeId }));

  const metrics = createMetrics({
    stats: () => system.stats(),
    sockets: () => ({ open: chat.count() }),
    deliveries: () => ({ webhook: webhooks.stats(), callback: callbacks.stats() }),
    ends: () => relay.endStats(),
    cluster: () => cluster.stats(),
  });
  const transport =
    parts.transport ??
    (await openTransport(settings, log, metrics).catch(async (error: unknown) => {
      metrics.close();
      await stores.close();
      throw error;
    }));
  const beside = createPeerSide({
    settings,
    transport,
    stores,
    agents: () => management.agents,
    agentExpired: (tenantId, agentId) => agents.invalidate(tenantId, agentId),
    clock,
    log,
  });
  const { tools, tierOf, relay, remoteAgents } = beside;
  const { store } = relay;
  const models = createModels(settings.models, clock);
  const schemas = createAnswerSchemas();
  const told = { clock, metrics, log };
  const runner = createAgentRunner({ ...told, models, tools, schemas, timeouts: settings.models });
  const actors = createActorSystem({
    clock,
    log,
    onCrash: (kind) => metrics.actorCrashed(kind),
    onDeadLetter: (kind) => metrics.deadLetter(kind),
  });
  const builtIn = defaultAgent(settings);
  const idleMs = settings.sessions.idleMs;
  const kept = remoteAgents ?? stores.agents;
  const agents = createAgents({ actors, store: kept, builtIn, clock, log, idleMs });
  const { tiers, defaultTier } = settings;
  const { owners, limits: table } = settings.cluster.mode === 'off' ? {} : stores;
  const limits = table && { keeper: createLeaseKeeper(table, log), tiers: settings.sharedTiers };
  const leaving = Promise.withResolvers<void>();
  const side = createClusterSide({
    ...{ settings, stores, store, broadcast: parts.broadcast, meter: metrics, clock, log },
    onAdopted: relay.lookAgain,
    onLeaving: () => leaving.resolve(),
    onSuperseded: () => giveUp(),
  });
  const { cluster, broadcast } = side;
  const system = createSystem({
    actors,
    store,
    ...side.parts,
    agents: parts.agents ?? agents,
    runner,
    ...told,
    tiers,
    models: settings.models.table,
    defaultTier,
    requestsPerHour: settings.sessions.requestsPerHour,
    maxIterations: settings.execution.maxIterations,
    maxTimeMs: settings.execution.maxTimeMs,
    maxExecutions: settings.execution.maxOnNode,
    deltaWindowMs: settings.sockets.deltaWindowMs,
    idleMs,
    limits,
  });

  const known = knownProviders(settings.models.providers);
  const expire = remoteAgents?.expire;
  const outdated = expire ? (news: AgentNews) => expire(news.tenantId, news.agentId) : agents.outdated;
  const here = { ...system, changed: agents.changed, outdated };
  const everywhere = createEverywhere({ broadcast, here });
  const changes = createChangeReader({
    ...{ feed: stores.changes, everyMs: settings.cluster.beatMs, agents, log },
    tiers: {
      ...{ tenants: system.tenants, set: system.tierSet },
      stored: async (tenantId) => (await store.tenant(tenantId, dayOf(clock.now())))?.tier,
    },
  });
  const sessions: Directory = { ...side.inFrontOf(system), push: everywhere.push };
  const notices = createNotices(log, broadcast);
  notices.listen('everywhere', (notice) => system.notify(notice));
  const management = createManagement({
    agents: stores.agents,
    templates: stores.templates,
    liveAgents: everywhere,
    builtIn,
    notices,
    tiers,
    tierOf,
    knownTools: tools.registry
      ? null
      : namedTools(
          tools.tools.map(({ name }) => name),
          tiers,
        ),
    providers: known,
    models: settings.models.table,
    schemas,
    clock,
    newId: randomUUID,
    log,
  });
  const tenants = createTenantAdmin({ store, clock, log, tierSet: everywhere.tierSet });
  const { allowInsecure } = settings.access;
  const outward = { clock, log, meter: metrics, allowInsecure, blockPrivate: parts.blockPrivate ?? true };
  const dueBy = stores.clock ?? clock;
  const webhooks = createWebhooks({ ...outward, clock: dueBy, store: stores.webhooks, notices });
  const callbacks = createCallbacks({ ...outward, store: stores.callbacks });
  const atOnce: Executions['atOnce'] = async (tenantId, named) =>
    tiers[await tierOf(tenantId, named)].executions;
  const subscriptions = workSubscriptions(settings.extraQueues, defaultTier, tiers);
  const places = createPlaces({
    ...{ size: settings.execution.maxOnNode, subscriptions, tiers, atOnce, clock, log },
  });
  const directory = withPlaces(sessions, places);
  const observer = createTurnObserver({ directory: sessions, clock, log });
  const executions = createExecutions({
    ...{ directory, observer, callbacks, atOnce, clock, log },
    batchStore: stores.batches,
  });
  const refusals = createRefusals(log, clock, metrics.requestRefused);
  const actionWorker = createActionWorker({
    transport,
    relay,
    directory: sessions,
    executions,
    peers: beside.peers,
    invalidateAgent: everywhere.invalidate,
    clock,
    log,
    refusals,
    subscriptions,
    places,
    newId: randomUUID,
  });
  const agentTasks = createAgentTasks({ transport, takeTask: management.takeTask, notices, log, refusals });
  const retention = createRetention({
    ...{ store, webhooks: stores.webhooks, batches: stores.batches, jobs: stores.jobs, owners },
    ...{ tiers, defaultTier, clock, log },
  });

  let draining = true; // until the store holds no turn of an earlier process that looks as if it ran
  const shared = {
    directory,
    access: createAccess(settings.access, clock),
    proxied: createProxyCheck(settings.access),
    refusals,
    serviceToken: settings.access.serviceToken,
    log,
    clock,
    draining: () => draining,
    newTaskId: () => taskIdSchema.parse(randomUUID()),
  };
  const warnings = [...settings.warnings];
  const descriptors = createDescriptors(log, clock);
  const server = parts.server ?? openServer(descriptors);
  const slots = limits && createSocketSlots(limits.keeper);
  const chat = mountChat(server.app, { ...shared, settings, metrics, slots, short: descriptors.areShort });
  const services = mountTaskUpdates(server.app, {
    ...shared,
    notices,
    metrics,
    deliver: everywhere.notify,
  });
  const http = createHttpApp({
    ...shared,
    observer,
    executions,
    management: { agents: management.agents, templates: management.templates, webhooks, tenants },
    guardProbes: settings.access.mode === 'jwt',
    allowedOrigins: settings.access.allowedOrigins,
    newSessionId: () => sessionIdSchema.parse(randomUUID()),
    nodeId,
    version,
    checks: {
      store: () => store.ping(),
      ...(settings.redisUrl === undefined ? {} : { redis: () => transport.ready() }),
    },
    providers: known,
    openCircuits: () => models.openCircuits(),
    warnings: () => warnings,
    metricsText: () => metrics.text(),
    overview: () => metrics.overview(),
    cluster: () => side.stats(),
    socketStats: () => chat.stats(),
    deltaWindowMs: settings.sockets.deltaWindowMs,
  });
  const mounted = mountHttp(server.app, http.fetch);

  let closing: Promise<void> | undefined;
  /** All but the port. */
  const end = (): Promise<void> => {
    closing ??= (async () => {
      retention.close();
      slots?.close();
      await changes.close();
      await management.close();
      await agentTasks.close();
      await actionWorker.close();
      await webhooks.close();
      await executions.close();
      await system.close();
      // What ended by this is kept, and on its way, before the transport goes.
      await relay.close();
      await side.close();
      await transport.close();
      await runner.close();
      await beside.close();
      metrics.close();
      // Behind the last write of this node, since none is taken afterwards.
      await stores.conversations.close();
      await cluster.leave();
      await stores.close();
      log.info({}, 'stopped');
      await log.flush();
    })();
    return closing;
  };
  const close = (): Promise<void> => {
    server.close();
    return end();
  };
  let giveUp = (): void => {};
  const superseded = new Promise<void>((resolve, reject) => {
    giveUp = () => {
      draining = true;
      chat.closeAll(CLOSE.ownedElsewhere);
      services.close(CLOSE.ownedElsewhere);
      mounted.cut();
      system.close().then(end).then(resolve, reject);
      setTimeout(() => reject(new Error('what was given up does not end')), GIVE_UP_MS).unref();
    };
  });
  superseded.catch(() => {});
  /** First the port: a node that does not get it must not touch what the one that has it is doing. */
  async function open(): Promise<number> {
    const port = await server.listen(settings.host, settings.port);
    await cluster.join();
    await store.commit({ type: 'unfinished-interrupted', atMs: clock.now() });
    changes.start();
    webhooks.start();
    executions.takeUp();
    relay.start();
    await agentTasks.start();
    draining = false;
    await actionWorker.start();
    return port;
  }
  const port = await open().catch(async (error: unknown) => {
    await close();
    throw error;
  });
  return {
    host: settings.host,
    ...{ port, server, log },
    warn: (text) => void warnings.push(text),
    async drain() {
      if (closing) return close();
      draining = true;
      side.drain();
      log.info({ grace_ms: settings.drainMs, ...system.stats().turns }, 'draining');
      actionWorker.drain();
      await system.drain(settings.drainMs);
      side.letGo();
      services.close(CLOSE.restart);
      const clients = () => chat.count() + services.count() + mounted.pending();
      const gone = () => clients() === 0 && executions.sending() === 0;
      await until(gone, CLOSE_GRACE_MS);
      await close();
    },
    close,
    leaving: leaving.promise,
    superseded,
  };
}

/** Resolves when `done()` is true, looked at every 20 ms, or after `ms`. */
async function until(done: () => boolean, ms: number): Promise<void> {
  for (let left = ms; left > 0 && !done(); left -= 20)
    await new Promise((resolve) => setTimeout(resolve, 20));
}

/** Connects to Redis where there is one, else carries messages inside the process. Rejects where Redis is away. */
const openTransport = (
  { redisUrl: url, nodeId }: Settings,
  log: Log,
  meter: TransportMeter,
): Promise<Transport> =>
  url === undefined
    ? Promise.resolve(createMemoryTransport(log, meter))
    : openRedisTransport({ url, nodeId, log, meter });
