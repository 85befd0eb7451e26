/** Webhooks of a whole node: a change of an agent reaches a receiver, signed, and again until it is taken. */
import assert from 'node:assert/strict';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { Webhook as Verifier } from 'standardwebhooks';
import { leakFree } from '../support/leaks.ts';
import { OFFLINE, spawnNode, startTestNode, type TestNode } from '../support/node.ts';
import { temporary } from '../support/temporary.ts';
import { until } from '../support/until.ts';
import { openReceiver } from '../transports/webhooks/webhook-receiver.ts';

/** A node whose webhooks may reach this machine. */
const LOCAL = { env: { ALLOW_INSECURE: '1' }, parts: { blockPrivate: false } };

const hook = async ({ ask }: TestNode, port: number, more: object = {}) => {
  const made = await ask('/api/webhooks', { body: { url: `http://127.0.0.1:${port}/in`, ...more } });
  assert.equal(made.status, 201, made.text);
  return made.body;
};

/** Resolves to the webhook's newest delivery once it is so. */
async function delivery({ ask }: TestNode, webhookId: string, status: string, attempts: number) {
  const newest = async () => (await ask(`/api/webhooks/${webhookId}/deliveries`)).body.items[0];
  await until(`a delivery ${status}`, async () => {
    const found = await newest();
    return found?.status === status && found.attempts === attempts;
  });
  return newest();
}

test('a change of an agent is sent signed; the secret is shown once', async (t) => {
  leakFree(t);
  const receiver = await openReceiver(t);
  const node = await startTestNode(t, LOCAL);
  const { id, secret } = await hook(node, receiver.port, { events: ['agent_updated'] });
  const { body: agent } = await node.ask('/api/agents', { body: { name: 'Guide' } });
  await node.ask(`/api/agents/${agent.id}`, { method: 'PATCH', body: { temperature: 0.1 } });
  await receiver.got(1);
  const [request] = receiver.requests;
  assert.ok(request);
  new Verifier(secret).verify(request.body, request.headers);
  assert.throws(() => new Verifier(secret).verify(request.body.replace('acme', 'evil'), request.headers));
  const notice = JSON.parse(request.body);
  assert.deepEqual([notice.event, notice.tenant_id, notice.data.version], ['agent_updated', 'acme', 2]);
  const done = await delivery(node, id, 'delivered', 1);
  assert.equal(request.headers['webhook-id'], done.id);
  const { body: list, text } = await node.ask('/api/webhooks');
  assert.deepEqual([list.total, list.items[0].id], [1, id]);
  assert.ok(!text.includes(secret), 'the list shows the secret');
  assert.equal((await node.ask(`/api/webhooks/${id}/deliveries`, { tenant: 'other' })).status, 404);
});

test('what fails is sent again under the same id; what is dead can be replayed', async (t) => {
  leakFree(t);
  const answers = [500, 204, 410, 200];
  const receiver = await openReceiver(t, (response, count) =>
    response.writeHead(answers[count - 1] ?? 200).end(),
  );
  const node = await startTestNode(t, LOCAL);
  const { id } = await hook(node, receiver.port, { events: ['agent_created'] });
  await node.ask('/api/agents', { body: { name: 'One' } });
  await receiver.got(2);
  await delivery(node, id, 'delivered', 2);
  assert.equal(receiver.requests[0]?.headers['webhook-id'], receiver.requests[1]?.headers['webhook-id']);

  await node.ask('/api/agents', { body: { name: 'Two' } });
  const dead = await delivery(node, id, 'dead', 1);
  assert.equal(dead.last_error, 'answered 410');
  const path = `/api/webhooks/deliveries/${dead.id}/replay`;
  assert.equal((await node.ask(path, { method: 'POST', tenant: 'other' })).status, 404);
  assert.equal((await node.ask(path, { method: 'POST' })).status, 202);
  await receiver.got(4);
  await delivery(node, id, 'delivered', 1);
  assert.equal(receiver.requests[3]?.headers['webhook-id'], dead.id);
  assert.equal(receiver.requests[3]?.body, receiver.requests[2]?.body);
});

test('what a stopped node had not delivered is delivered by the next', async (t) => {
  leakFree(t);
  const env = { ...LOCAL.env, DATABASE_URL: temporary(t).database };
  const receiver = await openReceiver(t, (response, count) => {
    if (count > 1) response.writeHead(204).end();
  });
  await t.test('the first life', async (own) => {
    const node = await startTestNode(own, { ...LOCAL, env });
    await hook(node, receiver.port);
    await node.ask('/api/agents', { body: { name: 'One' } });
    await receiver.got(1);
  });
  await t.test('the second life', async (own) => {
    await startTestNode(own, { ...LOCAL, env });
    await receiver.got(2);
  });
  assert.equal(receiver.requests[0]?.headers['webhook-id'], receiver.requests[1]?.headers['webhook-id']);
});

