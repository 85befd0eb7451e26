/** Owners in PostgreSQL: who claims a session has it until it gives it up or its node is dead, and only then it writes. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import type { SessionKey } from '../../src/ports/cluster.ts';
import type { Epoch } from '../../src/ports/store.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { type Member, membersOn } from './members.ts';
import { accept, answer, named, sessionOf, taskOf, tenantOf } from './records.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

const scene = (t: TestContext) => membersOn(t, server);

const keyOf = (session: string, tenant = 'acme'): SessionKey => ({
  tenantId: tenantOf(named('t', session, tenant)),
  sessionId: sessionOf(named('t', session, tenant)),
});
const claim = async ({ owners }: Member, session: string) => {
  const [claimed] = await owners.claim([keyOf(session)]);
  assert.ok(claimed);
  return claimed;
};
const said = (member: Member, task: string, epoch: Epoch, session = 's1') =>
  accept(member.conversations, named(task, session), undefined, undefined, epoch);
const ended = (member: Member, task: string, epoch: Epoch, session = 's1') =>
  answer(member.conversations, named(task, session), undefined, undefined, epoch);
const release = ({ conversations }: Member, session: string, epoch: Epoch) =>
  conversations.commit({ type: 'session-released', ...keyOf(session), epoch });

test('of two nodes that claim the same sessions each has what the other has not, and both know who has which', async (t) => {
  const { member } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  const keys = ['acme', 'globex'].flatMap((tenant) =>
    Array.from({ length: 300 }, (_, n) => keyOf(`s${n}`, tenant)),
  );
  const [mine, theirs] = await Promise.all([one.owners.claim(keys), two.owners.claim([...keys].reverse())]);
  assert.deepEqual([...theirs].reverse(), mine);
  assert.equal(new Set(mine.map((claimed) => claimed?.epoch)).size, keys.length);
  assert.ok(mine.every((claimed) => claimed?.boot === one.boot || claimed?.boot === two.boot));
  // Asked again, as after an answer that was lost: the same, by the same epochs.
  assert.deepEqual(await one.owners.claim(keys), mine);
});

test('a session is written only by its owner and its epoch; turns of an earlier epoch are told from others', async (t) => {
  const { member, rows } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  const { epoch } = await claim(one, 's1');
  assert.equal(await said(one, 'a', epoch), 'stored');
  assert.equal(await said(one, 'a', epoch), 'duplicate');
  assert.equal(await said(one, 'b', epoch + 1), 'fenced');
  assert.equal(await said(two, 'b', epoch), 'fenced');
  assert.equal(await said(two, 'a', epoch), 'fenced', 'who does not own it is not told of its turns');
  const key = { tenantId: keyOf('s1').tenantId, taskId: taskOf(named('a')) };
  const effects = (of: Member, by: Epoch) =>
    of.conversations.commit({ type: 'turn-effects', ...key, epoch: by });
  assert.deepEqual([await effects(two, epoch), await effects(one, epoch + 1)], ['fenced', 'fenced']);
  assert.equal(await effects(one, epoch), 'stored');
  assert.deepEqual([await ended(two, 'a', epoch), await ended(one, 'a', epoch + 1)], ['fenced', 'fenced']);
  assert.equal(await ended(one, 'a', epoch), 'stored');
  assert.equal(await ended(one, 'a', epoch), 'duplicate');

  const forget = (of: Member, by: Epoch) =>
    of.conversations.commit({ type: 'session-deleted', ...keyOf('s1'), epoch: by });
  assert.equal(await forget(two, epoch), 'fenced');
  assert.equal((await rows('select * from turns')).length, 1);
  assert.equal(await forget(one, epoch), 'stored');
  assert.equal((await rows('select * from turns')).length, 0);
  // Many at once: each has its own outcome.
  const outcomes = await Promise.all([
    ...Array.from({ length: 20 }, (_, n) => said(one, `m${n}`, n % 2 === 0 ? epoch : epoch + 1)),
    said(one, 'own', -one.boot, 'of-its-own'),
    said(one, 'others', -two.boot, 'of-its-own'),
  ]);
  assert.deepEqual(outcomes, [
    ...Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? 'stored' : 'fenced')),
    'stored',
    'fenced',
  ]);
});

test('what a session wrote is stored before it is given up; what it writes afterwards is refused', async (t) => {
  const { member, rows } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  for (let round = 0; round < 20; round += 1) {
    const session = `s${round}`;
    const { epoch } = await claim(one, session);
    const writes = Promise.all([
      said(one, `a${round}`, epoch, session),
      ended(one, `a${round}`, epoch, session),
      release(one, session, epoch),
      said(one, `b${round}`, epoch, session),
    ]);
    let claimed = await claim(two, session);
    while (claimed.boot !== two.boot) claimed = await claim(two, session);
    const status = await two.conversations.turn(keyOf(session).tenantId, taskOf(named(`a${round}`)));
    assert.equal(status?.status, 'completed', 'the next owner finds all of it');
    assert.deepEqual(await writes, ['stored', 'stored', 'stored', 'fenced']);
    assert.ok(claimed.epoch > epoch);
    assert.equal(await said(two, `c${round}`, claimed.epoch, session), 'stored');
  }
  // Given up twice, or by an older epoch, it takes nothing from the next owner.
  await release(one, 's0', 1);
  await release(two, 's0', 1);
  assert.equal((await rows("select boot from owners where session_id = 's0'"))[0].boot, String(two.boot));
});

test('a claim that meets a burial leaves no session that nobody may take', async (t) => {
  const { member } = await scene(t);
  const survivor = await member('survivor');
  for (let round = 0; round < 25; round += 1) {
    const dying = await member(`dying-${round}`);
    const keys = Array.from({ length: 40 }, (_, n) => keyOf(`r${round}-${n}`));
    const claiming = keys.map((key, n) =>
      new Promise((resolve) => setTimeout(resolve, n % 4)).then(() => dying.owners.claim([key])),
    );
    await survivor.nodes.bury(dying.boot, undefined);
    await Promise.allSettled(claiming);
    const taken = await survivor.owners.claim(keys);
    assert.ok(
      taken.every((claimed) => claimed?.boot === survivor.boot),
      `round ${round}`,
    );
    await dying.close();
  }
});

test('what a dead boot had is free, and none of its writes by the old epoch is stored', async (t) => {
  const { member, rows } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  const { epoch } = await claim(one, 's1');
  await said(one, 'a', epoch);
  assert.equal((await claim(two, 's1')).boot, one.boot);
  await two.nodes.bury(one.boot, undefined);
  const next = await claim(two, 's1');
  assert.equal(next.boot, two.boot);
  assert.notEqual(next.epoch, epoch);
  await assert.rejects(said(one, 'late', epoch), /given up/);
  await assert.rejects(release(one, 's1', epoch), /given up/);
  assert.equal((await two.conversations.turn(keyOf('s1').tenantId, taskOf(named('a'))))?.status, 'failed');
  assert.equal(
    await two.conversations.commit({
      ...{ type: 'turn-notified', tenantId: keyOf('s1').tenantId, taskId: taskOf(named('a')) },
      epoch: next.epoch,
    }),
    'stored',
  );
  assert.equal((await rows('select untold from turns'))[0].untold, 0);

  await claim(two, 's2');
  await two.nodes.beat();
  const three = await member('three');
  await claim(three, 's3');
  await two.nodes.bury(three.boot, undefined);
  assert.equal(await two.owners.sweep(), 1, 'its row; the boot stays for a week');
  await rows("update nodes set beat_at = now() - interval '8 days'");
  assert.equal(await two.owners.sweep(), 2);
  assert.deepEqual(await rows('select session_id from owners order by 1'), [
    { session_id: 's1' },
    { session_id: 's2' },
  ]);
});

test('a session that is wanted is told to its owner with each beat, until it has changed hands', async (t) => {
  const { member } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  const { epoch } = await claim(one, 's1');
  await claim(one, 's2');
  assert.deepEqual((await one.nodes.beat()).wanted, []);
  await two.owners.want(keyOf('s1'), one.boot);
  await one.owners.want(keyOf('s2'), one.boot);
  const wanted = [{ key: keyOf('s1'), epoch, by: two.boot }];
  assert.deepEqual((await one.nodes.beat()).wanted, wanted);
  assert.deepEqual((await one.nodes.beat()).wanted, wanted);
  assert.deepEqual((await two.nodes.beat()).wanted, []);
  await release(one, 's1', epoch);
  assert.equal((await claim(two, 's1')).boot, two.boot);
  assert.deepEqual((await one.nodes.beat()).wanted, []);
  assert.deepEqual((await two.nodes.beat()).wanted, []);
});

test('no tenant sees the sessions of another', async (t) => {
  const { member, rows } = await scene(t);
  const one = await member('one');
  await one.owners.claim([keyOf('s1'), keyOf('s1', 'globex')]);
  const found = await rows(
    `select relrowsecurity and relforcerowsecurity as secured from pg_class where relname = 'owners'`,
  );
  assert.equal(found[0].secured, true);
  assert.equal((await rows("select * from pg_policies where tablename = 'owners'")).length, 1);
});

test('the boot of an unfinished turn is found by its task, for its tenant alone', async (t) => {
  const { member } = await scene(t);
  const [one, two] = [await member('one'), await member('two')];
  const { epoch } = await claim(one, 's1');
  await said(one, 'a', epoch);
  const [{ tenantId }, taskId] = [keyOf('s1'), taskOf(named('a'))];
  assert.equal(await two.owners.runner(tenantId, taskId), one.boot);
  assert.equal(await two.owners.runner(keyOf('s1', 'globex').tenantId, taskId), undefined);
  await ended(one, 'a', epoch);
  assert.equal(await two.owners.runner(tenantId, taskId), undefined);
});

test('a database has one name for all of its nodes, and another database another', async (t) => {
  const [here, there] = [await scene(t), await scene(t)];
  const [one, two, other] = [await here.member('one'), await here.member('two'), await there.member('one')];
  const name = await one.nodes.database();
  assert.match(name, /^\d+-\d+$/);
  assert.equal(await two.nodes.database(), name);
  assert.notEqual(await other.nodes.database(), name);
});
