/** What PostgreSQL's nodes must hear of each other's writes is noted with them, or not at all. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { type AuditEntry, templateSchema } from '../../src/domain/agent-record.ts';
import { agentIdSchema } from '../../src/domain/ids.ts';
import { openStores } from '../../src/store/open.ts';
import { agentOf } from '../actors/agent/agent-fixtures.ts';
import { TENANT } from '../actors/fixtures.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { quiet } from '../support/quiet.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

test('agents, templates and tiers are noted with what changed, imports too, and forgotten after an hour', async () => {
  const url = await server.database();
  const { agents, archive, templates, conversations, changes, close } = await openStores({ url, log: quiet });
  assert.ok(changes);
  const agent = agentOf(1);
  const audit: AuditEntry = {
    ...{ agent_id: agent.id, version: 1, action: 'created', actor: 'a', source: 'api' },
    ...{ at: agent.created_at, changes: [] },
  };
  await agents.save(TENANT, { agent, audit, replaces: 0, maxAgents: null });
  assert.equal(
    await agents.save(TENANT, { agent, audit, replaces: 0, maxAgents: null }),
    'stale',
    'what is not stored is not noted',
  );
  const other = agentOf(1, { id: agentIdSchema.parse('imported-id'), slug: 'imported' });
  await archive.restoreAgent(TENANT, [{ agent: other, audit: { ...audit, agent_id: other.id } }]);
  await conversations.commit({ type: 'tenant-tier', tenantId: TENANT, tier: 'enterprise' });
  const template = templateSchema.parse({
    ...{ id: 'tpl', tenant_id: TENANT, name: 'T', slug: 'tpl', description: '', version: 1, agent: {} },
    ...{ created_at: agent.created_at, updated_at: agent.updated_at },
  });
  await templates.save(TENANT, template, 0);
  await templates.remove(TENANT, 'tpl');

  const news = { tenantId: TENANT, version: 1 };
  const tenantId = TENANT;
  const noted = (await changes.recent()).map(({ seq: _, ...rest }) => rest);
  assert.deepEqual(noted, [
    { type: 'agent', news: { ...news, agentId: agent.id, slug: agent.slug } },
    { type: 'agent', news: { ...news, agentId: other.id, slug: 'imported' } },
    { type: 'tier', tenantId, id: 'enterprise' },
    { type: 'template', tenantId, id: 'tpl' },
    { type: 'template', tenantId, id: 'tpl' },
  ]);

  const admin = new pg.Client({
    connectionString: server.adminUrl.replace(/[^/]*$/, new URL(url).pathname.slice(1)),
  });
  await admin.connect();
  await admin.query("update changes set at = now() - interval '1 minute' where kind = 'agent'");
  assert.deepEqual(
    (await changes.recent()).map(({ type }) => type),
    ['tier', 'template', 'template'],
  );
  await admin.query("update changes set at = now() - interval '61 minutes' where kind = 'agent'");
  await admin.query("insert into changes (tenant_id, kind, id) values ('acme', 'unknown', 'x')");
  await changes.forget();
  const { rows } = await admin.query('select kind from changes order by seq');
  assert.deepEqual(
    rows.map(({ kind }) => kind),
    ['tier', 'template', 'template', 'unknown'],
  );
  assert.equal((await changes.recent()).length, 3, 'what this version does not know is passed over');
  await admin.end();
  await close();
});
