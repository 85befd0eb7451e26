/** What a tenant may make of a template of its own: shape, the agent's own rules, and the tier, all at once. */
import { type DraftRules, draftNew } from './agent-draft.ts';
import { type RuleIssue, type TemplateInput, templateInputSchema } from './agent-record.ts';
import { problemsOf } from './problems.ts';
import { templateIssue } from './templates.ts';
import type { Tier } from './tiers.ts';

/** Reads what somebody sent as a template. `input` is null where anything is at issue. */
export function readTemplate(
  raw: unknown,
  tier: Tier,
  rules: DraftRules,
): { readonly input: TemplateInput | null; readonly issues: readonly RuleIssue[] } {
  const parsed = templateInputSchema.safeParse(raw);
  const issues: RuleIssue[] = parsed.success ? [] : problemsOf(parsed.error);
  const own = templateIssue({ tenant_id: 'own', slug: '' }, tier, rules.tiers);
  if (own) issues.push(own);
  const agent: unknown = typeof raw === 'object' && raw !== null ? Reflect.get(raw, 'agent') : undefined;
  if (typeof agent === 'object' && agent !== null && !Array.isArray(agent))
    issues.push(...agentIssues(agent, tier, rules, issues));
  return parsed.success && issues.length === 0 ? { input: parsed.data, issues } : { input: null, issues };
}

/** The collections come with the agent that is made from it. */
function agentIssues(
  agent: object,
  tier: Tier,
  rules: DraftRules,
  known: readonly RuleIssue[],
): readonly RuleIssue[] {
  return draftNew({ name: 'template', ...agent }, tier, rules)
    .issues.map((issue) => ({ ...issue, field: `agent.${issue.field}` }))
    .filter(
      ({ field, rule }) => rule !== 'collections_required' && !known.some((one) => one.field === field),
    );
}
