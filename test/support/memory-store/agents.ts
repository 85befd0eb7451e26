/** Agents in plain Maps, for nodes without a database and for tests. */
import type { Agent, AuditEntry } from '../../../src/domain/agent-record.ts';
import type { AgentId, TenantId } from '../../../src/domain/ids.ts';
import type { AgentChange, AgentStore, ListQuery, Page, SaveOutcome } from '../../../src/ports/management.ts';
import { searchable } from '../../../src/store/text.ts';

interface StoredAgent {
  agent: Agent;
  readonly versions: Map<number, Agent>;
  readonly history: AuditEntry[];
}

type StoredAgents = Map<AgentId, StoredAgent>;

/** Makes an empty store. Records are the caller's own objects: nothing is copied. */
export function createMemoryAgents(): AgentStore {
  const tenants = new Map<TenantId, StoredAgents>();
  const agentsOf = (tenantId: TenantId): StoredAgents => tenants.get(tenantId) ?? new Map();
  return {
    list: async (tenantId, query) => list(agentsOf(tenantId), query),
    async get(tenantId, agentId, version) {
      const stored = agentsOf(tenantId).get(agentId);
      return (version === undefined ? stored?.agent : stored?.versions.get(version)) ?? null;
    },
    async versions(tenantId, agentId) {
      const versions = [...(agentsOf(tenantId).get(agentId)?.versions.values() ?? [])];
      return versions.sort((a, b) => b.version - a.version);
    },
    history: async (tenantId, agentId, page) =>
      pageOf([...(agentsOf(tenantId).get(agentId)?.history ?? [])].reverse(), page),
    async save(tenantId, change) {
      const agents = agentsOf(tenantId);
      tenants.set(tenantId, agents);
      return save(agents, change);
    },
  };
}

function list(agents: StoredAgents, query: ListQuery): Page<Agent> {
  const text = searchable(query.text ?? '');
  const found = [...agents.values()]
    .map((stored) => stored.agent)
    .filter((agent) => agent.deleted_at === null)
    .filter((agent) => query.type === undefined || agent.type === query.type)
    .filter((agent) => query.tag === undefined || agent.tags.includes(query.tag))
    .filter((agent) => searchable(`${agent.name}\n${agent.slug}\n${agent.description}`).includes(text))
    .sort((a, b) => Date.parse(b.updated_at) - Date.parse(a.updated_at) || (a.id < b.id ? -1 : 1));
  return pageOf(found, query);
}

export const pageOf = <T>(
  all: readonly T[],
  { page, pageSize }: Pick<ListQuery, 'page' | 'pageSize'>,
): Page<T> => ({
  items: all.slice((page - 1) * pageSize, page * pageSize),
  total: all.length,
});

function save(agents: StoredAgents, { agent, audit, replaces, maxAgents }: AgentChange): SaveOutcome {
  const stored = agents.get(agent.id);
  if ((stored?.agent.version ?? 0) !== replaces) return 'stale';
  if (agent.deleted_at === null) {
    const others = [...agents.values()]
      .map((each) => each.agent)
      .filter((each) => each.id !== agent.id && each.deleted_at === null);
    if (others.some((each) => each.slug === agent.slug)) return 'taken';
    const joins = stored === undefined || stored.agent.deleted_at !== null;
    if (joins && maxAgents !== null && others.length >= maxAgents) return 'full';
  }
  const kept: StoredAgent = stored ?? { agent, versions: new Map(), history: [] };
  kept.agent = agent;
  kept.versions.set(agent.version, agent);
  kept.history.push(audit);
  agents.set(agent.id, kept);
  return 'saved';
}
