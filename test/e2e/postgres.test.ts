/** A whole node on a real PostgreSQL: it chats, keeps agents, and finds everything again. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { last, types } from '../support/chatter.ts';
import { type ChildNode, spawnNode, startScene } from '../support/node.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { say, stallAfter } from '../support/stub-model.ts';
import { until } from '../support/until.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

test('conversations and agents are there after a restart', async (t) => {
  const env = { DATABASE_URL: await server.database() };
  const text = 'NUL \u0000, half \ud83c, 世界.';
  let agentId = '';
  await t.test('the first life', async (own) => {
    const { ask, chat, stub, running } = await startScene(own, { env });
    const hook = await ask('/api/webhooks', { body: { url: 'https://hooks.invalid/' } });
    const made = await ask('/api/agents', { body: { name: 'Guide', system_prompt: 'One.' } });
    agentId = made.body.id;
    await ask(`/api/agents/${agentId}`, { method: 'PATCH', body: { system_prompt: 'Two.' } });
    const stored = (await ask(`/api/webhooks/${hook.body.id}/deliveries`)).body.items;
    assert.deepEqual(stored.map(({ event }: { event: string }) => event).sort(), [
      'agent_created',
      'agent_updated',
    ]);
    stub.next(say(text, { chunks: 1 }));
    const client = await chat('acme', 's1', { query: { agent_id: agentId } });
    last(await client.turn(text), 'chat.response');
    await running.drain();
  });
  await t.test('the second life', async (own) => {
    const { ask, chat, stub } = await startScene(own, { env });
    const { body } = await ask('/api/sessions/s1/messages');
    assert.deepEqual(
      body.messages.map(({ content }: { content: string }) => content),
      [text, text.toWellFormed()],
    );
    assert.equal((await ask('/api/sessions/s1/messages', { tenant: 'other' })).status, 404);
    assert.equal((await ask(`/api/agents/${agentId}`, { tenant: 'other' })).status, 404);
    assert.equal((await ask(`/api/agents/${agentId}/versions`)).body.total, 2);
    const client = await chat('acme', 's1', { query: { agent_id: agentId } });
    await client.turn('And on.');
    const { messages } = (await stub.request(0)).body;
    assert.deepEqual([messages.length, messages[0]?.content], [4, 'Two.']);
    assert.equal((await ask('/api/sessions/s1', { method: 'DELETE' })).status, 204);
    assert.equal((await ask('/api/sessions/s1/messages')).status, 404);
  });
});

test('after kill -9 the message is there, its turn is interrupted, and the client is told once', async (t) => {
  const model = { DEFAULT_PROVIDER: 'offline', DEFAULT_MODEL: 'offline-16000x20' };
  const env = { ...model, DATABASE_URL: await server.database() };
  const open = async (node: ChildNode) => {
    const client = await node.chat('acme', 's1', { query: { last_seq: '1', epoch: 'old' } });
    client.send({ type: 'ping' });
    await client.see('pong');
    return client;
  };
  const first = await spawnNode(t, env);
  const client = await open(first);
  const task = client.say('Go.');
  await client.see('chat.delta');
  await Promise.all([first.kill('SIGKILL'), client.closed]);

  const second = await spawnNode(t, env);
  const back = await open(second);
  assert.deepEqual(types(back.frames), ['session.ready', 'session.snapshot', 'error', 'pong']);
  assert.equal(back.frames[1]?.data.messages[0].content, 'Go.');
  assert.deepEqual([back.frames[2]?.task_id, back.frames[2]?.data.code], [task, 'INTERRUPTED']);
  const again = await open(second);
  assert.deepEqual(types(again.frames), ['session.ready', 'session.snapshot', 'pong']);
  assert.equal((await second.kill('SIGTERM')).code, 0);
  const third = await spawnNode(t, env);
  assert.deepEqual(types((await open(third)).frames), ['session.ready', 'session.snapshot', 'pong']);
});

test('a database that goes away takes nothing with it that was acknowledged, and streams go on', async (t) => {
  const env = { DATABASE_URL: await server.database() };
  const { ask, chat, stub } = await startScene(t, { env });
  const client = await chat('acme', 's1');
  last(await client.turn('Before.'), 'chat.response');
  stub.next(stallAfter('Still '));
  const streaming = client.say('During.');
  await client.see(({ task_id, type }) => task_id === streaming && type === 'chat.delta');
  await server.stop();
  const refused = await ask('/api/chat/send', { body: { message: 'Lost?', session_id: 's2' } });
  assert.deepEqual([refused.status, refused.body.error.code], [503, 'STORE_UNAVAILABLE']);
  assert.ok(refused.body.error.retry_after_ms > 0);
  assert.equal((await ask('/ready')).status, 503);
  client.send({ type: 'ping' });
  await client.see('pong');

  await server.start();
  await until('the node is ready again', async () => (await ask('/ready')).status === 200, 20_000);
  client.send({ type: 'chat.cancel', task_id: streaming });
  assert.equal((await client.ended(streaming)).data.content, 'Still ');
  last(await client.turn('After.'), 'chat.response');
  const { body } = await ask('/api/sessions/s1/messages');
  assert.deepEqual(
    body.messages.map(({ content }: { content: string }) => content),
    ['Before.', 'Hello there.', 'During.', 'Still ', 'After.', 'Hello there.'],
  );
});
