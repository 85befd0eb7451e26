/** What every part of agent management works with: its ports, who asks for what, and its notices. */
import type { AgentConfig } from '../domain/agent.ts';
import type { Draft, DraftRules } from '../domain/agent-draft.ts';
import type { Agent, AgentFields, NoticeEvent, RuleIssue, TenantNotice } from '../domain/agent-record.ts';
import { agentWarnings, answerWarnings, refuseIssues, tooManyAgents } from '../domain/agent-rules.ts';
import { type ErrorData, RefusalError, type Reply, refusal } from '../domain/errors.ts';
import type { AgentId, TenantId } from '../domain/ids.ts';
import type { ModelTable } from '../domain/models.ts';
import type { KnownProviders } from '../domain/providers.ts';
import { SCHEMA_FIELD } from '../domain/response-format.ts';
import type { Tier, TierTable } from '../domain/tiers.ts';
import type { AnswerSchemas, SchemaReading } from '../ports/answer-schemas.ts';
import type { Actor, AgentStore, Notices, TemplateStore } from '../ports/management.ts';
import type { Clock, Log } from '../ports/telemetry.ts';

export interface ManagementOptions {
  readonly agents: AgentStore;
  readonly templates: TemplateStore;
  /** The live agents of this node. */
  readonly liveAgents: {
    changed(agent: Agent): void;
    invalidate(tenantId: TenantId, agentId: AgentId): void;
  };
  /** The agent that every tenant has. Its provider and model are those of agents that name none. */
  readonly builtIn: AgentConfig;
  readonly notices: Notices;
  readonly tiers: TierTable;
  /** The tier that counts; `named` is what the request named. May reject where the store does not answer. */
  readonly tierOf: (tenantId: TenantId, named: Tier | undefined) => Promise<Tier>;
  /** Tools that an agent may name (AgentRules). */
  readonly knownTools: readonly string[] | null;
  /** Providers that an agent may name. */
  readonly providers: KnownProviders;
  /** An operator's table of models; by default the built-in one. */
  readonly models?: ModelTable | undefined;
  /** Reads the schemas that answers of agents are to match. */
  readonly schemas: Pick<AnswerSchemas, 'read'>;
  readonly clock: Clock;
  /** A new id, unique everywhere. */
  readonly newId: () => string;
  readonly log: Log;
}

/** One request of somebody. Every notice that comes of it has its task id. */
export interface Operation {
  readonly actor: Actor;
  readonly taskId: string;
  readonly globalTaskId?: string | null | undefined;
}

const SERVICE = 'agent-management';

export const ok = <T>(value: T): Reply<T> => ({ ok: true, value });
export const no = (error: ErrorData): { readonly ok: false; readonly error: ErrorData } => ({
  ok: false,
  error,
});
export const broken = (issues: readonly RuleIssue[]) => no(refuseIssues(issues));

export const noAgent = (): ErrorData => refusal('NOT_FOUND', { message: 'There is no such agent.' });

/** A write that expected another version than is stored now. */
export const stale = (what: 'agent' | 'template', version: number): ErrorData =>
  refusal('CONFLICT', {
    message: `The ${what} is at version ${version} now; read it again.`,
    details: { current_version: version },
  });

export const slugTaken = (what: 'agent' | 'template', slug: string): ErrorData =>
  refusal('CONFLICT', {
    message: `Another ${what} has the slug ${slug}.`,
    details: { field: 'slug', value: slug },
  });

export const rulesOf = (options: ManagementOptions): DraftRules => ({
  tiers: options.tiers,
  knownTools: options.knownTools,
  providers: options.providers,
  models: options.models,
  defaults: options.builtIn,
});

export const isoNow = (clock: Clock): string => new Date(clock.now()).toISOString();

/** A notice about an operation. */
export const noticeOf = (
  { clock }: Pick<ManagementOptions, 'clock'>,
  { actor, taskId, globalTaskId }: Operation,
  event: NoticeEvent,
  data: Readonly<Record<string, unknown>>,
): TenantNotice => ({
  event,
  service: SERVICE,
  task_id: taskId,
  global_task_id: globalTaskId ?? null,
  tenant_id: actor.tenantId,
  timestamp: isoNow(clock),
  data,
});

/** Publishes a notice that tells of nothing that is stored. */
export const notify = (
  options: Pick<ManagementOptions, 'notices' | 'clock'>,
  ...of: readonly [Operation, NoticeEvent, Readonly<Record<string, unknown>>]
): void => options.notices.publish(noticeOf(options, ...of));

/** Runs an operation; where the store fails, the reply says so, and whether it may be stored all the same. */
export async function guarded<T>(log: Log, operation: () => Promise<Reply<T>>): Promise<Reply<T>> {
  try {
    return await operation();
  } catch (error) {
    if (error instanceof RefusalError) {
      // Why, only the log knows.
      if (error.data.code === 'STORE_UNAVAILABLE')
        log.warn({ err: error }, 'agent management could not store');
      return no(error.data);
    }
    log.error({ err: error }, 'agent management failed');
    return no(refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 }));
  }
}

/** Agents that are compared for the same slug. */
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

type HasFormat = Pick<AgentFields, 'response_format'>;

const NO_SCHEMA: SchemaReading = { unchecked: [] };

const readSchema = (
  { schemas }: Pick<ManagementOptions, 'schemas'>,
  tenantId: TenantId,
  { response_format: format }: HasFormat,
): Promise<SchemaReading> =>
  format?.type === 'json_schema'
    ? schemas.read(format.json_schema.schema, tenantId)
    : Promise.resolve(NO_SCHEMA);

/** Whether answers can be matched against the schema that an agent names. */
export async function schemaIssues(
  ...of: readonly [Pick<ManagementOptions, 'schemas'>, TenantId, HasFormat]
): Promise<RuleIssue[]> {
  const { problem } = await readSchema(...of);
  return problem === undefined ? [] : [{ field: SCHEMA_FIELD, rule: 'unusable_schema', message: problem }];
}

/** Patterns named in one warning. */
const MAX_NAMED = 5;

/** What does not keep an agent from being stored, but is worth a word to whoever stores it. */
export async function warningsOf(
  options: ManagementOptions,
  tenantId: TenantId,
  agent: AgentFields,
): Promise<readonly RuleIssue[]> {
  const { unchecked } = await readSchema(options, tenantId, agent);
  const named = unchecked.slice(0, MAX_NAMED).map((pattern) => pattern.slice(0, 100));
  const message = `answers are not matched against patterns with look-arounds or references back: ${named.join('  ')}`;
  return [
    ...agentWarnings(agent, options.providers),
    ...answerWarnings(agent, options.models),
    ...(named.length > 0 ? [{ field: SCHEMA_FIELD, rule: 'unchecked_pattern', message }] : []),
  ];
}
