/** Agents over a database: the newest version for lists and rules, every version and audit entry beside it. */
import { type Kysely, sql } from 'kysely';
import { type Agent, type AuditEntry, agentSchema, auditEntrySchema } from '../domain/agent-record.ts';
import type { AgentId, TenantId } from '../domain/ids.ts';
import {
  type AgentChange,
  type AgentStore,
  type Archive,
  type ArchivedVersion,
  type ListQuery,
  MAX_VERSIONS,
  type Page,
  type PageOf,
  type SaveOutcome,
} from '../ports/management.ts';
import { noteChange } from './changes.ts';
import type { Database } from './database.ts';
import { searchable } from './encode.ts';
import type { DatabaseKind } from './migrations.ts';
import { storeNotice } from './notices.ts';
import { pageOf, pageWith } from './pages.ts';
import type { Schema } from './schema.ts';

/** Makes the store; `database` stays the caller's to close. */
export function createAgentStore(database: Database): AgentStore {
  return {
    list: (tenantId, query) => database.read(tenantId, (db) => list(db, database.kind, tenantId, query)),
    get: (tenantId, name, version) =>
      database.read(tenantId, async (db) => {
        const newest = await named(db, tenantId, name);
        if (!newest || version === undefined) return newest;
        const row = await db
          .selectFrom('agent_versions')
          .select('body')
          .where('tenant_id', '=', tenantId)
          .where('agent_id', '=', newest.id)
          .where('version', '=', version)
          .executeTakeFirst();
        return row ? agentOf(row) : null;
      }),
    versions: (tenantId, name, page) => database.read(tenantId, (db) => versions(db, tenantId, name, page)),
    history: (tenantId, name, page) => database.read(tenantId, (db) => history(db, tenantId, name, page)),
    save: (tenantId, change) => database.write(tenantId, (db) => save(db, database.kind, tenantId, change)),
  };
}

const readAgent = (body: string): Agent => agentSchema.parse(JSON.parse(body));
const agentOf = (row: { readonly body: string }): Agent => readAgent(row.body);

/** The newest version of the agent of that id, else of the live one of that slug. */
async function named(db: Kysely<Schema>, tenantId: TenantId, name: AgentId): Promise<Agent | null> {
  const agents = db.selectFrom('agents').select('body').where('tenant_id', '=', tenantId);
  const row =
    (await agents.where('agent_id', '=', name).executeTakeFirst()) ??
    (await agents.where('slug', '=', name).where('deleted', '=', 0).executeTakeFirst());
  return row ? agentOf(row) : null;
}

async function versions(
  db: Kysely<Schema>,
  tenantId: TenantId,
  name: AgentId,
  page: PageOf,
): Promise<Page<Agent>> {
  const newest = await named(db, tenantId, name);
  if (!newest) return { items: [], total: 0 };
  const found = db
    .selectFrom('agent_versions')
    .where('tenant_id', '=', tenantId)
    .where('agent_id', '=', newest.id);
  return pageWith(await pageOf(found, page, { at: 'version', newestFirst: true }), readAgent);
}

/** Whether the column holds the text as it is, without wildcards; `search` is in lower case already. */
const contains = (kind: DatabaseKind, column: 'search' | 'tags', text: string) =>
  sql<boolean>`${sql.raw(kind === 'sqlite' ? 'instr' : 'strpos')}(${sql.ref(column)}, ${text}) > 0`;

async function list(
  db: Kysely<Schema>,
  kind: DatabaseKind,
  tenantId: TenantId,
  { type, tag, text, ...page }: ListQuery,
): Promise<Page<Agent>> {
  const found = db
    .selectFrom('agents')
    .where('tenant_id', '=', tenantId)
    .where('deleted', '=', 0)
    .$if(type !== undefined, (query) => query.where('type', '=', type ?? ''))
    .$if(tag !== undefined, (query) => query.where(contains(kind, 'tags', JSON.stringify(tag))))
    .$if(text !== undefined, (query) => query.where(contains(kind, 'search', searchable(text ?? ''))));
  const order = { at: 'created_at', id: 'agent_id', newestFirst: false } as const;
  return pageWith(await pageOf(found, page, order), readAgent);
}

async function history(
  db: Kysely<Schema>,
  tenantId: TenantId,
  name: AgentId,
  page: PageOf,
): Promise<Page<AuditEntry>> {
  const newest = await named(db, tenantId, name);
  if (!newest) return { items: [], total: 0 };
  const found = db
    .selectFrom('agent_history')
    .where('tenant_id', '=', tenantId)
    .where('agent_id', '=', newest.id);
  const read = (body: string): AuditEntry => auditEntrySchema.parse(JSON.parse(body));
  return pageWith(await pageOf(found, page, { at: 'entry', newestFirst: true }), read);
}

