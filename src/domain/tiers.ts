/** The one tier table: what a tenant of each tier may use (PROTOCOL 6). `null` means no limit. */
import { z } from 'zod';

export const TIERS = ['free', 'advance', 'professional', 'enterprise'] as const;
export const tierSchema = z.enum(TIERS);
export type Tier = z.infer<typeof tierSchema>;

const limit = z.number().int().nonnegative().nullable();
const count = z.number().int().positive();

export const tierLimitsSchema = z.object({
  requests_per_minute: limit,
  requests_per_day: limit,
  requests_per_session_hour: limit,
  execution_timeout_s: count,
  max_iterations: count,
  tools_per_agent: limit,
  tokens_per_run: count,
  history_messages: count,
  agents: limit,
  collections_per_agent: limit,
  executions: count,
  waiting: z.number().int().nonnegative(),
  sockets: count,
  /** Tool names, or `null` for all. */
  tools: z.array(z.string()).nullable(),
  /** Model sizes that may be used. */
  models: z.array(z.enum(['small', 'large'])),
  /** Template slugs, or `null` for all; `own_templates` says whether the tenant may write some. */
  templates: z.array(z.string()).nullable(),
  own_templates: z.boolean(),
  agent_types: z.array(z.string()).nullable(),
  /** Share of the node when tenants compete for it. */
  weight: count,
  wait_for_persistence: z.boolean(),
  /** Days a conversation is stored after its last message; null: for ever. */
  history_days: limit,
  /** How long answers of external services are cached: an agent's configuration, a conversation's history. */
  agent_cache_s: count,
  conversation_cache_s: count,
  /** Messages of one conversation that an external service is asked for, and that are cached. */
  conversation_cache_messages: count,
});

export type TierLimits = z.infer<typeof tierLimitsSchema>;
export type TierTable = Readonly<Record<Tier, TierLimits>>;

export const TIER_TABLE: TierTable = {
  free: {
    requests_per_minute: 10,
    requests_per_day: 100,
    requests_per_session_hour: 50,
    execution_timeout_s: 30,
    max_iterations: 3,
    tools_per_agent: 2,
    tokens_per_run: 4_000,
    history_messages: 10,
    agents: 1,
    collections_per_agent: 1,
    executions: 2,
    waiting: 10,
    sockets: 20,
    tools: ['current_time'],
    models: ['small'],
    templates: ['customer_service'],
    own_templates: false,
    agent_types: ['conversational', 'rag', 'langchain'],
    weight: 1,
    wait_for_persistence: true,
    history_days: 30,
    agent_cache_s: 300,
    conversation_cache_s: 300,
    conversation_cache_messages: 20,
  },
  advance: {
    requests_per_minute: 50,
    requests_per_day: 1_000,
    requests_per_session_hour: 100,
    execution_timeout_s: 60,
    max_iterations: 5,
    tools_per_agent: 5,
    tokens_per_run: 8_000,
    history_messages: 20,
    agents: 3,
    collections_per_agent: 3,
    executions: 10,
    waiting: 50,
    sockets: 200,
    tools: ['current_time', 'calculator', 'rag_query'],
    models: ['small', 'large'],
    templates: ['customer_service', 'knowledge_base'],
    own_templates: false,
    agent_types: ['conversational', 'rag', 'langchain'],
    weight: 2,
    wait_for_persistence: true,
    history_days: 90,
    agent_cache_s: 300,
    conversation_cache_s: 300,
    conversation_cache_messages: 40,
  },
  professional: {
    requests_per_minute: 200,
    requests_per_day: 10_000,
    requests_per_session_hour: 300,
    execution_timeout_s: 120,
    max_iterations: 10,
    tools_per_agent: 10,
    tokens_per_run: 16_000,
    history_messages: 40,
    agents: 10,
    collections_per_agent: 10,
    executions: 50,
    waiting: 500,
    sockets: 2_000,
    tools: null,
    models: ['small', 'large'],
    templates: null,
    own_templates: false,
    agent_types: null,
    weight: 4,
    wait_for_persistence: true,
    history_days: 365,
    agent_cache_s: 600,
    conversation_cache_s: 600,
    conversation_cache_messages: 80,
  },
  enterprise: {
    requests_per_minute: null,
    requests_per_day: null,
    requests_per_session_hour: 500,
    execution_timeout_s: 300,
    max_iterations: 20,
    tools_per_agent: null,
    tokens_per_run: 32_000,
    history_messages: 100,
    agents: null,
    collections_per_agent: null,
    executions: 500,
    waiting: 5_000,
    sockets: 50_000,
    tools: null,
    models: ['small', 'large'],
    templates: null,
    own_templates: true,
    agent_types: null,
    weight: 8,
    wait_for_persistence: true,
    history_days: null,
    agent_cache_s: 600,
    conversation_cache_s: 600,
    conversation_cache_messages: 200,
  },
};

/** A tiers file: any of the tiers, any of their limits. */
export const tierOverridesSchema = z
  .strictObject({
    free: tierLimitsSchema.partial().strict(),
    advance: tierLimitsSchema.partial().strict(),
    professional: tierLimitsSchema.partial().strict(),
    enterprise: tierLimitsSchema.partial().strict(),
  })
  .partial();

/** Lays a tiers file over the table. Returns a new table. */
export function withOverrides(table: TierTable, overrides: z.infer<typeof tierOverridesSchema>): TierTable {
  const merged = (tier: Tier): TierLimits => tierLimitsSchema.parse({ ...table[tier], ...overrides[tier] });
  return {
    free: merged('free'),
    advance: merged('advance'),
    professional: merged('professional'),
    enterprise: merged('enterprise'),
  };
}

/** The lower of a tier's limit and an operator's cap; either may be absent. */
export const capped = (tierLimit: number, cap: number | undefined): number =>
  cap === undefined ? tierLimit : Math.min(tierLimit, cap);

/** The first tier that satisfies `allows`, for error texts that say which tier would do. */
export const lowestTier = (table: TierTable, allows: (limits: TierLimits) => boolean): Tier | undefined =>
  TIERS.find((tier) => allows(table[tier]));
