/** The WebSocket of services over a real socket: who gets in, and what flows each way. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { z } from 'zod';
import type { TenantNotice } from '../../../src/domain/agent-record.ts';
import { CLOSE } from '../../../src/domain/errors.ts';
import { createNotices } from '../../../src/management/notices.ts';
import { openServer } from '../../../transports/http/adapter.ts';
import { mountTaskUpdates, type TaskUpdatesDeps } from '../../../transports/websocket/service-notices.ts';
import { leakFree } from '../../support/leaks.ts';
import { quiet, untraced } from '../../support/quiet.ts';
import { connect, HandshakeRefused, type TestClient } from '../../support/websocket-client.ts';
import { notice } from '../webhooks/webhook-receiver.ts';

const TOKEN = 'the-token-of-all-services';
const NOW = Date.parse('2026-01-02T03:04:05.006Z');

async function openNode(t: TestContext, more: Partial<TaskUpdatesDeps> = {}) {
  leakFree(t);
  const server = openServer();
  const notices = createNotices(quiet);
  const delivered: TenantNotice[] = [];
  const closed: number[] = [];
  const updates = mountTaskUpdates(server.app, {
    serviceToken: TOKEN,
    notices,
    deliver: (one) => delivered.push(one),
    log: quiet,
    clock: { now: () => NOW },
    metrics: { socketOpened: () => {}, socketClosed: (code) => closed.push(code) },
    draining: () => false,
    proxied: () => undefined,
    refusals: untraced,
    ...more,
  });
  const port = await server.listen('127.0.0.1', 0);
  t.after(() => {
    updates.close(CLOSE.restart);
    server.close();
  });
  const url = `ws://127.0.0.1:${port}/ws/task_updates`;
  /** A socket that has said who it is. */
  const service = async (name = 'agent-management-service'): Promise<TestClient> => {
    const client = await connect(url);
    client.send({ service_token: TOKEN, service_name: name });
    assert.deepEqual(await client.next(), { status: 'authenticated' });
    return client;
  };
  return { url, notices, delivered, closed, updates, service };
}

const errorSchema = z.strictObject({
  status: z.literal('error'),
  error: z.strictObject({ code: z.literal('INVALID_REQUEST'), message: z.string() }),
});

/** Resolves once everything that was sent before has been taken: frames are, in order. */
async function taken(client: TestClient): Promise<void> {
  client.send('nonsense');
  errorSchema.parse(await client.next());
}

test('a service that says who it is hears every notice of this node', async (t) => {
  const node = await openNode(t);
  const [first, second] = [await node.service('one'), await node.service('two')];
  assert.equal(node.updates.count(), 2);
  const sent = [notice('agent_created'), notice('task_status_update', 'globex', { status: 'processing' })];
  for (const one of sent) node.notices.publish(one);
  for (const client of [first, second]) for (const one of sent) assert.deepEqual(await client.next(), one);
  assert.equal((await first.close()).code, 1000);
  await second.close();
});

test('what a service sends reaches its tenant, in both spellings, and is not echoed', async (t) => {
  const node = await openNode(t);
  const client = await node.service();
  const full = {
    event: 'task_completed',
    service: 'agent-management-service',
    task_id: 'task-1',
    global_task_id: 'global-1',
    tenant_id: 'acme',
    timestamp: '2026-01-02T03:04:05.123456',
    data: { result: [1] },
  };
  client.send(full);
  client.send({ channel: 'tenant:globex', event: 'agent_updated', data: { agent_id: 'a1' } });
  client.send({ event: 'agent_deleted', tenant_id: 'acme' });
  client.send({ ...full, global_task_id: null, data: null, timestamp: '2026-01-02 05:04:05+02:00', more: 1 });
  await taken(client);
  node.notices.publish(notice());
  assert.deepEqual(await client.next(), notice());
  assert.equal(client.frames.length, 3, 'none of its own came back');
  assert.deepEqual(node.delivered, [
    { ...full, timestamp: '2026-01-02T03:04:05.123Z' },
    {
      event: 'agent_updated',
      service: 'agent-management-service',
      task_id: '',
      tenant_id: 'globex',
      timestamp: new Date(NOW).toISOString(),
      data: { agent_id: 'a1' },
    },
    {
      event: 'agent_deleted',
      service: 'agent-management-service',
      task_id: '',
      tenant_id: 'acme',
      timestamp: new Date(NOW).toISOString(),
      data: {},
    },
    { ...full, global_task_id: null, data: {}, timestamp: '2026-01-02T03:04:05.000Z' },
  ]);
  await client.close();
});

test('a malformed frame is answered and the socket stays open', async (t) => {
  const node = await openNode(t);
  const client = await node.service();
  const bad: (object | string | Uint8Array)[] = [
    '',
    'not json',
    '7',
    'null',
    '[]',
    {},
    { event: 'agent_created' },
    { event: 'chat.response', tenant_id: 'acme', data: {} },
    { event: 'agent_created', tenant_id: 'a b' },
    { event: 'agent_created', tenant_id: 'acme', data: [] },
    { event: 'agent_created', tenant_id: 'acme', timestamp: 'yesterday' },
    { event: 'agent_created', tenant_id: 'acme', timestamp: '2026-99-99T00:00:00' },
    { event: 'agent_created', tenant_id: 'acme', task_id: 'x'.repeat(129) },
    { channel: 'acme', event: 'agent_created', data: {} },
    { channel: 'tenant:', event: 'agent_created', data: {} },
    { channel: 'tenant:a b', event: 'agent_created', data: {} },
    { channel: 7, event: 'agent_created', data: {} },
    '['.repeat(50_000),
    `{"event":"agent_created","tenant_id":"acme","data":${'{"a":'.repeat(100)}1${'}'.repeat(101)}`,
    new Uint8Array([1, 2, 3]),
  ];
  for (const frame of bad) {
    client.send(frame);
    errorSchema.parse(await client.next());
  }
  assert.deepEqual(node.delivered, []);
  client.send({ event: 'agent_created', tenant_id: 'acme', data: { __proto__: null } });
  await taken(client);
  assert.equal(node.delivered.length, 1);
  await client.close();
});

