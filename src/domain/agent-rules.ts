/** What a tenant may make of an agent. Every broken rule is named at once, with the first tier that would allow it. */
import { type AgentConfig, modelBeyond, modelsOf, reaches } from './agent.ts';
import { AGENT_FIELDS, type AgentField } from './agent-diff.ts';
import {
  type AgentFields,
  type AgentInput,
  type AgentPatch,
  agentFieldsSchema,
  agentPatchSchema,
  type RuleIssue,
} from './agent-record.ts';
import { DEFAULT_PROMPT } from './default-agent.ts';
import { type ErrorData, refusal } from './errors.ts';
import {
  factsOf,
  isOfflineModel,
  MODEL_TABLE,
  type ModelTable,
  modelSize,
  noOfflineModel,
} from './models.ts';
import { problemsOf } from './problems.ts';
import { promptIssue } from './prompt-syntax.ts';
import type { KnownProviders } from './providers.ts';
import { shownName, unknownField } from './request-object.ts';
import { slugOf } from './slug.ts';
import { lowestTier, type Tier, type TierLimits, type TierTable } from './tiers.ts';

/** What a node knows about agents besides the tiers. */
export interface AgentRules {
  readonly tiers: TierTable;
  /** Tools that an agent may name (`namedTools`); null: any, since a registry beside the node has more. */
  readonly knownTools: readonly string[] | null;
  readonly providers: KnownProviders;
  /** An operator's table; by default the built-in one. */
  readonly models?: ModelTable | undefined;
}

/** Tools an agent may name: the node's, and those that a tier promises even where this node does not have them yet. */
export const namedTools = (own: readonly string[], tiers: TierTable): readonly string[] => [
  ...new Set([...own, ...Object.values(tiers).flatMap(({ tools }) => tools ?? [])]),
];

/** Model of an agent that names none. */
export type AgentDefaults = Pick<AgentConfig, 'provider' | 'model'>;

/** Issues named in one answer. */
const MAX_ISSUES = 100;

/** An agent's fields with defaults where the input names nothing; the slug comes from the name. */
export function withDefaults(input: AgentInput, defaults: AgentDefaults): AgentFields {
  return agentFieldsSchema.parse({ ...blankAgent(input.name, defaults), ...present(input) });
}

/** What an agent that has only a name is. */
export const blankAgent = (name: string, defaults: AgentDefaults): AgentFields => ({
  name,
  slug: slugOf(name),
  description: '',
  type: 'conversational',
  provider: defaults.provider,
  model: defaults.model,
  temperature: 0.7,
  max_tokens: null,
  system_prompt: DEFAULT_PROMPT,
  tools: [],
  collections: [],
  max_iterations: null,
  max_history_messages: null,
  is_active: true,
  minimum_tier: 'free',
  tags: [],
});

const present = (fields: object): object =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));

interface ReadFields {
  /** The fields whose shape is right. */
  readonly patch: AgentPatch;
  readonly issues: readonly RuleIssue[];
}

/** Reads what came from outside field by field, so that one of a wrong shape does not hide what is wrong with others. */
export function readFields(raw: unknown): ReadFields {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw))
    return { patch: {}, issues: [{ field: '', rule: 'invalid_type', message: 'must be an object' }] };
  const issues: RuleIssue[] = [];
  const good: [string, unknown][] = [];
  for (const [field, value] of Object.entries(raw)) {
    if (value === undefined) continue;
    if (!isField(field)) {
      const message = unknownField(field, AGENT_FIELDS, 'is not a field of an agent');
      issues.push({ field: shownName(field), rule: 'unknown_field', message });
      if (issues.length >= MAX_ISSUES) break;
      continue;
    }
    const parsed = agentFieldsSchema.shape[field].safeParse(value);
    // Null is absence where it is no value of the field.
    if (value === null && !parsed.success) continue;
    if (parsed.success) good.push([field, value]);
    else
      for (const issue of problemsOf(parsed.error))
        issues.push({ ...issue, field: [field, issue.field].filter(Boolean).join('.') });
    if (issues.length >= MAX_ISSUES) break;
  }
  return { patch: agentPatchSchema.parse(Object.fromEntries(good)), issues: issues.slice(0, MAX_ISSUES) };
}

