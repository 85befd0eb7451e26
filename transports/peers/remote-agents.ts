/** Agents that an external management service keeps: asked for when needed, and again when their tier's time is up. */
import type { Agent } from '../../src/domain/agent-record.ts';
import type { AgentDefaults } from '../../src/domain/agent-rules.ts';
import { RefusalError } from '../../src/domain/errors.ts';
import type { AgentId, TenantId } from '../../src/domain/ids.ts';
import { readAgent } from '../../src/domain/peer-agents.ts';
import type { Tier, TierTable } from '../../src/domain/tiers.ts';
import type { AgentStore } from '../../src/ports/management.ts';
import type { Peers } from '../../src/ports/peers.ts';
import type { Clock } from '../../src/ports/telemetry.ts';

/** Agents whose time is kept; beyond, the one that was asked for first is out of date at once. */
const MAX_KEPT = 20_000;
/** An agent's actor waits for 10 s; whoever waits there is told by us what is wrong. */
const PATIENCE_MS = 9_000;

interface RemoteAgentsOptions {
  readonly peers: Peers;
  readonly tiers: TierTable;
  readonly tierOf: (tenantId: TenantId) => Promise<Tier>;
  /** How long the service may take; at most 9 s. */
  readonly timeoutMs: number;
  /** For what the service leaves out. */
  readonly defaults: AgentDefaults;
  readonly clock: Clock;
  /** What is known of the agent is too old: whoever needs it must ask anew. */
  readonly onExpired: (tenantId: TenantId, agentId: AgentId) => void;
}

export interface RemoteAgents extends Pick<AgentStore, 'get'> {
  /** What is known of an agent is out of date now: onExpired is told at once. */
  expire(tenantId: TenantId, agentId: AgentId): void;
  close(): void;
}

interface Kept {
  readonly tenantId: TenantId;
  readonly agentId: AgentId;
  readonly dueMs: number;
}

/**
 * Asks the management service for agents. Nothing is cached here: an agent's actor does that, until onExpired. One
 * timer serves all, and it holds no process open.
 */
export function createRemoteAgents(options: RemoteAgentsOptions): RemoteAgents {
  const { peers, tiers, tierOf, defaults, clock, onExpired } = options;
  /** By how long they are kept, so that each is in the order of its end. */
  const kept = new Map<number, Map<string, Kept>>();
  let total = 0;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  function keep(tenantId: TenantId, agentId: AgentId, forMs: number): void {
    if (closed) return;
    const key = `${tenantId}/${agentId}`;
    forget(key);
    if (total >= MAX_KEPT) drop(first());
    const line = kept.get(forMs) ?? new Map<string, Kept>();
    kept.set(forMs, line.set(key, { tenantId, agentId, dueMs: clock.now() + forMs }));
    total += 1;
    if (!timer) wait();
  }

  function forget(key: string): void {
    for (const line of kept.values()) if (line.delete(key)) total -= 1;
  }

  const first = (): Kept | undefined => {
    let soonest: Kept | undefined;
    for (const line of kept.values()) {
      const [oldest] = line.values();
      if (oldest && (!soonest || oldest.dueMs < soonest.dueMs)) soonest = oldest;
    }
    return soonest;
  };

  function drop(one: Kept | undefined): void {
    if (!one) return;
    forget(`${one.tenantId}/${one.agentId}`);
    onExpired(one.tenantId, one.agentId);
  }

  function wait(): void {
    const next = first();
    timer = undefined;
    if (next) timer = setTimeout(expireDue, Math.max(1, next.dueMs - clock.now())).unref();
  }

  function expireDue(): void {
    const now = clock.now();
    for (let next = first(); next && next.dueMs <= now; next = first()) drop(next);
    wait();
  }

  return {
    async get(tenantId, agentId, version): Promise<Agent | null> {
      const tier = await tierOf(tenantId);
      const asked = { agent_id: agentId, ...(version === undefined ? {} : { version }) };
      const type = 'management.get_agent_config';
      const timeoutMs = Math.min(options.timeoutMs, PATIENCE_MS);
      const data = await peers
        .ask({ type, tenantId, tier, agentId, data: asked, timeoutMs })
        .catch((error: unknown) => {
          if (isAbsent(error)) return null;
          throw error;
        });
      if (!data) return null;
      const read = readAgent(data, { tenantId, agentId, defaults, nowMs: clock.now() });
      if (!read.ok) throw new RefusalError(read.error);
      keep(tenantId, agentId, tiers[tier].agent_cache_s * 1000);
      return read.agent;
    },
    expire(tenantId, agentId) {
      forget(`${tenantId}/${agentId}`);
      onExpired(tenantId, agentId);
    },
    close() {
      closed = true;
      clearTimeout(timer);
      kept.clear();
    },
  };
}

const isAbsent = (error: unknown): boolean =>
  error instanceof RefusalError && (error.data.code === 'NOT_FOUND' || error.data.code === 'AGENT_NOT_FOUND');
