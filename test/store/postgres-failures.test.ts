/** PostgreSQL's bad days, and its second fence between tenants: row-level security. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { RefusalError } from '../../src/domain/errors.ts';
import { agentIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import { openStores, type Stores } from '../../src/store/open.ts';
import { TABLES } from '../../src/store/schema.ts';
import { leakFree } from '../support/leaks.ts';
import { asAdmin, type PostgresServer, startPostgres } from '../support/postgres.ts';
import { quiet } from '../support/quiet.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { agent, audit, UNDO_AGENTS_BY_CREATION, UNDO_NODES, UNDO_VERSIONS } from './agent-contract.ts';
import { endWith, outgoing, sent, storeOutgoing, unsentIds } from './outgoing-contract.ts';
import { accept, answer, contents, named, page, taskOf } from './records.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

const refusal = (error: unknown) => (error instanceof RefusalError ? error.data : undefined);
const refused = (error: unknown): boolean =>
  refusal(error)?.code === 'STORE_UNAVAILABLE' && (refusal(error)?.retry_after_ms ?? 0) > 0;

const withClient = async (url: string, body: (client: pg.Client) => Promise<void>): Promise<void> => {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await body(client);
  } finally {
    await client.end();
  }
};

/** Tries until it goes, waiting as long as each refusal asks for. */
async function eventually<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 0; ; attempt += 1)
    try {
      return await call();
    } catch (error) {
      if (attempt > 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, refusal(error)?.retry_after_ms ?? 10));
    }
}

test('a query that names no tenant sees nothing, one that names a tenant sees its rows alone', async (t) => {
  leakFree(t);
  const url = await server.database();
  const stores = await openStores({ url, log: quiet });
  for (const tenant of ['acme', 'umbrella']) await accept(stores.conversations, named('t1', 's1', tenant));
  await stores.conversations.commit({ type: 'tenant-tier', tenantId: tenantOf('acme'), tier: 'free' });

  await withClient(url, async (client) => {
    for (const table of TABLES) {
      const { rows } = await client.query(`select count(*)::int as seen from ${table}`);
      assert.deepEqual(rows, [{ seen: 0 }], table);
    }
    await client.query('begin');
    await client.query("select set_config('nooble.tenant_id', 'acme', true)");
    const { rows } = await client.query('select tenant_id from turns');
    assert.deepEqual(rows, [{ tenant_id: 'acme' }]);
    await assert.rejects(
      client.query("insert into tenants (tenant_id, tier) values ('umbrella', 'free')"),
      /row-level security/,
    );
    await client.query('rollback');
    const { rows: later } = await client.query('select tenant_id from turns');
    assert.deepEqual(later, [], 'the name ends with the transaction');
  });
  await stores.close();
});

const tenantOf = (name: string) => tenantIdSchema.parse(name);

test('a role that passes row-level security is warned of', async () => {
  const warned: string[] = [];
  const log = { ...quiet, warn: (_: object, text: string) => void warned.push(text) };
  const stores = await openStores({ url: server.adminUrl, log });
  await stores.close();

  assert.match(warned.join(), /bypasses row-level security/);
});

test('nodes that open a new database at once agree on its schema', async () => {
  const url = await server.database();
  const nodes = await Promise.all([1, 2, 3].map(() => openStores({ url, log: quiet })));

  await Promise.all(nodes.map(({ conversations }, index) => accept(conversations, named(`t${index}`))));
  await Promise.all(nodes.map((stores) => stores.close()));
});

test('a turn that two nodes accept at once is stored once', async () => {
  const url = await server.database();
  const nodes = await Promise.all([1, 2].map(() => openStores({ url, log: quiet })));
  const outcomes = await Promise.all(
    nodes.flatMap(({ conversations }) =>
      Array.from({ length: 50 }, (_, turn) => accept(conversations, named(`t${turn}`))),
    ),
  );

  assert.equal(outcomes.filter((outcome) => outcome === 'stored').length, 50);
  await Promise.all(nodes.map((stores) => stores.close()));
});

