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

const ALL_TYPES = ['conversational', 'rag', 'langchain'];
const SIZES = ['small', 'large'];

/** One row a limit, one column a tier, in the order of TIERS. */
const ROWS: { readonly [L in keyof TierLimits]: readonly [unknown, unknown, unknown, unknown] } = {
  requests_per_minute: [10, 50, 200, null],
  requests_per_day: [100, 1_000, 10_000, null],
  requests_per_session_hour: [50, 100, 300, 500],
  execution_timeout_s: [30, 60, 120, 300],
  max_iterations: [3, 5, 10, 20],
  tools_per_agent: [2, 5, 10, null],
  tokens_per_run: [4_000, 8_000, 16_000, 32_000],
  history_messages: [10, 20, 40, 100],
  agents: [1, 3, 10, null],
  collections_per_agent: [1, 3, 10, null],
  executions: [2, 10, 50, 500],
  waiting: [10, 50, 500, 5_000],
  sockets: [20, 200, 2_000, 50_000],
  tools: [['current_time'], ['current_time', 'calculator', 'rag_query'], null, null],
  models: [['small'], SIZES, SIZES, SIZES],
  templates: [['customer_service'], ['customer_service', 'knowledge_base'], null, null],
  own_templates: [false, false, false, true],
  agent_types: [ALL_TYPES, ALL_TYPES, null, null],
  weight: [1, 2, 4, 8],
  wait_for_persistence: [true, true, true, true],
  history_days: [30, 90, 365, null],
  agent_cache_s: [300, 300, 600, 600],
  conversation_cache_s: [300, 300, 600, 600],
  conversation_cache_messages: [20, 40, 80, 200],
};

const limitsOf = (column: number): TierLimits =>
  tierLimitsSchema.parse(
    Object.fromEntries(Object.entries(ROWS).map(([limit, row]) => [limit, row[column]])),
  );

export const TIER_TABLE: TierTable = {
  free: limitsOf(0),
  advance: limitsOf(1),
  professional: limitsOf(2),
  enterprise: limitsOf(3),
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

/** A node of fewer places than this keeps none back: every one counts. */
const MIN_SHARED_PLACES = 3;

/**
 * The table of a node that runs so many executions at once: no tenant holds all of its places, whatever its tier allows.
 * An eighth is left to the others.
 */
export function withinNode(table: TierTable, places: number): TierTable {
  const most = places < MIN_SHARED_PLACES ? places : places - Math.max(1, Math.floor(places / 8));
  const within = (tier: Tier): TierLimits => ({
    ...table[tier],
    executions: Math.min(table[tier].executions, most),
  });
  return {
    free: within('free'),
    advance: within('advance'),
    professional: within('professional'),
    enterprise: within('enterprise'),
  };
}

/** The lower of a tier's limit and an operator's cap; either may be absent. */
export const capped = (tierLimit: number, cap: number | undefined): number =>
  cap === undefined ? tierLimit : Math.min(tierLimit, cap);

/** The first tier that satisfies `allows`, for error texts that say which tier would do. */
export const lowestTier = (table: TierTable, allows: (limits: TierLimits) => boolean): Tier | undefined =>
  TIERS.find((tier) => allows(table[tier]));
