/** Two nodes on one PostgreSQL and one Redis: either serves any client, wherever its session lives. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import pg from 'pg';
import { deltas, isEnd, numbered } from '../support/chatter.ts';
import { type ChildNode, spawnNode } from '../support/node.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { redisFor } from '../support/redis-node.ts';
import { until } from '../support/until.ts';
import type { Received } from '../support/websocket-client.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

/** An empty database, looked at as a superuser, a Redis, and two nodes on both. */
async function scene(t: TestContext, model = 'offline-3x0') {
  const redis = await redisFor(t);
  const url = await server.database();
  const name = new URL(url).pathname.slice(1);
  const admin = new pg.Client({ connectionString: server.adminUrl.replace(/[^/]*$/, name) });
  await admin.connect();
  t.after(() => admin.end());
  const start = (nodeId: string): Promise<ChildNode> =>
    spawnNode(t, {
      ...{ DEFAULT_PROVIDER: 'offline', DEFAULT_MODEL: model, DATABASE_URL: url, NODE_ID: nodeId },
      ...{ REDIS_URL: redis.url, EXECUTION_LOG_LEVEL: 'debug' },
    });
  const [first, second] = [await start('first'), await start('second')];
  // Each has looked at the other by then.
  for (const node of [first, second])
    await until('they know each other', async () => (await clusterOf(node)).members.length === 1);
  return {
    ...{ first, second, redis },
    ownerOf: async (session: string) =>
      Number(
        (await admin.query('select boot from owners where session_id = $1', [session])).rows[0]?.boot ?? 0,
      ),
  };
}

const clusterOf = async (node: ChildNode) => (await node.ask('/health/detailed')).body.cluster;
const say = (node: ChildNode, session: string, message: string, more: object = {}) =>
  node.ask('/api/chat/send', { method: 'POST', body: { session_id: session, message, ...more } });
const wire = (frames: readonly Received[]) =>
  frames.map(({ type, seq, ts, task_id, data }) => ({ type, seq, ts, task_id, data }));

test('two nodes that talk over Redis', async (t) => {
  const { first, ownerOf, redis, second } = await scene(t, 'offline-30x10');

  await t.test(
    'a client on the node that does not have its session sees its turns live, in JSON and in msgpack',
    async () => {
      const owner = await first.chat('acme', 'a0');
      await owner.turn('one');
      const guest = await second.chat('acme', 'a0');
      const packed = await second.chat('acme', 'a0', { protocols: ['nooble.msgpack'] });
      assert.equal(await ownerOf('a0'), 1);
      const frames = await guest.turn('two');
      assert.deepEqual([frames[0]?.type, frames.at(-1)?.type], ['chat.accepted', 'chat.response']);
      const answer: unknown = frames.at(-1)?.data.content;
      assert.equal(deltas(frames), answer);
      assert.ok(frames.filter(({ type }) => type === 'chat.delta').length > 1);
      const task = String(frames[0]?.task_id);
      assert.equal((await owner.ended(task)).data.content, answer);
      assert.equal((await packed.ended(task)).data.content, answer);
      assert.equal(deltas(packed.of(task)), answer);
      const { links } = await clusterOf(first);
      assert.ok(links.guests >= 1 && links.torn === 0, JSON.stringify(links));
    },
  );

  await t.test('two sockets of one session on both nodes see the same frames in the same order', async () => {
    const query = { delta_window_ms: '0' };
    const here = await first.chat('acme', 'a1', { query });
    await here.turn('zero');
    const there = await second.chat('acme', 'a1', { query });
    const seq = numbered(here.frames).at(-1)?.seq ?? 0;
    const tasks = [here.say('one'), there.say('two'), here.say('three')];
    for (const task of tasks) await Promise.all([here.ended(task), there.ended(task)]);
    await until(
      'both have all',
      () => numbered(here.frames).at(-1)?.seq === numbered(there.frames).at(-1)?.seq,
    );
    const of = (frames: readonly Received[]) =>
      wire(numbered(frames).filter((frame) => Number(frame.seq) > seq));
    assert.ok(of(here.frames).length > 30);
    assert.deepEqual(of(there.frames), of(here.frames));
  });

  await t.test(
    'what is said over HTTP on the other node is said in the session, waited for and streamed',
    async () => {
      const owner = await first.chat('acme', 'a2');
      await owner.turn('one');
      const sent = await say(second, 'a2', 'two');
      assert.ok(sent.status < 300, sent.text);
      assert.equal((await owner.ended(sent.body.task_id)).type, 'chat.response');

      const streamed = await second.fetch('/api/chat/send', {
        method: 'POST',
        body: { session_id: 'a2', message: 'three' },
        headers: { accept: 'text/event-stream' },
      });
      assert.equal(streamed.status, 200);
      const text = await streamed.text();
      const events = [...text.matchAll(/^event: (.*)$/gm)].map((match) => match[1]);
      assert.deepEqual([events[0], events.at(-1)], ['chat.accepted', 'chat.response']);
      assert.ok(events.filter((type) => type === 'chat.delta').length > 1, text);

      const twice = await say(second, 'a2', 'two', { task_id: sent.body.task_id });
      assert.ok(twice.status < 300, twice.text);
      assert.equal(await ownerOf('a2'), 1);
      const { body } = await second.ask('/api/sessions/a2/messages');
      assert.deepEqual(
        body.messages
          .filter(({ role }: { role: string }) => role === 'user')
          .map(({ content }: { content: string }) => content),
        ['one', 'two', 'three'],
      );
    },
  );

  await t.test('a client resumes through the other node, and is given what it missed', async () => {
    const client = await first.chat('acme', 'a3');
    await client.turn('one');
    const ready = await client.see('session.ready');
    const last = numbered(client.frames).at(-1)?.seq ?? 0;
    client.close();
    await client.closed;
    const other = await first.chat('acme', 'a3');
    await other.turn('two');
    const back = await second.chat('acme', 'a3', {
      query: { last_seq: String(last), epoch: String(ready.data.epoch) },
    });
    assert.equal((await back.see('session.ready')).data.recovered, true);
    await back.see((frame) => isEnd(frame));
    const missed = numbered(other.frames).filter(({ seq }) => Number(seq) > last);
    assert.deepEqual(wire(numbered(back.frames)), wire(missed));
    await back.turn('three');
  });

  await t.test(
    'an agent that is changed on one node is told to the sockets of its tenant on the other',
    async () => {
      const client = await second.chat('acme', 'a4');
      const made = await first.ask('/api/agents', { body: { name: 'Helper', system_prompt: 'Be kind.' } });
      assert.ok(made.status < 300, made.text);
      await client.see('agent_created');
    },
  );

  await t.test(
    'without Redis local sessions go on, what is forwarded fails fast, and all comes back with Redis',
    async () => {
      const owner = await first.chat('acme', 'a5');
      await owner.turn('one');
      const guest = await second.chat('acme', 'a5');
      await guest.turn('two');
      await redis.kill();
      await owner.turn('three');
      const beganAtMs = Date.now();
      const refused = await say(second, 'a5', 'four');
      assert.equal(refused.status, 503);
      assert.equal(refused.body.error.code, 'TRANSPORT_UNAVAILABLE');
      assert.ok(Date.now() - beganAtMs < 6_000);
      await redis.restart();
      await until('it is forwarded again', async () => (await say(second, 'a5', 'five')).status < 300);
      const back = await second.chat('acme', 'a5');
      const frames = await back.turn('six');
      await owner.ended(String(frames[0]?.task_id));
    },
  );

  await t.test('a node that drains tells and closes clients of sessions that others have', async () => {
    const owner = await first.chat('acme', 'a6');
    await owner.turn('one');
    const guest = await second.chat('acme', 'a6');
    const gone = second.kill('SIGTERM');
    await guest.see('server.draining');
    assert.equal((await guest.closed).code, 1012);
    assert.equal((await gone).code, 0);
    await owner.turn('two');
  });
});

