/** What the tests of agents and their management share: stored agents, a store that answers by hand, a whole facade. */
import type { Agent, AgentFields, TenantNotice } from '../../../src/domain/agent-record.ts';
import { blankAgent } from '../../../src/domain/agent-rules.ts';
import type { Reply } from '../../../src/domain/errors.ts';
import { type AgentId, agentIdSchema } from '../../../src/domain/ids.ts';
import { configureProviders, knownProviders } from '../../../src/domain/providers.ts';
import { TIER_TABLE, type Tier } from '../../../src/domain/tiers.ts';
import { createManagement, type ManagementOptions } from '../../../src/management/management.ts';
import { createNotices } from '../../../src/management/notices.ts';
import type { Actor, AgentStore } from '../../../src/ports/management.ts';
import { quiet } from '../../support/quiet.ts';
import { memoryStores } from '../../support/stores.ts';
import { AGENT, handClock, TENANT } from '../fixtures.ts';

export const AGENT_ID: AgentId = agentIdSchema.parse('a1');

/** Version `version` of one agent. */
export const agentOf = (version: number, more: Partial<Agent> = {}): Agent => ({
  ...blankAgent('Helper', AGENT),
  id: AGENT_ID,
  tenant_id: TENANT,
  template_id: null,
  version,
  created_at: '2026-01-01T00:00:00.000Z',
  updated_at: '2026-01-01T00:00:00.000Z',
  deleted_at: null,
  ...more,
});

interface Asked {
  readonly version: number | undefined;
  answer(agent: Agent | null): void;
  fail(): void;
}

/** A store that answers when the test says so. */
export function handStore(): Pick<AgentStore, 'get'> & { readonly asked: Asked[] } {
  const asked: Asked[] = [];
  return {
    asked,
    get: (_tenantId, _agentId, version) =>
      new Promise((resolve, reject) => {
        asked.push({ version, answer: resolve, fail: () => reject(new Error('the store is down')) });
      }),
  };
}

export const someone = (tier: Tier | undefined = 'professional'): Actor => ({
  tenantId: TENANT,
  tier,
  actor: 'user:ann',
  source: 'api',
});

/** A facade over stores in memory, with everything it told and every agent it passed on. */
export function openManagement(more: Partial<ManagementOptions> = {}) {
  const notices: TenantNotice[] = [];
  const changed: Agent[] = [];
  const invalidated: AgentId[] = [];
  const bus = createNotices(quiet);
  bus.listen('once', (notice) => notices.push(notice));
  let ids = 0;
  const options: ManagementOptions = {
    agents: memoryStores().agents,
    templates: memoryStores().templates,
    liveAgents: {
      changed: (agent) => void changed.push(agent),
      invalidate: (_tenantId, agentId) => void invalidated.push(agentId),
    },
    builtIn: AGENT,
    notices: bus,
    tiers: TIER_TABLE,
    tierOf: async (_tenantId, named) => named ?? 'professional',
    knownTools: ['current_time', 'calculator'],
    providers: knownProviders(configureProviders({}, []).providers),
    schemas: { read: async () => ({ unchecked: [] }) },
    clock: handClock(Date.UTC(2026, 0, 1)),
    newId: () => {
      ids += 1;
      return `id-${ids}`;
    },
    log: quiet,
    ...more,
  };
  return { ...createManagement(options), options, notices, changed, invalidated, bus };
}

/** The value of an answer that must be one. */
export function value<T>(reply: Reply<T>): T {
  if (!reply.ok) throw new Error(`refused: ${JSON.stringify(reply.error)}`);
  return reply.value;
}

/** The code, and what is at issue, of an answer that must be a refusal. */
export function refused(reply: Reply<unknown>): {
  readonly code: string;
  readonly issues: readonly string[];
} {
  if (reply.ok) throw new Error(`not refused: ${JSON.stringify(reply.value)}`);
  const { code, details } = reply.error;
  const issues: unknown =
    typeof details === 'object' && details !== null ? Reflect.get(details, 'issues') : [];
  return { code, issues: Array.isArray(issues) ? issues.map(({ field, rule }) => `${field} ${rule}`) : [] };
}

export const fields = (more: Partial<AgentFields> = {}): Partial<AgentFields> => ({
  name: 'Helper',
  ...more,
});
