/** Agents, templates and their history as they are stored and shown (PROTOCOL 5): schemas first, types from them. */
import { z } from 'zod';
import { agentIdSchema, tenantIdSchema } from './ids.ts';
import { boundedArray, requestObject, strictObject } from './request-object.ts';
import { responseFormatSchema } from './response-format.ts';
import { tierSchema } from './tiers.ts';

export const SLUG_PATTERN = /^[a-z0-9-]{2,50}$/;
export const slugSchema = z.string().regex(SLUG_PATTERN, 'must be 2 to 50 characters out of a-z 0-9 -');

export const AGENT_TYPES = ['conversational', 'rag', 'workflow'] as const;
export const agentTypeSchema = z.enum(AGENT_TYPES);
/** Which providers there are is the node's to say (agent-rules.ts). */
export const providerSchema = z
  .string()
  .regex(/^[a-z][a-z0-9_-]{0,31}$/, 'must be 1 to 32 characters out of a-z 0-9 _ -, a letter first');

const toolName = z
  .string()
  .regex(/^[A-Za-z0-9_.-]{1,64}$/, 'must be 1 to 64 characters out of A-Z a-z 0-9 _ . -');
const unique = (values: readonly string[]): boolean => new Set(values).size === values.length;

/** What a tenant may set. Limits of its tier are checked by agent-rules.ts, so that all errors come at once. */
export const agentFieldsSchema = z.strictObject({
  name: z.string().trim().min(1).max(100),
  slug: slugSchema,
  description: z.string().max(2_000),
  type: agentTypeSchema,
  provider: providerSchema,
  model: z.string().min(1).max(128),
  /** Models that stand in, in this order, while the agent's own is away, limited or slow. */
  fallbacks: boundedArray(
    strictObject({ provider: providerSchema, model: z.string().min(1).max(128) }),
    4,
  ).optional(),
  temperature: z.number().min(0).max(2),
  max_tokens: z.number().int().min(1).max(1_000_000).nullable(),
  /** Template; `{{name}}` stands for a variable of the turn's context. */
  system_prompt: z.string().max(32_000),
  tools: boundedArray(toolName, 100).refine(unique, 'must not name a tool twice'),
  collections: boundedArray(z.string().min(1).max(128), 1_000).refine(
    unique,
    'must not name a collection twice',
  ),
  max_iterations: z.number().int().min(1).max(100).nullable(),
  max_history_messages: z.number().int().min(1).max(1_000).nullable(),
  /** The form in which it answers; absent or null: text. */
  response_format: responseFormatSchema.nullable().exactOptional(),
  is_active: z.boolean(),
  minimum_tier: tierSchema,
  tags: boundedArray(z.string().min(1).max(50), 50).refine(unique, 'must not name a tag twice'),
});
export type AgentFields = z.infer<typeof agentFieldsSchema>;

/** `POST /api/agents`: a name is enough; the rest has defaults (agent-rules.ts). */
export const agentInputSchema = agentFieldsSchema.partial().required({ name: true });
export type AgentInput = z.infer<typeof agentInputSchema>;

/** `PATCH`, and each item of a bulk update. */
export const agentPatchSchema = agentFieldsSchema.partial();
export type AgentPatch = z.infer<typeof agentPatchSchema>;

const time = z.iso.datetime();

export const agentSchema = z.object({
  id: agentIdSchema,
  tenant_id: tenantIdSchema,
  ...agentFieldsSchema.shape,
  template_id: z.string().nullable(),
  version: z.number().int().positive(),
  created_at: time,
  updated_at: time,
  deleted_at: time.nullable(),
});
/** One version of an agent; the newest is the agent. */
export type Agent = z.infer<typeof agentSchema>;

export const changeSchema = z.object({ field: z.string(), from: z.unknown(), to: z.unknown() });
export type Change = z.infer<typeof changeSchema>;

/** One broken rule. `tier` is the first that would allow it. */
const ruleIssueSchema = z.object({
  field: z.string(),
  rule: z.string(),
  message: z.string(),
  tier: tierSchema.optional(),
});
export type RuleIssue = z.infer<typeof ruleIssueSchema>;

