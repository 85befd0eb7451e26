/** The fence of PostgreSQL: a batch is committed before its node's death, or never. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import type { Stores } from '../../src/store/open.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';
import { membersOn } from './members.ts';
import { outgoing, unsentIds } from './outgoing-contract.ts';
import * as records from './records.ts';
import { named, taskOf, tenantOf } from './records.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

const scene = (t: TestContext) => membersOn(t, server);

/** A turn as that of a run with a session of its own, which nobody claims; of who has no boot, of none. */
const epochOf = (stores: Stores & { readonly boot?: number }) =>
  stores.boot === undefined ? undefined : -stores.boot;
const accept = (stores: Stores, name: string) =>
  records.accept(stores.conversations, named(name), undefined, undefined, epochOf(stores));
const answer = (stores: Stores, name: string) =>
  records.answer(stores.conversations, named(name), undefined, undefined, epochOf(stores));

const statusOf = async ({ conversations }: Stores, name: string) =>
  (await conversations.turn(tenantOf(named(name)), taskOf(named(name))))?.status;

test('after its burial nothing of a node is stored, its turns are interrupted, and the next who beats sends for it', async (t) => {
  const { member } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  await accept(one, 'mine');
  await accept(two, 'theirs');
  await one.conversations.commit({ type: 'outgoing', outgoing: [outgoing('a')] });
  assert.deepEqual([await unsentIds(one.conversations), await unsentIds(two.conversations)], [['a'], []]);
  let told = 0;
  one.nodes.onSuperseded(() => {
    told += 1;
  });

  const beat = async () => (await two.nodes.beat()).members.find(({ boot }) => boot === one.boot)?.beat;
  const seen = await beat();
  await one.nodes.beat();
  assert.equal(await two.nodes.bury(one.boot, seen), 'renewed');
  assert.equal(await statusOf(two, 'mine'), 'processing');
  assert.equal(await two.nodes.bury(one.boot, await beat()), 'buried');
  assert.equal(await two.nodes.bury(one.boot, undefined), 'dead already');
  assert.deepEqual([await statusOf(two, 'mine'), await statusOf(two, 'theirs')], ['failed', 'processing']);
  assert.deepEqual(await unsentIds(two.conversations), []);
  assert.equal((await two.nodes.beat()).adopted, 1);
  assert.deepEqual(await unsentIds(two.conversations), ['a']);

  const writes = [
    accept(one, 'late'),
    answer(one, 'mine'),
    one.conversations.commit({ type: 'outgoing', outgoing: [outgoing('b')] }),
  ];
  for (const write of await Promise.allSettled(writes)) assert.equal(write.status, 'rejected');
  await assert.rejects(accept(one, 'later'), /given up by the others/);
  assert.equal((await one.nodes.beat()).mine, null);
  assert.equal(told, 1);
  assert.equal(await statusOf(two, 'late'), undefined);
  assert.equal(await statusOf(two, 'mine'), 'failed');
  assert.equal(await answer(two, 'theirs'), 'stored');
});

test('a burial waits for a batch that is being committed, and the next one is refused', async (t) => {
  const { member, connect } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  await accept(one, 'first');
  const blocker = await connect();
  await blocker.query('begin');
  await blocker.query('select 1 from turns where task_id = $1 for update', [taskOf(named('first'))]);
  const ending = answer(one, 'first');
  const look = await connect();
  const waiting = async () =>
    (await look.query("select count(*)::int as n from pg_stat_activity where wait_event_type = 'Lock'"))
      .rows[0].n;
  await until('the batch waits', async () => (await waiting()) === 1);
  const burial = two.nodes.bury(one.boot, undefined);
  await until('the burial waits', async () => (await waiting()) === 2);
  // Its beats are not held up meanwhile.
  assert.equal((await one.nodes.beat()).mine, 'live');
  await blocker.query('commit');
  assert.equal(await ending, 'stored');
  assert.equal(await burial, 'buried');
  assert.equal(await statusOf(two, 'first'), 'completed');
  await assert.rejects(accept(one, 'second'), /given up/);
});

test('the first batch on a new connection waits for what the server does still on an older one; later ones do not', async (t) => {
  const { member, connect } = await scene(t);
  const one = await member('one');
  const older = await connect();
  await older.query('begin');
  const { rows } = await older.query('select boot, nonce from nodes');
  const hold = () => older.query('select nooble_alive($1, $2)', [rows[0].boot, rows[0].nonce]);
  await hold();
  const look = await connect();
  let done = false;
  const first = accept(one, 'first').then(() => {
    done = true;
  });
  await until('it waits', async () => {
    const { rows: found } = await look.query(
      "select count(*)::int as n from pg_stat_activity where wait_event_type = 'Lock'",
    );
    return found[0].n === 1;
  });
  assert.equal(done, false);
  await older.query('commit');
  await first;
  await older.query('begin');
  await hold();
  await accept(one, 'second');
  await older.query('commit');
});

test('batches of a node come by one connection', async (t) => {
  const { member, connect } = await scene(t);
  const one = await member('one');
  const names = Array.from({ length: 300 }, (_, n) => `many${n}`);
  const pids = new Set<number>();
  const client = await connect();
  let going = true;
  const looking = (async () => {
    while (going) {
      const { rows } = await client.query(
        "select pid from pg_locks where relation = 'nodes'::regclass and mode = 'RowShareLock'",
      );
      for (const { pid } of rows) pids.add(pid);
    }
  })();
  for (let from = 0; from < names.length; from += 10)
    await Promise.all(names.slice(from, from + 10).map((name) => accept(one, name)));
  going = false;
  await looking;
  assert.equal(pids.size, 1);
});

test('what a node without a boot left is found: its turns end at the next start, its messages are taken', async (t) => {
  const { lone, member } = await scene(t);
  const older = await lone();
  await accept(older, 'left');
  await older.conversations.commit({ type: 'outgoing', outgoing: [outgoing('a')] });
  const one = await member('one');
  await accept(one, 'mine');
  const two = await member('two');
  assert.equal((await two.nodes.beat()).adopted, 1);
  await two.conversations.commit({ type: 'unfinished-interrupted', atMs: 1_700_000_001_000 });
  assert.deepEqual([await statusOf(two, 'left'), await statusOf(two, 'mine')], ['failed', 'processing']);
  // It goes on working on the newer schema.
  await accept(older, 'more');
  assert.equal(await answer(older, 'more'), 'stored');
});
