/** A database whose answer to a commit is lost: whoever manages agents, templates, webhooks or sessions is told what is true. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import pg from 'pg';
import { startTestNode } from '../support/node.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { until } from '../support/until.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

async function scene(t: TestContext) {
  const url = new URL(await server.database());
  const proxy = await startTcpProxy(Number(url.port));
  t.after(() => proxy.close());
  const direct = new pg.Client({
    connectionString: server.adminUrl.replace(/[^/]*$/, url.pathname.slice(1)),
  });
  await direct.connect();
  t.after(() => direct.end());
  url.port = String(proxy.port);
  const node = await startTestNode(t, { env: { DATABASE_URL: url.href, DEFAULT_TIER: 'enterprise' } });
  /** Asks while the answer to every commit is lost; at least one must be. */
  const lossy = async (...[path, options]: Parameters<typeof node.ask>) => {
    const before = proxy.lost();
    proxy.loseCommits();
    const answer = await node.ask(path, options);
    proxy.heal();
    assert.ok(proxy.lost() > before, `${path}: no answer was lost`);
    return answer;
  };
  return { node, proxy, lossy, direct };
}

test('agents: each write is answered as it was stored, and no retry finds a second one', async (t) => {
  const { node, lossy } = await scene(t);
  const seen: string[] = [];
  const made = await lossy('/api/agents', { body: { name: 'One' } });
  assert.equal(made.status, 201, made.text);
  const path = `/api/agents/${made.body.id}`;
  const changed = await lossy(path, { method: 'PATCH', body: { description: 'new' } });
  assert.deepEqual([changed.status, changed.body.version], [200, 2], changed.text);
  const guarded = await lossy(path, { method: 'PUT', body: { name: 'Two' }, headers: { 'if-match': '"2"' } });
  assert.deepEqual([guarded.status, guarded.body.version], [200, 3], guarded.text);
  const back = await lossy(`${path}/rollback`, { body: { version: 1 } });
  assert.deepEqual([back.status, back.body.version, back.body.name], [200, 4, 'One'], back.text);
  const gone = await lossy(path, { method: 'DELETE' });
  assert.equal(gone.status, 204, gone.text);
  const restored = await lossy(`${path}/restore`, { method: 'POST' });
  assert.deepEqual([restored.status, restored.body.version], [200, 6], restored.text);
  const history = (await node.ask(`${path}/history`)).body.items;
  for (const { action } of history) seen.unshift(action);
  assert.deepEqual(seen, ['created', 'updated', 'updated', 'rolled_back', 'deleted', 'restored']);
  assert.equal((await node.ask('/api/agents')).body.total, 1);
});

test('bulk: each item is counted as it was stored', async (t) => {
  const { node, proxy } = await scene(t);
  const ids: string[] = [];
  for (const name of ['A', 'B', 'C']) ids.push((await node.ask('/api/agents', { body: { name } })).body.id);
  const client = await node.chat('acme', 's1');
  const items = ids.map((id) => ({ id, changes: { description: 'new' }, version: 1 }));
  proxy.loseCommits();
  assert.equal((await node.ask('/api/agents/bulk', { body: { items } })).status, 202);
  const end = await client.see(({ type }) => type === 'task_completed' || type === 'task_failed');
  assert.deepEqual(
    [end.type, end.data.data.succeeded, end.data.data.failed],
    ['task_completed', 3, 0],
    JSON.stringify(end),
  );
  proxy.heal();
  assert.equal(proxy.lost() >= 3, true);
});

test('templates and webhooks are made, changed and deleted once', async (t) => {
  const { node, lossy } = await scene(t);
  const template = { name: 'Mine', slug: 'mine', agent: { system_prompt: 'Hello.' } };
  const made = await lossy('/api/templates', { body: template });
  assert.equal(made.status, 201, made.text);
  const path = `/api/templates/${made.body.id}`;
  const changed = await lossy(path, { method: 'PUT', body: { ...template, name: 'Yours' } });
  assert.deepEqual([changed.status, changed.body.version], [200, 2], changed.text);
  const agent = await lossy('/api/agents/from-template', {
    body: { template_id: made.body.id, name: 'From it' },
  });
  assert.equal(agent.status, 201, agent.text);
  assert.equal((await lossy(path, { method: 'DELETE' })).status, 204);
  assert.equal((await node.ask(path)).status, 404);

  const hook = await lossy('/api/webhooks', { body: { url: 'https://example.com/hook' } });
  assert.equal(hook.status, 201, hook.text);
  assert.equal((await node.ask('/api/webhooks')).body.total, 1);
  assert.equal((await lossy(`/api/webhooks/${hook.body.id}`, { method: 'DELETE' })).status, 204);
  assert.equal((await node.ask('/api/webhooks')).body.total, 0);
});

test('a session is deleted, and so it is told', async (t) => {
  const { node, proxy, direct } = await scene(t);
  const client = await node.chat('acme', 's1');
  await client.turn('Go.');
  proxy.loseCommits();
  const asked = node.ask('/api/sessions/s1', { method: 'DELETE' });
  await until('the answer is lost', async () => proxy.lost() > 0);
  proxy.heal();
  assert.equal((await asked).status, 204, (await asked).text);
  assert.deepEqual((await direct.query('select task_id from turns')).rows, []);
  assert.equal((await node.ask('/api/sessions/s1/messages')).status, 404);
});

test('cut before the commit: refused, nothing is stored, and a retry makes one', async (t) => {
  const { node, proxy } = await scene(t);
  proxy.swallow();
  const refused = node.ask('/api/agents', { body: { name: 'One' } });
  await new Promise((resolve) => setTimeout(resolve, 300));
  proxy.heal();
  assert.equal((await refused).status, 503);
  assert.equal((await node.ask('/api/agents', { body: { name: 'One' } })).status, 201);
  assert.equal((await node.ask('/api/agents')).body.total, 1);
});

test('where nobody can say whether it was stored, it is not said that nothing was', async (t) => {
  const { node, proxy } = await scene(t);
  proxy.loseCommits();
  const asked = node.ask('/api/agents', { body: { name: 'One' } });
  await until('the answer is lost', async () => proxy.lost() > 0);
  proxy.refuse();
  const { status, body } = await asked;
  assert.deepEqual([status, body.error.code, body.error.retryable], [503, 'STORE_UNAVAILABLE', true]);
  assert.match(body.error.message, /look whether it is there/);
  proxy.heal();
  await until('it is there', async () => (await node.ask('/api/agents')).body?.total === 1);
});
