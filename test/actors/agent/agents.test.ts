/** The agents of a node on real actors: what turns get, what is counted, and what an update does to a running session. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ABSENT_MS } from '../../../actors/agent/agent.ts';
import { createAgents } from '../../../actors/agent/agents.ts';
import { createActorSystem } from '../../../actors/runtime/actor-system.ts';
import type { AgentConfig } from '../../../src/domain/agent.ts';
import type { Reply } from '../../../src/domain/errors.ts';
import { type AgentId, agentIdSchema } from '../../../src/domain/ids.ts';
import { handRunner, openActors } from '../../support/actors.ts';
import { leakFree } from '../../support/leaks.ts';
import { quiet } from '../../support/quiet.ts';
import { loopTurns } from '../../support/until.ts';
import { AGENT, handClock, ranTo, SESSION, TENANT, taskId } from '../fixtures.ts';
import { AGENT_ID, agentOf, handStore, openManagement, someone, value } from './agent-fixtures.ts';

function open(t: TestContext, idleMs = 60_000) {
  leakFree(t);
  const clock = handClock();
  const actors = createActorSystem({ clock, log: quiet });
  const store = handStore();
  const agents = createAgents({ actors, store, builtIn: AGENT, clock, log: quiet, idleMs });
  t.after(() => actors.close());
  const found = (version?: number) => agents.agent(TENANT, AGENT_ID, version).then(brief);
  /** The nth question that the store was asked, once it was. */
  const asked = async (index: number) => {
    await loopTurns(2);
    const question = store.asked[index];
    assert.ok(question, `the store was asked ${store.asked.length} times`);
    return question;
  };
  return { clock, actors, store, agents, found, asked };
}

const agentIdOf = (id: string): AgentId => agentIdSchema.parse(id);

const brief = (reply: Reply<AgentConfig>): string | number =>
  reply.ok ? reply.value.version : reply.error.code;

test('an agent is loaded once for all who ask together, and found in memory afterwards', async (t) => {
  const { store, agents, found, asked } = open(t);
  const all = Promise.all(Array.from({ length: 50 }, () => found()));
  (await asked(0)).answer(agentOf(3));

  assert.deepEqual(new Set(await all), new Set([3]));
  assert.equal(await found(), 3);
  assert.equal(await found(3), 3);
  assert.equal(store.asked.length, 1);
  assert.deepEqual(agents.stats(), { live: 1, hits: 2, misses: 50 });
});

test('whoever asks after a change gets the new version, also while the old one loads', async (t) => {
  const { agents, found, asked } = open(t);
  const before = found();
  const load = await asked(0);
  agents.changed(agentOf(4));
  const after = found();
  load.answer(agentOf(3));

  assert.deepEqual(await Promise.all([before, after]), [4, 4]);
  agents.changed(agentOf(6));
  assert.equal(await found(), 6);
  agents.changed(agentOf(5));
  assert.equal(await found(), 6);
});

test('news of another node: what is older is loaded anew, what is as new is left alone', async (t) => {
  const { store, agents, found, asked } = open(t);
  const news = (version: number) => agents.outdated({ tenantId: TENANT, agentId: AGENT_ID, version });
  const first = found();
  (await asked(0)).answer(agentOf(3));
  assert.equal(await first, 3);
  news(3);
  agents.changed(agentOf(4));
  news(4);
  assert.equal(await found(), 4);
  assert.equal(store.asked.length, 1);

  news(5);
  const after = found();
  (await asked(1)).answer(agentOf(5));
  assert.equal(await after, 5);
});

test('when nothing can be relied on, each agent is loaded anew when it is used next', async (t) => {
  const { store, agents, found, asked } = open(t);
  const first = found();
  (await asked(0)).answer(agentOf(3));
  await first;
  agents.invalidateAll();
  assert.equal(store.asked.length, 1);
  const second = found();
  (await asked(1)).answer(agentOf(7));
  assert.deepEqual([await second, await found()], [7, 7]);

  const unknown = agents.agent(TENANT, agentIdOf('nobody')).then(brief);
  (await asked(2)).answer(null);
  assert.equal(await unknown, 'AGENT_NOT_FOUND');
  agents.invalidateAll();
  const again = agents.agent(TENANT, agentIdOf('nobody')).then(brief);
  (await asked(3)).answer(agentOf(1, { id: agentIdOf('nobody') }));
  assert.equal(await again, 1);
});

test('an unknown agent is not looked for again at once, but after a moment it is', async (t) => {
  const { clock, store, agents, found, asked } = open(t);
  const first = found();
  (await asked(0)).answer(null);
  assert.equal(await first, 'AGENT_NOT_FOUND');
  assert.equal(await found(), 'AGENT_NOT_FOUND');
  assert.equal(store.asked.length, 1);
  assert.equal(agents.stats().live, 0);

  clock.nowMs += ABSENT_MS;
  const again = found();
  (await asked(1)).answer(agentOf(1));
  assert.equal(await again, 1);
});

test('an agent that is made after somebody asked in vain is there at once', async (t) => {
  const { agents, found, asked } = open(t);
  const first = found();
  (await asked(0)).answer(null);
  await first;
  agents.changed(agentOf(1));
  const second = found();
  (await asked(1)).answer(agentOf(1));

  assert.equal(await second, 1);
});

test('a deleted agent is not found, and a restored one is found again', async (t) => {
  const { agents, found, asked } = open(t);
  const first = found();
  (await asked(0)).answer(agentOf(1));
  await first;
  agents.changed(agentOf(2, { deleted_at: '2026-01-02T00:00:00.000Z' }));
  const second = found();
  (await asked(1)).answer(agentOf(2, { deleted_at: '2026-01-02T00:00:00.000Z' }));
  assert.equal(await second, 'AGENT_NOT_FOUND');

  agents.changed(agentOf(3));
  const third = found();
  (await asked(2)).answer(agentOf(3));
  assert.equal(await third, 3);
});