const isField = (name: string): name is AgentField => AGENT_FIELDS.some((field) => field === name);

/** Lays the fields of the right shape over an agent. */
export const patched = (base: AgentFields, patch: AgentPatch): AgentFields =>
  agentFieldsSchema.parse({ ...base, ...present(patch) });

interface TierRule {
  readonly field: AgentField;
  readonly rule: keyof TierLimits;
  readonly allows: (agent: AgentFields, limits: TierLimits, table?: ModelTable) => boolean;
  readonly says: (agent: AgentFields, limits: TierLimits, table?: ModelTable) => string;
}

/** A number that a tier bounds, in the agent and in the tier; null: none. `per` follows the tier's number in texts. */
const atMost = (
  field: AgentField,
  rule:
    | 'tools_per_agent'
    | 'collections_per_agent'
    | 'max_iterations'
    | 'tokens_per_run'
    | 'history_messages',
  numberOf: (agent: AgentFields) => number | null,
  unit: string,
  per = '',
): TierRule => ({
  field,
  rule,
  allows: (agent, { [rule]: limit }) => (numberOf(agent) ?? 0) <= (limit ?? Number.POSITIVE_INFINITY),
  says: (agent, { [rule]: limit }) => `${numberOf(agent)} ${unit}, where the tier allows ${limit}${per}`,
});

const TIER_RULES: readonly TierRule[] = [
  atMost('tools', 'tools_per_agent', ({ tools }) => tools.length, 'tools'),
  atMost('collections', 'collections_per_agent', ({ collections }) => collections.length, 'collections'),
  {
    field: 'model',
    rule: 'models',
    allows: (agent, limits, table) => modelBeyond(agent, limits, table) === undefined,
    says(agent, limits, table) {
      const { provider, model } = modelBeyond(agent, limits, table) ?? agent;
      return `the tier does not include ${model}, a ${modelSize(provider, model, table)} model`;
    },
  },
  {
    field: 'type',
    rule: 'agent_types',
    allows: (agent, limits) => limits.agent_types === null || limits.agent_types.includes(agent.type),
    says: (agent) => `the tier does not include agents of type ${agent.type}`,
  },
  atMost('max_iterations', 'max_iterations', ({ max_iterations }) => max_iterations, 'iterations'),
  atMost('max_tokens', 'tokens_per_run', ({ max_tokens }) => max_tokens, 'tokens', ' a run'),
  atMost(
    'max_history_messages',
    'history_messages',
    ({ max_history_messages }) => max_history_messages,
    'messages of history',
  ),
];

/** Rules that a higher tier would lift: TIER_LIMIT rather than INVALID_REQUEST. */
const LIFTED_BY_TIER: ReadonlySet<string> = new Set([
  ...TIER_RULES.map(({ rule }) => rule),
  'tools',
  'minimum_tier',
  'agents',
  'templates',
  'own_templates',
]);

/** Every rule that an agent of the right shape breaks in a tier. */
export function checkAgent(agent: AgentFields, tier: Tier, rules: AgentRules): RuleIssue[] {
  return [...ownIssues(agent, rules), ...tierIssues(agent, tier, rules)];
}

const isKnown = (tool: string, known: AgentRules['knownTools']): boolean =>
  known === null || known.includes(tool);

/** Rules that hold in every tier. */
function ownIssues(agent: AgentFields, { knownTools, providers }: AgentRules): RuleIssue[] {
  const issues: RuleIssue[] = agent.tools
    .filter((tool) => !isKnown(tool, knownTools))
    .map((tool) => ({
      field: 'tools',
      rule: 'unknown_tool',
      message: `there is no tool ${tool}; there are ${knownTools?.join(', ')}`,
    }));
  for (const [at, { provider }] of modelsOf(agent).entries())
    if (!providers.has(provider))
      issues.push({
        field: at === 0 ? 'provider' : 'fallbacks',
        rule: 'unknown_provider',
        message: `there is no provider ${provider}; there are ${[...providers.keys()].join(', ')}`,
      });
  if (agent.type === 'rag' && agent.collections.length === 0)
    issues.push({
      field: 'collections',
      rule: 'collections_required',
      message: 'an agent of type rag needs at least one collection to look things up in',
    });
  if (agent.provider === 'offline' && !isOfflineModel(agent.model))
    issues.push({ field: 'model', rule: 'unknown_model', message: noOfflineModel(agent.model) });
  const prompt = promptIssue(agent.system_prompt);
  if (prompt) issues.push({ field: 'system_prompt', rule: 'template_syntax', message: prompt });
  return issues;
}

