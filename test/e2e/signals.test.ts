/** The node as a process: its signals, its exit codes, and what it says about wrong settings. */
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { readEvents } from '../support/http-client.ts';
import { leakFree } from '../support/leaks.ts';
import { runNode, spawnNode } from '../support/node.ts';
import { listen } from '../support/processes.ts';
import { connect, HandshakeRefused } from '../support/websocket-client.ts';

const offline = (model: string) => ({ DEFAULT_PROVIDER: 'offline', DEFAULT_MODEL: model });

test('SIGTERM: nothing new is let in, what runs is finished, clients are sent away, exit 0', async (t) => {
  const node = await spawnNode(t, offline('offline-60x20'));
  const [client, idle] = [await node.chat('acme', 's1'), await node.chat('acme', 's2')];
  const task = client.say('Go.');
  await client.see('chat.delta');
  const waiting = client.say('And then.');
  await client.see(({ task_id, type }) => task_id === waiting && type === 'chat.accepted');
  node.kill('SIGTERM');
  const notice = await client.see('server.draining');
  assert.ok(notice.data.reconnect_after_ms >= 0 && notice.data.reconnect_after_ms <= 5_000);
  await idle.see('server.draining');

  const ready = await fetch(`${node.url}/ready`);
  assert.equal(ready.status, 503);
  assert.match(await ready.text(), /"status":"draining"/);
  assert.equal((await fetch(`${node.url}/health`)).status, 200);
  const refused = await idle.ended(idle.say('New.'));
  assert.deepEqual([refused.data.code, refused.data.retryable], ['DRAINING', true]);
  await assert.rejects(
    connect(`ws://127.0.0.1:${node.port}/ws/acme/s3`),
    (error) => error instanceof HandshakeRefused && error.status === 503,
  );
  assert.equal((await client.ended(task)).data.content.trim().split(' ').length, 60);
  assert.equal((await client.ended(waiting)).type, 'chat.response');
  assert.deepEqual([(await client.closed).code, (await idle.closed).code], [1012, 1012]);
  assert.deepEqual(await node.exit, { code: 0, signal: null });
  client.check();
  assert.ok(node.lines.some(({ msg }) => msg === 'stopped'));
});

test('a stream over HTTP is finished before the node ends, too', async (t) => {
  const node = await spawnNode(t, offline('offline-40x20'));
  const response = await fetch(`${node.url}/api/chat/send`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'text/event-stream',
      'x-tenant-id': 'acme',
      connection: 'close',
    },
    body: JSON.stringify({ message: 'Go.' }),
  });
  const events = readEvents(response);
  assert.equal((await events.next())?.event, 'chat.accepted');
  node.kill('SIGTERM');
  const end = (await events.rest()).at(-1);
  assert.equal(end?.event, 'chat.response');
  assert.deepEqual(await node.exit, { code: 0, signal: null });
});

test('turns that outlast the grace are cancelled, with what there was of them', async (t) => {
  const node = await spawnNode(t, { ...offline('offline-16000x50'), DRAIN_SECONDS: '0.5' });
  const client = await node.chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');
  const waiting = client.say('And then.');
  await client.see(({ task_id, type }) => task_id === waiting && type === 'chat.accepted');
  node.kill('SIGTERM');
  const end = await client.ended(task);

  assert.equal(end.type, 'chat.cancelled');
  assert.match(end.data.content, /^tok1 tok2 /);
  assert.equal((await client.ended(waiting)).type, 'chat.cancelled');
  assert.equal((await client.closed).code, 1012);
  assert.deepEqual(await node.exit, { code: 0, signal: null });
  client.check();
});

test('a second signal, more than a second later, ends the process at once', async (t) => {
  const node = await spawnNode(t, offline('offline-16000x50'));
  const client = await node.chat('acme', 's1');
  client.say('Go.');
  await client.see('chat.delta');
  node.kill('SIGTERM');
  await client.see('server.draining');
  await delay(1_200);
  node.kill('SIGINT');
  const { code, signal } = await node.exit;
  assert.ok(code !== 0 || signal !== null, 'it looks as if it had ended well');
  await client.closed;
});

test('a node with nothing to do ends at once', async (t) => {
  const node = await spawnNode(t, offline('offline-echo'));
  node.kill('SIGTERM');
  assert.deepEqual(await node.exit, { code: 0, signal: null });
});

test('wrong settings are all named at once, and end the process with 2', async (t) => {
  leakFree(t);
  const { code, stderr } = await runNode(t, {
    PORT: 'eighty',
    DEFAULT_TIER: 'gold',
    AUTH_MODE: 'jwt',
    OPENAI_BASE_URL: 'localhost:1234',
    TIERS_FILE: '/nowhere/tiers.json',
    AUTH_JWT_SECRET: 'short-canary',
  });
  assert.equal(code, 2);
  for (const name of ['PORT', 'DEFAULT_TIER', 'AUTH_JWT_SECRET', 'OPENAI_BASE_URL', 'TIERS_FILE'])
    assert.ok(stderr.includes(name), `${name} is not named`);
  assert.ok(!stderr.includes('short-canary'), 'a secret was printed');
});

test('open mode does not leave loopback', async (t) => {
  const { code, stderr } = await runNode(t, { HOST: '0.0.0.0', PORT: '0' });
  assert.equal(code, 2);
  assert.match(stderr, /HOST/);
});

test('a port that is taken ends the process with 1 and the reason', async (t) => {
  const server = createServer();
  t.after(() => server.close());
  const { code, stderr } = await runNode(t, { PORT: String(await listen(server)) });
  assert.equal(code, 1);
  assert.match(stderr, /port is taken/);
});
