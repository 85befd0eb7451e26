/** Rules about a tenant's other agents, looked up so that they are named together with all other broken ones. */
import type { Draft } from '../../src/domain/agent-draft.ts';
import type { Agent, RuleIssue } from '../../src/domain/agent-record.ts';
import { tooManyAgents } from '../../src/domain/agent-rules.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import type { Tier } from '../../src/domain/tiers.ts';
import type { ManagementOptions } from './deed.ts';

/** Agents looked at for one with the same slug. */
const LOOKED_AT = 100;

/**
 * Whether the slug is taken and, for a new agent (`self` undefined), whether there is room for it. It is a look, not
 * the check: that is made with the write.
 */
export async function storedIssues(
  { agents, tiers }: Pick<ManagementOptions, 'agents' | 'tiers'>,
  tenantId: TenantId,
  draft: Draft,
  { tier, self }: { readonly tier: Tier; readonly self: Agent | undefined },
): Promise<RuleIssue[]> {
  const issues: RuleIssue[] = [];
  const { slug } = draft.fields;
  if (draft.slugGiven && slug !== self?.slug) {
    const { items } = await agents.list(tenantId, { page: 1, pageSize: LOOKED_AT, text: slug });
    if (items.some((other) => other.slug === slug && other.id !== self?.id))
      issues.push({ field: 'slug', rule: 'taken', message: `another agent has the slug ${slug}` });
  }
  const limit = tiers[tier].agents;
  if (self || limit === null) return issues;
  const { total } = await agents.list(tenantId, { page: 1, pageSize: 1 });
  return total >= limit ? [...issues, tooManyAgents(limit, tiers)] : issues;
}
