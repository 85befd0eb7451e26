/** Composition of what stands beside a node: peers, tools, remote stores, and the relay that writes through them. */
import { randomUUID } from 'node:crypto';
import { createEmbedded } from '../transports/peers/embedded.ts';
import { createPeers } from '../transports/peers/peers.ts';
import { createRemoteAgents, type RemoteAgents } from '../transports/peers/remote-agents.ts';
import { createRemoteConversations } from '../transports/peers/remote-conversations.ts';
import type { AgentId, TenantId } from './domain/ids.ts';
import { knownProviders } from './domain/providers.ts';
import { dayOf } from './domain/rate-limit.ts';
import type { Tier } from './domain/tiers.ts';
import { createEmbeddings } from './llm/embeddings.ts';
import { createCollections } from './llm/retrieval/collections.ts';
import { createTools, type NodeTools } from './llm/tools/tool-set.ts';
import { createKeptEnds } from './outbox/kept-ends.ts';
import { createRelay } from './outbox/relay.ts';
import type { AgentManagement } from './ports/management.ts';
import type { Relay } from './ports/outbox.ts';
import type { Peers } from './ports/peers.ts';
import type { Clock, Log } from './ports/telemetry.ts';
import type { Transport } from './ports/transport.ts';
import type { Settings } from './settings.ts';
import type { Stores } from './store/open.ts';

interface PeerSideDeps {
  readonly settings: Settings;
  readonly transport: Transport;
  readonly stores: Pick<Stores, 'conversations'>;
  /** Agent management as it answers inside the process; asked only once the node is put together. */
  readonly agents: () => Pick<AgentManagement, 'get'>;
  /** What is known of an agent is too old. */
  readonly agentExpired: (tenantId: TenantId, agentId: AgentId) => void;
  readonly clock: Clock;
  readonly log: Log;
}

interface PeerSide {
  readonly peers: Peers;
  readonly tools: NodeTools;
  /** `relay.store` is the store that the rest of the node uses. */
  readonly relay: Relay;
  /** Where agents come from that an external service keeps; undefined: from this node's own store. */
  readonly remoteAgents: RemoteAgents | undefined;
  /** The tier that counts: the tenant's own, else the one that was named, else the node's default. */
  readonly tierOf: (tenantId: TenantId, named?: Tier) => Promise<Tier>;
  /** Ends threads and timers; relay and tools have ends of their own. */
  close(): Promise<void>;
}

/** Puts together what the settings say stands beside the node. */
export function createPeerSide(deps: PeerSideDeps): PeerSide {
  const { settings, transport, stores, clock, log } = deps;
  const { tiers, defaultTier, models } = settings;
  const { modes, format, timeoutMs, collectionsDir } = settings.peers;
  const kept = stores.conversations;
  const tierOf = async (tenantId: TenantId, named?: Tier): Promise<Tier> =>
    (await kept.tenant(tenantId, dayOf(clock.now())))?.tier ?? named ?? defaultTier;

  const collections = createCollections({ folder: collectionsDir, log });
  const embedded = createEmbedded({
    agents: { get: (tenantId, agentId) => deps.agents().get(tenantId, agentId) },
    store: kept,
    collections,
    embeddings: createEmbeddings(models.openai),
    tool: (name) => tools.own(name),
  });
  const nodeName = settings.nodeId;
  const asking = { modes, transport, format, timeoutMs, nodeName, newId: randomUUID };
  const peers = createPeers({ ...asking, tierOf, embedded, clock, log });
  const tools = createTools({ clock, peers });
  const shared = { peers, tiers, tierOf, clock };
  const remote =
    modes.conversation === 'redis'
      ? createRemoteConversations({ ...shared, store: kept, defaultTier, format, log })
      : undefined;
  const remoteAgents =
    modes.management === 'redis'
      ? createRemoteAgents({
          ...shared,
          timeoutMs,
          defaults: { provider: models.defaultProvider, model: models.defaultModel },
          providers: [...knownProviders(models.providers).keys()],
          onExpired: deps.agentExpired,
        })
      : undefined;
  const store = remote?.store ?? kept;
  const ends = createKeptEnds({ store, log });
  const relay = createRelay({ store, ends, transport, log, now: clock.now, onTurnEnded: remote?.saved });
  return {
    peers,
    tools,
    relay,
    remoteAgents,
    tierOf,
    async close() {
      remoteAgents?.close();
      await collections.close();
    },
  };
}
