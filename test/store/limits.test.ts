/** Limits that nodes share, over real PostgreSQL: nothing is ever given beyond a limit, and nothing is lost for long. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import pg from 'pg';
import {
  askFor,
  giveBack,
  heldOf,
  type Lease,
  NO_LEASE,
  slotTerms,
  tokenTerms,
} from '../../src/domain/leases.ts';
import type { NodeTable } from '../../src/ports/cluster.ts';
import type { LimitKind, LimitQuestion, LimitTable } from '../../src/ports/limits.ts';
import { openStores, type Stores } from '../../src/store/open.ts';
import { randomFrom } from '../support/dice.ts';
import { leakFree } from '../support/leaks.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { quiet } from '../support/quiet.ts';
import { acceptWithin, DAY, named, tenantOf } from './records.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

const acme = tenantOf(named('t'));

interface Member extends Stores {
  readonly nodes: NodeTable;
  readonly limits: LimitTable;
  readonly boot: number;
  ask(
    kind: LimitKind,
    question: Partial<LimitQuestion>,
  ): Promise<{ given: number; retryAfterMs: number | null }>;
}

async function scene(t: TestContext) {
  leakFree(t);
  const url = await server.database();
  const admin = new pg.Client({
    connectionString: server.adminUrl.replace(/[^/]*$/, new URL(url).pathname.slice(1)),
  });
  await admin.connect();
  const opened: Stores[] = [];
  t.after(async () => {
    for (const each of opened) await each.close();
    await admin.end();
  });
  return {
    admin,
    async member(nodeId: string): Promise<Member> {
      const stores = await openStores({ url, log: quiet, nodeId });
      opened.push(stores);
      const { nodes, limits } = stores;
      assert.ok(nodes && limits);
      const boot = await nodes.register({ nodeId, version: '1' });
      let asked = 0;
      return {
        ...{ ...stores, nodes, limits, boot },
        async ask(kind, question) {
          asked += 1;
          const full = {
            tenantId: acme,
            kind,
            most: 10,
            perMs: null,
            held: 0,
            back: 0,
            want: 0,
            spends: 0,
            asked,
          };
          const [answer] = await limits.lease([{ ...full, ...question }]);
          assert.ok(answer);
          return answer;
        },
      };
    },
  };
}

test('tokens: two nodes are given what the limit allows, then told when there is one more', async (t) => {
  const { member, admin } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  const minute = { most: 10, perMs: 10 / 60_000 };
  assert.equal((await one.ask('minute', { ...minute, want: 7 })).given, 7);
  const rest = await two.ask('minute', { ...minute, want: 7 });
  assert.equal(rest.given, 3);
  assert.ok(rest.retryAfterMs !== null && rest.retryAfterMs > 5_000 && rest.retryAfterMs <= 6_000);
  // What was not spent is there for the other at once.
  assert.deepEqual((await one.ask('minute', { ...minute, held: 0, back: 2 })).given, 0);
  assert.equal((await two.ask('minute', { ...minute, want: 7 })).given, 2);
  await admin.query("update limits set at = at - interval '30 seconds'");
  assert.equal((await two.ask('minute', { ...minute, want: 9 })).given, 5);
  assert.equal((await one.ask('minute', { most: 0, perMs: 0, want: 1 })).retryAfterMs, 86_400_000);
});

test('tokens that wait on a node are not there twice: the bucket fills up to what nobody holds', async (t) => {
  const { member, admin } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  const minute = { most: 80, perMs: 80 / 60_000 };
  assert.equal((await one.ask('minute', { ...minute, want: 10 })).given, 10);
  await admin.query("update limits set at = at - interval '1 hour'");
  assert.equal((await two.ask('minute', { ...minute, want: 80 })).given, 70);
  // What they have spent counts as held until they say so.
  await admin.query("update limits set at = at - interval '1 hour'");
  assert.equal((await one.ask('minute', { ...minute, held: 0 })).given, 0);
  assert.equal((await two.ask('minute', { ...minute, held: 0 })).given, 0);
  await admin.query("update limits set at = at - interval '1 hour'");
  assert.equal((await two.ask('minute', { ...minute, want: 90, spends: 90 })).given, 80);
  await admin.query("update limits set at = at - interval '30 seconds'");
  assert.equal((await one.ask('minute', { ...minute, want: 90, spends: 90 })).given, 40, 'spent at once');
});

test('tokens that a dead node held are not there twice, and flow back like others', async (t) => {
  const { member, admin } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  const minute = { most: 80, perMs: 80 / 60_000 };
  assert.equal((await one.ask('minute', { ...minute, want: 30 })).given, 30);
  await two.nodes.bury(one.boot, undefined);
  await admin.query("update limits set at = at - interval '1 hour'");
  assert.equal((await two.ask('minute', { ...minute, want: 80, spends: 80 })).given, 50);
  assert.deepEqual((await admin.query('select * from limit_leases where held > 0')).rows, []);
  await admin.query("update limits set at = at - interval '1 hour'");
  assert.equal((await two.ask('minute', { ...minute, want: 80, spends: 80 })).given, 80);
});

test('slots: what nodes hold is never more than the limit, and a dead node holds nothing', async (t) => {
  const { member, admin } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  assert.equal((await one.ask('executions', { want: 6 })).given, 6);
  assert.equal((await two.ask('executions', { want: 6 })).given, 4);
  const { given, retryAfterMs } = await two.ask('executions', { held: 4, want: 1 });
  assert.deepEqual([given, retryAfterMs], [0, 0]);
  assert.equal((await one.ask('sockets', { want: 10 })).given, 10, 'another kind counts for itself');
  assert.equal(await two.nodes.bury(one.boot, undefined), 'buried');
  assert.deepEqual((await admin.query('select boot from limit_leases')).rows, [{ boot: String(two.boot) }]);
  assert.equal((await two.ask('executions', { held: 4, want: 6 })).given, 6);
  await assert.rejects(one.ask('executions', { want: 1 }), /given up by the others/);
});

test('a node hears of its share while another wants some in vain', async (t) => {
  const { member } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  const share = async (node: Member, question: Partial<LimitQuestion>) =>
    (
      await node.limits.lease([
        {
          tenantId: acme,
          kind: 'executions',
          most: 10,
          perMs: null,
          held: 0,
          back: 0,
          want: 0,
          spends: 0,
          asked: 0,
          ...question,
        },
      ])
    )[0]?.share;
  assert.equal(await share(one, { want: 10, asked: 1 }), null);
  assert.equal(await share(two, { want: 2, asked: 1 }), null);
  assert.equal(await share(one, { held: 10, asked: 2 }), 5);
});

test('a question that comes late does not undo a later one, and one that was lost is made good by the next', async (t) => {
  const { member } = await scene(t);
  const one = await member('one');
  const two = await member('two');
  await one.ask('executions', { want: 8, asked: 5 });
  assert.equal((await one.ask('executions', { held: 0, want: 5, asked: 4 })).given, 0);
  assert.equal((await two.ask('executions', { want: 5 })).given, 2);
  // It never heard that it was given eight.
  assert.equal((await one.ask('executions', { held: 1, want: 0, spends: 0, asked: 6 })).given, 0);
  assert.equal((await two.ask('executions', { held: 2, want: 8 })).given, 7);
});

test('questions of many tenants are answered each in its place; without the tenant or the node nothing is seen', async (t) => {
  const { member } = await scene(t);
  const one = await member('one');
  const names = Array.from({ length: 40 }, (_, index) => `t${(index * 7) % 40}`);
  const answers = await one.limits.lease(
    names.map((tenant, index) => ({
      tenantId: tenantOf(named('x', 's', tenant)),
      ...{
        kind: 'executions' as const,
        most: index,
        perMs: null,
        held: 0,
        back: 0,
        want: 100,
        spends: 0,
        asked: 1,
      },
    })),
  );
  assert.deepEqual(
    answers.map(({ given }) => given),
    names.map((_, index) => index),
  );
});

test('under random load of two nodes slots and tokens are never over, and all slots can be had when all is given back', async (t) => {
  const { member, admin } = await scene(t);
  const members = [await member('one'), await member('two'), await member('three')];
  const random = randomFrom(7);
  const slots = slotTerms(9);
  const minute = tokenTerms(60, 60_000);
  const leases: Lease[] = members.map(() => NO_LEASE);
  let tokens = 0;
  const startedAtMs = Date.now();
  const held = () => leases.reduce((sum, lease) => sum + heldOf(lease), 0);
  const play = async (index: number): Promise<void> => {
    const node = members[index];
    if (!node) return;
    for (let round = 0; round < 60; round += 1) {
      const lease = leases[index] ?? NO_LEASE;
      const isMore = random() < 0.55;
      const [asking, question] = isMore
        ? askFor(lease, slots, 1 + Math.floor(random() * 4))
        : giveBack(lease, slots, Math.floor(random() * (lease.free + 1)));
      // What is given back is not held from now on; what is given is from then on.
      leases[index] = { ...asking, asking: false };
      if (question) {
        const { given } = await node.ask('executions', question);
        leases[index] = { ...asking, asking: false, free: asking.free + given };
      }
      assert.ok(held() <= 9, `${held()} slots of 9`);
      if (random() < 0.3) {
        const want = 1 + Math.floor(random() * 5);
        tokens += (await node.ask('minute', { most: 60, perMs: minute.perMs, want, spends: want })).given;
        assert.ok(tokens <= 60 + (Date.now() - startedAtMs + 50) * (60 / 60_000), `${tokens} tokens`);
      }
    }
  };
  await Promise.all(members.map((_, index) => play(index)));
  const { rows } = await admin.query(
    "select coalesce(sum(held), 0)::int as held from limit_leases where kind = 'executions'",
  );
  assert.equal(rows[0].held, held(), 'the table says what the nodes hold');
  for (const node of members) await node.ask('executions', { most: 9, held: 0 });
  assert.equal((await members[0]?.ask('executions', { most: 9, want: 9 }))?.given, 9);
});

test('under random load of two nodes a day counts exactly what it may, repeats and shared ids included', async (t) => {
  const { member } = await scene(t);
  const members = [await member('one'), await member('two')];
  const random = randomFrom(3);
  for (let trial = 0; trial < 8; trial += 1) {
    const tenant = `tenant${trial}`;
    const most = 20 + Math.floor(random() * 30);
    const write = (node: Member, task: string) =>
      // As turns with a session of their own: nobody claims one.
      acceptWithin(node.conversations, named(task, `s-${task}`, tenant), most, { epoch: -node.boot });
    const outcomes: string[] = [];
    await Promise.all(
      members.map(async (node, index) => {
        for (let batch = 0; batch < 6; batch += 1) {
          const tasks = Array.from({ length: 10 }, (_, at) =>
            // Some ids are said twice on a node, and some on both nodes at once.
            at < 2 ? `both${batch}-${at}` : `n${index}-${batch}-${Math.floor(random() * 12)}`,
          );
          outcomes.push(...(await Promise.all(tasks.map((task) => write(node, task)))));
        }
      }),
    );
    const stored = outcomes.filter((outcome) => outcome === 'stored').length;
    assert.equal(stored, most, `trial ${trial}`);
    const [one] = members;
    assert.equal((await one?.conversations.tenant(tenantOf(named('x', 's', tenant)), DAY))?.used, most);
  }
});

test("a turn of a session that is another node's is fenced, whatever the day has room for, and takes nothing of it", async (t) => {
  const { member } = await scene(t);
  const one = await member('one');
  const write = (task: string, epoch: number) => acceptWithin(one.conversations, named(task), 2, { epoch });
  const own = -one.boot;
  const outcomes = await Promise.all([
    write('a', own),
    write('b', 99),
    write('c', own),
    write('d', 99),
    write('e', own),
    write('a', own),
  ]);
  assert.deepEqual(outcomes, ['stored', 'fenced', 'stored', 'fenced', 'over', 'duplicate']);
  assert.equal((await one.conversations.tenant(acme, DAY))?.used, 2);
});
