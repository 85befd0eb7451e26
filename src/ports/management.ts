/** What agent management asks of its store, and what edges ask of agent management. */
import type {
  Agent,
  AuditEntry,
  Change,
  RuleIssue,
  Template,
  TenantNotice,
  Webhook,
  WebhookDelivery,
  WebhookInput,
} from '../domain/agent-record.ts';
import type { Message } from '../domain/conversation.ts';
import type { ErrorData, Reply } from '../domain/errors.ts';
import type { AgentId, SessionId, TaskId, TenantId } from '../domain/ids.ts';
import type { Tier } from '../domain/tiers.ts';
import type { TurnRecord } from '../domain/turn.ts';
import type { TenantRecord } from './store.ts';

/** Versions of an agent that are stored: with a newer one the oldest goes. */
export const MAX_VERSIONS = 1_000;

export interface PageOf {
  /** From 1. */
  readonly page: number;
  readonly pageSize: number;
  /** Where another page ended: what comes behind it, whatever was made or deleted since, and `page` does not count. */
  readonly after?: PageMark | undefined;
}

/** The place of an item in the order of its list; it holds when the item is gone. */
export interface PageMark {
  /** A time in ms, a version, or the number of an entry. */
  readonly at: number;
  readonly id: string;
}

export interface ListQuery extends PageOf {
  readonly type?: string | undefined;
  readonly tag?: string | undefined;
  /** Part of a name, a slug or a description; case does not matter. */
  readonly text?: string | undefined;
}

export interface Page<T> {
  readonly items: readonly T[];
  readonly total: number;
  /** Absent where nothing comes behind the page. */
  readonly next?: PageMark;
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
  /** Stored with it for the tenant's webhooks. */
  readonly notice?: TenantNotice;
}

/** Every method is bound to one tenant and sees nothing of others. Any may reject; then nothing was stored. */
export interface AgentStore {
  /** Live agents in the order in which they were made: pages stay as they are while others are made and changed. */
  list(tenantId: TenantId, query: ListQuery): Promise<Page<Agent>>;
  /**
   * The newest version, or the one asked for; deleted ones too (`deleted_at`). `name` is, here and below, an id, else the
   * slug of a live agent.
   */
  get(tenantId: TenantId, name: AgentId, version?: number): Promise<Agent | null>;
  /** The MAX_VERSIONS newest, newest first. */
  versions(tenantId: TenantId, name: AgentId, page: PageOf): Promise<Page<Agent>>;
  /** Audit entries, newest first. */
  history(tenantId: TenantId, name: AgentId, page: PageOf): Promise<Page<AuditEntry>>;
  save(tenantId: TenantId, change: AgentChange): Promise<SaveOutcome>;
}

export interface TemplateStore {
  list(tenantId: TenantId): Promise<readonly Template[]>;
  get(tenantId: TenantId, templateId: string): Promise<Template | null>;
  /** Version before must be `replaces`; 0 for a new one. `notice` is stored with it for the tenant's webhooks. */
  save(
    tenantId: TenantId,
    template: Template,
    replaces: number,
    notice?: TenantNotice,
  ): Promise<Exclude<SaveOutcome, 'full'>>;
  remove(tenantId: TenantId, templateId: string, notice?: TenantNotice): Promise<boolean>;
}

/** Which settled deliveries (delivered, or dead) are to be forgotten. Times: settled before, in ms since the epoch. */
export interface SettledLimits {
  readonly deliveredBeforeMs: number;
  readonly deadBeforeMs: number;
  /** Deliveries that a webhook may have, pending ones counted: beyond, those settled longest ago go. */
  readonly perWebhook: number;
}

/** A delivery that belongs to its claimer until `untilMs`, ms since the epoch. */
export interface ClaimedDelivery {
  readonly delivery: WebhookDelivery;
  readonly webhook: Webhook;
  readonly untilMs: number;
}

export interface DueDeliveries {
  readonly claimed: readonly ClaimedDelivery[];
  /** When the first of the others is due, or its claim over; null where there is none. */
  readonly nextAtMs: number | null;
}