async function save(
  db: Kysely<Schema>,
  kind: DatabaseKind,
  tenantId: TenantId,
  { agent, audit, replaces, maxAgents, notice }: AgentChange,
): Promise<SaveOutcome> {
  await lockTenant(db, kind, tenantId);
  const stored = await db
    .selectFrom('agents')
    .select(['version', 'deleted'])
    .where('tenant_id', '=', tenantId)
    .where('agent_id', '=', agent.id)
    .executeTakeFirst();
  if ((stored?.version ?? 0) !== replaces) return 'stale';
  if (agent.deleted_at === null) {
    const others = db
      .selectFrom('agents')
      .where('tenant_id', '=', tenantId)
      .where('agent_id', '!=', agent.id)
      .where('deleted', '=', 0);
    if (await others.select('agent_id').where('slug', '=', agent.slug).executeTakeFirst()) return 'taken';
    const { live } = await others
      .select(({ fn }) => fn.countAll<number>().as('live'))
      .executeTakeFirstOrThrow();
    const joins = stored === undefined || stored.deleted === 1;
    if (joins && maxAgents !== null && live >= maxAgents) return 'full';
  }
  await writeNewest(db, kind, tenantId, agent);
  await writeVersion(db, tenantId, agent, audit);
  await storeNotice(db, kind, notice);
  return 'saved';
}

/** Two nodes must not each find room for a tenant's last agent. SQLite has one writer anyway. */
export async function lockTenant(db: Kysely<Schema>, kind: DatabaseKind, tenantId: TenantId): Promise<void> {
  if (kind === 'postgres')
    await sql`select pg_advisory_xact_lock(hashtextextended(${tenantId}, 0))`.execute(db);
}

/** As Archive.restoreAgent. Only the newest version is held to the rules that bind live agents. */
export async function restoreAgent(
  db: Kysely<Schema>,
  kind: DatabaseKind,
  tenantId: TenantId,
  versions: readonly ArchivedVersion[],
): ReturnType<Archive['restoreAgent']> {
  const newest = versions.at(-1)?.agent;
  if (!newest) throw new TypeError('An agent without versions can not be restored.');
  await lockTenant(db, kind, tenantId);
  const agents = db.selectFrom('agents').select('agent_id').where('tenant_id', '=', tenantId);
  if (await agents.where('agent_id', '=', newest.id).executeTakeFirst()) return 'there';
  const holders = agents.where('deleted', '=', 0).where('slug', '=', newest.slug);
  if (newest.deleted_at === null && (await holders.executeTakeFirst())) return 'taken';
  await writeNewest(db, kind, tenantId, newest);
  for (const { agent, audit } of versions) await writeVersion(db, tenantId, agent, audit);
  return 'saved';
}

/** What lists and rules look at. */
async function writeNewest(
  db: Kysely<Schema>,
  kind: DatabaseKind,
  tenantId: TenantId,
  agent: Agent,
): Promise<void> {
  const row = {
    version: agent.version,
    slug: agent.slug,
    type: agent.type,
    tags: JSON.stringify(agent.tags),
    search: searchable(`${agent.name}\n${agent.slug}\n${agent.description}`),
    deleted: agent.deleted_at === null ? 0 : 1,
    created_at: Date.parse(agent.created_at),
    updated_at: Date.parse(agent.updated_at),
    body: JSON.stringify(agent),
  };
  await db
    .insertInto('agents')
    .values({ tenant_id: tenantId, agent_id: agent.id, ...row })
    .onConflict((conflict) => conflict.columns(['tenant_id', 'agent_id']).doUpdateSet(row))
    .execute();
  const { id, version, slug } = agent;
  await noteChange(db, kind, { tenantId, kind: 'agent', id, version, slug });
}

async function writeVersion(
  db: Kysely<Schema>,
  tenantId: TenantId,
  agent: Agent,
  audit: AuditEntry,
): Promise<void> {
  const body = JSON.stringify(agent);
  await db
    .insertInto('agent_versions')
    .values({ tenant_id: tenantId, agent_id: agent.id, version: agent.version, body })
    .onConflict((conflict) => conflict.columns(['tenant_id', 'agent_id', 'version']).doUpdateSet({ body }))
    .execute();
  if (agent.version > MAX_VERSIONS)
    await db
      .deleteFrom('agent_versions')
      .where('tenant_id', '=', tenantId)
      .where('agent_id', '=', agent.id)
      .where('version', '<=', agent.version - MAX_VERSIONS)
      .execute();
  const { last } = await db
    .selectFrom('agent_history')
    .select(({ fn }) => fn.max<number | null>('entry').as('last'))
    .where('tenant_id', '=', tenantId)
    .where('agent_id', '=', agent.id)
    .executeTakeFirstOrThrow();
  await db
    .insertInto('agent_history')
    .values({ tenant_id: tenantId, agent_id: agent.id, entry: (last ?? 0) + 1, body: JSON.stringify(audit) })
    .execute();
}
