/** A tenant's limits hold over all nodes of one PostgreSQL: rates, the day, executions and sockets at once. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import pg from 'pg';
import { type NodeClient, spawnNode, startTestNode } from '../support/node.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';
import { connect } from '../support/websocket-client.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

const TIERS_FILE = new URL('./limits-tiers.json', import.meta.url).pathname;

async function scene(t: TestContext, model: string) {
  const url = await server.database();
  const admin = new pg.Client({
    connectionString: server.adminUrl.replace(/[^/]*$/, new URL(url).pathname.slice(1)),
  });
  admin.on('error', () => {});
  await admin.connect();
  t.after(() => admin.end());
  const settings = (nodeId: string, env: Readonly<Record<string, string>>) => ({
    ...{ DEFAULT_PROVIDER: 'offline', DEFAULT_MODEL: model },
    ...{ DATABASE_URL: url, NODE_ID: nodeId, TIERS_FILE, ...env },
  });
  const rows = async (text: string) => (await admin.query(text)).rows;
  return {
    rows,
    /** A node in this process. */
    start: (env: Readonly<Record<string, string>> = {}) =>
      startTestNode(t, { env: settings('one', env), busy: true }),
    /** A node in a process of its own. */
    spawn: (nodeId: string, env: Readonly<Record<string, string>> = {}) =>
      spawnNode(t, settings(nodeId, env)),
    allEnded: (tenant: string) =>
      until('all turns have ended', async () => {
        const open = await rows(`select 1 from turns where tenant_id = '${tenant}' and answer is null`);
        return open.length === 0;
      }),
  };
}

const say = (node: NodeClient, tenant: string, tier: string, session: string) =>
  node.ask('/api/chat/send', { tenant, tier, body: { message: 'Hi.', session_id: session } });

/** What became of so many messages, said at once on nodes in turn. */
async function sayAll(nodes: readonly NodeClient[], tenant: string, tier: string, count: number) {
  const all = await Promise.all(
    Array.from({ length: count }, (_, index) => {
      const node = nodes[index % nodes.length];
      assert.ok(node);
      return say(node, tenant, tier, `s${index}`);
    }),
  );
  return {
    passed: all.filter(({ status }) => status === 202).length,
    refused: all.filter(({ status }) => status !== 202),
  };
}

test('two nodes share the limits of their tenants', async (t) => {
  const { rows, spawn, allEnded } = await scene(t, 'offline-10x30');
  const nodes = await Promise.all([spawn('one'), spawn('two')]);

  await t.test(
    'of 24 requests at once as many pass as the minute allows, and the others hear when there is one more',
    async () => {
      const { passed, refused } = await sayAll(nodes, 'rated', 'free', 24);
      assert.equal(passed, 10);
      assert.equal(refused.length, 14);
      for (const { status, body } of refused) {
        assert.deepEqual([status, body.error.code], [429, 'RATE_LIMITED']);
        assert.ok(body.error.retry_after_ms > 0 && body.error.retry_after_ms <= 6_000);
      }
      await allEnded('rated');
    },
  );

  await t.test(
    'a day counts exactly what it may; what is beyond is refused until midnight, and leaves no trace',
    async () => {
      const { passed, refused } = await sayAll(nodes, 'daily', 'advance', 40);
      assert.equal(passed, 25);
      for (const { status, headers, body } of refused) {
        assert.deepEqual([status, body.error.code, body.error.retryable], [429, 'QUOTA_EXCEEDED', true]);
        assert.ok(body.error.retry_after_ms > 0 && body.error.retry_after_ms <= 86_400_000);
        assert.equal(Number(headers.get('retry-after')), Math.ceil(body.error.retry_after_ms / 1000));
      }
      await allEnded('daily');
      const counts =
        "select count(*)::int as turns, count(answer)::int as answers from turns where tenant_id = 'daily'";
      assert.deepEqual(await rows(counts), [{ turns: 25, answers: 25 }]);
      assert.deepEqual(await rows("select used from daily_usage where tenant_id = 'daily'"), [{ used: 25 }]);
    },
  );

  await t.test(
    'executions at once are never more than the limit, both nodes get some, and all turns end',
    async () => {
      const runningOn = async (node: NodeClient) =>
        (await node.ask('/health/detailed')).body.stats.turns.professional.running as number;
      const seen = [0, 0];
      let most = 0;
      let watching = true;
      const watch = (async () => {
        while (watching) {
          const running = await Promise.all(nodes.map(runningOn));
          most = Math.max(
            most,
            running.reduce((sum, each) => sum + each, 0),
          );
          running.forEach((count, index) => {
            seen[index] = Math.max(seen[index] ?? 0, count);
          });
        }
      })();
      assert.equal((await sayAll(nodes, 'busy', 'professional', 24)).passed, 24);
      await allEnded('busy');
      watching = false;
      await watch;
      // Two looks that are not of one moment may count one that ended on one node and one that began on the other.
      assert.ok(most >= 2 && most <= 5, `${most} of 4`);
      assert.ok(
        seen.every((count) => count > 0),
        `${seen}`,
      );
    },
  );
});

