/** Every write to an agent: checked, stored with its audit entry as a new version, passed to its actor, and announced. */
import { diffAgents, fieldsOf } from '../domain/agent-diff.ts';
import { draftChange, draftNew, isOfOtherVersion } from '../domain/agent-draft.ts';
import type { Agent, AgentFields, AuditEntry, Change, NoticeEvent } from '../domain/agent-record.ts';
import { agentWarnings, checkAgent, refuseIssues, tooManyAgents } from '../domain/agent-rules.ts';
import { type ErrorData, type Reply, refusal } from '../domain/errors.ts';
import { type AgentId, agentIdSchema } from '../domain/ids.ts';
import { suffixed } from '../domain/slug.ts';
import type { Tier } from '../domain/tiers.ts';
import type { Expected, SaveOutcome } from '../ports/management.ts';
import {
  broken,
  guarded,
  isoNow,
  type ManagementOptions,
  no,
  noAgent,
  noticeOf,
  type Operation,
  ok,
  rulesOf,
  schemaIssues,
  slugTaken,
  stale,
  storedIssues,
} from './context.ts';
import { createKeyedQueue } from './keyed-queue.ts';

interface NewAgentOptions {
  readonly id?: AgentId | undefined;
  readonly templateId?: string | null;
}

export interface AgentWriter {
  create(operation: Operation, raw: unknown, more: NewAgentOptions): Promise<Reply<Agent>>;
  update(
    operation: Operation,
    agentId: AgentId,
    raw: unknown,
    options: Expected & { readonly replace: boolean },
  ): Promise<Reply<Agent>>;
  remove(operation: Operation, agentId: AgentId, expected: Expected): Promise<Reply<Agent>>;
  restore(operation: Operation, agentId: AgentId): Promise<Reply<Agent>>;
  rollback(
    operation: Operation,
    agentId: AgentId,
    version: number,
    expected: Expected,
  ): Promise<Reply<Agent>>;
}

/** What a write makes of the stored version. */
type Decision =
  | { readonly type: 'refuse'; readonly error: ErrorData }
  /** Nothing would change. */
  | { readonly type: 'leave' }
  | ({ readonly type: 'store'; readonly fields: AgentFields; readonly deletedAt: string | null } & Cause);

/** Why there is a new version, for its audit entry and its notice. */
interface Cause {
  readonly action: AuditEntry['action'];
  readonly event: NoticeEvent;
  readonly changes: readonly Change[];
  /** Live agents the tenant may have after the write; null: any number. */
  readonly maxAgents: number | null;
}

type Decide = (current: Agent, operation: Operation) => Decision | Promise<Decision>;

/** Times a write is begun again where another node was faster and no version was expected. */
const MAX_TRIES = 5;
/** Slugs `name-2` to `name-9` are tried before one that is certainly free. */
const NUMBERED_SLUGS = 9;

export function createAgentWriter(options: ManagementOptions): AgentWriter {
  const { agents, log } = options;
  const inOrder = createKeyedQueue();

  /** Writes a version after the stored one. Without an expected version the write wins over faster ones. */
  const rewrite = (
    operation: Operation,
    agentId: AgentId,
    expected: number | undefined,
    decide: Decide,
  ): Promise<Reply<Agent>> =>
    guarded(log, async () => {
      if (agentId === options.builtIn.id) return no(immutable());
      const { tenantId } = operation.actor;
      return inOrder(`${tenantId}/${agentId}`, async () => {
        for (let tries = 1; ; tries += 1) {
          const current = await agents.get(tenantId, agentId);
          if (!current) return no(noAgent());
          if (expected !== undefined && expected !== current.version)
            return no(stale('agent', current.version));
          const reply = await writeNext(options, operation, current, await decide(current, operation));
          if (reply) return reply;
          if (tries < MAX_TRIES && expected === undefined) continue;
          const winner = await agents.get(tenantId, agentId);
          return no(stale('agent', winner?.version ?? current.version));
        }
      });
    });

  return {
    create: (operation, raw, more) => guarded(log, () => createAgent(options, operation, raw, more)),
    update: (operation, agentId, raw, { version, replace }) =>
      rewrite(operation, agentId, version, updating(options, raw, replace)),
    remove: (operation, agentId, { version }) =>
      rewrite(operation, agentId, version, (current) => {
        if (current.deleted_at !== null) return refuse(noAgent());
        const deletedAt = isoNow(options.clock);
        return {
          ...store(fieldsOf(current), [deletedChange(null, deletedAt)], 'deleted'),
          event: 'agent_deleted',
          deletedAt,
        };
      }),
    restore: (operation, agentId) =>
      rewrite(operation, agentId, undefined, async (current) => {
        if (current.deleted_at === null) return LEAVE;
        const { agents: maxAgents } = options.tiers[await tierOf(options, operation)];
        const changes = [deletedChange(current.deleted_at, null)];
        return { ...store(fieldsOf(current), changes, 'restored'), maxAgents };
      }),
    rollback: (operation, agentId, to, { version }) =>
      rewrite(operation, agentId, version, rollingBack(options, to)),
  };
}

