/** Agents of an external management service: asked for when needed, and again when their tier's cache time is over. */
import { LRUCache } from 'lru-cache';
import type { Agent } from '../../src/domain/agent-record.ts';
import type { AgentDefaults } from '../../src/domain/agent-rules.ts';
import { defined } from '../../src/domain/defined.ts';
import { RefusalError } from '../../src/domain/errors.ts';
import type { AgentId, TenantId } from '../../src/domain/ids.ts';
import { readAgent } from '../../src/domain/peer-agents.ts';
import type { Tier, TierTable } from '../../src/domain/tiers.ts';
import type { AgentStore } from '../../src/ports/management.ts';
import type { Peers } from '../../src/ports/peers.ts';
import type { Clock } from '../../src/ports/telemetry.ts';

/** Agents with a timer; beyond, the one that was asked for longest ago is out of date at once. */
const MAX_AGENTS = 20_000;
/** An agent's actor waits for 10 s; before that, whoever waits there is told what is wrong. */
const MAX_TIMEOUT_MS = 9_000;
/** A longer one would fire at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

interface RemoteAgentsOptions {
  readonly peers: Peers;
  readonly tiers: TierTable;
  readonly tierOf: (tenantId: TenantId) => Promise<Tier>;
  /** How long the service may take; at most 9 s. */
  readonly timeoutMs: number;
  /** For what the service leaves out. */
  readonly defaults: AgentDefaults;
  /** Providers that an agent may have; by default those that every node knows. */
  readonly providers?: readonly string[];
  readonly clock: Clock;
  /** The configuration of the agent is out of date: whoever needs it must ask anew. */
  readonly onExpired: (tenantId: TenantId, agentId: AgentId) => void;
}

export interface RemoteAgents extends Pick<AgentStore, 'get'> {
  /** The configuration of an agent is out of date now: calls onExpired at once. */
  expire(tenantId: TenantId, agentId: AgentId): void;
  close(): void;
}

interface Expiry {
  readonly tenantId: TenantId;
  readonly agentId: AgentId;
  readonly timer: NodeJS.Timeout;
}

/** Asks the management service for agents. No configuration is stored here: an agent's actor does that, until onExpired. */
export function createRemoteAgents(options: RemoteAgentsOptions): RemoteAgents {
  const { peers, tiers, tierOf, defaults, providers, clock, onExpired } = options;
  let closed = false;
  /** The timers of agents that were answered. They hold no process open; Node has those of one duration in one list. */
  const expiries = new LRUCache<string, Expiry>({
    max: MAX_AGENTS,
    dispose({ tenantId, agentId, timer }, _key, reason) {
      clearTimeout(timer);
      if (reason === 'evict') onExpired(tenantId, agentId);
    },
  });

  function expire(tenantId: TenantId, agentId: AgentId): void {
    expiries.delete(keyOf(tenantId, agentId));
    onExpired(tenantId, agentId);
  }

  return {
    async get(tenantId, agentId, version): Promise<Agent | null> {
      const tier = await tierOf(tenantId);
      const type = 'management.get_agent_config';
      const data = defined({ agent_id: agentId, version });
      const timeoutMs = Math.min(options.timeoutMs, MAX_TIMEOUT_MS);
      const reply = await peers
        .ask({ type, tenantId, tier, agentId, data, timeoutMs })
        .catch((error: unknown) => {
          if (isAbsent(error)) return null;
          throw error;
        });
      if (!reply) return null;
      const read = readAgent(reply, { tenantId, agentId, defaults, providers, nowMs: clock.now() });
      if (!read.ok) throw new RefusalError(read.error);
      if (closed) return read.agent;
      const cacheMs = Math.min(tiers[tier].agent_cache_s * 1000, MAX_TIMER_MS);
      const timer = setTimeout(() => expire(tenantId, agentId), cacheMs).unref();
      expiries.set(keyOf(tenantId, agentId), { tenantId, agentId, timer });
      return read.agent;
    },
    expire,
    close() {
      closed = true;
      expiries.clear();
    },
  };
}

/** No id may hold a slash. */
const keyOf = (tenantId: TenantId, agentId: AgentId): string => `${tenantId}/${agentId}`;

const isAbsent = (error: unknown): boolean =>
  error instanceof RefusalError && (error.data.code === 'NOT_FOUND' || error.data.code === 'AGENT_NOT_FOUND');
