/** An agent's configuration of an external service, in old spellings too, read into an agent of this node. */
import { z } from 'zod';
import { AGENT_TYPES, type Agent, agentSchema, slugSchema } from './agent-record.ts';
import { type AgentDefaults, blankAgent } from './agent-rules.ts';
import { type ErrorData, refusal } from './errors.ts';
import type { AgentId, TenantId } from './ids.ts';
import { firstOf, isFields } from './peer-replies.ts';
import { problemsOf } from './problems.ts';
import { BUILT_IN_PROVIDERS } from './ready-made-providers.ts';
import { responseFormatSchema } from './response-format.ts';

type Fields = Readonly<Record<string, unknown>>;

/** Where services nest what belongs to the agent itself. */
const NESTED = ['config', 'configuration', 'llm_config', 'model_config', 'settings', 'llm'];
/** Tools, collections and tags that are read. */
const MAX_NAMED = 100;

type ReadAgent =
  | { readonly ok: true; readonly agent: Agent }
  | { readonly ok: false; readonly error: ErrorData };

interface AskedAgent {
  readonly tenantId: TenantId;
  readonly agentId: AgentId;
  /** For what the service leaves out. */
  readonly defaults: AgentDefaults;
  /** Providers that it may have; by default those that every node knows. */
  readonly providers?: readonly string[] | undefined;
  readonly nowMs: number;
}

/**
 * The agent in a reply of `management.get_agent_config`. What it leaves out has this node's defaults; what it says and
 * cannot be understood makes it refused (INTERNAL, naming the field), for an agent that runs otherwise than it was
 * set up is worse than none. Another agent's configuration, or another tenant's, is refused too.
 */
export function readAgent(data: Fields, asked: AskedAgent): ReadAgent {
  const { tenantId, agentId, defaults, providers = BUILT_IN_PROVIDERS, nowMs } = asked;
  const found = firstOf(data, ['agent_config', 'agent', 'result', 'data']) ?? data;
  if (!isFields(found)) return unreadable('agent_config');
  const fields = flat(found);
  const id = firstOf(fields, ['agent_id', 'id']);
  if (id === undefined ? found === data : id !== agentId) return unreadable('agent_id');
  const tenant = firstOf(fields, ['tenant_id']);
  if (tenant !== undefined && tenant !== tenantId) return unreadable('tenant_id');

  const name =
    text(firstOf(fields, ['name', 'agent_name']))
      ?.trim()
      .slice(0, 100) || agentId;
  const created = instant(fields.created_at, nowMs);
  const isDeleted = fields.deleted_at !== undefined && fields.deleted_at !== null;
  const collections = named(firstOf(fields, ['collections', 'collection_ids', 'knowledge_bases']));
  const candidate = {
    ...blankAgent(name, defaults),
    ...slugIn(fields.slug),
    id: agentId,
    tenant_id: tenantId,
    description: (text(fields.description) ?? '').slice(0, 2_000),
    type: typeIn(firstOf(fields, ['type', 'agent_type']), collections),
    ...modelIn(fields, defaults, providers),
    ...given('temperature', fields.temperature),
    max_tokens: limitIn(firstOf(fields, ['max_tokens', 'max_output_tokens'])),
    ...given('system_prompt', firstOf(fields, ['system_prompt', 'prompt', 'instructions'])),
    ...given('tools', named(fields.tools)),
    ...given('collections', collections),
    max_iterations: limitIn(fields.max_iterations),
    max_history_messages: limitIn(firstOf(fields, ['max_history_messages', 'history_limit'])),
    ...given('response_format', responseFormatSchema.safeParse(fields.response_format).data),
    ...given('is_active', activeIn(fields)),
    ...given('minimum_tier', firstOf(fields, ['minimum_tier', 'min_tier', 'required_tier'])),
    tags: tagsIn(fields.tags),
    template_id: text(fields.template_id) ?? null,
    version: versionIn(fields.version),
    created_at: created,
    updated_at: instant(fields.updated_at, Date.parse(created)),
    deleted_at: isDeleted ? instant(fields.deleted_at, nowMs) : null,
  };
  const parsed = agentSchema.safeParse(candidate);
  if (parsed.success)
    return providers.includes(parsed.data.provider)
      ? { ok: true, agent: parsed.data }
      : unreadable('provider');
  return unreadable(problemsOf(parsed.error, 'agent_config', 1)[0]?.field ?? 'agent_config');
}

const unreadable = (field: string): ReadAgent => ({
  ok: false,
  error: refusal('INTERNAL', {
    message: `The management service answered an agent whose ${field} is wrong.`,
  }),
});

/** The agent's own fields, over those that are nested in it. Nulls say nothing. */
function flat(found: Fields): Fields {
  const nested = NESTED.map((name) => (Object.hasOwn(found, name) ? found[name] : undefined));
  return Object.fromEntries(
    [...nested.filter(isFields), found].flatMap((fields) =>
      Object.entries(fields).filter(([, value]) => value !== null && value !== undefined),
    ),
  );
}

const text = (value: unknown): string | undefined => (typeof value === 'string' ? value : undefined);