test('sockets at once are never more than the limit over two nodes, and one that closes makes room anywhere', async (t) => {
  const { spawn } = await scene(t, 'offline-3x0');
  const env = { DEFAULT_TIER: 'professional' };
  const [one, two] = await Promise.all([spawn('one', env), spawn('two', env)]);
  const open = (node: NodeClient, session: string) =>
    connect(`${node.url.replace('http', 'ws')}/ws/acme/${session}`);
  const opened = [];
  for (let index = 0; index < 6; index += 1) {
    const client = await open(index < 4 ? one : two, `s${index}`);
    await client.next('session.ready');
    opened.push(client);
  }
  for (const node of [one, two]) {
    const refused = await open(node, 'late');
    assert.equal((await refused.next('error')).data.code, 'TIER_LIMIT');
    assert.equal((await refused.closed).code, 4429);
  }
  opened[0]?.destroy();
  let late = await open(two, 'late');
  await until('there is room', async () => {
    if ((await late.next()).type === 'session.ready') return true;
    late.destroy();
    late = await open(two, 'late');
    return false;
  });
  for (const client of [...opened, late]) client.destroy();
});

test('the slots of a node that was killed are free with its burial', async (t) => {
  const { spawn, rows } = await scene(t, 'offline-16000x20');
  const env = { DEFAULT_TIER: 'professional' };
  const [first, second] = await Promise.all([spawn('first', env), spawn('second', env)]);
  const clients = await Promise.all(Array.from({ length: 4 }, (_, index) => first.chat('acme', `s${index}`)));
  for (const client of clients) {
    client.say('Go.');
    await client.see('chat.delta');
  }
  const held = () => rows("select boot, held from limit_leases where kind = 'executions' and held > 0");
  const [dead] = await held();
  assert.equal(dead.held, 4);
  const late = await second.chat('acme', 'late');
  const task = late.say('Go.');
  assert.ok(['queued', 'processing'].includes((await late.see('chat.accepted')).data.status));
  await Promise.all([first.kill('SIGKILL'), ...clients.map(({ closed }) => closed)]);
  await second.line('a node is gone');
  await late.see('chat.delta');
  assert.ok((await held()).every(({ boot }) => boot !== dead.boot));
  late.send({ type: 'chat.cancel', task_id: task });
  await late.ended(task);
  await until('its slot has gone back', async () => (await held()).length === 0);
});

test('while the database is away a request that needs a token is refused as STORE_UNAVAILABLE, and passes afterwards', async (t) => {
  const { start } = await scene(t, 'offline-3x0');
  const one = await start({ CLUSTER_LOST_MS: '60000' });
  assert.equal((await say(one, 'acme', 'free', 's1')).status, 202);
  await server.stop();
  try {
    const { status, body } = await say(one, 'acme', 'free', 's1');
    assert.deepEqual([status, body.error.code], [503, 'STORE_UNAVAILABLE']);
  } finally {
    await server.start();
  }
  await until('it passes', async () => (await say(one, 'acme', 'free', 's1')).status === 202);
});

test('with CLUSTER=off a node has its limits to itself, and nothing is leased', async (t) => {
  const { start, rows } = await scene(t, 'offline-3x0');
  const one = await start({ CLUSTER: 'off' });
  assert.equal((await sayAll([one], 'acme', 'free', 12)).passed, 10);
  assert.deepEqual(await rows('select * from limits'), []);
});
