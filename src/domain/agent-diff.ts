/** What differs between two versions of an agent, field by field. */

import { type Agent, type AgentFields, agentFieldsSchema, type Change } from './agent-record.ts';
import { defined } from './defined.ts';

/** What a tenant sets; ids, versions and times are not part of a difference. */
export const AGENT_FIELDS = agentFieldsSchema.keyof().options;
export type AgentField = (typeof AGENT_FIELDS)[number];

/** An agent's own fields, without what the store adds. */
export function fieldsOf(agent: AgentFields | Agent): AgentFields {
  return defined({
    name: agent.name,
    slug: agent.slug,
    description: agent.description,
    type: agent.type,
    provider: agent.provider,
    model: agent.model,
    ...defined({ fallbacks: agent.fallbacks }),
    temperature: agent.temperature,
    max_tokens: agent.max_tokens,
    system_prompt: agent.system_prompt,
    tools: agent.tools,
    collections: agent.collections,
    max_iterations: agent.max_iterations,
    max_history_messages: agent.max_history_messages,
    response_format: agent.response_format,
    is_active: agent.is_active,
    minimum_tier: agent.minimum_tier,
    tags: agent.tags,
  });
}

/** The changes that lead from one version to another; `null` as the first is an agent that was not there. */
export function diffAgents(from: AgentFields | null, to: AgentFields): Change[] {
  const changes: Change[] = [];
  for (const field of AGENT_FIELDS) {
    const before = from?.[field] ?? null;
    const after = to[field] ?? null;
    if (from ? same(before, after) : to[field] === undefined) continue;
    changes.push({ field, from: before, to: after });
  }
  return changes;
}

/** The order of tools counts: a tier that allows fewer keeps the first ones. */
const same = (one: unknown, other: unknown): boolean =>
  one === other || (typeof one === 'object' && JSON.stringify(one) === JSON.stringify(other));
