/** What an agent is where nobody said otherwise: the prompt of one that names none, and the agent `default` itself. */
import type { AgentConfig, AgentType, Provider } from './agent.ts';
import type { Agent } from './agent-record.ts';
import { DEFAULT_AGENT_ID, type TenantId } from './ids.ts';

/** System prompt of an agent that names none. */
export const DEFAULT_PROMPT =
  'You are a helpful assistant. Answer in the language of the user, briefly and to the point.';

/** The agent `default` has tools and is told of them. */
const PROMPT_WITH_TOOLS = `${DEFAULT_PROMPT}
Use the tools you have whenever they give a more certain answer than memory: the calculator for arithmetic, the clock for dates and times. Say so when you do not know. Today is {{today}}.`;

/** When what every node has was made. */
export const BUILT_IN_AT = '2025-01-01T00:00:00.000Z';

interface DefaultAgentSettings {
  readonly models: { readonly defaultProvider: Provider; readonly defaultModel: string };
  readonly execution: { readonly defaultAgentType: AgentType };
}

/** The agent `default`, as the node's settings shape it. Its tools are cut to the tier by the plan. */
export function defaultAgent(settings: DefaultAgentSettings): AgentConfig {
  return {
    id: DEFAULT_AGENT_ID,
    version: 1,
    type: settings.execution.defaultAgentType,
    provider: settings.models.defaultProvider,
    model: settings.models.defaultModel,
    temperature: 0.7,
    maxTokens: null,
    systemPrompt: PROMPT_WITH_TOOLS,
    tools: ['calculator', 'current_time'],
    maxIterations: null,
    isActive: true,
  };
}

/** The agent `default`, which every tenant has without anybody having stored it, as a stored one would look. */
export const defaultRecord = (config: AgentConfig, tenantId: TenantId): Agent => ({
  id: config.id,
  tenant_id: tenantId,
  name: 'Default',
  slug: 'default',
  description: 'The agent that every tenant has. It can not be changed.',
  type: config.type === 'langchain' ? 'workflow' : 'conversational',
  provider: config.provider,
  model: config.model,
  temperature: config.temperature,
  max_tokens: config.maxTokens,
  system_prompt: config.systemPrompt,
  tools: [...config.tools],
  collections: [],
  max_iterations: config.maxIterations,
  max_history_messages: null,
  is_active: config.isActive,
  minimum_tier: 'free',
  tags: [],
  template_id: null,
  version: config.version,
  created_at: BUILT_IN_AT,
  updated_at: BUILT_IN_AT,
  deleted_at: null,
});