export interface DeliveryStore {
  /** Newest first. */
  deliveries(tenantId: TenantId, webhookId: string, query: PageOf): Promise<Page<WebhookDelivery>>;
  delivery(tenantId: TenantId, deliveryId: string): Promise<WebhookDelivery | null>;
  /**
   * Writes a delivery, new or changed. One whose webhook was removed meanwhile is dropped. With `claimedUntilMs` it is
   * its writer's until then, and due for others only afterwards.
   */
  saveDelivery(delivery: WebhookDelivery, claimedUntilMs?: number): Promise<void>;
  /**
   * Times are those of one clock for all who share the store. Claims pending deliveries of all tenants that are due, longest due first: until `untilMs` nobody else is given
   * them. Of several that ask at once each gets others. What its claimer left behind is due again after its claim.
   */
  claimDue(nowMs: number, untilMs: number, limit: number): Promise<DueDeliveries>;
  /** Writes a claimed delivery, unless its claim was over and another has it: then false, and nothing is written. */
  saveClaimed(delivery: WebhookDelivery, claimedUntilMs: number): Promise<boolean>;
  /**
   * Deletes settled deliveries of all tenants, chunk by chunk, so that other writes go in between; those deleted
   * before a failure stay deleted. A pending one is never deleted. Resolves to how many went.
   */
  expire(limits: SettledLimits): Promise<number>;
}

export interface WebhookStore extends DeliveryStore {
  list(tenantId: TenantId): Promise<readonly Webhook[]>;
  save(tenantId: TenantId, webhook: Webhook): Promise<void>;
  /** With its deliveries. */
  remove(tenantId: TenantId, webhookId: string): Promise<boolean>;
}

/** A turn with its messages: the question, then the answer where there is one. */
export interface ArchivedTurn {
  readonly turn: TurnRecord;
  readonly messages: readonly Message[];
  /** It never ran, and is no part of the conversation. */
  readonly unrun?: true;
}

/** How many were written, and how many were there already. */
export interface ImportCount {
  readonly stored: number;
  readonly skipped: number;
}

/** A version of an agent with its audit entry. */
export type ArchivedVersion = Pick<AgentChange, 'agent' | 'audit'>;

/**
 * A tenant's agents and conversations, read and written whole: for `nooble export` and `import`. Pages, so that no
 * tenant is too large for it. What is written while one reads may or may not be read.
 */
export interface Archive {
  /** At most `limit` agents, deleted ones too, by id, those behind `after`. */
  agents(tenantId: TenantId, after: AgentId | undefined, limit: number): Promise<readonly AgentId[]>;
  /**
   * Writes an agent for this tenant with all its versions, oldest first: all or none. `there`: an agent of that id
   * stays as it is. `taken`: it lives, and another live agent has its slug; older versions and deleted agents may
   * have slugs of others.
   */
  restoreAgent(
    tenantId: TenantId,
    versions: readonly ArchivedVersion[],
  ): Promise<'saved' | 'there' | 'taken'>;
  /** At most `limit` sessions, by id, those behind `after`. */
  sessions(tenantId: TenantId, after: SessionId | undefined, limit: number): Promise<readonly SessionId[]>;
  /** At most `limit` turns of a session in the order in which they were accepted, those behind `after`. */
  turns(
    tenantId: TenantId,
    sessionId: SessionId,
    after: TaskId | undefined,
    limit: number,
  ): Promise<readonly ArchivedTurn[]>;
  /** Writes turns for this tenant, in order, all or none. A task id that is there stays as it is and is skipped. */
  restore(tenantId: TenantId, turns: readonly ArchivedTurn[]): Promise<ImportCount>;
}

/** Who asks, for the audit. */
export interface Actor {
  readonly tenantId: TenantId;
  readonly tier: Tier | undefined;
  readonly actor: string;
  readonly source: AuditEntry['source'];
}

export type { RuleIssue };

export interface Validation {
  readonly valid: boolean;
  readonly issues: readonly RuleIssue[];
  /** What would not be refused, but keeps the agent from answering as it says; absent: nothing. */
  readonly warnings?: readonly RuleIssue[];
}

/** `version` is what If-Match named; undefined: a write wins. */
export interface Expected {
  readonly version: number | undefined;
}

/**
 * Agent management as its edges see it. Refusals are values: INVALID_REQUEST or TIER_LIMIT with `details.issues`,
 * NOT_FOUND, CONFLICT. After a write resolves, the agent's actor has the new version and notices are on their way.
 * What is `unknown` here comes as the client sent it: it is read inside and not at the edge, so that mistakes of
 * form and limits of the tier are named together.
 */
