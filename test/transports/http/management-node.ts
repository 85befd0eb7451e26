/** The HTTP edge over the real agent management, its stores in memory, for the tests of the management routes. */
import { defaultAgent } from '../../../src/domain/default-agent.ts';
import { refusal } from '../../../src/domain/errors.ts';
import type { TenantId } from '../../../src/domain/ids.ts';
import type { Tier } from '../../../src/domain/tiers.ts';
import type { TenantAdmin } from '../../../src/ports/management.ts';
import { createWebhooks } from '../../../transports/webhooks/webhooks.ts';
import { openManagement } from '../../actors/agent/agent-fixtures.ts';
import { openHttpNode } from '../../support/http-node.ts';
import { quiet, uncounted } from '../../support/quiet.ts';
import { memoryStores } from '../../support/stores.ts';

export const SERVICE_TOKEN = 'the token of all services';

/** Opens a node whose tenants are professional unless a request or `setTier` says otherwise. */
export async function openManagementNode(
  options: { readonly mode?: 'open' | 'jwt'; readonly serviceToken?: string | undefined } = {
    serviceToken: SERVICE_TOKEN,
  },
) {
  const clock = { now: Date.now };
  const tiers = new Map<TenantId, Tier>();
  const management = openManagement({
    builtIn: defaultAgent({
      models: { defaultProvider: 'offline', defaultModel: 'offline-echo' },
      execution: { defaultAgentType: 'conversational' },
    }),
    tierOf: async (tenantId, named) => tiers.get(tenantId) ?? named ?? 'professional',
    clock,
  });
  const { agents, templates } = management;
  const store = memoryStores().webhooks;
  const webhooks = createWebhooks({
    ...{ store, notices: management.bus, clock, log: quiet, meter: uncounted },
    allowInsecure: false,
  });
  const tenants: TenantAdmin = {
    async tenant(tenantId) {
      const tier = tiers.get(tenantId);
      return tier
        ? { ok: true, value: { tenantId, tier, day: '2026-01-02', used: 3 } }
        : { ok: false, error: refusal('NOT_FOUND') };
    },
    async setTier(tenantId, tier) {
      tiers.set(tenantId, tier);
      return { ok: true, value: null };
    },
  };
  const { serviceToken } = options;
  const node = await openHttpNode(undefined, {
    ...(options.mode ? { mode: options.mode } : {}),
    deps: { management: { agents, templates, webhooks, tenants }, serviceToken },
  });
  return {
    ...node,
    store,
    webhooks,
    async close() {
      node.close();
      await management.close();
      await webhooks.close();
    },
  };
}
