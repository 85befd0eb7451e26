/** Composition of what makes a node one of several: its place among them, who has which session, and the links between. */
import { randomUUID } from 'node:crypto';
import { type Cluster, createCluster } from '../actors/cluster/cluster.ts';
import { createClusterDirectory, findPlace } from '../actors/cluster/directory.ts';
import { createGuests, type Guests } from '../actors/cluster/guests.ts';
import { createLinkBroadcast, type LinkBroadcast } from '../actors/cluster/link-broadcast.ts';
import { createLinkWatch } from '../actors/cluster/link-watch.ts';
import { createLinks, type LinkStats, type Links } from '../actors/cluster/links.ts';
import { createQuestions } from '../actors/cluster/questions.ts';
import { createRemoteClients, type RemoteClients } from '../actors/cluster/remote-clients.ts';
import { createSharedPlacement, type SharedPlacement } from '../actors/cluster/shared-placement.ts';
import { RECONNECT_SPREAD_MS, turnAway } from '../actors/session/local-sessions.ts';
import type { System } from '../actors/system.ts';
import { openRedisInboxes } from '../transports/queue/redis/inboxes.ts';
import { crossedFrame, encodeFrame } from '../transports/wire/codec.ts';
import type { Frame } from './domain/frames.ts';
import { type Broadcast, soleBroadcast } from './ports/broadcast.ts';
import type { Boot, Member, NodeTable, OwnerTable } from './ports/cluster.ts';
import type { Inboxes, LinkItem } from './ports/links.ts';
import type { Directory } from './ports/sessions.ts';
import type { Store } from './ports/store.ts';
import type { Clock, Log } from './ports/telemetry.ts';
import type { TransportMeter } from './ports/transport.ts';
import type { Settings } from './settings.ts';

interface ClusterSideDeps {
  readonly settings: Settings;
  readonly stores: { readonly nodes?: NodeTable; readonly owners?: OwnerTable };
  readonly store: Pick<Store, 'commit'>;
  /** In the place of that over links. */
  readonly broadcast: Broadcast | undefined;
  readonly meter: TransportMeter;
  readonly clock: Clock;
  readonly log: Log;
  readonly onAdopted: () => void;
  readonly onLeaving: () => void;
  readonly onSuperseded: () => void;
}

interface ClusterSide {
  /** What the actors are to know of it: nothing, where the node has its database to itself. */
  readonly parts: { readonly placement?: SharedPlacement; readonly mayAct?: () => boolean };
  readonly cluster: Cluster;
  readonly broadcast: Broadcast;
  /** The directory that edges are to speak to. Called once, before the cluster is joined. */
  inFrontOf(system: System): Directory;
  stats(): object | undefined;
  /** Tells the others, and clients of sessions that others have, that this node is about to leave. */
  drain(): void;
  /** Closes clients of sessions that others have. */
  letGo(): void;
  /** Ends the links. The node's place among the others is left by `cluster.leave`. */
  close(): Promise<void>;
}

/** Between two numbers on links that somebody counts on. */
const TICK_MS = 1_000;

/**
 * Links are there where several nodes may share the database, and there is a Redis. Without, sessions are asked for by
 * their rows alone.
 */
export function createClusterSide(deps: ClusterSideDeps): ClusterSide {
  const { settings, store, log } = deps;
  const { nodes, owners } = settings.cluster.mode === 'off' ? {} : deps.stores;
  const boot = (): Boot | undefined => cluster.boot();
  const placement = owners && createSharedPlacement({ owners, store, log, boot });
  const links =
    nodes && owners && placement && settings.redisUrl !== undefined
      ? createLinkSide({ ...deps, nodes, owners, placement, url: settings.redisUrl, boot })
      : undefined;
  const cluster = createCluster({
    ...{ nodeId: settings.nodeId, version: settings.service.version, log, config: settings.cluster },
    ...{ table: nodes, placement, links },
    ...{ onAdopted: deps.onAdopted, onLeaving: deps.onLeaving, onSuperseded: deps.onSuperseded },
  });
  return {
    parts: placement ? { placement, mayAct: () => cluster.isSure() } : {},
    cluster,
    broadcast: deps.broadcast ?? links?.broadcast ?? soleBroadcast,
    inFrontOf: (system) => links?.inFrontOf(system) ?? system,
    stats() {
      const stats = cluster.stats();
      return stats && links ? { ...stats, links: links.stats() } : stats;
    },
    drain() {
      void cluster.drain();
      links?.drain();
    },
    letGo: () => links?.letGo(),
    close: async () => links?.close(),
  };
}

interface LinkSideDeps extends Pick<ClusterSideDeps, 'meter' | 'clock' | 'log'> {
  readonly nodes: NodeTable;
  readonly owners: OwnerTable;
  readonly placement: SharedPlacement;
  /** Of Redis. */
  readonly url: string;
  readonly boot: () => Boot | undefined;
}

