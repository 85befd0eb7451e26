/** Turns that end while the store is out: their ends are stored as soon as it is back, and told then. */
import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import { deltas, isEnd } from '../support/chatter.ts';
import { readEvents } from '../support/http-client.ts';
import { type ChildNode, life, type NodeClient, spawnNode, startScene } from '../support/node.ts';
import { startPostgres } from '../support/postgres.ts';
import { type StubRequest, say, stallAfter } from '../support/stub-model.ts';
import { temporary } from '../support/temporary.ts';
import { until } from '../support/until.ts';

/** 40 tokens in half a second. */
const MODEL = { DEFAULT_PROVIDER: 'offline', DEFAULT_MODEL: 'offline-40x12' };

const statusOf = async (node: NodeClient, task: string): Promise<string> =>
  (await node.ask(`/api/chat/tasks/${task}`)).body.status;

/** Holds the file, as another process would; returns what lets it go. */
function lock(t: TestContext, path: string): () => void {
  const other = new DatabaseSync(path);
  t.after(() => other.close());
  // A write of the node's may be under way, in a thread of its own.
  other.exec('pragma busy_timeout = 5000');
  other.exec('begin exclusive');
  return () => other.exec('rollback');
}

const waiting = (node: Pick<ChildNode, 'line'>) => node.line('ends of turns wait for the store');

test('a locked file: sockets, SSE, waiting runs, cancels and resends hear of the end when the lock goes', async (t) => {
  const folder = temporary(t);
  const node = await startScene(t, { env: { DATABASE_URL: folder.database } });
  const { ask, stub, chat } = node;
  const isRun = ({ body }: StubRequest) => body.messages.at(-1)?.content === 'Run.';
  const runs = say('Ran.', { chunks: 3, everyMs: 150 });
  stub.byDefault((request) => (isRun(request) ? runs : stallAfter('Half ')));
  const client = await chat('acme', 's1');
  const task = client.say('One.');
  const next = client.say('Two.');
  const streamed = await node.fetch('/api/chat/send', {
    body: { message: 'Go.', session_id: 's2', task_id: 'sse' },
    headers: { accept: 'text/event-stream' },
  });
  const events = readEvents(streamed);
  const run = ask('/api/executions', { body: { agent_id: 'default', input: 'Run.', wait: true } });
  await until('all run', () => stub.requests.length === 3);
  await client.see('chat.delta');
  await client.see(({ task_id, type }) => task_id === next && type === 'chat.accepted');

  const unlock = lock(t, folder.path('nooble.db'));
  stub.byDefault(() => say('Whole.'));
  client.send({ type: 'chat.cancel', task_id: task });
  const cancelled = ask('/api/chat/cancel', { body: { task_id: 'sse' } });
  await waiting(node);
  assert.equal(await statusOf(node, task), 'processing');
  const resent = client.frames.length;
  client.say('One.', { task_id: task });
  assert.equal(
    (await client.see((frame) => client.frames.indexOf(frame) >= resent && frame.type === 'chat.accepted'))
      .data.deduplicated,
    true,
  );
  assert.deepEqual(client.frames.filter(isEnd), []);

  unlock();
  assert.equal((await client.ended(task)).data.content, 'Half ');
  assert.equal((await client.ended(next)).data.content, 'Whole.');
  const { body } = await cancelled;
  assert.equal(body.status, 'cancelled');
  assert.equal((await events.rest()).at(-1)?.event, 'chat.cancelled');
  assert.equal(await statusOf(node, task), 'cancelled');
  const page = (await ask('/api/sessions/s1/messages')).body.messages;
  assert.deepEqual(
    page.map(({ content }: { content: string }) => content),
    ['One.', 'Half ', 'Two.', 'Whole.'],
  );
  assert.deepEqual([(await run).status, (await run).body.status], [200, 'completed']);
});

test('PostgreSQL stopped: every end is stored once it is back, and the turn behind it has read the answer', async (t) => {
  const server = await startPostgres();
  t.after(() => server.close());
  const node = await startScene(t, { env: { DATABASE_URL: await server.database() } });
  const { stub, chat, ask } = node;
  const clients = await Promise.all([1, 2, 3].map((count) => chat('acme', `s${count}`)));
  stub.byDefault(() => say('Slow answer.', { chunks: 3, everyMs: 60 }));
  const tasks = clients.map((client) => [client.say('One.'), client.say('Two.')] as const);
  await Promise.all(
    clients.map((client, at) =>
      client.see(({ task_id, type }) => task_id === tasks[at]?.[1] && type === 'chat.accepted'),
    ),
  );
  await server.stop();
  await waiting(node);
  await until('the first of each have ended', () =>
    clients.every((client) => deltas(client.frames) === 'Slow answer.'),
  );
  for (const [client, [first]] of clients.map((each, at) => [each, tasks[at] ?? ['', '']] as const)) {
    assert.equal(await statusOf(node, first), 'processing');
    assert.deepEqual(client.frames.filter(isEnd), []);
  }
  assert.equal((await ask('/api/chat/send', { body: { message: 'New.' } })).status, 503);

  await server.start();
  for (const [at, client] of clients.entries())
    for (const task of tasks[at] ?? []) {
      assert.equal((await client.ended(task)).data.content, 'Slow answer.');
      assert.equal(await statusOf(node, task), 'completed');
    }
  for (const request of stub.requests.slice(3))
    assert.deepEqual(
      request.body.messages.slice(1).map(({ content }) => content),
      ['One.', 'Slow answer.', 'Two.'],
    );
});

test('SIGTERM while ends wait: they are stored and told before the node goes, if the store is back in time', async (t) => {
  const folder = temporary(t);
  const env = { ...MODEL, DATABASE_URL: folder.database, DRAIN_SECONDS: '20' };
  const first = await spawnNode(t, env);
  const client = await first.chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');
  const unlock = lock(t, folder.path('nooble.db'));
  await waiting(first);
  const exit = first.kill('SIGTERM');
  await client.see('server.draining');
  unlock();
  const end = await client.ended(task);
  assert.equal(end.type, 'chat.response');
  assert.deepEqual(await exit, { code: 0, signal: null });

  const second = await spawnNode(t, env);
  const found = await second.ask(`/api/chat/tasks/${task}`);
  assert.deepEqual([found.body.status, found.body.result.content], ['completed', end.data.content]);
});

test('a tier that does not wait for the store is told at once, and its ends are stored all the same', async (t) => {
  const folder = temporary(t);
  const tiers = folder.write('tiers.json', '{"free":{"wait_for_persistence":false}}');
  const env = { DATABASE_URL: folder.database, TIERS_FILE: tiers };
  let task = '';
  await life(t, 'the first life', { env }, async (node) => {
    node.stub.next(say('Whole.', { chunks: 2, everyMs: 50 }));
    const client = await node.chat('acme', 's1', { query: { tier: 'free' } });
    task = client.say('Go.');
    await client.see('execution.started');
    const unlock = lock(t, folder.path('nooble.db'));
    assert.equal((await client.ended(task)).type, 'chat.response');
    await waiting(node);
    assert.equal(await statusOf(node, task), 'completed');
    const drained = node.running.drain();
    await client.closed;
    unlock();
    await drained;
  });
  await life(t, 'the second life', { env }, async (node) => {
    assert.equal(await statusOf(node, task), 'completed');
  });
});