const tierOf = (options: ManagementOptions, { actor }: Operation): Promise<Tier> =>
  options.tierOf(actor.tenantId, actor.tier);

/** Stores a version with its audit entry and its notice; once that is done, its actor has it and the notice goes out. */
async function save(
  options: ManagementOptions,
  operation: Operation,
  agent: Agent,
  { action, event, changes, maxAgents }: Cause,
): Promise<SaveOutcome> {
  const { tenantId, actor, source } = operation.actor;
  const audit: AuditEntry = {
    agent_id: agent.id,
    version: agent.version,
    action,
    actor,
    source,
    at: agent.updated_at,
    changes: [...changes],
  };
  const notice = noticeOf(options, operation, event, {
    agent_id: agent.id,
    agent_name: agent.name,
    version: agent.version,
    changes: changes.map(({ field }) => field),
  });
  const replaces = agent.version - 1;
  const outcome = await options.agents.save(tenantId, { agent, audit, replaces, maxAgents, notice });
  if (outcome !== 'saved') return outcome;
  options.liveAgents.changed(agent);
  for (const { message } of agentWarnings(agent, options.providers))
    options.log.warn(
      { tenant_id: tenantId, agent_id: agent.id, warning: message },
      'an agent can not answer',
    );
  options.notices.publish(notice, true);
  return outcome;
}

/** Carries out a decision about the stored version; undefined where another node has written one meanwhile. */
async function writeNext(
  options: ManagementOptions,
  operation: Operation,
  current: Agent,
  decision: Decision,
): Promise<Reply<Agent> | undefined> {
  if (decision.type === 'refuse') return no(decision.error);
  if (decision.type === 'leave') return ok(current);
  const agent: Agent = {
    ...current,
    ...decision.fields,
    version: current.version + 1,
    updated_at: isoNow(options.clock),
    deleted_at: decision.deletedAt,
  };
  switch (await save(options, operation, agent, decision)) {
    case 'saved':
      return ok(agent);
    case 'taken':
      return no(slugTaken('agent', agent.slug));
    case 'full':
      return broken([tooManyAgents(decision.maxAgents, options.tiers)]);
    case 'stale':
      return undefined;
  }
}

