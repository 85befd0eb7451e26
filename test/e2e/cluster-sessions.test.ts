/** One session asked for on two nodes of one PostgreSQL: it has one owner, and moves when that rests, leaves, dies or freezes. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import pg from 'pg';
import type { ChildNode } from '../support/node.ts';
import { spawnNode } from '../support/node.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

/** An empty database, looked at as a superuser, and two nodes on it. */
async function scene(t: TestContext, model = 'offline-3x0') {
  const url = await server.database();
  const name = new URL(url).pathname.slice(1);
  const admin = new pg.Client({ connectionString: server.adminUrl.replace(/[^/]*$/, name) });
  await admin.connect();
  t.after(() => admin.end());
  const start = (nodeId: string): Promise<ChildNode> =>
    spawnNode(t, {
      ...{ DEFAULT_PROVIDER: 'offline', DEFAULT_MODEL: model, DATABASE_URL: url, NODE_ID: nodeId },
    });
  const [first, second] = [await start('first'), await start('second')];
  return {
    ...{ first, second },
    rows: async (text: string) => (await admin.query(text)).rows,
    ownerOf: async (session: string) =>
      Number(
        (await admin.query('select boot from owners where session_id = $1', [session])).rows[0]?.boot ?? 0,
      ),
  };
}

const messagesOf = async (node: ChildNode, session: string): Promise<readonly string[]> =>
  (await node.ask(`/api/sessions/${session}/messages`)).body.messages.map(
    ({ content }: { content: string }) => content,
  );
const say = (node: ChildNode, session: string, message: string) =>
  node.ask('/api/chat/send', { method: 'POST', body: { session_id: session, message } });

test('a session that a client holds on one node is refused on the other, and moves there once it is left alone', async (t) => {
  const { first, second, ownerOf, rows } = await scene(t);
  const client = await first.chat('acme', 's1');
  await client.turn('one');
  assert.equal(await ownerOf('s1'), 1);

  const refused = await say(second, 's1', 'meanwhile');
  assert.equal(refused.status, 503);
  assert.equal(refused.body.error.code, 'TRANSPORT_UNAVAILABLE');
  assert.ok(refused.body.error.retry_after_ms > 0);
  // Its owner has read by then that it is wanted, and keeps it.
  assert.equal(await ownerOf('s1'), 1);
  await client.turn('two');

  client.close();
  await client.closed;
  const moved = await second.chat('acme', 's1');
  assert.equal(await ownerOf('s1'), 2);
  await moved.turn('three');
  const said = (await messagesOf(first, 's1')).filter((_, index) => index % 2 === 0);
  assert.deepEqual(said, ['one', 'two', 'three']);
  const turns = await rows('select boot::int, epoch::int from turns order by seq');
  assert.deepEqual(
    turns.map(({ boot }) => boot),
    [1, 1, 2],
  );
  assert.ok(turns[0].epoch === turns[1].epoch && turns[2].epoch > turns[1].epoch);
});

test('clients that ask for one session on both nodes at once meet on one of them, and it has one history', async (t) => {
  const { first, second, rows } = await scene(t);
  for (let round = 0; round < 5; round += 1) {
    const session = `s${round}`;
    const replies = await Promise.all(
      [first, second, first, second].map((node, n) => say(node, session, `${n}`)),
    );
    const taken = replies.filter(({ status }) => status < 300).length;
    assert.ok(taken >= 1, JSON.stringify(replies.map(({ body }) => body)));
    for (const { status, body } of replies)
      if (status >= 300) assert.equal(body.error.code, 'TRANSPORT_UNAVAILABLE');
    await until('all have ended', async () => {
      const open = await rows(`select 1 from turns where session_id = '${session}' and finished_at is null`);
      return open.length === 0;
    });
    const turns = await rows(`select boot, epoch from turns where session_id = '${session}' order by seq`);
    assert.equal(turns.length, taken);
    // One after the other: an epoch that was followed by another never comes again.
    const epochs = turns.map(({ epoch }) => Number(epoch));
    assert.deepEqual(
      epochs,
      [...epochs].sort((a, b) => a - b),
    );
  }
});

test('a turn that runs elsewhere is not told to be cancelled, and its status is that of its row', async (t) => {
  const { first, second } = await scene(t, 'offline-16000x20');
  const client = await first.chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');
  const cancelled = await second.ask('/api/chat/cancel', { body: { task_id: task } });
  assert.equal(cancelled.status, 503);
  assert.equal(cancelled.body.error.code, 'TRANSPORT_UNAVAILABLE');
  assert.match((await second.ask(`/api/chat/tasks/${task}`)).body.status, /^(queued|processing)$/);
  assert.equal((await first.ask('/api/chat/cancel', { body: { task_id: task } })).status, 200);
  await client.ended(task);
});

test('a session of a node that was killed comes to life on another, with its turn interrupted', async (t) => {
  const { first, second, ownerOf } = await scene(t, 'offline-16000x20');
  const client = await first.chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');
  await Promise.all([first.kill('SIGKILL'), client.closed]);
  // It waits for the burial.
  const moved = await second.chat('acme', 's1');
  assert.equal((await moved.ended(task)).data.code, 'INTERRUPTED');
  assert.equal(await ownerOf('s1'), 2);
  const again = moved.say('Again.');
  await moved.see(({ type, task_id }) => type === 'chat.delta' && task_id === again);
});

test('a frozen node writes nothing of a session that another has taken over, and its clients are told with 4409', async (t) => {
  const { first, second, rows, ownerOf } = await scene(t, 'offline-16000x20');
  const client = await first.chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');
  const frozen = first.kill('SIGSTOP');
  const moved = await second.chat('acme', 's1');
  assert.equal((await moved.ended(task)).data.code, 'INTERRUPTED');
  const turn = () =>
    rows(
      `select status, finished_at, content, answer, flags, boot, epoch from turns where task_id = '${task}'`,
    );
  const before = await turn();
  void first.kill('SIGCONT');
  assert.equal((await client.closed).code, 4409);
  await first.line('the node goes on as a new one');
  const later = moved.say('Again.');
  await moved.see(({ type, task_id }) => type === 'chat.delta' && task_id === later);
  assert.deepEqual(await turn(), before);
  assert.equal(await ownerOf('s1'), 2);
  void first.kill('SIGTERM');
  await frozen;
});

test('a node that drains gives up what rests at once, and the rest as its turns end', async (t) => {
  const { first, second, ownerOf } = await scene(t, 'offline-40x50');
  const resting = await first.chat('acme', 'resting');
  const busy = await first.chat('acme', 'busy');
  const task = busy.say('Go.');
  await busy.see('chat.delta');
  const gone = first.kill('SIGTERM');
  await resting.see('server.draining');
  const moved = await second.chat('acme', 'resting');
  assert.equal(await ownerOf('busy'), 1, 'its turn runs still');
  assert.equal((await busy.ended(task)).type, 'chat.response');
  assert.equal((await busy.closed).code, 1012);
  assert.equal((await resting.closed).code, 1012);
  const back = await second.chat('acme', 'busy');
  assert.equal((await messagesOf(second, 'busy')).length, 2);
  assert.equal((await gone).code, 0);
  moved.close();
  back.close();
});
