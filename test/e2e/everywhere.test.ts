/** Two nodes that tell each other what holds on all: notices reach sockets and services of both, webhooks once. */
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { tenantNoticeSchema } from '../../src/domain/agent-record.ts';
import { broadcastHub } from '../support/broadcast-hub.ts';
import { startTestNode, type TestNode } from '../support/node.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { connect } from '../support/websocket-client.ts';
import { openReceiver } from '../transports/webhooks/webhook-receiver.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

const SERVICE_TOKEN = 'the-token-of-all-services';

async function serviceOf({ port }: TestNode) {
  const client = await connect(`ws://127.0.0.1:${port}/ws/task_updates`);
  client.send({ service_token: SERVICE_TOKEN, service_name: 'training' });
  assert.deepEqual(await client.next(), { status: 'authenticated' });
  return client;
}

test('a change on one node is told on both, and to webhooks once; what a service says reaches both', async (t) => {
  const DATABASE_URL = await server.database();
  const receiver = await openReceiver(t);
  const [mine, theirs] = broadcastHub(2);
  const start = (own: TestContext, NODE_ID: string, broadcast = mine) =>
    startTestNode(own, {
      env: { DATABASE_URL, SERVICE_TOKEN, ALLOW_INSECURE: '1', NODE_ID },
      parts: { blockPrivate: false, ...(broadcast ? { broadcast } : {}) },
    });
  const here = await start(t, 'first');
  const hook = { url: `http://127.0.0.1:${receiver.port}/in` };
  assert.equal((await here.ask('/api/webhooks', { body: hook })).status, 201);
  const [service, client] = [await serviceOf(here), await here.chat('acme', 's1')];
  await t.test('the other node', async (own) => {
    const there = await start(own, 'second', theirs);
    const services = [service, await serviceOf(there)];
    const clients = [client, await there.chat('acme', 's2')];

    const { body: agent } = await here.ask('/api/agents', { body: { name: 'Guide' } });
    for (const each of services) {
      const notice = tenantNoticeSchema.parse(await each.next());
      assert.deepEqual([notice.event, notice.data.agent_id], ['agent_created', agent.id]);
    }
    for (const each of clients) await each.see('agent_created');
    await receiver.got(1);

    const data = { task_id: 't-1', progress: 50 };
    services[1]?.send({ event: 'task_status_update', tenant_id: 'acme', data });
    for (const each of clients) await each.see('task_status_update');

    await there.ask(`/api/agents/${agent.id}`, { method: 'DELETE' });
    for (const each of clients) await each.see('agent_deleted');
    await receiver.got(2);
    const events = receiver.requests.map(({ body }) => JSON.parse(body).event);
    assert.deepEqual(events, ['agent_created', 'agent_deleted'], 'each once, whichever node');
    await services[1]?.close();
  });
  await service.close();
});
