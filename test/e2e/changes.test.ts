/** Agents and tiers changed on one node are in force on the other, without Redis, a beat or two later. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import pg from 'pg';
import { type ChildNode, spawnNode } from '../support/node.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

const TOKEN = 'a-service-token-of-some-length';

async function twoNodes(t: TestContext) {
  const url = await server.database();
  const env = {
    ...{ DEFAULT_PROVIDER: 'offline', DEFAULT_MODEL: 'offline-3x0', SERVICE_TOKEN: TOKEN },
    DATABASE_URL: url,
  };
  const first = await spawnNode(t, { ...env, NODE_ID: 'first' });
  const second = await spawnNode(t, { ...env, NODE_ID: 'second' });
  const admin = new pg.Client({
    connectionString: server.adminUrl.replace(/[^/]*$/, new URL(url).pathname.slice(1)),
  });
  await admin.connect();
  t.after(() => admin.end());
  return { first, second, rows: async (text: string) => (await admin.query(text)).rows };
}

const run = async (node: ChildNode, agent: string) => {
  const body = { agent_id: agent, input: 'Hi.', wait: true };
  const answer = await node.ask('/api/executions', { body, tier: 'enterprise' });
  return answer.status === 200 ? answer.body.agent_version : answer.body.error.code;
};

test('an agent that is updated, deleted or restored on one node is so on the other within two seconds', async (t) => {
  const { first, second, rows } = await twoNodes(t);
  const made = await first.ask('/api/agents', { body: { name: 'Helper' }, tier: 'enterprise' });
  const { id, slug } = made.body;
  assert.equal(await run(second, id), 1);
  assert.equal(await run(second, slug), 1);

  const change = (method: string, path: string, body?: object) =>
    first.ask(`/api/agents/${id}${path}`, { method, tier: 'enterprise', ...(body ? { body } : {}) });
  await change('PATCH', '', { temperature: 0.1 });
  const updatedAtMs = performance.now();
  assert.equal(await run(first, id), 2, 'before the next turn of the node that wrote');
  await until('the other node has it', async () => (await run(second, id)) === 2);
  t.diagnostic(`in force after ${Math.round(performance.now() - updatedAtMs)} ms`);
  assert.equal(await run(second, slug), 2);

  await change('DELETE', '');
  await until('it is gone there', async () => (await run(second, id)) === 'AGENT_NOT_FOUND');
  await change('POST', '/restore');
  await until('it is back there', async () => (await run(second, id)) === 4);
  const noted = await rows('select kind, version::int from changes order by seq');
  assert.deepEqual(
    noted.map(({ kind, version }) => `${kind} ${version}`),
    ['agent 1', 'agent 2', 'agent 3', 'agent 4'],
  );
});

test('a tier that is set on one node holds on the other, where the tenant has a session', async (t) => {
  const { first, second } = await twoNodes(t);
  const client = await second.chat('acme', 's1');
  const enterpriseTurns = async () => {
    const { text } = await second.ask('/metrics');
    return Number(/^nooble_turns_total\{[^}]*tier="enterprise"[^}]*\} (\d+)/m.exec(text)?.[1] ?? 0);
  };
  const say = async () => {
    const task = client.say('Hi.');
    await client.ended(task);
    return enterpriseTurns();
  };
  assert.equal(await say(), 0);
  const { status } = await first.ask('/internal/tenants/acme', {
    method: 'PUT',
    body: { tier: 'enterprise' },
    headers: { authorization: `Bearer ${TOKEN}` },
  });
  assert.equal(status, 200);
  await new Promise((resolve) => setTimeout(resolve, 2_500));
  assert.equal(await say(), 1);
});
