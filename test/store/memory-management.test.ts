/** The in-memory stores of agent management keep their contracts. */
import { createMemoryAgents } from '../support/memory-store/agents.ts';
import { createMemoryTemplates } from '../support/memory-store/templates.ts';
import { createMemoryWebhooks } from '../support/memory-store/webhooks.ts';
import { agentContract } from './agent-contract.ts';
import { templateContract } from './template-contract.ts';
import { webhookContract } from './webhook-contract.ts';

const close = async (): Promise<void> => {};

agentContract('memory', async () => ({ agents: createMemoryAgents(), close }));
templateContract('memory', async () => ({ templates: createMemoryTemplates(), close }));
webhookContract('memory', async () => ({ webhooks: createMemoryWebhooks(), close }));