test('whoever has no valid token is closed with 4401, and hears nothing before that', async (t) => {
  const node = await openNode(t);
  for (const frame of [
    { service_token: 'wrong', service_name: 'x' },
    { service_token: TOKEN },
    { service_token: TOKEN, service_name: '' },
    { service_token: `${TOKEN} `, service_name: 'x' },
    { service_token: [TOKEN], service_name: 'x' },
    { event: 'agent_created', tenant_id: 'acme', data: {} },
    'nonsense',
    new Uint8Array([1]),
  ]) {
    const client = await connect(node.url);
    node.notices.publish(notice());
    client.send(frame);
    assert.equal((await client.closed).code, CLOSE.unauthenticated.code);
    assert.deepEqual(client.frames, []);
  }
  assert.deepEqual(node.delivered, []);
});

test('a service that says nothing in time is closed', async (t) => {
  const node = await openNode(t, { timing: { authTimeoutMs: 20 } });
  const client = await connect(node.url);
  assert.deepEqual(await client.closed, {
    code: CLOSE.unauthenticated.code,
    reason: 'no service_token in time',
  });
});

test('sockets that say nothing keep no service out, however many they are', async (t) => {
  const node = await openNode(t);
  const here = await node.service('here before');
  const silent: TestClient[] = [];
  for (let index = 0; index < 300; index += 1) {
    silent.push(await connect(node.url));
    if (index % 100 === 50) await node.service(`service ${index}`);
  }
  assert.ok(node.updates.count() <= 24, `${node.updates.count()} are open`);
  assert.deepEqual((await silent[0]?.closed)?.code, CLOSE.tooMany.code);
  const last = silent.at(-1);
  last?.send({ service_token: TOKEN, service_name: 'late' });
  assert.deepEqual(await last?.next(), { status: 'authenticated' });
  node.notices.publish(notice());
  assert.deepEqual(await here.next(), notice());
});

test('places are for those who have proved themselves, and they are as many as before', async (t) => {
  const node = await openNode(t);
  const services = await Promise.all(Array.from({ length: 16 }, (_, index) => node.service(`s${index}`)));
  for (let index = 16; index < 256; index += 1) services.push(await node.service(`s${index}`));
  const error: unknown = await connect(node.url).catch((reason: unknown) => reason);
  assert.ok(error instanceof HandshakeRefused && error.status === 503);
  await services[0]?.close();
  await node.service('another');
});

test('without SERVICE_TOKEN, or while draining, the handshake is refused', async (t) => {
  const closed = await openNode(t, { serviceToken: undefined });
  const refusal = await connect(closed.url).then(
    () => undefined,
    (error: unknown) => error,
  );
  assert.ok(refusal instanceof HandshakeRefused);
  assert.equal(refusal.status, 403);
  assert.match(refusal.body, /"code":"FORBIDDEN".*SERVICE_TOKEN/);
  const draining = await openNode(t, { draining: () => true });
  const later = await connect(draining.url).then(
    () => undefined,
    (error: unknown) => error,
  );
  assert.ok(later instanceof HandshakeRefused && later.status === 503);
});

test('a token in the address is refused, whatever it is called', async (t) => {
  const node = await openNode(t);
  for (const query of ['service_token', 'token', '%6Awt', 'Api-Key', 'authorization']) {
    const error: unknown = await connect(`${node.url}?${query}=${TOKEN}`).then(
      () => assert.fail('was admitted'),
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof HandshakeRefused, String(error));
    assert.equal(error.status, 401, query);
    assert.match(error.body, /"code":"UNAUTHENTICATED"/);
    assert.ok(!error.body.includes(TOKEN));
  }
});

test('a service that does not read is cut off, and the others hear on', async (t) => {
  const node = await openNode(t);
  const [slow, quick] = [await node.service('slow'), await node.service('quick')];
  slow.pause();
  const big = notice('task_status_update', 'acme', { text: 'x'.repeat(200_000) });
  let sent = 0;
  while (node.updates.count() === 2 && sent < 200) {
    node.notices.publish(big);
    sent += 1;
    await quick.next();
  }
  assert.equal(node.updates.count(), 1);
  node.notices.publish(notice());
  assert.deepEqual(await quick.next(), notice());
  slow.resume();
  assert.equal((await slow.closed).code, 1006);
  await quick.close();
});

test('a frame over the limit closes the socket', async (t) => {
  const node = await openNode(t);
  const client = await node.service();
  client.send({ event: 'agent_created', tenant_id: 'acme', data: { text: 'x'.repeat(300_000) } });
  assert.ok([1006, 1009].includes((await client.closed).code));
  assert.deepEqual(node.delivered, []);
});

test('closing tells every service to come back, and ends the listening', async (t) => {
  const node = await openNode(t);
  const client = await node.service();
  node.updates.close(CLOSE.restart);
  assert.equal((await client.closed).code, CLOSE.restart.code);
  node.notices.publish(notice());
  assert.equal(node.updates.count(), 0);
  assert.deepEqual(client.frames, [{ status: 'authenticated' }]);
});
