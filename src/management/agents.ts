/** Agent management as edges see it: reads straight from the store, writes through the one writer. */
import { diffAgents, fieldsOf } from '../domain/agent-diff.ts';
import { draftChange, draftNew } from '../domain/agent-draft.ts';
import type { Agent } from '../domain/agent-record.ts';
import { defaultRecord } from '../domain/default-agent.ts';
import { type Reply, refusal } from '../domain/errors.ts';
import type { AgentId, TenantId } from '../domain/ids.ts';
import { builtInTemplate, instantiate, templateIssue } from '../domain/templates.ts';
import type { Actor, AgentManagement, Validation } from '../ports/management.ts';
import { type AgentWriter, immutable, noVersion } from './agent-writer.ts';
import type { Bulk } from './bulk.ts';
import {
  broken,
  guarded,
  type ManagementOptions,
  no,
  noAgent,
  notify,
  type Operation,
  ok,
  rulesOf,
  schemaIssues,
  storedIssues,
  warningsOf,
} from './context.ts';

/** A dry run, with its notices. */
export type Validate = (
  operation: Operation,
  raw: unknown,
  agentId: AgentId | undefined,
) => Promise<Reply<Validation>>;

export function createValidate(options: ManagementOptions): Validate {
  const { agents, builtIn, log } = options;
  const rules = rulesOf(options);

  return (operation, raw, agentId) =>
    guarded(log, async () => {
      const { tenantId, tier: named } = operation.actor;
      if (agentId === builtIn.id) return no(immutable());
      const tier = await options.tierOf(tenantId, named);
      const self = agentId === undefined ? undefined : await agents.get(tenantId, agentId);
      if (self === null || (self && self.deleted_at !== null)) return no(noAgent());
      const draft = self
        ? draftChange(raw, self, { replace: false, tier, rules })
        : draftNew(raw, tier, rules);
      const [stored, schema] = await Promise.all([
        storedIssues(options, tenantId, draft, { tier, self }),
        schemaIssues(options, tenantId, draft.fields),
      ]);
      const issues = [...draft.issues, ...stored, ...schema];
      const valid = issues.length === 0;
      const warnings = await warningsOf(options, tenantId, draft.fields);
      const data = {
        agent_id: agentId ?? null,
        agent_name: draft.fields.name,
        version: self?.version ?? null,
        changes: diffAgents(self ? fieldsOf(self) : null, draft.fields).map(({ field }) => field),
        valid,
        issues,
      };
      notify(options, operation, 'agent_validated', data);
      notify(options, operation, 'validation_complete', data);
      return ok({ valid, issues, ...(warnings.length > 0 ? { warnings } : {}) });
    });
}

export function createAgentManagement(
  options: ManagementOptions,
  parts: { readonly writer: AgentWriter; readonly validate: Validate; readonly bulk: Bulk },
): AgentManagement {
  const { writer, validate, bulk } = parts;
  const operationOf = (actor: Actor): Operation => ({ actor, taskId: options.newId() });
  return {
    ...createAgentReads(options),
    create: (actor, input) => writer.create(operationOf(actor), input, {}),
    update: (actor, agentId, patch, more) => writer.update(operationOf(actor), agentId, patch, more),
    async remove(actor, agentId, expected) {
      const removed = await writer.remove(operationOf(actor), agentId, expected);
      return removed.ok ? ok(null) : removed;
    },
    restore: (actor, agentId) => writer.restore(operationOf(actor), agentId),
    rollback: (actor, agentId, version, expected) =>
      writer.rollback(operationOf(actor), agentId, version, expected),
    validate: (actor, input, agentId) => validate(operationOf(actor), input, agentId),
    fromTemplate: (actor, templateId, input) =>
      guarded(options.log, async () => {
        const { templates, tiers, tierOf } = options;
        const template = builtInTemplate(templateId) ?? (await templates.get(actor.tenantId, templateId));
        if (!template) return no(refusal('NOT_FOUND', { message: `There is no template ${templateId}.` }));
        const issue = templateIssue(template, await tierOf(actor.tenantId, actor.tier), tiers);
        if (issue) return broken([issue]);
        return writer.create(operationOf(actor), instantiate(template, input), { templateId: template.id });
      }),
    bulk: async (actor, items) => bulk.start(actor, items),
    warnings: ({ tenantId }, agent) => warningsOf(options, tenantId, agent),
  };
}

type AgentReads = Pick<AgentManagement, 'list' | 'get' | 'versions' | 'version' | 'diff' | 'history'>;

/** Reads go straight to the store. The built-in agent, which is in no store, has one version and no history. */
function createAgentReads({ agents, builtIn, log }: ManagementOptions): AgentReads {
  /** A version, of deleted agents too. */
  async function versionOf(tenantId: TenantId, agentId: AgentId, version: number): Promise<Reply<Agent>> {
    if (agentId === builtIn.id)
      return version === builtIn.version ? ok(defaultRecord(builtIn, tenantId)) : no(noVersion(version));
    const found = await agents.get(tenantId, agentId, version);
    if (found) return ok(found);
    return no((await agents.get(tenantId, agentId)) ? noVersion(version) : noAgent());
  }

  return {
    list: (tenantId, query) => guarded(log, async () => ok(await agents.list(tenantId, query))),
    get: (tenantId, agentId) =>
      guarded(log, async () => {
        if (agentId === builtIn.id) return ok(defaultRecord(builtIn, tenantId));
        const found = await agents.get(tenantId, agentId);
        return found && found.deleted_at === null ? ok(found) : no(noAgent());
      }),
    versions: (tenantId, agentId, page) =>
      guarded(log, async () => {
        if (agentId === builtIn.id)
          return ok({ items: page.page === 1 ? [defaultRecord(builtIn, tenantId)] : [], total: 1 });
        const found = await agents.versions(tenantId, agentId, page);
        return found.total > 0 ? ok(found) : no(noAgent());
      }),
    version: (tenantId, agentId, version) => guarded(log, () => versionOf(tenantId, agentId, version)),
    diff: (tenantId, agentId, from, to) =>
      guarded(log, async () => {
        const [one, other] = await Promise.all([
          versionOf(tenantId, agentId, from),
          versionOf(tenantId, agentId, to),
        ]);
        if (!one.ok) return one;
        return other.ok ? ok(diffAgents(fieldsOf(one.value), fieldsOf(other.value))) : other;
      }),
    history: (tenantId, agentId, page) =>
      guarded(log, async () => {
        if (agentId === builtIn.id) return ok({ items: [], total: 0 });
        const found = await agents.history(tenantId, agentId, page);
        return found.total > 0 ? ok(found) : no(noAgent());
      }),
  };
}