async function createAgent(
  options: ManagementOptions,
  operation: Operation,
  raw: unknown,
  { id = agentIdSchema.parse(options.newId()), templateId = null }: NewAgentOptions,
): Promise<Reply<Agent>> {
  if (id === options.builtIn.id) return no(immutable());
  const { tenantId } = operation.actor;
  const tier = await tierOf(options, operation);
  const draft = draftNew(raw, tier, rulesOf(options));
  const maxAgents = options.tiers[tier].agents;
  const issues = [...draft.issues, ...(await schemaIssues(options, tenantId, draft.fields))];
  if (issues.length > 0) {
    const stored = await storedIssues(options, tenantId, draft, { tier, self: undefined });
    return broken([...issues, ...stored]);
  }
  const at = isoNow(options.clock);
  for (let tries = 1; ; tries += 1) {
    const fields = { ...draft.fields, slug: slugFor(draft.fields.slug, tries, options.newId) };
    const agent: Agent = {
      id,
      tenant_id: tenantId,
      ...fields,
      template_id: templateId,
      version: 1,
      created_at: at,
      updated_at: at,
      deleted_at: null,
    };
    const changes = diffAgents(null, fields);
    const cause: Cause = { action: 'created', event: 'agent_created', changes, maxAgents };
    const outcome = await save(options, operation, agent, cause);
    if (outcome === 'saved') return ok(agent);
    if (outcome === 'full') return broken([tooManyAgents(maxAgents, options.tiers)]);
    if (outcome === 'stale') return no(refusal('CONFLICT', { message: `There is an agent ${id} already.` }));
    if (draft.slugGiven || tries > NUMBERED_SLUGS) return no(slugTaken('agent', fields.slug));
  }
}

/** The slug that is tried: as it is, numbered, and at last with an id. */
function slugFor(slug: string, tries: number, newId: () => string): string {
  if (tries === 1) return slug;
  if (tries < NUMBERED_SLUGS) return suffixed(slug, String(tries));
  return suffixed(
    slug,
    newId()
      .toLowerCase()
      .replace(/[^a-z0-9]/g, '')
      .slice(0, 12),
  );
}

const updating =
  (options: ManagementOptions, raw: unknown, replace: boolean): Decide =>
  async (current, operation) => {
    if (current.deleted_at !== null) return refuse(noAgent());
    if (isOfOtherVersion(raw, current)) return refuse(stale('agent', current.version));
    const tier = await tierOf(options, operation);
    const draft = draftChange(raw, current, { replace, tier, rules: rulesOf(options) });
    const { tenantId } = operation.actor;
    const isOtherFormat = draft.changes.some(({ field }) => field === 'response_format');
    const schema = isOtherFormat ? await schemaIssues(options, tenantId, draft.fields) : [];
    const issues = [...draft.issues, ...schema];
    if (issues.length === 0) return storeChanges(draft.fields, draft.changes, 'updated');
    const more = await storedIssues(options, tenantId, draft, { tier, self: current });
    return refuse(refuseIssues([...issues, ...more]));
  };

const rollingBack =
  (options: ManagementOptions, to: number): Decide =>
  async (current, operation) => {
    if (current.deleted_at !== null) return refuse(noAgent());
    const target = await options.agents.get(operation.actor.tenantId, current.id, to);
    if (!target) return refuse(noVersion(to));
    const fields = fieldsOf(target);
    const issues = [
      ...checkAgent(fields, await tierOf(options, operation), rulesOf(options)),
      ...(await schemaIssues(options, operation.actor.tenantId, fields)),
    ];
    if (issues.length > 0) return refuse(refuseIssues(issues));
    return storeChanges(fields, diffAgents(fieldsOf(current), fields), 'rolled_back');
  };

const refuse = (error: ErrorData): Decision => ({ type: 'refuse', error });

const LEAVE: Decision = { type: 'leave' };

const store = (
  fields: AgentFields,
  changes: readonly Change[],
  action: AuditEntry['action'],
): Extract<Decision, { type: 'store' }> => ({
  type: 'store',
  fields,
  deletedAt: null,
  action,
  event: 'agent_updated',
  changes,
  maxAgents: null,
});

/** Where nothing changes there is no new version. */
const storeChanges = (...[fields, changes, action]: Parameters<typeof store>): Decision =>
  changes.length === 0 ? LEAVE : store(fields, changes, action);

const deletedChange = (from: string | null, to: string | null): Change => ({ field: 'deleted_at', from, to });

export const immutable = (): ErrorData =>
  refusal('CONFLICT', {
    message:
      'The agent default belongs to the node and can not be changed; make one of your own: POST /api/agents.',
  });

export const noVersion = (version: number): ErrorData =>
  refusal('NOT_FOUND', { message: `The agent has no version ${version}.` });
