/** Three nodes on one PostgreSQL behind Debian's nginx with the file of `deploy/`: one address, one conversation. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, type TestContext, test } from 'node:test';
import { readEvents } from '../support/http-client.ts';
import { startNginx } from '../support/nginx.ts';
import { type ChildNode, clientOf, spawnNode } from '../support/node.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { until } from '../support/until.ts';

const DEPLOYED = readFileSync(new URL('../../deploy/nginx-cluster.conf', import.meta.url), 'utf8');

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

async function scene(t: TestContext, model: string) {
  const env = {
    ...{ DEFAULT_PROVIDER: 'offline', DEFAULT_MODEL: model, DATABASE_URL: await server.database() },
    ...{ ALLOW_INSECURE: '1', DELTA_WINDOW_MS: '0' },
  };
  const names = ['node1', 'node2', 'node3'];
  const nodes = await Promise.all(names.map((NODE_ID) => spawnNode(t, { ...env, NODE_ID })));
  const file = names.reduce(
    (text, name, at) => text.replace(`${name}:8000`, `127.0.0.1:${nodes[at]?.port}`),
    DEPLOYED,
  );
  return { nodes, entry: clientOf(await startNginx(t, 0, file)) };
}

/** The node that has a socket open. */
async function holder(nodes: readonly ChildNode[]): Promise<ChildNode> {
  const open = await Promise.all(
    nodes.map(async (node) => ((await node.ask('/ws/stats')).body.sockets > 0 ? node : undefined)),
  );
  const [found, ...more] = open.filter((node) => node !== undefined);
  assert.ok(found && more.length === 0, 'all sockets of the session are on one node');
  return found;
}

test('clients of a session meet on one node; when that is killed they go on at another, by the same address', async (t) => {
  const { nodes, entry } = await scene(t, 'offline-60x50');
  const [one, two] = await Promise.all([entry.chat('acme', 's1'), entry.chat('acme', 's1')]);
  const task = one.say('Go.');
  await Promise.all([one.see('chat.delta'), two.see('chat.delta')]);
  const owner = await holder(nodes);
  const [end, same] = await Promise.all([one.ended(task), two.ended(task)]);
  assert.equal(end.data.content, same.data.content);
  const messages = async () => (await entry.ask('/api/sessions/s1/messages')).body.messages;
  await until('both are stored', async () => (await messages()).length === 2);

  const next = two.say('Once more.');
  await two.see(({ type, task_id }) => type === 'chat.delta' && task_id === next);
  await owner.kill('SIGKILL');
  await Promise.all([one.closed, two.closed]);
  const back = await entry.chat('acme', 's1');
  await until('the turn has ended', async () => {
    const { body } = await entry.ask(`/api/chat/tasks/${next}`);
    return body.status === 'failed' && body.error.code === 'INTERRUPTED';
  });
  await back.ended(back.say('And again.'));
  await until('its answer is stored', async () => (await messages()).length >= 4);
  assert.notEqual(await holder(nodes.filter((node) => node !== owner)), owner);
});

test('requests go round the nodes, streams come as they are written, and a node that is away is passed over', async (t) => {
  const { nodes, entry } = await scene(t, 'offline-20x20');
  const say = (session: string) =>
    entry.fetch('/api/chat/send', {
      body: { message: 'Go.', session_id: session },
      headers: { accept: 'text/event-stream' },
    });
  const sessions = Array.from({ length: 12 }, (_, at) => `r${at}`);
  const ends = await Promise.all(
    sessions.map(async (session) => (await readEvents(await say(session)).rest()).at(-1)?.event),
  );
  assert.deepEqual([...new Set(ends)], ['chat.response']);
  const turns = await Promise.all(
    nodes.map(async (node) => (await node.ask('/metrics/overview')).body.turns.completed ?? 0),
  );
  assert.ok(turns.filter((count) => count > 0).length > 1, `turns by node: ${turns}`);
  await nodes[0]?.kill('SIGTERM');
  const later = await Promise.all(
    sessions.map(async (session) => (await entry.ask(`/api/sessions/${session}/messages`)).status),
  );
  assert.deepEqual([...new Set(later)], [200]);
});