export interface AgentManagement {
  list(tenantId: TenantId, query: ListQuery): Promise<Reply<Page<Agent>>>;
  get(tenantId: TenantId, agentId: AgentId): Promise<Reply<Agent>>;
  create(actor: Actor, input: unknown): Promise<Reply<Agent>>;
  /** `replace` puts defaults where the input names nothing (PUT); otherwise they stay as they are (PATCH). */
  update(
    actor: Actor,
    agentId: AgentId,
    patch: unknown,
    options: Expected & { readonly replace: boolean },
  ): Promise<Reply<Agent>>;
  remove(actor: Actor, agentId: AgentId, expected: Expected): Promise<Reply<null>>;
  restore(actor: Actor, agentId: AgentId): Promise<Reply<Agent>>;
  rollback(actor: Actor, agentId: AgentId, version: number, expected: Expected): Promise<Reply<Agent>>;
  /** A dry run of create, or of an update of `agentId`. */
  validate(actor: Actor, input: unknown, agentId: AgentId | undefined): Promise<Reply<Validation>>;
  /** What would keep a stored agent from answering on this node, or answers from being what it says. */
  warnings(actor: Actor, agent: Agent): Promise<readonly RuleIssue[]>;
  versions(tenantId: TenantId, agentId: AgentId, page: PageOf): Promise<Reply<Page<Agent>>>;
  version(tenantId: TenantId, agentId: AgentId, version: number): Promise<Reply<Agent>>;
  diff(tenantId: TenantId, agentId: AgentId, from: number, to: number): Promise<Reply<readonly Change[]>>;
  history(tenantId: TenantId, agentId: AgentId, page: PageOf): Promise<Reply<Page<AuditEntry>>>;
  /** `input`: a name, perhaps a slug, and whatever else shall differ from the template. */
  fromTemplate(actor: Actor, templateId: string, input: unknown): Promise<Reply<Agent>>;
  /** Answers at once; progress and end come as task notices. */
  bulk(actor: Actor, items: readonly BulkItem[]): Promise<Reply<{ readonly taskId: TaskId }>>;
}

export interface BulkItem {
  readonly id: AgentId;
  readonly changes: unknown;
  readonly version?: number | undefined;
}

/** Where a task message came from, as far as its carrier knows. */
export interface TaskOrigin {
  /** The tenant of the queue; a message that names another is refused. Undefined: the message's own counts. */
  readonly tenantId: TenantId | undefined;
  /** Undefined: what `metadata.source` says. */
  readonly source: AuditEntry['source'] | undefined;
  /** Why the carrier brings this task no more: nothing is tried again, it is only told as failed. */
  readonly givenUp?: ErrorData;
}

/**
 * Carries out messages of `agent-management.tasks.{tenant}` (PROTOCOL 5). Each is answered, and its progress and end
 * go out as notices with its task id. A task id that was seen before is answered as before; nothing runs twice
 * while this process remembers it (the last thousand). A refusal that is `retryable` is not the end: the carrier
 * brings the task again, or brings it as `givenUp`.
 */
export type TaskTaker = (message: unknown, origin: TaskOrigin) => Promise<Reply<unknown>>;

export interface TemplateManagement {
  list(actor: Actor): Promise<Reply<readonly Template[]>>;
  get(actor: Actor, templateId: string): Promise<Reply<Template>>;
  create(actor: Actor, input: unknown): Promise<Reply<Template>>;
  update(actor: Actor, templateId: string, input: unknown, expected: Expected): Promise<Reply<Template>>;
  remove(actor: Actor, templateId: string): Promise<Reply<null>>;
}

export interface WebhookManagement {
  list(tenantId: TenantId): Promise<Reply<readonly Omit<Webhook, 'secret'>[]>>;
  /** The secret is shown here and never again. */
  create(tenantId: TenantId, input: WebhookInput): Promise<Reply<Webhook>>;
  remove(tenantId: TenantId, webhookId: string): Promise<Reply<null>>;
  deliveries(tenantId: TenantId, webhookId: string, page: PageOf): Promise<Reply<Page<WebhookDelivery>>>;
  /** Sends a dead delivery again. */
  replay(tenantId: TenantId, deliveryId: string): Promise<Reply<WebhookDelivery>>;
}

/** What operators and other services may ask about any tenant, behind the service token. */
export interface TenantAdmin {
  /** What is stored of the tenant; NOT_FOUND where nothing is. */
  tenant(tenantId: TenantId): Promise<Reply<TenantRecord>>;
  /** Holds from the tenant's next request on, and over whatever tier a request names. */
  setTier(tenantId: TenantId, tier: Tier): Promise<Reply<null>>;
}

/**
 * Carries notices to whoever listens: sockets of the tenant, services, webhooks, queues.
 * Delivery: at most once to sockets; webhooks keep theirs, from the write on that a notice tells of. A listener that
 * throws is logged and does not stop others.
 */
export interface Notices {
  /** `stored`: the store holds what webhooks are to be sent of it. */
  publish(notice: TenantNotice, stored?: boolean): void;
  /**
   * `once`: hears what is published on this node. `everywhere`: hears also what the other nodes publish, with `stored`
   * always true. Returns what ends the listening.
   */
  listen(where: 'once' | 'everywhere', listener: (notice: TenantNotice, stored: boolean) => void): () => void;
}
