/** What agent management asks of its store, and what edges ask of agent management. */
import type {
  Agent,
  AgentInput,
  AgentPatch,
  AuditEntry,
  Change,
  Delivery,
  Template,
  TemplateInput,
  TenantNotice,
  Webhook,
  WebhookInput,
} from './domain/agent-record.ts';
import type { AgentId, TaskId, TenantId } from './domain/ids.ts';
import type { Tier } from './domain/tiers.ts';
import type { Reply } from './ports.ts';

export interface ListQuery {
  /** From 1. */
  readonly page: number;
  readonly pageSize: number;
  readonly type?: string | undefined;
  readonly tag?: string | undefined;
  /** Part of a name, a slug or a description; case does not matter. */
  readonly text?: string | undefined;
}

export interface Page<T> {
  readonly items: readonly T[];
  readonly total: number;
}

/** `stale`: the stored version is not the one before this. `taken`: another live agent has the slug. `full`: `maxAgents` are there. */
export type SaveOutcome = 'saved' | 'stale' | 'taken' | 'full';

/** A new version of an agent with its audit entry: stored together or not at all. */
export interface AgentChange {
  readonly agent: Agent;
  readonly audit: AuditEntry;
  /** Version that must be stored now; 0 for a new agent. */
  readonly replaces: number;
  /** Live agents the tenant may have after this; null: any number. Checked with the write, for new and restored ones. */
  readonly maxAgents: number | null;
}

/** Every method is bound to one tenant and sees nothing of others. Any may reject; then nothing was kept. */
export interface AgentStore {
  /** Live agents, newest change first. */
  list(tenantId: TenantId, query: ListQuery): Promise<Page<Agent>>;
  /** The newest version, or the one asked for; deleted ones too (`deleted_at`). */
  get(tenantId: TenantId, agentId: AgentId, version?: number): Promise<Agent | null>;
  /** All versions, newest first. */
  versions(tenantId: TenantId, agentId: AgentId): Promise<readonly Agent[]>;
  /** Audit entries, newest first. */
  history(
    tenantId: TenantId,
    agentId: AgentId,
    page: Pick<ListQuery, 'page' | 'pageSize'>,
  ): Promise<Page<AuditEntry>>;
  save(tenantId: TenantId, change: AgentChange): Promise<SaveOutcome>;
}

export interface TemplateStore {
  list(tenantId: TenantId): Promise<readonly Template[]>;
  get(tenantId: TenantId, templateId: string): Promise<Template | null>;
  /** Version before must be `replaces`; 0 for a new one. */
  save(tenantId: TenantId, template: Template, replaces: number): Promise<Exclude<SaveOutcome, 'full'>>;
  remove(tenantId: TenantId, templateId: string): Promise<boolean>;
}

export interface WebhookStore {
  list(tenantId: TenantId): Promise<readonly Webhook[]>;
  save(tenantId: TenantId, webhook: Webhook): Promise<void>;
  /** With its deliveries. */
  remove(tenantId: TenantId, webhookId: string): Promise<boolean>;
  /** Newest first. */
  deliveries(
    tenantId: TenantId,
    webhookId: string,
    query: Pick<ListQuery, 'page' | 'pageSize'>,
  ): Promise<Page<Delivery>>;
  /** Writes a delivery, new or changed. */
  keep(delivery: Delivery): Promise<void>;
  /** Pending deliveries of all tenants that are due, oldest first, with their webhooks. */
  due(
    nowMs: number,
    limit: number,
  ): Promise<readonly { readonly delivery: Delivery; readonly webhook: Webhook }[]>;
}

/** Who asks, for the audit. */
export interface Actor {
  readonly tenantId: TenantId;
  readonly tier: Tier | undefined;
  readonly actor: string;
  readonly source: AuditEntry['source'];
}

/** One broken rule. `tier` is the first that would allow it. */
export interface RuleIssue {
  readonly field: string;
  readonly rule: string;
  readonly message: string;
  readonly tier?: Tier | undefined;
}

