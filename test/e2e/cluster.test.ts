/** Several nodes on one PostgreSQL: none harms another's turns, and one that dies or freezes writes nothing afterwards. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import pg from 'pg';
import { outgoing } from '../store/outgoing-contract.ts';
import { type ChildNode, runNode, spawnNode } from '../support/node.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { redisFor } from '../support/redis-node.ts';
import { until } from '../support/until.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

const offline = (words: number, everyMs: number) => ({
  DEFAULT_PROVIDER: 'offline',
  DEFAULT_MODEL: `offline-${words}x${everyMs}`,
});

/** An empty database, looked at as a superuser, and nodes on it. */
async function scene(t: TestContext) {
  const url = await server.database();
  const name = new URL(url).pathname.slice(1);
  const admin = new pg.Client({ connectionString: server.adminUrl.replace(/[^/]*$/, name) });
  await admin.connect();
  t.after(() => admin.end());
  return {
    rows: async (text: string, values: readonly unknown[] = []) =>
      (await admin.query(text, [...values])).rows,
    start: (nodeId: string, env: Readonly<Record<string, string>> = {}) =>
      spawnNode(t, { ...offline(3, 0), DATABASE_URL: url, NODE_ID: nodeId, ...env }),
    /** One that is expected not to start. */
    run: (nodeId: string) => runNode(t, { ...offline(3, 0), PORT: '0', DATABASE_URL: url, NODE_ID: nodeId }),
  };
}

const clusterOf = async (node: ChildNode) => (await node.ask('/health/detailed')).body.cluster;
const statusOf = async (node: ChildNode, task: string) =>
  (await node.ask(`/api/chat/tasks/${task}`)).body.status;

test('a node that starts beside another leaves its running turn alone, and one that leaves takes nothing with it', async (t) => {
  const { start, rows } = await scene(t);
  const first = await start('first', offline(60, 50));
  const client = await first.chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');
  const second = await start('second');
  assert.notEqual(await statusOf(second, task), 'failed');
  const { boot, state, beat_age_ms, members } = await clusterOf(second);
  assert.deepEqual([boot, state, members.length, members[0].node_id], [2, 'live', 1, 'first']);
  assert.ok(beat_age_ms < 60_000);
  assert.equal((await second.kill('SIGTERM')).code, 0);

  assert.equal((await client.ended(task)).type, 'chat.response');
  assert.equal(await statusOf(first, task), 'completed');
  assert.deepEqual(await rows('select boot, state from nodes order by boot'), [
    { boot: '1', state: 'live' },
    { boot: '2', state: 'dead' },
  ]);
  assert.deepEqual(await rows('select boot, status from turns'), [{ boot: '1', status: 'completed' }]);
});

test('after kill -9 the others end its turns, and send what it left unsent', async (t) => {
  const { start, rows } = await scene(t);
  const first = await start('first', offline(16_000, 20));
  const client = await first.chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');
  const redis = await redisFor(t);
  const second = await start('second', { REDIS_URL: `redis://127.0.0.1:${redis.port}` });
  const { queue, action } = outgoing('left');
  await rows(
    `insert into outgoing (tenant_id, id, queue, format, created_at, unsent, boot, body)
     values ('acme', 'left', $1, 'json', 1, 1, 1, $2)`,
    [queue, JSON.stringify(action)],
  );
  // Said again on a node that does not run it: its end is heard there all the same.
  const resent = await second.fetch('/api/chat/send', {
    body: { message: 'Go.', session_id: 's1', task_id: task },
    headers: { accept: 'text/event-stream' },
  });
  assert.equal(resent.status, 200);
  await Promise.all([first.kill('SIGKILL'), client.closed]);
  const killedAtMs = performance.now();
  await second.line('a node is gone');
  await until('its turn has ended', async () => (await statusOf(second, task)) === 'failed');
  assert.ok(performance.now() - killedAtMs < 60_000);
  const turn = (await second.ask(`/api/chat/tasks/${task}`)).body;
  assert.equal(turn.error.code, 'INTERRUPTED');
  assert.match(await resent.text(), /chat\.accepted[\s\S]*INTERRUPTED/);
  await until('its message is sent', async () => (await redis.client.llen(queue ?? '')) === 1);
  assert.match((await redis.client.lpop(queue ?? '')) ?? '', /"left"/);
  await until('it is not sent again', async () => (await rows('select * from outgoing')).length === 0);
});

test('a node that was frozen writes nothing more, tells its clients with 4409, and goes on as a new boot', async (t) => {
  const { start, rows } = await scene(t);
  const first = await start('first', offline(16_000, 20));
  const client = await first.chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');
  const second = await start('second');
  const frozen = first.kill('SIGSTOP');
  await second.line('a node is gone');
  assert.equal((await second.ask(`/api/chat/tasks/${task}`)).body.error.code, 'INTERRUPTED');
  const before = await rows('select * from turns');
  void first.kill('SIGCONT');
  assert.equal((await client.closed).code, 4409);
  await first.line('the node goes on as a new one');
  assert.deepEqual(await rows('select * from turns'), before, 'nothing was written meanwhile');
  assert.equal((await clusterOf(first)).boot, 3);

  const back = await first.chat('acme', 's2');
  const again = back.say('Go.');
  await back.see('chat.delta');
  back.send({ type: 'chat.cancel', task_id: again });
  await back.ended(again);
  assert.deepEqual(await rows('select boot from turns order by seq'), [{ boot: '1' }, { boot: '3' }]);
  void first.kill('SIGTERM');
  assert.equal((await frozen).code, 0);
});

test('a second process of one name stops and says who is there; after a crash of the first it starts', async (t) => {
  const { start, run } = await scene(t);
  const first = await start('same');
  const second = await run('same');
  assert.equal(second.code, 1);
  assert.match(second.stderr, /another process is node same \(boot 1\) already/);
  assert.equal((await first.ask('/ready')).status, 200);
  await first.kill('SIGKILL');
  const third = await start('same');
  assert.deepEqual((await clusterOf(third)).members, []);
});
