/** A node's stores around a conversation store of the test's own, with agent management in memory. */
import type { NodeStores } from '../../src/node.ts';
import type { Store } from '../../src/ports/store.ts';
import { createMemoryAgents } from './memory-store/agents.ts';
import { createMemoryTemplates } from './memory-store/templates.ts';
import { createMemoryWebhooks } from './memory-store/webhooks.ts';

export function storesAround(conversations: Store): NodeStores {
  return {
    conversations,
    agents: createMemoryAgents(),
    templates: createMemoryTemplates(),
    webhooks: createMemoryWebhooks(),
    close: () => conversations.close(),
  };
}
