/** Every write to an agent: checked, kept with its audit entry as a new version, passed to its actor, and told. */
import { diffAgents, fieldsOf } from '../domain/agent-diff.ts';
import { draftChange, draftNew } from '../domain/agent-draft.ts';
import type { Agent, AgentFields, AuditEntry, Change, NoticeEvent } from '../domain/agent-record.ts';
import { checkAgent, tooManyAgents } from '../domain/agent-rules.ts';
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
  type Operation,
  ok,
  rulesOf,
  storedIssues,
  tell,
} from './context.ts';

export interface AgentWriter {
  create(
    operation: Operation,
    raw: unknown,
    more: { readonly id?: AgentId; readonly templateId?: string },
  ): Promise<Reply<Agent>>;
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
  /** It is so already. */
  | { readonly type: 'leave' }
  | {
      readonly type: 'store';
      readonly fields: AgentFields;
      readonly deletedAt: string | null;
      readonly action: AuditEntry['action'];
      readonly event: NoticeEvent;
      readonly changes: readonly Change[];
      readonly maxAgents: number | null;
    };

type Store = Extract<Decision, { type: 'store' }>;

/** Times a write is begun again where another node was faster and no version was expected. */
const MAX_TRIES = 5;
/** Slugs `name-2` to `name-9` are tried before one that is certainly free. */
const NUMBERED_SLUGS = 9;

export function createAgentWriter(options: ManagementOptions): AgentWriter {
  const { agents, directory, tiers, clock, newId, log } = options;
  const rules = rulesOf(options);
  const line = createKeyedQueue();

  const tierOf = ({ actor }: Operation): Promise<Tier> => options.tierOf(actor.tenantId, actor.tier);

  /** Keeps a version; once it is kept, its actor has it and everybody is told. */
  async function keep(
    operation: Operation,
    agent: Agent,
    { action, event, changes, maxAgents }: Pick<Store, 'action' | 'event' | 'changes' | 'maxAgents'>,
  ): Promise<SaveOutcome> {
    const { actor } = operation;
    const audit: AuditEntry = {
      agent_id: agent.id,
      version: agent.version,
      action,
      actor: actor.actor,
      source: actor.source,
      at: agent.updated_at,
      changes: [...changes],
    };
    const replaces = agent.version - 1;
    const outcome = await agents.save(actor.tenantId, { agent, audit, replaces, maxAgents });
    if (outcome !== 'saved') return outcome;
    directory.changed(agent);
    tell(options, operation, event, {
      agent_id: agent.id,
      agent_name: agent.name,
      version: agent.version,
      changes: changes.map(({ field }) => field),
    });
    return outcome;
  }

  async function create(
    operation: Operation,
    raw: unknown,
    { id = agentIdSchema.parse(newId()), templateId = null }: { id?: AgentId; templateId?: string | null },
  ): Promise<Reply<Agent>> {
    if (id === options.builtIn.id) return no(immutable());
    const { tenantId } = operation.actor;
    const tier = await tierOf(operation);
    const draft = draftNew(raw, tier, rules);
    const maxAgents = tiers[tier].agents;
    if (draft.issues.length > 0) {
      const stored = await storedIssues(options, tenantId, draft, { tier, self: undefined });
      return broken([...draft.issues, ...stored]);
    }
    const at = isoNow(clock);
    for (let tries = 1; ; tries += 1) {
      const fields = { ...draft.fields, slug: slugFor(draft.fields.slug, tries) };
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
      const outcome = await keep(operation, agent, {
        action: 'created',
        event: 'agent_created',
        changes,
        maxAgents,
      });
      if (outcome === 'saved') return ok(agent);
      if (outcome === 'full') return broken([tooManyAgents(maxAgents, tiers)]);
      if (outcome === 'stale')
        return no(refusal('CONFLICT', { message: `There is an agent ${id} already.` }));
      if (draft.slugGiven || tries > NUMBERED_SLUGS) return no(slugTaken(fields.slug));
    }
  }

  const slugFor = (slug: string, tries: number): string => {
    if (tries === 1) return slug;
    return suffixed(
      slug,
      tries < NUMBERED_SLUGS
        ? String(tries)
        : newId()
            .toLowerCase()
            .replace(/[^a-z0-9]/g, '')
            .slice(0, 12),
    );
  };

  /** Writes a version after the stored one. Without an expected version the write wins over whoever was faster. */
  function rewrite(
    operation: Operation,
    agentId: AgentId,
    expected: number | undefined,
    decide: (current: Agent) => Promise<Decision>,
  ): Promise<Reply<Agent>> {
    if (agentId === options.builtIn.id) return Promise.resolve(no(immutable()));
    const { tenantId } = operation.actor;
    return line(`${tenantId}/${agentId}`, async () => {
      for (let tries = 1; ; tries += 1) {
        const current = await agents.get(tenantId, agentId);
        if (!current) return no(noAgent());
        if (expected !== undefined && expected !== current.version) return no(stale(current.version));
        const decision = await decide(current);
        if (decision.type === 'refuse') return no(decision.error);
        if (decision.type === 'leave') return ok(current);
        const agent: Agent = {
          ...current,
          ...decision.fields,
          version: current.version + 1,
          updated_at: isoNow(clock),
          deleted_at: decision.deletedAt,
        };
        const outcome = await keep(operation, agent, decision);
        if (outcome === 'saved') return ok(agent);
        if (outcome === 'taken') return no(slugTaken(agent.slug));
        if (outcome === 'full') return broken([tooManyAgents(decision.maxAgents, tiers)]);
        if (tries < MAX_TRIES && expected === undefined) continue;
        const winner = await agents.get(tenantId, agentId);
        return no(stale(winner?.version ?? current.version));
      }
    });
  }

  return {
    create: (operation, raw, more) => guarded(log, () => create(operation, raw, more)),
    update: (operation, agentId, raw, { version, replace }) =>
      guarded(log, () =>
        rewrite(operation, agentId, version, async (current) => {
          if (current.deleted_at !== null) return refuse(noAgent());
          const tier = await tierOf(operation);
          const draft = draftChange(raw, current, { replace, tier, rules });
          if (draft.issues.length > 0) {
            const { tenantId } = operation.actor;
            const more = await storedIssues(options, tenantId, draft, { tier, self: current });
            return refuse(broken([...draft.issues, ...more]).error);
          }
          return storeChanges(draft.fields, draft.changes, 'updated');
        }),
      ),
    remove: (operation, agentId, { version }) =>
      guarded(log, () =>
        rewrite(operation, agentId, version, async (current) => {
          if (current.deleted_at !== null) return refuse(noAgent());
          const deletedAt = isoNow(clock);
          return {
            ...store(fieldsOf(current), [deletedChange(null, deletedAt)], 'deleted'),
            event: 'agent_deleted',
            deletedAt,
          };
        }),
      ),
    restore: (operation, agentId) =>
      guarded(log, () =>
        rewrite(operation, agentId, undefined, async (current) => {
          if (current.deleted_at === null) return LEAVE;
          const { agents: maxAgents } = tiers[await tierOf(operation)];
          const changes = [deletedChange(current.deleted_at, null)];
          return { ...store(fieldsOf(current), changes, 'restored'), maxAgents };
        }),
      ),
    rollback: (operation, agentId, to, { version }) =>
      guarded(log, () =>
        rewrite(operation, agentId, version, async (current) => {
          if (current.deleted_at !== null) return refuse(noAgent());
          const target = await agents.get(operation.actor.tenantId, agentId, to);
          if (!target) return refuse(noVersion(to));
          const fields = fieldsOf(target);
          const issues = checkAgent(fields, await tierOf(operation), rules);
          if (issues.length > 0) return refuse(broken(issues).error);
          return storeChanges(fields, diffAgents(fieldsOf(current), fields), 'rolled_back');
        }),
      ),
  };
}

const refuse = (error: ErrorData): Decision => ({ type: 'refuse', error });

const LEAVE: Decision = { type: 'leave' };

const store = (fields: AgentFields, changes: readonly Change[], action: AuditEntry['action']): Store => ({
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

const stale = (version: number): ErrorData =>
  refusal('CONFLICT', {
    message: `The agent is at version ${version} now; read it again.`,
    details: { current_version: version },
  });

const slugTaken = (slug: string): ErrorData =>
  refusal('CONFLICT', {
    message: `Another agent has the slug ${slug}.`,
    details: { field: 'slug', value: slug },
  });

/** Runs deeds with the same key one after the other, in the order of the calls; a failed one holds up nobody. */
type KeyedQueue = <T>(key: string, operation: () => Promise<Reply<T>>) => Promise<Reply<T>>;

/** Deeds that may stand in one line; a store that hangs would otherwise gather them without end. */
const MAX_IN_LINE = 1_000;

export function createKeyedQueue(): KeyedQueue {
  const lines = new Map<string, { length: number; last: Promise<unknown> }>();
  return (key, operation) => {
    const line = lines.get(key) ?? { length: 0, last: Promise.resolve() };
    if (line.length >= MAX_IN_LINE)
      return Promise.resolve({ ok: false, error: refusal('OVERLOADED', { retryAfterMs: 1_000 }) });
    const mine = line.last.then(operation, operation);
    const gone = (): void => {
      line.length -= 1;
      if (line.length === 0) lines.delete(key);
    };
    line.length += 1;
    line.last = mine;
    lines.set(key, line);
    mine.then(gone, gone);
    return mine;
  };
}