const AUDIT_ACTIONS = ['created', 'updated', 'rolled_back', 'deleted', 'restored'] as const;

/** Who changed what, when, and over which interface. */
export const auditEntrySchema = z.object({
  agent_id: agentIdSchema,
  version: z.number().int().positive(),
  action: z.enum(AUDIT_ACTIONS),
  actor: z.string(),
  source: z.enum(['api', 'orchestrator', 'system', 'cli', 'import']),
  at: time,
  changes: z.array(changeSchema),
});
export type AuditEntry = z.infer<typeof auditEntrySchema>;

export const templateFieldsSchema = z.strictObject({
  name: z.string().trim().min(1).max(100),
  slug: z.string().regex(/^[a-z0-9_-]{2,50}$/, 'must be 2 to 50 characters out of a-z 0-9 _ -'),
  description: z.string().max(2_000),
  /** What an agent made from it starts with. */
  agent: strictObject(agentFieldsSchema.omit({ name: true, slug: true }).partial().shape),
});
export const templateInputSchema = requestObject(templateFieldsSchema.partial({ description: true }).shape);
export type TemplateInput = z.infer<typeof templateInputSchema>;

export const templateSchema = templateFieldsSchema.extend({
  id: z.string(),
  /** Absent on the built-in ones. */
  tenant_id: tenantIdSchema.nullable(),
  version: z.number().int().positive(),
  created_at: time,
  updated_at: time,
});
export type Template = z.infer<typeof templateSchema>;

export const NOTICE_EVENTS = [
  'agent_created',
  'agent_updated',
  'agent_deleted',
  'agent_validated',
  'agent_template_created',
  'template_updated',
  'validation_complete',
  'task_status_update',
  'task_completed',
  'task_failed',
] as const;
export const noticeEventSchema = z.enum(NOTICE_EVENTS);
export type NoticeEvent = z.infer<typeof noticeEventSchema>;

/** A notice about agents, for tenants' sockets, services, queues and webhooks. */
export const tenantNoticeSchema = z.object({
  event: noticeEventSchema,
  service: z.string(),
  task_id: z.string(),
  global_task_id: z.string().nullish(),
  tenant_id: tenantIdSchema,
  timestamp: time,
  data: z.record(z.string(), z.unknown()),
});
export type TenantNotice = z.infer<typeof tenantNoticeSchema>;

export const webhookInputSchema = z.strictObject({
  url: z.url().max(2_000),
  events: boundedArray(noticeEventSchema, 100, 1).optional(),
  /** Standard Webhooks: `whsec_` and base64 of 24 to 64 bytes. Made, and shown once, where it is missing. */
  secret: z
    .string()
    .regex(/^whsec_[A-Za-z0-9+/]{32,88}={0,2}$/, 'must be whsec_ and base64 of 24 to 64 bytes')
    .optional(),
});
export type WebhookInput = z.infer<typeof webhookInputSchema>;

export const webhookSchema = z.object({
  id: z.string(),
  tenant_id: tenantIdSchema,
  url: z.string(),
  /** null: all. */
  events: z.array(noticeEventSchema).nullable(),
  secret: z.string(),
  created_at: time,
});
export type Webhook = z.infer<typeof webhookSchema>;

export const deliverySchema = z.object({
  id: z.string(),
  webhook_id: z.string(),
  tenant_id: tenantIdSchema,
  event: noticeEventSchema,
  payload: tenantNoticeSchema,
  status: z.enum(['pending', 'delivered', 'dead']),
  attempts: z.number().int().nonnegative(),
  next_attempt_at: time.nullable(),
  last_error: z.string().nullable(),
  created_at: time,
  delivered_at: time.nullable(),
});
export type WebhookDelivery = z.infer<typeof deliverySchema>;

/** A new delivery of a notice, due since the notice was made. */
export const deliveryTo = (webhook: Webhook, notice: TenantNotice, id: string): WebhookDelivery => ({
  id,
  webhook_id: webhook.id,
  tenant_id: webhook.tenant_id,
  event: notice.event,
  payload: notice,
  status: 'pending',
  attempts: 0,
  next_attempt_at: notice.timestamp,
  last_error: null,
  created_at: notice.timestamp,
  delivered_at: null,
});