/** As LinkStats, with the clients of other nodes' sessions here, and of sessions here elsewhere. */
interface LinkSideStats extends LinkStats {
  readonly remote_clients: number;
  readonly guests: number;
}

function createLinkSide(deps: LinkSideDeps) {
  const { nodes, url, boot, log } = deps;
  let inboxes: Inboxes | undefined;
  let others: readonly Boot[] = [];
  let timer: NodeJS.Timeout | undefined;
  let isClosed = false;
  const after = (ms: number, act: () => void): void => void setTimeout(act, ms).unref();
  const broadcast = createLinkBroadcast((item) => {
    for (const other of others) links.send(other, item);
  });
  let ends: { readonly clients: RemoteClients; readonly guests: Guests } | undefined;
  let onRequest: ReturnType<typeof createQuestions> | undefined;

  const links: Links = createLinks({
    get boot() {
      return boot() ?? 0;
    },
    ...{ after, now: () => performance.now(), newLinkId: randomUUID },
    push(to, bundle, done) {
      const pushed = inboxes?.push(to, bundle) ?? Promise.reject(new Error('the links are not open'));
      pushed.then(done, () => done(undefined));
    },
    onTorn(from) {
      ends?.clients.torn(from);
      ends?.guests.census(from);
    },
    onItem: (from, item) => ends && received(ends, broadcast, from, item),
    onRequest: (from, request, answer) => onRequest?.(from, request, answer) ?? false,
  });
  let watch: ReturnType<typeof createLinkWatch> | undefined;

  return {
    broadcast,
    inFrontOf(system: System): Directory {
      ends = createEnds(deps, links, system, after);
      onRequest = createQuestions({ local: system.local, guests: ends.guests, log });
      watch = createLinkWatch({ links, ...ends });
      return createClusterDirectory({ ...deps, system, links, clients: ends.clients });
    },
    async opened(mine: Boot): Promise<void> {
      const clusterId = await nodes.database();
      if (isClosed) return;
      inboxes = openRedisInboxes({
        ...{ url, clusterId, log },
        meter: {
          counted: deps.meter.counted,
          dropped: (problem, count) => log.warn({ problem, count }, 'what another node said can not be read'),
        },
      });
      await inboxes.read(mine, links.heard);
      timer = setInterval(() => watch?.tick(), TICK_MS).unref();
    },
    named: (): ReadonlySet<Boot> => watch?.named() ?? new Set(),
    looked(named: ReadonlySet<Boot>, members: readonly Member[]): void {
      others = members.flatMap((member) => (member.boot === boot() ? [] : [member.boot]));
      watch?.looked(named, members);
    },
    lost: (gone: Boot): void => watch?.lost(gone),
    stats: (): LinkSideStats => ({
      ...links.stats(),
      ...{ remote_clients: ends?.clients.size() ?? 0, guests: ends?.guests.size() ?? 0 },
    }),
    drain: (): void => ends?.clients.tell(() => draining(deps.clock.now())),
    letGo: (): void => ends?.clients.close(),
    async close(): Promise<void> {
      isClosed = true;
      clearInterval(timer);
      await inboxes?.close();
    },
  };
}

const draining = (atMs: number): Frame => ({
  ...{ type: 'server.draining', seq: undefined, atMs, taskId: undefined },
  data: { reconnect_after_ms: Math.floor(Math.random() * RECONNECT_SPREAD_MS) },
});

/** Both ends of a link: clients here whose sessions are elsewhere, and clients elsewhere whose sessions are here. */
function createEnds(
  { placement, clock, log }: LinkSideDeps,
  links: Links,
  system: System,
  after: (ms: number, act: () => void) => void,
) {
  const clients = createRemoteClients({
    ...{ links, after, moved: placement.moved, frameOf: crossedFrame },
    find: (caller, sessionId, done) => void findPlace(system, caller, sessionId).then(done),
    want(key, owner) {
      placement
        .want(key, owner)
        .catch((error: unknown) => log.warn({ err: error }, 'a session could not be asked for by its row'));
    },
    attachHere: system.attach,
    refuse: (client, error) => turnAway(client, error, clock.now()),
  });
  const { has, attach, detach } = system.local;
  const guests = createGuests({
    links,
    sessions: {
      ...{ has, attach, detach },
      yield: (key, done) =>
        void system.local.yield(key, 'attached').then(done, (error: unknown) => {
          log.error({ err: error }, 'a session was not given up');
          done(false);
        }),
    },
    text: (frame) => encodeFrame(frame, 'json'),
    soon: (act) => void setImmediate(act),
  });
  return { clients, guests };
}

function received(
  { clients, guests }: { readonly clients: RemoteClients; readonly guests: Guests },
  broadcast: LinkBroadcast,
  from: Boot,
  item: LinkItem,
): void {
  if (item.kind === 'broadcast') return broadcast.received(item);
  if (item.kind !== 'detach') return clients.received(from, item);
  const { tenantId, sessionId, clientId } = item;
  guests.detach(from, { tenantId, sessionId }, clientId);
}
