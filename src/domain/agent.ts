/** An agent's configuration as an execution reads it, and the rules that tie it to a tier. */
import type { z } from 'zod';
import type { Agent, providerSchema } from './agent-record.ts';
import { estimateTokens } from './conversation.ts';
import { defined } from './defined.ts';
import { type ErrorData, refusal } from './errors.ts';
import type { AgentId } from './ids.ts';
import { contextTokens, MODEL_TABLE, type ModelTable, modelSize } from './models.ts';
import type { ResponseFormat } from './response-format.ts';
import { TIERS, type Tier, type TierLimits } from './tiers.ts';

/** Which loop runs the agent: ours, or LangChain's `createAgent`. */
export type AgentType = 'conversational' | 'langchain';

export type Provider = z.infer<typeof providerSchema>;

export interface AgentConfig {
  readonly id: AgentId;
  readonly version: number;
  readonly type: AgentType;
  readonly provider: Provider;
  readonly model: string;
  readonly temperature: number;
  /** Models that stand in, in this order, while the agent's own is away, limited or slow. */
  readonly fallbacks?: readonly NamedModel[];
  /** Tokens the model may answer with; the tier's `tokens_per_run` caps it. */
  readonly maxTokens: number | null;
  /** Template; `{{name}}` stands for a variable of the turn's context. */
  readonly systemPrompt: string;
  readonly tools: readonly string[];
  readonly maxIterations: number | null;
  readonly isActive: boolean;
  /** Collections that an agent of type rag looks things up in; its tool `rag_query` reads them. */
  readonly collections?: readonly string[];
  /** Messages of history for the model; the tier's `history_messages` caps it. */
  readonly maxHistoryMessages?: number | null;
  /** The form in which it answers; null: text. */
  readonly responseFormat?: ResponseFormat | null;
  /** Tenants of lower tiers may not run it. */
  readonly minimumTier?: Tier;
}

/** Looking things up is what a rag agent is for: it has the tool, named or not. */
const withLookup = (tools: readonly string[]): readonly string[] =>
  tools.includes(LOOKUP_TOOL) ? tools : [LOOKUP_TOOL, ...tools];

const LOOKUP_TOOL = 'rag_query';

/** A stored agent as executions read it. A rag agent runs in our own loop, a workflow in LangChain's. */
export const toConfig = (agent: Agent): AgentConfig => ({
  id: agent.id,
  version: agent.version,
  type: agent.type === 'workflow' ? 'langchain' : 'conversational',
  provider: agent.provider,
  model: agent.model,
  ...defined({ fallbacks: agent.fallbacks }),
  temperature: agent.temperature,
  maxTokens: agent.max_tokens,
  systemPrompt: agent.system_prompt,
  tools: agent.type === 'rag' ? withLookup(agent.tools) : agent.tools,
  maxIterations: agent.max_iterations,
  isActive: agent.is_active,
  collections: agent.collections,
  maxHistoryMessages: agent.max_history_messages,
  ...defined({ responseFormat: agent.response_format }),
  minimumTier: agent.minimum_tier,
});

/** Whether a tier is at least as high as another. */
export const reaches = (tier: Tier, minimum: Tier): boolean => TIERS.indexOf(tier) >= TIERS.indexOf(minimum);

/** The tools of an agent that a tier lets it use, in the agent's order, at most as many as the tier allows. */
export function allowedTools(tools: readonly string[], limits: TierLimits): readonly string[] {
  const allowed = tools.filter((name) => limits.tools === null || limits.tools.includes(name));
  return limits.tools_per_agent === null ? allowed : allowed.slice(0, limits.tools_per_agent);
}

interface NamedModel {
  readonly provider: Provider;
  readonly model: string;
}

interface WithModels extends NamedModel {
  readonly fallbacks?: readonly NamedModel[] | undefined;
}

/** The model of an agent, and those that stand in for it. */
export const modelsOf = ({ provider, model, fallbacks = [] }: WithModels): readonly NamedModel[] => [
  { provider, model },
  ...fallbacks,
];

/** The first of an agent's models that the tier does not include; undefined where it includes all. */
export const modelBeyond = (
  agent: WithModels,
  limits: TierLimits,
  table: ModelTable = MODEL_TABLE,
): NamedModel | undefined =>
  modelsOf(agent).find(({ provider, model }) => !limits.models.includes(modelSize(provider, model, table)));

/** Why this agent may not run in this tier, or null. `tier` is the tenant's; without it its name is not checked. */
export function refuseAgent(
  agent: AgentConfig,
  limits: TierLimits,
  tier?: Tier,
  table: ModelTable = MODEL_TABLE,
): ErrorData | null {
  if (!agent.isActive) return refusal('AGENT_INACTIVE');
  const { minimumTier } = agent;
  if (tier && minimumTier && !reaches(tier, minimumTier))
    return refusal('TIER_LIMIT', {
      message: `The agent is for tenants of tier ${minimumTier} and above; this tenant's is ${tier}.`,
      details: { field: 'minimum_tier', value: minimumTier, tier: minimumTier },
    });
  const refused = modelBeyond(agent, limits, table);
  if (refused !== undefined)
    return refusal('TIER_LIMIT', {
      message: `The tenant's tier does not include the model ${refused.model}; a higher tier or a small model would.`,
      details: { field: 'model', value: refused.model },
    });
  return null;
}

/** Tokens that are left for an answer whose length nobody limits. */
const ANSWER_TOKENS = 4_096;

/**
 * Tokens of history the model may be given: what its window leaves beside prompt and answer, and at most half of
 * what the run may use, for the provider counts the history too.
 */
export function historyTokens(
  agent: AgentConfig,
  limits: TierLimits,
  table: ModelTable = MODEL_TABLE,
): number {
  return Math.max(1_024, Math.min(roomOf(agent, table), limits.tokens_per_run / 2));
}

/** Tokens of the context window of an agent's model. */
export const windowOf = (agent: AgentConfig, table: ModelTable = MODEL_TABLE): number =>
  spaceOf(agent, table).window;

/** What a model's window leaves for history. */
const roomOf = (agent: AgentConfig, table: ModelTable): number => spaceOf(agent, table).room;

interface Space {
  readonly table: ModelTable;
  readonly window: number;
  readonly room: number;
}

/** Every turn asks: each version of an agent is looked up once. */
function spaceOf(agent: AgentConfig, table: ModelTable): Space {
  const known = spaces.get(agent);
  if (known?.table === table) return known;
  const window = contextTokens(table, agent.provider, agent.model);
  const answer = Math.min(agent.maxTokens ?? ANSWER_TOKENS, window / 2);
  const space = { table, window, room: window - answer - estimateTokens(agent.systemPrompt) };
  spaces.set(agent, space);
  return space;
}

const spaces = new WeakMap<AgentConfig, Space>();

/** Messages of history that the model may be given. */
export const historyMessages = ({ maxHistoryMessages }: AgentConfig, limits: TierLimits): number =>
  Math.min(maxHistoryMessages ?? limits.history_messages, limits.history_messages);