test('an end whose message can not be stored leaves the turn unended; other writes of its batch are stored', async () => {
  const url = await server.database();
  const { conversations, close } = await openStores({ url, log: quiet });
  const [name, other] = [named('t1'), named('t2')];
  await accept(conversations, name);
  await withClient(url, async (client) => {
    await client.query('alter table outgoing rename to away');
    const [kept, lost] = await Promise.allSettled([
      accept(conversations, other),
      endWith(conversations, name, outgoing('a')),
    ]);
    assert.equal(kept.status, 'fulfilled');
    assert.equal(lost.status, 'rejected');
    assert.equal((await conversations.turn(tenantOf('acme'), taskOf(name)))?.status, 'processing');
    await client.query('alter table away rename to outgoing');
  });

  assert.equal(await endWith(conversations, name, outgoing('a')), 'stored');
  assert.deepEqual(await unsentIds(conversations), ['a']);
  await close();
});

test('what is to be sent outlives its node, and an older database gets its outbox, fenced like the rest', async () => {
  const url = await server.database();
  const before = await openStores({ url, log: quiet });
  const [first, second] = [outgoing('a', { answers: 'r1' }), outgoing('b', {}, 'umbrella')];
  await storeOutgoing(before.conversations, first, second);
  await before.close();

  const after = await openStores({ url, log: quiet });
  assert.deepEqual(await unsentIds(after.conversations), ['a', 'b']);
  await sent(after.conversations, second);
  assert.deepEqual(await after.conversations.answered(first.tenantId, 'r1'), first);
  await after.close();
  await withClient(url, async (client) => {
    await client.query('drop table outgoing; alter table deliveries drop column settled_at');
    await client.query('alter table turns drop column reasoning');
    for (const statement of [UNDO_VERSIONS, ...UNDO_NODES, ...UNDO_AGENTS_BY_CREATION])
      await client.query(statement);
    await client.query("delete from kysely_migration where name >= '004'");
    const anew = await openStores({ url, log: quiet });
    await storeOutgoing(anew.conversations, first);
    await anew.close();
    const { rows } = await client.query('select count(*)::int as seen from outgoing');
    assert.deepEqual(rows, [{ seen: 0 }]);
  });
});

test('one answer that two nodes store at once is stored once', async () => {
  const url = await server.database();
  const nodes = await Promise.all([1, 2].map(() => openStores({ url, log: quiet })));
  const ids = Array.from({ length: 50 }, (_, index) => `m${index}`);
  const orders = [ids, [...ids].reverse()];
  await Promise.all(
    nodes.map(({ conversations }, node) =>
      Promise.all((orders[node] ?? []).map((id) => storeOutgoing(conversations, outgoing(id)))),
    ),
  );

  assert.deepEqual([...(await unsentIds(nodes[0]?.conversations ?? assert.fail()))].sort(), [...ids].sort());
  await Promise.all(nodes.map((stores) => stores.close()));
});

test('connections that the server cuts are replaced', async () => {
  const url = await server.database();
  const { conversations, close } = await openStores({ url, log: quiet });
  await accept(conversations, named('t1'));
  await page(conversations, named('t1'));
  await asAdmin(server.adminUrl, [
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'nooble'",
  ]);

  await eventually(() => accept(conversations, named('t2')));
  assert.deepEqual(contents(await eventually(() => page(conversations, named('t1')))), ['ask t1', 'ask t2']);
  await close();
});

test('a connection that is cut at work refuses what it was at, and harms nothing else', async () => {
  const url = await server.database();
  const { conversations, close } = await openStores({ url, log: quiet });
  await accept(conversations, named('t1'));
  await withClient(url, async (client) => {
    await client.query('begin');
    await client.query('lock table turns in access exclusive mode');
    const reading = assert.rejects(page(conversations, named('t1')), refused);
    const waiting = 'from pg_locks where not granted';
    const untilWaiting = async (count: number) => {
      while ((await client.query(`select pid ${waiting}`)).rows.length < count);
    };
    await untilWaiting(1);
    const writing = assert.rejects(accept(conversations, named('t2')), refused);
    await untilWaiting(2);
    await asAdmin(server.adminUrl, [`select pg_terminate_backend(pid) ${waiting}`]);
    await Promise.all([reading, writing]);
    await client.query('rollback');
  });

  assert.equal(await eventually(() => accept(conversations, named('t2'))), 'stored');
  await close();
});

