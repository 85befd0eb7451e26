/** What holds on all nodes is done on each, once; notices reach who listens once and who listens everywhere. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createEverywhere } from '../../../actors/cluster/everywhere.ts';
import { type TenantNotice, tenantNoticeSchema } from '../../../src/domain/agent-record.ts';
import { agentIdSchema, sessionIdSchema } from '../../../src/domain/ids.ts';
import { createNotices } from '../../../src/management/notices.ts';
import { type Broadcast, soleBroadcast } from '../../../src/ports/broadcast.ts';
import { broadcastHub } from '../../support/broadcast-hub.ts';
import { quiet } from '../../support/quiet.ts';
import { tenantId } from '../fixtures.ts';

const NOTICE: TenantNotice = tenantNoticeSchema.parse({
  event: 'agent_updated',
  service: 'agent-management',
  task_id: 't',
  tenant_id: 'acme',
  timestamp: '2026-01-01T00:00:00.000Z',
  data: {},
});

/** A node's halves, which note what they are asked to do. */
function openNode(broadcast: Broadcast) {
  const done: unknown[] = [];
  const everywhere = createEverywhere({
    broadcast,
    here: {
      push: (tenant, sessions, frame) => done.push(['push', tenant, sessions, frame]) && 1,
      notify: ({ event }) => done.push(['notify', event]),
      tierSet: (tenant, tier) => done.push(['tier', tenant, tier]),
      changed: ({ id, version }) => done.push(['changed', id, version]),
      outdated: ({ agentId: id, version }) => done.push(['outdated', id, version]),
    },
  });
  return { everywhere, done };
}

test('a push, a tier, an invalidation and a notice of a service are done on every node, each once', () => {
  const [first, second, third] = broadcastHub(3).map(openNode);
  assert.ok(first && second && third);
  const frame = { type: 'news', data: { n: 1 }, taskId: 't1' };
  const session = sessionIdSchema.parse('s1');

  assert.equal(first.everywhere.push(tenantId('acme'), [session], frame), 1);
  second.everywhere.push(tenantId('acme'), undefined, { type: 'all', data: {} });
  first.everywhere.tierSet(tenantId('acme'), 'enterprise');
  third.everywhere.invalidate(tenantId('acme'), agentIdSchema.parse('helper'));
  second.everywhere.notify(NOTICE);

  const expected = [
    ['push', 'acme', ['s1'], frame],
    ['push', 'acme', undefined, { type: 'all', data: {} }],
    ['tier', 'acme', 'enterprise'],
    ['outdated', 'helper', undefined],
    ['notify', 'agent_updated'],
  ];
  for (const { done } of [first, second, third]) assert.deepEqual(done, expected);
});

test('a notice is heard once by who listens once, and on every node by who listens everywhere', () => {
  const heard: string[] = [];
  const buses = broadcastHub(3).map((broadcast, index) => {
    const bus = createNotices(quiet, broadcast);
    bus.listen('once', (_notice, stored) => heard.push(`once ${index} ${stored}`));
    bus.listen('everywhere', ({ event }) => heard.push(`everywhere ${index} ${event}`));
    return bus;
  });
  buses[1]?.publish(NOTICE, true);

  assert.deepEqual(heard.sort(), [
    'everywhere 0 agent_updated',
    'everywhere 1 agent_updated',
    'everywhere 2 agent_updated',
    'once 1 true',
  ]);
});

test('a node that nobody stands beside does all of it by itself', () => {
  const { everywhere, done } = openNode(soleBroadcast);
  everywhere.tierSet(tenantId('acme'), 'free');
  const bus = createNotices(quiet);
  bus.listen('everywhere', ({ event }) => done.push(event));
  bus.publish(NOTICE);

  assert.deepEqual(done, [['tier', 'acme', 'free'], 'agent_updated']);
});