function tierIssues(agent: AgentFields, tier: Tier, rules: AgentRules): RuleIssue[] {
  const { tiers, knownTools, models } = rules;
  const limits = tiers[tier];
  const issues = TIER_RULES.filter((rule) => !rule.allows(agent, limits, models)).map(
    ({ field, rule, allows, says }): RuleIssue => ({
      field,
      rule,
      message: says(agent, limits, models),
      tier: lowestTier(tiers, (other) => allows(agent, other, models)),
    }),
  );
  const has = (tool: string, { tools }: TierLimits): boolean => tools === null || tools.includes(tool);
  for (const tool of agent.tools.filter((name) => isKnown(name, knownTools) && !has(name, limits)))
    issues.push({
      field: 'tools',
      rule: 'tools',
      message: `the tier does not include the tool ${tool}`,
      tier: lowestTier(tiers, (other) => has(tool, other)),
    });
  if (!reaches(tier, agent.minimum_tier))
    issues.push({
      field: 'minimum_tier',
      rule: 'minimum_tier',
      message: `the tenant's tier is ${tier}, below ${agent.minimum_tier}, so that it could not use the agent`,
      tier: agent.minimum_tier,
    });
  return issues;
}

/** What does not keep an agent from being stored, but from answering. */
export const agentWarnings = (
  agent: Pick<AgentFields, 'provider' | 'model' | 'fallbacks'>,
  providers: KnownProviders,
): readonly RuleIssue[] =>
  modelsOf(agent).flatMap(({ provider }, at) => {
    const missing = providers.get(provider);
    if (missing === undefined) return [];
    const message = `the provider ${provider} can not answer yet: ${missing} is not set on the node`;
    return [{ field: at === 0 ? 'provider' : 'fallbacks', rule: 'provider_not_set_up', message }];
  });

/** Models that are known to write less than the agent lets them: nothing of it is held back, and their endpoints decide. */
export const answerWarnings = (
  agent: Pick<AgentFields, 'provider' | 'model' | 'fallbacks' | 'max_tokens'>,
  table: ModelTable = MODEL_TABLE,
): readonly RuleIssue[] =>
  modelsOf(agent).flatMap(({ provider, model }) => {
    const { output } = factsOf(table, provider, model);
    if (output === undefined || (agent.max_tokens ?? 0) <= output) return [];
    const message = `${model} is known to write at most ${output} tokens, fewer than ${agent.max_tokens}`;
    return [{ field: 'max_tokens', rule: 'beyond_model', message }];
  });

/** The tenant has as many agents as its tier allows. */
export function tooManyAgents(limit: number | null, tiers: TierTable): RuleIssue {
  const more = ({ agents }: TierLimits): boolean => agents === null || (limit !== null && agents > limit);
  return {
    field: '',
    rule: 'agents',
    message: `the tenant has ${limit} agents, as many as its tier allows`,
    tier: lowestTier(tiers, more),
  };
}

/** Broken rules as a refusal: TIER_LIMIT where a tier is all that is missing, else INVALID_REQUEST. */
export function refuseIssues(issues: readonly RuleIssue[]): ErrorData {
  const tierOnly = issues.every(({ rule }) => LIFTED_BY_TIER.has(rule));
  const named = issues
    .slice(0, 5)
    .map(({ field, message }) => (field === '' ? message : `${field}: ${message}`));
  const more = issues.length > named.length ? `; and ${issues.length - named.length} more` : '';
  return refusal(tierOnly ? 'TIER_LIMIT' : 'INVALID_REQUEST', {
    message: `${named.join('; ')}${more}.`,
    details: { issues },
  });
}