export interface Validation {
  readonly valid: boolean;
  readonly issues: readonly RuleIssue[];
}

/** `version` is what If-Match named; undefined: a write wins. */
export interface Expected {
  readonly version: number | undefined;
}

/**
 * Agent management as its edges see it. Refusals are values: INVALID_REQUEST or TIER_LIMIT with `details.issues`,
 * NOT_FOUND, CONFLICT. After a write resolves, the agent's actor has the new version and notices are on their way.
 */
export interface AgentManagement {
  list(tenantId: TenantId, query: ListQuery): Promise<Reply<Page<Agent>>>;
  get(tenantId: TenantId, agentId: AgentId): Promise<Reply<Agent>>;
  create(actor: Actor, input: AgentInput): Promise<Reply<Agent>>;
  /** `replace` puts defaults where the input names nothing (PUT); otherwise they stay as they are (PATCH). */
  update(
    actor: Actor,
    agentId: AgentId,
    patch: AgentPatch,
    options: Expected & { readonly replace: boolean },
  ): Promise<Reply<Agent>>;
  remove(actor: Actor, agentId: AgentId, expected: Expected): Promise<Reply<null>>;
  restore(actor: Actor, agentId: AgentId): Promise<Reply<Agent>>;
  rollback(actor: Actor, agentId: AgentId, version: number, expected: Expected): Promise<Reply<Agent>>;
  /** A dry run of create, or of an update of `agentId`. */
  validate(actor: Actor, input: unknown, agentId: AgentId | undefined): Promise<Reply<Validation>>;
  versions(tenantId: TenantId, agentId: AgentId): Promise<Reply<readonly Agent[]>>;
  version(tenantId: TenantId, agentId: AgentId, version: number): Promise<Reply<Agent>>;
  diff(tenantId: TenantId, agentId: AgentId, from: number, to: number): Promise<Reply<readonly Change[]>>;
  history(
    tenantId: TenantId,
    agentId: AgentId,
    page: Pick<ListQuery, 'page' | 'pageSize'>,
  ): Promise<Reply<Page<AuditEntry>>>;
  fromTemplate(actor: Actor, templateId: string, input: AgentInput): Promise<Reply<Agent>>;
  /** Answers at once; progress and end come as task notices. */
  bulk(actor: Actor, items: readonly BulkItem[]): Promise<Reply<{ readonly taskId: TaskId }>>;
}

export interface BulkItem {
  readonly id: AgentId;
  readonly changes: AgentPatch;
  readonly version?: number | undefined;
}

export interface TemplateManagement {
  list(actor: Actor): Promise<Reply<readonly Template[]>>;
  get(actor: Actor, templateId: string): Promise<Reply<Template>>;
  create(actor: Actor, input: TemplateInput): Promise<Reply<Template>>;
  update(
    actor: Actor,
    templateId: string,
    input: TemplateInput,
    expected: Expected,
  ): Promise<Reply<Template>>;
  remove(actor: Actor, templateId: string): Promise<Reply<null>>;
}

export interface WebhookManagement {
  list(tenantId: TenantId): Promise<Reply<readonly Omit<Webhook, 'secret'>[]>>;
  /** The secret is shown here and never again. */
  create(tenantId: TenantId, input: WebhookInput): Promise<Reply<Webhook>>;
  remove(tenantId: TenantId, webhookId: string): Promise<Reply<null>>;
  deliveries(
    tenantId: TenantId,
    webhookId: string,
    page: Pick<ListQuery, 'page' | 'pageSize'>,
  ): Promise<Reply<Page<Delivery>>>;
  /** Sends a dead delivery again. */
  replay(tenantId: TenantId, deliveryId: string): Promise<Reply<Delivery>>;
}

/**
 * Carries notices to whoever listens: sockets of the tenant, services, webhooks, queues.
 * Delivery: at most once to sockets; webhooks keep theirs. A listener that throws is logged and does not stop others.
 */
export interface Notices {
  publish(notice: TenantNotice): void;
  /** Returns what ends the listening. */
  listen(listener: (notice: TenantNotice) => void): () => void;
}
