/** A tenant sees nothing of another tenant, on any route, with or without tokens. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { last, types } from '../support/chatter.ts';
import { startScene, startTestNode } from '../support/node.ts';
import { stallAfter } from '../support/stub-model.ts';
import { bearer, JWT, token } from '../support/tokens.ts';
import { connect, HandshakeRefused } from '../support/websocket-client.ts';

test('tasks and sessions of another tenant do not exist, on any route', async (t) => {
  const { stub, chat, ask } = await startScene(t);
  stub.next(stallAfter('Secret '));
  const mine = await chat('acme', 's1');
  const task = mine.say('My secret.', { task_id: 'my-task' });
  await mine.see('chat.delta');
  const theirs = await chat('globex', 's1');

  const routes = [
    ['/api/chat/status', { body: { task_id: task } }],
    [`/api/chat/tasks/${task}`, {}],
    ['/api/chat/cancel', { body: { task_id: task } }],
    ['/api/sessions/s2/messages', {}],
    ['/api/sessions/s2', { method: 'DELETE' }],
  ] as const;
  await mine.turn('Elsewhere.', { on_busy: 'reject' });
  const other = await chat('acme', 's2');
  await other.turn('In another session.');
  for (const [path, options] of routes) {
    const own = await ask(path, { ...options, tenant: 'globex' });
    const nothing = await ask(path.replace(task, 'none').replace('s2', 'none'), {
      ...('body' in options ? { body: { task_id: 'none' } } : options),
      tenant: 'globex',
    });
    assert.equal(own.status, 404, path);
    const { request_id: _one, ...told } = own.body.error;
    const { request_id: _two, ...unknown } = nothing.body.error;
    assert.deepEqual(told, unknown, `${path} tells the difference`);
  }
  theirs.send({ type: 'chat.cancel', task_id: task });
  assert.equal((await theirs.see('error')).data.code, 'NOT_FOUND');
  assert.equal((await ask('/api/sessions/s1/messages', { tenant: 'globex' })).body.messages.length, 0);
  theirs.say('The same id.', { task_id: task });
  await theirs.see('chat.response');

  mine.send({ type: 'chat.cancel', task_id: task });
  assert.equal((await mine.ended(task)).data.content, 'Secret ');
  assert.ok(!JSON.stringify(theirs.frames).includes('Secret'));
  const told = stub.requests.at(-1)?.body.messages.map(({ content }) => content);
  assert.ok(!JSON.stringify(told).includes('My secret'));
});

test('the tenant of path and header must be the one of the token', async (t) => {
  const { ask, port } = await startTestNode(t, { env: JWT });
  const headers = await bearer('acme');
  const asked = { body: { message: 'Go.' }, tenant: null, headers };
  assert.equal((await ask('/api/chat/send', asked)).status, 202);
  const routes = [
    ['/api/chat/send', { body: { message: 'Go.' } }],
    ['/api/chat/status', { body: { task_id: 't' } }],
    ['/api/chat/tasks/t', {}],
    ['/api/chat/cancel', { body: { task_id: 't' } }],
    ['/api/sessions/s1/messages', {}],
    ['/api/sessions/s1', { method: 'DELETE' }],
  ] as const;
  for (const [path, options] of routes) {
    const foreign = await ask(path, { ...options, tenant: 'globex', headers });
    assert.deepEqual([foreign.status, foreign.body.error.code], [403, 'FORBIDDEN'], path);
    const nobody = await ask(path, { ...options, tenant: 'acme' });
    assert.deepEqual([nobody.status, nobody.body.error.code], [401, 'UNAUTHENTICATED'], path);
    const forged = await bearer('acme', { secret: 'another secret of at least thirty-two characters' });
    assert.equal((await ask(path, { ...options, tenant: null, headers: forged })).status, 401, path);
    const scopeless = await bearer('acme', { scope: 'metrics' });
    assert.equal((await ask(path, { ...options, tenant: null, headers: scopeless })).status, 403, path);
  }
  const upgrade = await ask('/api/chat/send', { ...asked, tier: 'enterprise' });
  assert.equal(upgrade.status, 403, 'a header raised the tier');
  for (const path of ['/ws/globex/s1', '/ws/acme/s1?tier=enterprise', '/ws/acme/s1?user_id=someone'])
    await assert.rejects(connect(`ws://127.0.0.1:${port}${path}`, { headers }), refusedWith(403));
  await assert.rejects(connect(`ws://127.0.0.1:${port}/ws/acme/s1`), refusedWith(401));
  const inQuery = `ws://127.0.0.1:${port}/ws/acme/s1?token=${await token('acme')}`;
  await assert.rejects(connect(inQuery), refusedWith(401));
});

test('a task of another tenant is not found with a good token either', async (t) => {
  const { ask } = await startTestNode(t, { env: JWT });
  const sent = await ask('/api/chat/send', {
    body: { message: 'Go.', session_id: 's1' },
    tenant: null,
    headers: await bearer('acme'),
  });
  const path = `/api/chat/tasks/${sent.body.task_id}`;
  assert.equal((await ask(path, { tenant: null, headers: await bearer('acme') })).status, 200);
  const theirs = { tenant: null, headers: await bearer('globex') };
  assert.equal((await ask(path, theirs)).status, 404);
  assert.equal((await ask('/api/sessions/s1/messages', theirs)).status, 404);
  assert.equal((await ask('/api/sessions/s1', { ...theirs, method: 'DELETE' })).status, 404);
});

test('the token opens a socket by header or subprotocol, and is never echoed', async (t) => {
  const { chat } = await startTestNode(t, { env: JWT });
  const mine = await token('acme', { tier: 'free', user: 'ada' });
  const byHeader = await chat('acme', 's1', { headers: { Authorization: `Bearer ${mine}` } });
  assert.equal((await byHeader.see('session.ready')).data.tier, 'free');
  const byProtocol = await chat('acme', 's1', { protocols: ['nooble', `bearer.${mine}`] });
  assert.equal(byProtocol.protocol, 'nooble');
  const packed = await chat('acme', 's1', { protocols: ['nooble.msgpack', `bearer.${mine}`] });
  assert.equal(packed.protocol, 'nooble.msgpack');
  last(await packed.turn('Go.'), 'chat.response');
  await byHeader.see('chat.response');
});

test('a live socket is closed with 4401 when its token expires', async (t) => {
  const { chat } = await startTestNode(t, { env: JWT });
  // Five seconds are allowed for clocks that differ.
  const headers = await bearer('acme', { expiresInS: -3 });
  const client = await chat('acme', 's1', { headers });
  last(await client.turn('Still here.'), 'chat.response');
  assert.equal((await client.closed).code, 4401);
  const stale = { headers: await bearer('acme', { expiresInS: -60 }) };
  await assert.rejects(chat('acme', 's1', stale), refusedWith(401));
});

test('probes with figures need the scope metrics; the plain ones need nothing', async (t) => {
  const { ask } = await startTestNode(t, { env: JWT });
  for (const path of ['/metrics', '/metrics/overview', '/ws/stats', '/health/detailed']) {
    assert.equal((await ask(path, { tenant: null })).status, 401, path);
    assert.equal((await ask(path, { tenant: null, headers: await bearer('acme') })).status, 403, path);
    const headers = await bearer('ops', { scope: 'metrics' });
    assert.equal((await ask(path, { tenant: null, headers })).status, 200, path);
  }
  for (const path of ['/health', '/ready', '/openapi.json'])
    assert.equal((await ask(path, { tenant: null })).status, 200, path);
});

test('frames of one tenant never reach sockets of another in a session of the same name', async (t) => {
  const { chat } = await startTestNode(t);
  const [mine, theirs] = [await chat('acme', 's1'), await chat('globex', 's1')];
  await mine.turn('Mine.');
  theirs.send({ type: 'ping' });
  await theirs.see('pong');
  assert.deepEqual(types(theirs.frames), ['session.ready', 'pong']);
  assert.equal((await theirs.turn('Theirs.'))[0]?.seq, 1);
});

const refusedWith = (status: number) => (error: unknown) =>
  error instanceof HandshakeRefused && error.status === status;
