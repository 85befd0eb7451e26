/** What other services may do with SERVICE_TOKEN: hear and send notices, read agents, and set tiers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tenantNoticeSchema } from '../../src/domain/agent-record.ts';
import { last } from '../support/chatter.ts';
import { leakFree } from '../support/leaks.ts';
import { startTestNode, type TestNode } from '../support/node.ts';
import { temporary } from '../support/temporary.ts';
import { connect, HandshakeRefused } from '../support/websocket-client.ts';

const SERVICE_TOKEN = 'the-token-of-all-services';
const ENV = { SERVICE_TOKEN };
const BEARER = { tenant: null, headers: { authorization: `Bearer ${SERVICE_TOKEN}` } };

async function service({ port }: TestNode, service_name = 'agent-management') {
  const client = await connect(`ws://127.0.0.1:${port}/ws/task_updates`);
  client.send({ service_token: SERVICE_TOKEN, service_name });
  assert.deepEqual(await client.next(), { status: 'authenticated' });
  return client;
}

const setTier = ({ ask }: TestNode, tenant: string, tier: string) =>
  ask(`/internal/tenants/${tenant}`, { ...BEARER, method: 'PUT', body: { tier } });

test('notices of this node reach services, those of services the tenant’s sockets', async (t) => {
  leakFree(t);
  const node = await startTestNode(t, { env: ENV });
  const [one, two] = [await service(node), await service(node, 'orchestrator')];
  const [client, stranger] = [await node.chat('acme', 's1'), await node.chat('other', 's1')];
  const { body: agent } = await node.ask('/api/agents', { body: { name: 'Guide' } });
  for (const each of [one, two]) {
    const { event, tenant_id, service: from, data } = tenantNoticeSchema.parse(await each.next());
    assert.deepEqual([event, tenant_id, from], ['agent_created', 'acme', 'agent-management']);
    assert.equal(data.agent_id, agent.id);
  }

  const data = { task_id: 't-1', progress: 50 };
  one.send({ event: 'task_status_update', service: 'training', task_id: 't-1', tenant_id: 'acme', data });
  const seen = await client.see('task_status_update');
  assert.deepEqual(seen.data, { channel: 'tenant:acme', event: 'task_status_update', data });
  two.send({ channel: 'tenant:acme', event: 'task_completed', data });
  assert.deepEqual((await client.see('task_completed')).data.data, data);
  stranger.send({ type: 'ping' });
  await stranger.see('pong');
  assert.ok(!stranger.frames.some(({ type }) => type.startsWith('task_')));
  one.send({ event: 'something_else', tenant_id: 'acme', data });
  assert.match(JSON.stringify(await one.next()), /INVALID_REQUEST/);
  await Promise.all([one.close(), two.close()]);
});

test('a service that can not say the token is sent away', async (t) => {
  leakFree(t);
  const node = await startTestNode(t, { env: ENV });
  const liar = await connect(`ws://127.0.0.1:${node.port}/ws/task_updates`);
  liar.send({ service_token: 'the-token-of-no-services', service_name: 'liar' });
  assert.equal((await liar.closed).code, 4401);
});

test('where no token is set nobody is a service', async (t) => {
  const closed = await startTestNode(t);
  await assert.rejects(
    connect(`ws://127.0.0.1:${closed.port}/ws/task_updates`),
    (error) => error instanceof HandshakeRefused && error.status === 403,
  );
  assert.equal((await closed.ask('/internal/tenants/acme', BEARER)).status, 403);
});

test('services are told when the node goes', async (t) => {
  const node = await startTestNode(t, { env: ENV });
  const one = await service(node);
  await node.running.drain();
  assert.equal((await one.closed).code, 1012);
});

test('an agent’s configuration is there for services, and for nobody else', async (t) => {
  const { ask } = await startTestNode(t, { env: ENV });
  const { body: agent } = await ask('/api/agents', { body: { name: 'Guide', system_prompt: 'Be kind.' } });
  const path = `/internal/agents/${agent.id}/config`;
  const config = await ask(`${path}?tenant_id=acme`, BEARER);
  assert.deepEqual([config.status, config.body], [200, agent]);
  assert.equal((await ask(`${path}?tenant_id=other`, BEARER)).status, 404);
  assert.equal((await ask(path, BEARER)).status, 400);
  assert.equal((await ask(path)).status, 401);
  const wrong = { headers: { authorization: 'Bearer the-token-of-no-services' } };
  assert.equal((await ask(path, wrong)).status, 401);
  assert.equal((await ask('/internal/agents/nobody/config?tenant_id=acme', BEARER)).status, 404);
});

test('a tier that is set reaches a live session, over whatever its requests name', async (t) => {
  const node = await startTestNode(t, { env: ENV });
  const client = await node.chat('acme', 's1', { query: { tier: 'free' } });
  const { body: large } = await node.ask('/api/agents', {
    tier: 'enterprise',
    body: { name: 'For the large', minimum_tier: 'professional' },
  });
  const outcome = async () => (await client.ended(client.say('Go.', { agent_id: large.id }))).data.code;
  assert.equal(await outcome(), 'TIER_LIMIT');
  assert.deepEqual((await setTier(node, 'acme', 'professional')).body, {
    tenant_id: 'acme',
    tier: 'professional',
  });
  assert.equal(await outcome(), undefined);

  await setTier(node, 'acme', 'free');
  assert.equal(await outcome(), 'TIER_LIMIT');
  const named = await node.chat('acme', 's2', { query: { tier: 'enterprise' } });
  assert.equal(named.frames[0]?.data.tier, 'free');
  const refusedChat = await named.ended(named.say('Go.', { agent_id: large.id }));
  assert.equal(refusedChat.data.code, 'TIER_LIMIT');
  const sent = await node.ask('/api/chat/send', {
    tier: 'enterprise',
    body: { message: 'Go.', agent_id: large.id, session_id: 's3' },
  });
  assert.deepEqual([sent.status, sent.body.error?.code], [422, 'TIER_LIMIT']);
  const made = await node.ask('/api/agents', { tier: 'enterprise', body: { name: 'Second' } });
  assert.deepEqual([made.status, made.body.error?.code], [422, 'TIER_LIMIT']);
});

test('a tier that was set is there after a restart, with what was used of the day', async (t) => {
  const env = { ...ENV, DATABASE_URL: temporary(t).database };
  await t.test('the first life', async (own) => {
    const node = await startTestNode(own, { env });
    last(await (await node.chat('acme', 's1')).turn('Go.'), 'chat.response');
    assert.equal((await setTier(node, 'acme', 'free')).status, 200);
    assert.equal((await setTier(node, 'acme', 'gold')).status, 400);
  });
  await t.test('the second life', async (own) => {
    const node = await startTestNode(own, { env });
    const { body } = await node.ask('/internal/tenants/acme', BEARER);
    assert.deepEqual([body.tier, body.used], ['free', 1]);
    const client = await node.chat('acme', 's1', { query: { tier: 'enterprise' } });
    assert.equal(client.frames[0]?.data.tier, 'free');
    assert.equal((await node.ask('/internal/tenants/nobody', BEARER)).status, 404);
  });
});
