/** A node is killed in the middle of a batch: the batch is there, goes on, and every item is called back. */
import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { after, before, type TestContext, test } from 'node:test';
import pg from 'pg';
import { type NodeClient, spawnNode, startTestNode } from '../support/node.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { temporary } from '../support/temporary.ts';
import { until } from '../support/until.ts';
import { openReceiver } from '../transports/webhooks/webhook-receiver.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

/** A database, and how its callbacks are given another address. */
interface Place {
  readonly url: string;
  readonly redirect: (from: string, to: string) => Promise<void>;
}

const redirections = (from: string, to: string) => [
  `update callbacks set url = '${to}' where url = '${from}'`,
  `update batches set requests = replace(requests, '${from}', '${to}')`,
];

const places: Readonly<Record<string, (t: TestContext) => Promise<Place>>> = {
  async sqlite(t) {
    const path = temporary(t).path('nooble.db');
    const redirect = async (from: string, to: string) => {
      const db = new DatabaseSync(path);
      for (const statement of redirections(from, to)) db.exec(statement);
      db.close();
    };
    return { url: `sqlite:${path}`, redirect };
  },
  async postgres() {
    const url = await server.database();
    const redirect = async (from: string, to: string) => {
      const name = new URL(url).pathname.slice(1);
      const admin = new pg.Client({ connectionString: server.adminUrl.replace(/[^/]*$/, name) });
      await admin.connect();
      for (const statement of redirections(from, to)) await admin.query(statement);
      await admin.end();
    };
    return { url, redirect };
  },
};

const ITEMS = 4;
const NOWHERE = 'http://hooks.invalid:9/done';
const TIER = { tier: 'enterprise' } as const;

for (const [name, place] of Object.entries(places))
  test(`${name}: after kill -9 a batch goes on where it was, and all of it is called back`, async (t) => {
    const { url, redirect } = await place(t);
    const env = {
      ...{ DATABASE_URL: url, ALLOW_INSECURE: '1', DEFAULT_PROVIDER: 'offline' },
      DEFAULT_MODEL: 'offline-60x25',
    };
    const first = await spawnNode(t, { ...env, NODE_ID: 'first' });
    const items = Array.from({ length: ITEMS }, (_, index) => ({
      ...{ agent_id: 'default', input: `Item ${index}.`, callback_url: NOWHERE },
    }));
    const asked = await first.ask('/api/executions/batch', { ...TIER, body: { items, concurrency: 1 } });
    assert.equal(asked.status, 202, asked.text);
    const id: string = asked.body.batch_id;
    const batchOn = async (node: NodeClient) => (await node.ask(`/api/executions/batch/${id}`, TIER)).body;
    await until('the second item runs', async () => {
      const { items: found, completed } = await batchOn(first);
      return completed === 1 && found[1].status === 'processing';
    });
    const before = await batchOn(first);
    await first.kill('SIGKILL');

    const receiver = await openReceiver(t);
    await redirect(NOWHERE, `http://127.0.0.1:${receiver.port}/done`);
    const second = await startTestNode(t, {
      env: { ...env, NODE_ID: 'second' },
      parts: { blockPrivate: false },
    });
    const left = await batchOn(second);
    assert.deepEqual([left.status, left.total], ['processing', ITEMS]);
    assert.deepEqual(left.items[0], before.items[0], 'what had ended is answered as before');
    await until('all of it has ended', async () => (await batchOn(second)).completed === ITEMS, 60_000);
    const done = await batchOn(second);
    assert.deepEqual([done.status, done.failed], ['completed', 0]);

    const toldOf = () => new Set(receiver.requests.map(({ body }) => JSON.parse(body).execution_id));
    const wanted = name === 'sqlite' ? ITEMS : ITEMS - 1; // the first waits for its next attempt, a minute
    await until('all are called back', () => toldOf().size >= wanted, 60_000);
    for (const { body } of receiver.requests) {
      const told = JSON.parse(body);
      assert.equal(told.status, 'completed');
      const item = done.items.find(
        ({ execution_id }: { execution_id: string }) => execution_id === told.execution_id,
      );
      assert.equal(told.result.content, item.result.content);
    }
    t.diagnostic(`${receiver.requests.length} callbacks for ${toldOf().size} items`);
  });
