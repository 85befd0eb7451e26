/** Agents that an external service keeps: read leniently, told absent or broken apart, and out of date in their time. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { type AgentId, agentIdSchema, type TenantId } from '../../../src/domain/ids.ts';
import type { PeerData, PeerRequest } from '../../../src/ports/peers.ts';
import { handClock } from '../../actors/fixtures.ts';
import { leakFree } from '../../support/leaks.ts';
import { memoryTransport, refusedWith } from '../../support/transport.ts';
import {
  acme,
  agentRecord,
  embeddedFor,
  nobody,
  peersOver,
  remoteAgents,
  sales,
  servedBy,
  startServices,
} from './peer-fixtures.ts';

/** Remote agents over a service that is a function, on a clock that the test moves. */
function openAgents(answer: (request: PeerRequest) => PeerData) {
  const clock = handClock(1_000_000);
  const expired: string[] = [];
  const { peers, asked } = servedBy(answer);
  const agents = remoteAgents(peers, {
    tierOf: async (tenantId) => (tenantId === acme ? 'free' : 'enterprise'),
    clock,
    onExpired: (tenantId: TenantId, agentId: AgentId) => void expired.push(`${tenantId}/${agentId}`),
  });
  return { agents, asked, expired, clock };
}

const named = (name: string): AgentId => agentIdSchema.parse(name);
const echoed = ({ agentId }: PeerRequest): PeerData => ({ agent_config: { agent_id: agentId, name: 'X' } });

test('an agent comes over the queue as this node keeps agents, and an unknown one is null', async (t) => {
  leakFree(t);
  const transport = memoryTransport(t);
  await startServices(transport, embeddedFor(t));
  const agents = remoteAgents(peersOver(transport, 'redis'));
  t.after(() => agents.close());

  assert.deepEqual(await agents.get(acme, sales), agentRecord());
  assert.equal(await agents.get(acme, named('nobody')), null);
});

test('a service that is away, or answers nonsense, is not taken for an agent that is not there', async (t) => {
  const transport = memoryTransport(t);
  const away = remoteAgents(peersOver(transport, 'redis', nobody, { timeoutMs: 20 }));
  assert.equal(await refusedWith(away.get(acme, sales)), 'PEER_TIMEOUT');

  for (const data of [{}, { agent_config: [] }, { agent_config: { agent_id: 'other' } }])
    assert.equal(await refusedWith(openAgents(() => data).agents.get(acme, sales)), 'INTERNAL');
});

test('a pinned version is asked for by its number', async () => {
  const { agents, asked } = openAgents(echoed);
  await agents.get(acme, sales, 7);
  assert.deepEqual(asked[0]?.data, { agent_id: 'sales', version: 7 });
  agents.close();
});

/** As above; `tick` moves the timers too. */
function openTimed(t: TestContext) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const opened = openAgents(echoed);
  const tick = (ms: number): void => {
    opened.clock.nowMs += ms;
    t.mock.timers.tick(ms);
  };
  return { ...opened, tick };
}

test('an agent is out of date when the time of its tier is up, with one timer for all', async (t) => {
  const { agents, expired, tick } = openTimed(t);

  await agents.get(acme, named('a'));
  tick(100_000);
  await agents.get(acme, named('b'));
  tick(199_999);
  assert.deepEqual(expired, []);
  tick(1);
  assert.deepEqual(expired, ['acme/a']);
  tick(100_000);
  assert.deepEqual(expired, ['acme/a', 'acme/b']);
  tick(10_000_000);
  assert.equal(expired.length, 2);
  agents.close();
});

test('an agent that was asked for again has its time anew, and one that is expired by hand has none', async (t) => {
  const { agents, expired, tick } = openTimed(t);

  for (const name of ['a', 'b', 'c']) await agents.get(acme, named(name));
  tick(200_000);
  await agents.get(acme, named('a'));
  agents.expire(acme, named('b'));
  assert.deepEqual(expired, ['acme/b']);
  tick(100_000);
  assert.deepEqual(expired, ['acme/b', 'acme/c']);
  tick(200_000);
  assert.deepEqual(expired, ['acme/b', 'acme/c', 'acme/a']);
  await agents.get(acme, named('d'));
  agents.close();
  tick(1_000_000);
  assert.equal(expired.length, 3);
});

test('no more agents are kept than there is room for: the one that was first is out of date at once', async (t) => {
  leakFree(t);
  const { agents, expired } = openAgents(echoed);
  for (let n = 0; n <= 20_000; n += 1) await agents.get(acme, named(`a${n}`));
  assert.deepEqual(expired, ['acme/a0']);
  agents.close();
});