test('a store that fails is a refusal, and the next one asks it again', async (t) => {
  const { found, asked } = open(t);
  const first = found();
  (await asked(0)).fail();
  assert.equal(await first, 'STORE_UNAVAILABLE');

  const second = found();
  (await asked(1)).answer(agentOf(1));
  assert.equal(await second, 1);
});

test('a pinned version is loaded once and stays beside newer ones', async (t) => {
  const { agents, store, found, asked } = open(t);
  const first = Promise.all([found(2), found(2)]);
  (await asked(0)).answer(agentOf(5));
  const pin = await asked(1);
  assert.equal(pin.version, 2);
  pin.answer(agentOf(2));
  assert.deepEqual(await first, [2, 2]);

  agents.changed(agentOf(6));
  assert.deepEqual([await found(2), await found()], [2, 6]);
  assert.equal(store.asked.length, 2);
});

test('an invalidation has it loaded afresh', async (t) => {
  const { agents, found, asked } = open(t);
  const first = found();
  (await asked(0)).answer(agentOf(1));
  await first;
  agents.invalidate(TENANT, AGENT_ID);
  const second = found();
  (await asked(1)).answer(agentOf(2));

  assert.equal(await second, 2);
});

test('an agent that no turn asks for is forgotten; one that is used stays', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const { clock, agents, found, asked } = open(t, 200);
  const first = found();
  (await asked(0)).answer(agentOf(1));
  await first;
  const look = async () => {
    clock.nowMs += 200;
    t.mock.timers.tick(50);
    await loopTurns(2);
  };
  await found();
  await look();
  assert.equal(agents.stats().live, 1);
  await look();
  assert.equal(agents.stats().live, 0);
});

test('the built-in agent is known without a store, in its one version', async (t) => {
  const { agents, store } = open(t);

  assert.deepEqual(await agents.agent(TENANT, AGENT.id), { ok: true, value: AGENT });
  assert.equal(brief(await agents.agent(TENANT, AGENT.id, 2)), 'NOT_FOUND');
  assert.equal(store.asked.length, 0);
});

async function openNode(t: TestContext) {
  const clock = handClock(Date.UTC(2026, 0, 1));
  const actors = createActorSystem({ clock, log: quiet });
  const management = openManagement({
    liveAgents: { changed: (agent) => agents.changed(agent), invalidate() {} },
  });
  const agents = createAgents({
    actors,
    store: management.options.agents,
    builtIn: AGENT,
    clock,
    log: quiet,
    idleMs: 60_000,
  });
  const { runner, runs } = handRunner();
  /** Ends the nth run, once it has begun. */
  const end = async (index: number): Promise<void> => {
    while (!runs[index]) await loopTurns();
    runs[index]?.end(ranTo(''));
  };
  const node = openActors(t, { actors, agents, runner, clock });
  const { id } = value(await management.agents.create(someone(), { name: 'Helper', is_active: true }));
  const say = (task: string, agentVersion?: number, agentId: AgentId = id) =>
    node.say(task, { agentId, agentVersion });
  const version = async (task: string) => value(await node.system.turn(TENANT, taskId(task))).agentVersion;
  const update = (temperature: number) =>
    management.agents.update(someone(), id, { temperature }, { version: undefined, replace: false });
  return { ...node, id, agents, management, runs, end, say, version, update };
}

test('the next turn of a running session uses the new version, one that waits in line too, and a pinned one does not', async (t) => {
  const { system, runs, end, say, version, update } = await openNode(t);
  const versions = () => runs.map(({ plan }) => plan.agent.version);
  await say('one');
  await say('two');
  await say('pinned', 1);
  await loopTurns(3);
  value(await update(0.1));
  await say('three');
  for (let run = 0; run < 4; run += 1) await end(run);
  while (value(await system.turn(TENANT, taskId('three'))).status !== 'completed') await loopTurns(1);

  assert.deepEqual(versions(), [1, 2, 1, 2]);
  assert.deepEqual(await Promise.all(['one', 'two', 'pinned', 'three'].map(version)), [1, 2, 1, 2]);
});

test('an agent that is switched off is refused from the next turn on', async (t) => {
  const { id, management, say } = await openNode(t);
  value(
    await management.agents.update(
      someone(),
      id,
      { is_active: false },
      { version: undefined, replace: false },
    ),
  );
  const reply = await say('one');

  assert.equal(reply.ok ? '' : reply.error.code, 'AGENT_INACTIVE');
});

test('the numbers of a node tell how many agents live and how often they were found', async (t) => {
  const { system, end, say } = await openNode(t);
  await say('one');
  await end(0);
  await say('two');

  assert.deepEqual(system.stats().agents, { live: 1, hits: 1, misses: 1 });
});

test('a notice reaches every client of its tenant, unnumbered, and nobody else', async (t) => {
  const { system, management, attach, update } = await openNode(t);
  management.bus.listen('everywhere', (notice) => system.notify(notice));
  const [mine, other] = [attach('mine'), attach('other', SESSION, 'other')];
  await loopTurns(6);
  const { id, version } = value(await update(0.2));

  const frame = mine.frames.at(-1);
  assert.equal(frame?.type, 'agent_updated');
  assert.equal(frame?.seq, undefined);
  assert.deepEqual(frame?.data, {
    channel: 'tenant:acme',
    event: 'agent_updated',
    data: { agent_id: id, agent_name: 'Helper', version, changes: ['temperature'] },
  });
  assert.ok(other.frames.every(({ type }) => type === 'session.ready'));
});