test('while the server is down everything is refused; once it is back the store is, by itself', async (t) => {
  leakFree(t);
  const logged: string[] = [];
  const note = (_: object, text: string) => void logged.push(text);
  const stores: Stores = await openStores({
    url: await server.database(),
    log: { ...quiet, error: note, info: note },
    guard: { failures: 2, openMs: 50 },
  });
  const { conversations, agents } = stores;
  await accept(conversations, named('t1'));
  await server.stop();

  for (let attempt = 0; attempt < 3; attempt += 1)
    await assert.rejects(accept(conversations, named('t2')), refused);
  await assert.rejects(conversations.ping(), refused);
  await assert.rejects(page(conversations, named('t1')), refused);
  await assert.rejects(agents.list(tenantOf('acme'), { page: 1, pageSize: 1 }), refused);
  assert.ok(logged.includes('store unavailable'));

  await server.start();
  await eventually(() => conversations.ping());
  assert.ok(logged.includes('store available again'));
  assert.equal(await accept(conversations, named('t2')), 'stored');
  await answer(conversations, named('t2'));
  assert.deepEqual(contents(await page(conversations, named('t1'))), ['ask t1', 'ask t2', 'say t2']);
  await stores.close();
});

test('after a fail-over no connection to the old primary is used: writes and reads are those of the new one', async (t) => {
  const next = await startPostgres();
  t.after(() => next.close());
  leakFree(t);
  const old = new URL(await server.database());
  const logged: string[] = [];
  const proxy = await startTcpProxy(Number(old.port));
  // The new primary has the same roles and databases, and what was stored there meanwhile.
  let fresh = new URL(await next.database());
  while (fresh.pathname !== old.pathname) fresh = new URL(await next.database());
  const direct = await openStores({ url: fresh.href, log: quiet });
  for (const task of ['t1', 't2']) await accept(direct.conversations, named(task));
  await direct.close();

  const through = new URL(old);
  through.port = String(proxy.port);
  const log = { ...quiet, warn: (_: object, text: string) => void logged.push(text) };
  const { conversations, agents, close } = await openStores({ url: through.href, log });
  await accept(conversations, named('t1'));
  const reads = () => Promise.all(Array.from({ length: 8 }, () => page(conversations, named('t1'))));
  await reads();
  await asAdmin(server.adminUrl, [
    'alter system set default_transaction_read_only = on',
    'select pg_reload_conf()',
  ]);
  t.after(() =>
    asAdmin(server.adminUrl, [
      'set default_transaction_read_only = off',
      'alter system reset default_transaction_read_only',
      'select pg_reload_conf()',
    ]),
  );
  proxy.lead(Number(fresh.port));

  assert.equal((await conversations.turn(tenantOf('acme'), taskOf(named('t2'))))?.taskId, 't2');
  const made = agent(agentIdSchema.parse('a1'));
  const change = { agent: made, audit: audit(made), replaces: 0, maxAgents: null };
  const outcomes = await Promise.all([
    eventually(() => agents.save(made.tenant_id, change)),
    eventually(() => accept(conversations, named('t3'))),
  ]);
  assert.deepEqual(outcomes, ['saved', 'stored']);
  assert.deepEqual(
    await reads().then((pages) => pages.map((each) => contents(each)?.length)),
    Array(8).fill(3),
  );
  assert.ok(logged.includes('the database has become read-only: connecting anew'));
  await close();
  await proxy.close();
});

test('a database that stays read-only is read, refuses writes, and takes them when it can', async (t) => {
  leakFree(t);
  const url = await server.database();
  const { conversations, close } = await openStores({ url, log: quiet, guard: { openMs: 50 } });
  await accept(conversations, named('t1'));
  const name = new URL(url).pathname.slice(1);
  const cut = `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${name}'`;
  await asAdmin(server.adminUrl, [`alter database ${name} set default_transaction_read_only = on`, cut]);
  await assert.rejects(async () => {
    for (;;) await accept(conversations, named('t2'));
  }, refused);
  await eventually(async () =>
    assert.deepEqual(contents(await page(conversations, named('t1'))), ['ask t1']),
  );
  await asAdmin(server.adminUrl, [`alter database ${name} reset default_transaction_read_only`]);
  assert.equal(await eventually(() => accept(conversations, named('t2'))), 'stored');
  await close();
});

test('a server that is not there stops the start with a line that names it, without the password', async (t) => {
  leakFree(t);
  const url = 'postgres://node:secret@127.0.0.1:1/nooble';

  await assert.rejects(openStores({ url, log: quiet }), (error: Error) => {
    assert.match(
      error.message,
      /postgres:\/\/node:…@127\.0\.0\.1:1\/nooble can not be opened: .*ECONNREFUSED/,
    );
    assert.doesNotMatch(error.message, /secret/);
    return true;
  });
});