test('two nodes of which one has long turns', async (t) => {
  const { first, ownerOf, second } = await scene(t, 'offline-16000x20');

  await t.test('a turn is looked at, cancelled, and its session deleted from the other node', async () => {
    const client = await first.chat('acme', 'b0');
    const task = client.say('Go.');
    await client.see('chat.delta');
    assert.equal((await second.ask(`/api/chat/tasks/${task}`)).body.status, 'processing');
    const cancelled = await second.ask('/api/chat/cancel', { body: { task_id: task } });
    assert.equal(cancelled.status, 200, cancelled.text);
    assert.equal((await client.ended(task)).type, 'chat.cancelled');
    assert.equal((await second.ask(`/api/chat/tasks/${task}`)).body.status, 'cancelled');
    assert.equal((await second.ask(`/api/chat/tasks/${task}`, { tenant: 'other' })).status, 404);
    const deleted = await second.ask('/api/sessions/b0', { method: 'DELETE' });
    assert.ok(deleted.status < 300, deleted.text);
    await client.closed;
    assert.equal((await second.ask('/api/sessions/b0/messages')).status, 404);
  });

  await t.test(
    'when the owner is killed its guest is closed with 1012, and the session comes to life on the other node',
    async () => {
      const owner = await first.chat('acme', 'b1');
      const task = owner.say('Go.');
      const guest = await second.chat('acme', 'b1');
      await guest.see('chat.delta');
      void first.kill('SIGKILL');
      assert.equal((await guest.closed).code, 1012);
      const moved = await second.chat('acme', 'b1');
      assert.equal(await ownerOf('b1'), 2);
      assert.equal((await moved.ended(task)).data.code, 'INTERRUPTED');
      const again = moved.say('Again.');
      await moved.see(({ type, task_id }) => type === 'chat.delta' && task_id === again);
    },
  );
});

test('when the owner drains its guest is closed with 1012, and goes on where it is', async (t) => {
  const { first, second, ownerOf } = await scene(t, 'offline-3x0');
  const owner = await first.chat('acme', 's1');
  await owner.turn('one');
  const guest = await second.chat('acme', 's1');
  const gone = first.kill('SIGTERM');
  assert.equal((await guest.closed).code, 1012);
  const back = await second.chat('acme', 's1');
  assert.equal(await ownerOf('s1'), 2);
  await back.turn('two');
  assert.equal((await gone).code, 0);
});

test('while Redis stands still what is forwarded is refused in time, nothing runs twice, and all comes back', async (t) => {
  const { first, second, redis } = await scene(t, 'offline-3x0');
  const owner = await first.chat('acme', 's1');
  await owner.turn('one');
  redis.signal('SIGSTOP');
  const beganAtMs = Date.now();
  const refused = await say(second, 's1', 'two');
  assert.equal(refused.body.error?.code, 'TRANSPORT_UNAVAILABLE', refused.text);
  assert.ok(Date.now() - beganAtMs < 9_000);
  await owner.turn('three');
  redis.signal('SIGCONT');
  await until('it is forwarded again', async () => (await say(second, 's1', 'four')).status < 300);
  // It may have been heard once Redis goes on, but not twice.
  const { body } = await first.ask('/api/sessions/s1/messages');
  const twos = body.messages.filter(({ content }: { content: string }) => content === 'two');
  assert.ok(twos.length <= 1, JSON.stringify(body.messages));
});
