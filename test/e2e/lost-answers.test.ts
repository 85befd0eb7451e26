/** A database whose answer to an acceptance is lost: what became of it is found out before the client is told. */
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

/** A node that reaches its database through a proxy, and a look at the database past it. */
async function scene(t: TestContext) {
  const url = new URL(await server.database());
  const direct = new pg.Client({
    connectionString: server.adminUrl.replace(/[^/]*$/, url.pathname.slice(1)),
  });
  await direct.connect();
  t.after(() => direct.end());
  const proxy = await startTcpProxy(Number(url.port));
  t.after(() => proxy.close());
  url.port = String(proxy.port);
  const node = await startTestNode(t, { env: { DATABASE_URL: url.href } });
  const turns = async () =>
    (await direct.query("select task_id, status from turns where task_id like 't%'")).rows;
  const send = (task_id: string, session_id = 's1') =>
    node.ask('/api/chat/send', { body: { message: 'Go.', session_id, task_id } });
  const completed = (task: string) =>
    until(`${task} completes`, async () => {
      const { body } = await node.ask(`/api/chat/tasks/${task}`);
      return body.status === 'completed';
    });
  // Sessions and tenant are in memory from here on.
  for (const session of ['s1', 's2']) {
    assert.equal((await send(`warm-${session}`, session)).status, 202);
    await completed(`warm-${session}`);
  }
  return { node, proxy, turns, send, completed };
}

test('stored, and the answer lost: the client is told that it was accepted, and the turn runs', async (t) => {
  const { node, proxy, turns, send, completed } = await scene(t);
  proxy.mute();
  const sent = send('t1');
  const others = ['t2', 't3'].map((task) => send(task, 's2'));
  await until('they are stored', async () => (await turns()).length >= 1);
  proxy.heal();
  for (const one of [sent, ...others]) assert.equal((await one).status, 202, (await one).text);
  for (const task of ['t1', 't2', 't3']) await completed(task);
  const again = await send('t1');
  assert.equal(again.status, 202);
  assert.deepEqual((await node.ask('/api/sessions/s1/messages')).body.messages.length, 4);
});

test('not to be found out for long: the client is refused, and the same task said again runs, once', async (t) => {
  const { proxy, turns, send, completed } = await scene(t);
  proxy.mute();
  const sent = send('t1');
  await until('it is stored', async () => (await turns()).length === 1);
  proxy.refuse();
  const refused = await sent;
  assert.deepEqual([refused.status, refused.body.error.code], [503, 'STORE_UNAVAILABLE']);
  proxy.heal();
  await until('it is taken', async () => (await send('t1')).status === 202);
  await completed('t1');
  assert.deepEqual(await turns(), [{ task_id: 't1', status: 'completed' }]);
});

test('refused for good and never said again: it does not stay as if it waited', async (t) => {
  const { proxy, turns, send } = await scene(t);
  proxy.mute();
  const sent = send('t1');
  await until('it is stored', async () => (await turns()).length === 1);
  proxy.refuse();
  assert.equal((await sent).status, 503);
  proxy.heal();
  await until('it is taken back', async () => (await turns()).length === 0);
});

test('cut before the commit: the client is refused at once, and nothing is stored', async (t) => {
  const { proxy, turns, send } = await scene(t);
  proxy.swallow();
  const sent = send('t1');
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  proxy.heal();
  assert.equal((await sent).status, 503);
  assert.deepEqual(await turns(), []);
});
