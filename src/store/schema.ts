/** The tables, as Kysely sees them; the same in both databases. Times are milliseconds since the epoch. */
import type { ColumnType } from 'kysely';

/** Given out by the database. */
type Generated = ColumnType<number, never, never>;

/**
 * A turn with its question and its answer: they are written, read and deleted together, so that one row is half
 * the work of a turn beside two messages. `seq` is the order in which turns ran or, until they run, were accepted.
 */
export interface TurnTable {
  readonly tenant_id: string;
  readonly task_id: string;
  readonly session_id: string;
  readonly seq: Generated;
  readonly agent_id: string;
  readonly agent_version: number | null;
  readonly status: string;
  readonly created_at: number;
  readonly finished_at: number | null;
  readonly asked: string;
  readonly asked_at: number;
  /** The turn's content; null where it has none, or where FLAG.contentIsAnswer says that it is `answer`. */
  readonly content: string | null;
  /** The answering message's text; null: there is none. */
  readonly answer: string | null;
  readonly answered_at: number | null;
  /** Bits of FLAG. */
  readonly flags: number;
  /** JSON, as all objects here: PostgreSQL's jsonb rejects \u0000. */
  readonly info: string | null;
  readonly error: string | null;
  /** What the model thought: JSON, as the texts of models have every character. */
  readonly reasoning: string | null;
  /** 1: unnotified. It ended as interrupted, and no client has been told. */
  readonly untold: number;
  /** The start of the node that runs it; null: of one that has the database to itself. PostgreSQL only, as below. */
  readonly boot?: ColumnType<number | null, never, never>;
  /** By which that node owned its session; null: it knew of none. */
  readonly epoch?: ColumnType<number | null, never, never>;
}

/**
 * Bits of `turns.flags`. `effects`: it did, or was about to do, what must not happen twice. `unrun`: it ended without
 * having run, and is no part of the conversation. `answerPartial`: the answer is the text so far of a turn that failed.
 * `askedRefused`: the model refused the question, and is not given it again.
 */
export const FLAG = {
  askedEscaped: 1,
  contentEscaped: 2,
  answerEscaped: 4,
  contentIsAnswer: 8,
  effects: 16,
  unrun: 32,
  answerPartial: 64,
  askedRefused: 128,
} as const;

/** The bits that outlast a turn's end and its resumption: the others say how its answer is stored. */
export const LASTING_FLAGS = FLAG.askedEscaped | FLAG.effects;

/**
 * `last_at` is never later than the session's last message and at most SESSION_TOUCH_MS earlier: so most turns
 * leave this row alone. Deleting by age looks at the turns as well.
 */
interface SessionTable {
  readonly tenant_id: string;
  readonly session_id: string;
  readonly created_at: number;
  readonly last_at: number;
}

export const SESSION_TOUCH_MS = 600_000;

export interface TenantTable {
  readonly tenant_id: string;
  readonly tier: string | null;
}

interface DailyUsageTable {
  readonly tenant_id: string;
  /** `YYYY-MM-DD`, UTC. */
  readonly day: string;
  readonly used: number;
}

/** The newest version of each agent, with what lists and rules look at; `body` is the whole record as JSON. */
interface AgentTable {
  readonly tenant_id: string;
  readonly agent_id: string;
  readonly version: number;
  readonly slug: string;
  readonly type: string;
  /** JSON array. */
  readonly tags: string;
  /** Name, slug and description, made searchable (encode.ts). */
  readonly search: string;
  /** 0 or 1. */
  readonly deleted: number;
  readonly created_at: number;
  readonly updated_at: number;
  readonly body: string;
}

interface AgentVersionTable {
  readonly tenant_id: string;
  readonly agent_id: string;
  readonly version: number;
  readonly body: string;
}

interface AgentHistoryTable {
  readonly tenant_id: string;
  readonly agent_id: string;
  /** Counts from 1 for each agent. */
  readonly entry: number;
  readonly body: string;
}

interface TemplateTable {
  readonly tenant_id: string;
  readonly template_id: string;
  readonly slug: string;
  readonly version: number;
  readonly created_at: number;
  readonly body: string;
}

interface WebhookTable {
  readonly tenant_id: string;
  readonly webhook_id: string;
  readonly created_at: number;
  readonly body: string;
}

interface DeliveryTable {
  readonly tenant_id: string;
  readonly delivery_id: string;
  readonly webhook_id: string;
  readonly status: string;
  readonly due_at: number | null;
  readonly created_at: number;
  /** When it was delivered, or found dead; null: it is pending. */
  readonly settled_at: number | null;
  readonly body: string;
}

/** The outbox: messages that are to be sent, or were. `seq` is the order in which they were stored, and never comes twice. */
export interface OutgoingTable {
  readonly tenant_id: string;
  readonly id: string;
  readonly seq: Generated;
  /** The id of the action that it answers. */
  readonly answers: string | null;
  readonly queue: string | null;
  readonly format: string;
  /** The action. */
  readonly body: string | null;
  readonly created_at: number;
  /** 1: has a queue and was not sent. */
  readonly unsent: number;
  /** Who is to send it; null: whoever comes next. */
  readonly boot?: ColumnType<number | null, never, never>;
}

/** Executions that were asked for together. */
export interface BatchTable {
  readonly tenant_id: string;
  readonly batch_id: string;
  readonly created_at: number;
  /** When another may take it over; null: all of it has ended. */
  readonly due_at: number | null;
  readonly concurrency: number;
  /** JSON: for each its task, its session, and why it was refused, if it was. */
  readonly items: string;
  /** JSON: what the items ask for; null once all have ended. */
  readonly requests: string | null;
}

/** The end of a turn that is to be posted to an address. */
export interface CallbackTable {
  readonly tenant_id: string;
  readonly task_id: string;
  readonly url: string;
  /** The batch whose item it is. */
  readonly batch_id: string | null;
  readonly attempts: number;
  readonly due_at: number;
  readonly created_at: number;
}

/** What nodes must hear of each other's writes. PostgreSQL only, as is the next. */
interface ChangeTable {
  readonly seq: Generated;
  readonly tenant_id: string;
  readonly kind: string;
  readonly id: string;
  readonly version: number | null;
  readonly slug: string | null;
  readonly at: ColumnType<Date, never, never>;
}

interface JobRunTable {
  readonly job: string;
  readonly day: string;
  readonly boot: number | null;
  readonly at: ColumnType<Date, never, never>;
}

export interface Schema {
  readonly turns: TurnTable;
  readonly sessions: SessionTable;
  readonly tenants: TenantTable;
  readonly daily_usage: DailyUsageTable;
  readonly agents: AgentTable;
  readonly agent_versions: AgentVersionTable;
  readonly agent_history: AgentHistoryTable;
  readonly templates: TemplateTable;
  readonly webhooks: WebhookTable;
  readonly deliveries: DeliveryTable;
  readonly outgoing: OutgoingTable;
  readonly batches: BatchTable;
  readonly callbacks: CallbackTable;
  readonly changes: ChangeTable;
  readonly job_runs: JobRunTable;
}

export const TABLES = [
  'turns',
  'sessions',
  'tenants',
  'daily_usage',
  'agents',
  'agent_versions',
  'agent_history',
  'templates',
  'webhooks',
  'deliveries',
  'outgoing',
  'batches',
  'callbacks',
] as const satisfies readonly (keyof Schema)[];
