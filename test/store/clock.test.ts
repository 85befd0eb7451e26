/** What is due is due by the database's clock, however wrong the clock of a node is. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { deliveryTo, tenantNoticeSchema } from '../../src/domain/agent-record.ts';
import { openStores } from '../../src/store/open.ts';
import { agentOf } from '../actors/agent/agent-fixtures.ts';
import { TENANT } from '../actors/fixtures.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { quiet } from '../support/quiet.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

const HOURS_MS = 3 * 3_600_000;

test('a node whose clock is hours ahead neither hides deliveries from others nor takes theirs', async (t) => {
  const url = await server.database();
  const right = Date.now;
  const other = await openStores({ url, log: quiet });
  Date.now = () => right() + HOURS_MS;
  t.after(() => {
    Date.now = right;
  });
  const wrong = await openStores({ url, log: quiet });
  assert.ok(wrong.clock && other.clock);
  assert.ok(Math.abs(wrong.clock.now() - right()) < 5_000);
  assert.ok(Math.abs(wrong.clock.now() - other.clock.now()) < 1_000);

  const at = (ms: number) => new Date(ms).toISOString();
  const webhook = {
    ...{ id: 'w1', tenant_id: TENANT, url: 'https://example.com/', events: null, secret: 'whsec_' },
    created_at: at(Date.now()),
  };
  await other.webhooks.save(TENANT, webhook);
  const agent = agentOf(1);
  // Its own clock stamps the notice; it is due at once all the same.
  const notice = tenantNoticeSchema.parse({
    ...{ event: 'agent_created', service: 's', task_id: 't', tenant_id: TENANT, data: {} },
    timestamp: at(Date.now()),
  });
  await wrong.agents.save(TENANT, {
    agent,
    audit: {
      ...{ agent_id: agent.id, version: 1, action: 'created', actor: 'a', source: 'api' },
      ...{ at: agent.created_at, changes: [] },
    },
    ...{ replaces: 0, maxAgents: null, notice },
  });
  const nowMs = other.clock.now();
  const { claimed } = await other.webhooks.claimDue(nowMs, nowMs + 15_000, 10);
  assert.equal(claimed.length, 1);

  // What the other has claimed, or is to try in an hour, is not due for the wrong clock either.
  const later = deliveryTo(webhook, notice, 'later');
  await other.webhooks.saveDelivery({ ...later, next_attempt_at: at(nowMs + HOURS_MS / 3) });
  const due = await wrong.webhooks.claimDue(wrong.clock.now(), wrong.clock.now() + 15_000, 10);
  assert.deepEqual(due.claimed, []);
  await other.close();
  await wrong.close();
});