const given = (name: string, value: unknown): Fields => (value === undefined ? {} : { [name]: value });

const slugIn = (value: unknown): Fields => given('slug', slugSchema.safeParse(value).data);

/** Types of other services that mean one of ours; what is unknown talks. */
const TYPES: Readonly<Record<string, (typeof AGENT_TYPES)[number]>> = {
  langchain: 'workflow',
  retrieval: 'rag',
  knowledge_base: 'rag',
};

function typeIn(value: unknown, collections: unknown): string {
  const type = text(value)?.toLowerCase();
  if (type === undefined)
    return Array.isArray(collections) && collections.length > 0 ? 'rag' : 'conversational';
  const known = AGENT_TYPES.find((ours) => ours === type);
  return known ?? (Object.hasOwn(TYPES, type) ? TYPES[type] : undefined) ?? 'conversational';
}

/** Provider and model, which may be one object, or one text as `groq/llama-3.1-8b-instant`. */
function modelIn(fields: Fields, defaults: AgentDefaults, providers: readonly string[]): Fields {
  const value = firstOf(fields, ['model', 'llm_model', 'model_name']);
  const inner = isFields(value) ? value : {};
  const called = isFields(value) ? firstOf(inner, ['name', 'model', 'id', 'model_name']) : value;
  const provider = firstOf(fields, ['provider', 'llm_provider', 'model_provider']) ?? inner.provider;
  if (called === undefined && provider === undefined) return {};
  if (called !== undefined && typeof called !== 'string') return { model: called };
  const model = called ?? '';
  const [first = '', ...rest] = model.split('/');
  const prefix = rest.length > 0 ? providers.find((name) => name === first.toLowerCase()) : undefined;
  if (provider === undefined && prefix) return { provider: prefix, model: rest.join('/') };
  const chosen = typeof provider === 'string' ? provider.toLowerCase() : provider;
  if (called === undefined)
    return { provider: chosen, ...(chosen === defaults.provider ? {} : { model: '' }) };
  return { provider: chosen ?? guessedProvider(model, defaults), model };
}

function guessedProvider(model: string, { provider }: AgentDefaults): string {
  if (model.startsWith('offline-')) return 'offline';
  // A node whose default provider is offline has no keys: what the service meant is still not to be made up.
  if (/^(gpt-|o\d|chatgpt)/.test(model)) return 'openai';
  return /^(llama|mixtral|gemma|qwen|deepseek)/.test(model) ? 'groq' : provider;
}

/** Zero and below mean "no limit of its own". */
const limitIn = (value: unknown): unknown =>
  value === undefined || (typeof value === 'number' && value <= 0) ? null : value;

/** `is_active`, `active`, `enabled` or a `status`; undefined where it says none of it. */
function activeIn(fields: Fields): unknown {
  const said = firstOf(fields, ['is_active', 'active', 'enabled']);
  if (said !== undefined) {
    const isSimple = typeof said === 'string' || typeof said === 'number';
    const word = isSimple ? String(said).toLowerCase() : said;
    if (word === true || word === 'true' || word === '1') return true;
    return word === false || word === 'false' || word === '0' ? false : said;
  }
  const status = text(fields.status)?.toLowerCase();
  return status === undefined || status === 'success' ? undefined : status === 'active';
}

/** Names out of texts, out of objects that have one, or out of a record of switches; what is no list as it came. */
function named(value: unknown): unknown {
  const entries = isFields(value)
    ? Object.entries(value).flatMap(([name, on]) => (on === false ? [] : [name]))
    : value;
  if (!Array.isArray(entries)) return value;
  return [...new Set(entries.slice(0, MAX_NAMED).filter(isOn).map(nameIn))];
}

const isOn = (entry: unknown): boolean =>
  !isFields(entry) || (entry.enabled !== false && entry.is_active !== false);

function nameIn(entry: unknown): unknown {
  if (!isFields(entry)) return entry;
  const inner = isFields(entry.function) ? entry.function : entry;
  return firstOf(inner, ['name', 'tool_name', 'tool', 'collection_id', 'id', 'tool_id']);
}

/** Only for people to sort by: what is wrong is left out. */
const tagsIn = (value: unknown): readonly string[] =>
  (Array.isArray(value) ? [...new Set(value)] : [])
    .filter((tag) => typeof tag === 'string' && tag !== '' && tag.length <= 50)
    .slice(0, 50);

const versionSchema = z.coerce.number().int().positive().catch(1);
/** `3`, `"3"`, `"1.0"` (then 1); what is no number is 1. */
const versionIn = (value: unknown): number =>
  versionSchema.parse(typeof value === 'string' ? /^v?(\d{1,9})/.exec(value)?.[1] : value);

/** A time as an agent's record has it. */
function instant(value: unknown, otherwiseMs: number): string {
  const zoned = typeof value === 'string' && !/(?:z|[+-]\d\d:?\d\d)$/i.test(value) ? `${value}Z` : value;
  const ms = typeof zoned === 'string' && zoned.length < 50 ? Date.parse(zoned) : Number.NaN;
  return new Date(Number.isNaN(ms) ? otherwiseMs : ms).toISOString();
}