test('a notice is stored with what it tells of: a node that dies as it answers has left it behind', async (t) => {
  const folder = temporary(t);
  const node = await spawnNode(t, { ...OFFLINE, DATABASE_URL: folder.database });
  for (const url of ['https://hooks.invalid/one', 'https://hooks.invalid/two'])
    assert.equal((await node.ask('/api/webhooks', { body: { url } })).status, 201);
  const other = await node.ask('/api/webhooks', { body: { url: 'https://hooks.invalid/' }, tenant: 'other' });
  assert.equal(other.status, 201);
  const { body } = await node.ask('/api/agents', { body: { name: 'Guide' } });
  await node.ask(`/api/agents/${body.id}`, { method: 'PATCH', body: { temperature: 0.1 } });
  const template = { name: 'T', slug: 'tt', agent: {} };
  assert.equal((await node.ask('/api/templates', { body: template, tier: 'enterprise' })).status, 201);
  assert.equal((await node.ask(`/api/agents/${body.id}`, { method: 'DELETE' })).status, 204);
  await node.kill('SIGKILL');

  const db = new DatabaseSync(folder.path('nooble.db'), { readOnly: true });
  t.after(() => db.close());
  const rows = db.prepare('select tenant_id, body from deliveries').all();
  const events = rows.map((row) => [row.tenant_id, JSON.parse(String(row.body)).event].join(' ')).sort();
  const expected = ['agent_created', 'agent_deleted', 'agent_template_created', 'agent_updated'];
  assert.deepEqual(
    events,
    expected.flatMap((event) => [`acme ${event}`, `acme ${event}`]),
  );
});

test('by default webhooks reach neither this machine nor its network', async (t) => {
  leakFree(t);
  const receiver = await openReceiver(t);
  const { port } = receiver;
  const env = { ALLOW_INSECURE: '1', DATABASE_URL: temporary(t).database };
  const hosts = ['127.0.0.1', 'localhost', '[::1]', '2130706433', '0x7f.1', '10.0.0.1', '169.254.169.254'];
  await t.test('such an address is refused', async (own) => {
    const { ask } = await startTestNode(own, { env });
    for (const host of hosts) {
      const { status, body } = await ask('/api/webhooks', { body: { url: `http://${host}:${port}/` } });
      assert.deepEqual([status, body.error?.code], [400, 'INVALID_REQUEST'], host);
    }
    const plain = await ask('/api/webhooks', { body: { url: 'ftp://example.com/' } });
    assert.equal(plain.status, 400);
  });
  await t.test('one that was stored before is not reached', async (own) => {
    const lenient = await startTestNode(own, { parts: LOCAL.parts, env });
    await hook(lenient, port);
  });
  await t.test('whatever stores say', async (own) => {
    const node = await startTestNode(own, { env });
    await node.ask('/api/agents', { body: { name: 'One' } });
    const [{ id }] = (await node.ask('/api/webhooks')).body.items;
    const failed = async () => (await node.ask(`/api/webhooks/${id}/deliveries`)).body.items[0]?.last_error;
    await until('the attempt', async () => typeof (await failed()) === 'string');
    assert.equal(receiver.requests.length, 0);
  });
});

test('without ALLOW_INSECURE a webhook has to be https', async (t) => {
  const { ask } = await startTestNode(t);
  const { status } = await ask('/api/webhooks', { body: { url: 'http://hooks.example.com/' } });
  assert.equal(status, 400);
});

test('deliveries of webhooks and callbacks are in the metrics, without a tenant or an address', async (t) => {
  leakFree(t);
  const dead = await openReceiver(t, (response) => response.writeHead(410).end());
  const fine = await openReceiver(t);
  const node = await startTestNode(t, LOCAL);
  const failing = await hook(node, dead.port, { events: ['agent_created'] });
  const working = await hook(node, fine.port, { events: ['agent_created'] });
  await node.ask('/api/agents', { body: { name: 'One' } });
  await delivery(node, failing.id, 'dead', 1);
  await delivery(node, working.id, 'delivered', 1);
  const callback_url = `http://127.0.0.1:${fine.port}/done`;
  await node.ask('/api/executions', { body: { agent_id: 'default', input: 'hi', callback_url } });
  await fine.got(2);

  const figures = async (): Promise<readonly string[]> =>
    (await node.ask('/metrics')).text
      .split('\n')
      .filter((line) => line.startsWith('nooble_deliver'))
      .sort();
  const expected = [
    'nooble_deliveries_running{kind="callback"} 0',
    'nooble_deliveries_running{kind="webhook"} 0',
    'nooble_deliveries_waiting{kind="callback"} 0',
    'nooble_deliveries_waiting{kind="webhook"} 0',
    'nooble_delivery_attempts_total{kind="callback",outcome="delivered"} 1',
    'nooble_delivery_attempts_total{kind="webhook",outcome="dead"} 1',
    'nooble_delivery_attempts_total{kind="webhook",outcome="delivered"} 1',
  ];
  await until('the callback is counted', async () => (await figures()).length === expected.length);
  assert.deepEqual(await figures(), expected);
  const { deliveries } = (await node.ask('/metrics/overview')).body;
  assert.deepEqual(deliveries, { attempts: { dead: 1, delivered: 2 }, running: 0, waiting: 0 });
});
