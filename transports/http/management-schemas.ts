/** The shapes of the agent management routes (PROTOCOL 5): what they take, what they answer, their names in OpenAPI. */
import { z } from '@hono/zod-openapi';
import {
  agentFieldsSchema,
  agentSchema,
  agentTypeSchema,
  auditEntrySchema,
  changeSchema,
  deliverySchema,
  slugSchema,
  templateFieldsSchema,
  templateSchema,
  webhookInputSchema,
  webhookSchema,
} from '../../src/domain/agent-record.ts';
import { agentIdSchema, ID_PATTERN, ID_RULE, taskIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import { boundedArray, requestObject } from '../../src/domain/request-object.ts';
import { tierSchema } from '../../src/domain/tiers.ts';
import type { ListQuery, Page, PageMark, PageOf } from '../../src/ports/management.ts';

const DEFAULT_PAGE_SIZE = 20;
const MAX_PAGE_SIZE = 100;
const MAX_PAGE = 1_000_000;
/** Characters of a search text. */
const MAX_SEARCH = 200;
/** Agents changed by one bulk task. */
const MAX_BULK_ITEMS = 500;

// --- Addresses -----------------------------------------------------------------------------------------------

const otherId = z.string().regex(ID_PATTERN, ID_RULE);
const versionNumber = z.number().int().min(1).max(1_000_000_000);
const versionText = z.coerce.number().pipe(versionNumber);

export const agentPathSchema = z.object({ id: agentIdSchema });
export const agentVersionPathSchema = z.object({ id: agentIdSchema, version: versionText });
export const templatePathSchema = z.object({ id: otherId });
export const webhookPathSchema = z.object({ id: otherId });
export const deliveryPathSchema = z.object({ id: otherId });
export const tenantPathSchema = z.object({ id: tenantIdSchema });

export const pagingSchema = z.object({
  page: z.coerce.number().int().min(1).max(MAX_PAGE).default(1),
  page_size: z.coerce.number().int().min(1).max(MAX_PAGE_SIZE).default(DEFAULT_PAGE_SIZE),
  after: z
    .string()
    .regex(/^\d{1,15}(?:\.[A-Za-z0-9_.:@-]{1,128})?$/, 'must be the `next` of an earlier page')
    .optional(),
});
export const agentListSchema = pagingSchema.extend({
  type: agentTypeSchema.optional(),
  tag: z.string().min(1).max(50).optional(),
  q: z.string().max(MAX_SEARCH).optional(),
});
export const diffQuerySchema = z.object({ from: versionText, to: versionText });

/** `"3"`, with or without quotes; `*` for any. A proxy that compresses answers makes our tags weak: `W/"3"`. */
export const ifMatchSchema = z.object({
  'if-match': z
    .string()
    .regex(/^(?:(?:W\/)?"\d{1,9}"|\d{1,9}|\*)$/, 'must be the version that you changed, as in "3"')
    .optional(),
});

/** The version that If-Match names; undefined where any will do. */
export const versionOf = (header: z.infer<typeof ifMatchSchema>): number | undefined => {
  const digits = header['if-match']?.replace(/^W\//, '').replaceAll('"', '');
  return digits === undefined || digits === '*' ? undefined : Number(digits);
};

type Paging = z.infer<typeof pagingSchema>;

/** The port's page for a request's. */
export const pageRequest = ({ page, page_size, after }: Paging): PageOf => ({
  page,
  pageSize: page_size,
  after: after === undefined ? undefined : markOf(after),
});

function markOf(text: string): PageMark {
  const [at = ''] = text.split('.', 1);
  return { at: Number(at), id: text.slice(at.length + 1) };
}

const markText = ({ at, id }: PageMark): string => (id === '' ? `${at}` : `${at}.${id}`);

/** The port's query for a request's. */
export const listQuery = (query: z.infer<typeof agentListSchema>): ListQuery => ({
  ...pageRequest(query),
  type: query.type,
  tag: query.tag,
  text: query.q,
});

// --- Bodies ----------------------------------------------------------------------------------------------------

/** Read by agent management itself, so that all mistakes are named at once; here they are only described. */
export const describedBodies = {
  AgentInput: z.object(agentFieldsSchema.shape).partial().required({ name: true }),
  AgentPatch: z.object(agentFieldsSchema.shape).partial(),
  AgentValidate: z.object(agentFieldsSchema.shape).partial().extend({ agent_id: agentIdSchema.optional() }),
  TemplateInput: z.object(templateFieldsSchema.shape).partial({ description: true }),
} as const;

export const rollbackSchema = requestObject({ version: versionNumber }).openapi('AgentRollback');

const bulkItemSchema = requestObject({
  id: agentIdSchema,
  /** As in AgentPatch; read with the item, so that one bad item does not keep the others back. */
  changes: z.record(z.string(), z.unknown()),
  version: versionNumber.optional(),
});
export const bulkSchema = requestObject({
  items: boundedArray(bulkItemSchema, MAX_BULK_ITEMS, 1),
}).openapi('AgentBulk');

/** `customizations` are read by agent management, with the template under them. */
export const fromTemplateSchema = requestObject({
  template_id: otherId,
  name: z.string(),
  slug: slugSchema.optional(),
  customizations: z.record(z.string(), z.unknown()).default({}),
}).openapi('AgentFromTemplate');

export const webhookBodySchema = requestObject(webhookInputSchema.shape).openapi('WebhookInput');

export const tierBodySchema = requestObject({ tier: tierSchema }).openapi('TenantTier');

// --- Answers ---------------------------------------------------------------------------------------------------

export const agentAnswer = z.object(agentSchema.shape).openapi('Agent');
export const templateAnswer = z.object(templateSchema.shape).openapi('Template');
export const auditAnswer = z.object(auditEntrySchema.shape).openapi('AuditEntry');
export const deliveryAnswer = z.object(deliverySchema.shape).openapi('Delivery');
export const webhookAnswer = z.object(webhookSchema.shape).omit({ secret: true }).openapi('Webhook');
export const newWebhookAnswer = z.object(webhookSchema.shape).openapi('NewWebhook');
export const bulkAnswer = z.object({ task_id: taskIdSchema }).openapi('BulkTask');
export const diffAnswer = z
  .object({ from: versionNumber, to: versionNumber, changes: z.array(z.object(changeSchema.shape)) })
  .openapi('AgentDiff');

const ruleIssue = z.object({
  field: z.string(),
  rule: z.string(),
  message: z.string(),
  tier: tierSchema.optional(),
});

/** With what would keep it from answering. */
export const madeAgentAnswer = agentAnswer
  .extend({ warnings: z.array(ruleIssue).optional() })
  .openapi('MadeAgent');

export const validationAnswer = z
  .object({
    valid: z.boolean(),
    issues: z.array(ruleIssue),
    warnings: z.array(ruleIssue).optional(),
  })
  .openapi('AgentValidation');

export const tenantAnswer = z
  .object({
    tenant_id: tenantIdSchema,
    tier: tierSchema.nullable(),
    day: z.string(),
    used: z.number().int().nonnegative(),
  })
  .openapi('Tenant');

/** A page of anything. */
export const pageAnswer = <T extends z.ZodType>(item: T) =>
  z.object({
    items: z.array(item),
    page: z.number().int(),
    page_size: z.number().int(),
    total: z.number().int().nonnegative(),
    /** For `?after=`: the page behind this one. Absent: there is none. */
    next: z.string().optional(),
  });

/** A page as lists answer it. */
export const pageBody = <T>({ page, page_size }: Paging, { items, total, next }: Page<T>) => ({
  items: [...items],
  page,
  page_size,
  total,
  ...(next ? { next: markText(next) } : {}),
});

/** The page of a whole list, which comes oldest first. */
export function pageIn<T extends Listed>(paging: Paging, all: readonly T[]) {
  const { page, pageSize, after } = pageRequest(paging);
  const from = after ? placeBehind(after, all) : (page - 1) * pageSize;
  const items = all.slice(from, from + pageSize);
  const last = items.at(-1);
  const next = last && from + pageSize < all.length ? { next: markFor(last) } : {};
  return pageBody(paging, { items, total: all.length, ...next });
}

interface Listed {
  readonly id: string;
  readonly created_at: string;
}

const markFor = ({ id, created_at }: Listed): PageMark => ({ at: Date.parse(created_at), id });

/** Behind the item of that mark, or where that one was. */
function placeBehind({ at, id }: PageMark, all: readonly Listed[]): number {
  const there = all.findIndex((one) => one.id === id);
  if (there >= 0) return there + 1;
  const place = all.map(markFor).findIndex((one) => one.at > at || (one.at === at && one.id > id));
  return place < 0 ? all.length : place;
}

/** Tells the version that a later If-Match must name. */
export const etag = ({ version }: { readonly version: number }) => ({ ETag: `"${version}"` });

/** The same of what was made, and where it is under `path`. */
export const locationAndEtag =
  (path: string) => (made: { readonly id: string; readonly version: number }) => ({
    Location: `${path}/${made.id}`,
    ...etag(made),
  });
