/**
 * What comes, goes and comes back on real actors: who leaves takes no limit along, what an earlier process left behind
 * runs again, and pushed frames find who is there.
 */

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { TIER_TABLE } from '../../src/domain/tiers.ts';
import type { SayReply } from '../../src/domain/turn.ts';
import type { AgentRunner, ExecutionPlan } from '../../src/ports/runner.ts';
import type { Store } from '../../src/ports/store.ts';
import { openActors } from '../support/actors.ts';
import { memoryStore } from '../support/stores.ts';
import { loopTurns } from '../support/until.ts';
import { AGENT, handClock, type listener, ranTo, sessionId, taskId, tenantId } from './fixtures.ts';

const IDLE_MS = 1_000;
const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const ENOUGH_TURNS = 40;

/** A node on a clock that is set by hand; its answers come at once. */
function open(t: TestContext, limits: { perMinute?: number | null; perHour?: number | null }) {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const clock = handClock(Date.UTC(2026, 0, 1));
  const plans: ExecutionPlan[] = [];
  const runner: AgentRunner = {
    run: async (plan) => {
      plans.push(plan);
      return ranTo('hi');
    },
    close: async () => {},
  };
  const store = memoryStore();
  const { professional } = TIER_TABLE;
  const node = openActors(t, {
    ...{ store, runner, clock, idleMs: IDLE_MS },
    tiers: {
      ...TIER_TABLE,
      professional: { ...professional, requests_per_minute: limits.perMinute ?? null },
    },
    requestsPerHour: limits.perHour ?? null,
  });
  let tasks = 0;
  const settle = () => loopTurns(ENOUGH_TURNS);

  async function say(session: string, tenant = 'acme', again?: string): Promise<SayReply> {
    tasks += 1;
    const reply = await node.say(again ?? `t${tasks}`, {
      caller: { tenantId: tenantId(tenant), tier: undefined, userId: undefined },
      sessionId: sessionId(session),
      taskIdGiven: again !== undefined,
      ...(again === undefined ? {} : { resumable: true }),
      message: 'hello',
    });
    await settle();
    return reply;
  }

  return {
    ...node,
    store,
    plans,
    say,
    settle,
    code: async (session: string, tenant?: string) => {
      const reply = await say(session, tenant);
      return reply.ok ? 'ok' : reply.error.code;
    },
    /** So much time passes, with a look for the idle at its end. */
    async pass(ms: number) {
      clock.nowMs += ms;
      t.mock.timers.tick(IDLE_MS);
      await settle();
    },
    /** Passes the time in which sessions leave, and then their tenants. */
    async leave() {
      for (let looks = 0; looks < 4; looks += 1) await this.pass(IDLE_MS);
      const { sessions, tenants } = node.system.stats();
      assert.deepEqual([sessions, tenants], [0, 0], 'all have left');
    },
  };
}

test("a session that pauses until it has left the node does not get the hour's requests afresh", async (t) => {
  const node = open(t, { perHour: 2 });
  assert.deepEqual([await node.code('s1'), await node.code('s1')], ['ok', 'ok']);
  await node.leave();
  assert.equal(await node.code('s1'), 'RATE_LIMITED');
  assert.equal(await node.code('s2'), 'ok', 'another session has its own');
  assert.equal(await node.code('s1', 'other'), 'ok', 'and another tenant');
  await node.leave();
  assert.equal(await node.code('s1'), 'RATE_LIMITED', 'it may leave as often as it likes');
  await node.pass(HOUR_MS / 2);
  assert.deepEqual([await node.code('s1'), await node.code('s1')], ['ok', 'RATE_LIMITED']);
});

test("a session that is deleted does not get the hour's requests afresh", async (t) => {
  const node = open(t, { perHour: 1 });
  assert.equal(await node.code('s1'), 'ok');
  assert.equal((await node.system.forget(tenantId('acme'), sessionId('s1'))).ok, true);
  assert.equal(await node.code('s1'), 'RATE_LIMITED');
});

test("a tenant that pauses until it has left the node does not get the minute's requests afresh", async (t) => {
  const node = open(t, { perMinute: 2 });
  assert.deepEqual([await node.code('s1'), await node.code('s2')], ['ok', 'ok']);
  await node.leave();
  assert.equal(await node.code('s3'), 'RATE_LIMITED');
  assert.equal(await node.code('s3', 'other'), 'ok');
  await node.leave();
  await node.pass(MINUTE_MS);
  assert.equal(await node.code('s3'), 'ok');
});

test('a frame is pushed to the clients of the sessions that are named, or of all, of one tenant', async (t) => {
  const node = open(t, {});
  const [a, b, also, foreign] = [
    node.attach('a', 's1'),
    node.attach('b', 's2'),
    node.attach('a2', 's1'),
    node.attach('f', 's1', 'other'),
  ];
  await node.settle();
  const acme = tenantId('acme');
  const frame = { type: 'news', data: { text: 'hello' }, taskId: 'x' };
  const ids = (...names: string[]) => names.map(sessionId);

  assert.equal(node.system.push(acme, ids('s1', 's1', 'unknown'), frame), 1);
  assert.equal(node.system.push(acme, undefined, frame), 2);
  assert.equal(node.system.push(acme, [], frame), 0);
  assert.equal(node.system.push(tenantId('nobody'), undefined, frame), 0);
  const news = ({ frames }: typeof a) =>
    frames.filter(({ type }) => type === 'news').map(({ seq, taskId: task, data }) => ({ seq, task, data }));
  const one = { seq: undefined, task: 'x', data: { text: 'hello' } };
  assert.deepEqual([news(a), news(also), news(b), news(foreign)], [[one, one], [one, one], [one], []]);
});

test('a client that breaks over a pushed frame does not keep the others from it', async (t) => {
  const node = open(t, {});
  const broken = node.attach('broken', 's1');
  const sound = node.attach('sound', 's1');
  await node.settle();
  broken.send = () => assert.fail('the socket is gone');
  assert.equal(node.system.push(tenantId('acme'), undefined, { type: 'news', data: {} }), 1);
  assert.equal(sound.frames.at(-1)?.type, 'news');
});

/** What a process leaves in the store that was killed in mid-turn; the next one has started. */
async function interrupt(store: Store, effects: boolean): Promise<void> {
  const ids = { tenantId: tenantId('acme'), taskId: taskId('cut') } as const;
  await store.commit({
    type: 'turn-accepted',
    turn: { ...ids, sessionId: sessionId('s1'), agentId: AGENT.id, status: 'processing', createdAtMs: 1 },
    message: { role: 'user', content: 'hello', taskId: ids.taskId, atMs: 1 },
    day: '2026-01-01',
  });
  if (effects) await store.commit({ type: 'turn-effects', ...ids });
  await store.commit({ type: 'unfinished-interrupted', atMs: 2 });
}

const cutFrames = ({ frames }: ReturnType<typeof listener>) =>
  frames.filter((frame) => frame.taskId === 'cut').map(({ type }) => type);

test('a turn that was cut off runs again: asked once, ranTo once, and nobody hears that it was interrupted', async (t) => {
  const node = open(t, {});
  await interrupt(node.store, false);
  const [reply, client] = [node.say('s1', 'acme', 'cut'), node.attach('c', 's1')];
  assert.equal((await reply).ok, true);
  assert.deepEqual(
    node.plans.map(({ history }) => history.map(({ content }) => content)),
    [['hello']],
  );
  assert.deepEqual(cutFrames(client), ['chat.accepted', 'chat.response']);
  const page = await node.system.messages(tenantId('acme'), sessionId('s1'), {
    limit: 10,
    before: undefined,
  });
  assert.deepEqual(page.ok && page.value.messages.map(({ content }) => content), ['hello', 'hi']);
});

test('one that may have done something already is a duplicate, and its clients hear that it was interrupted', async (t) => {
  const node = open(t, {});
  await interrupt(node.store, true);
  const [reply, client] = [node.say('s1', 'acme', 'cut'), node.attach('c', 's1')];
  const said = await reply;
  assert.equal(said.ok && said.accepted.deduplicated, true);
  assert.deepEqual(cutFrames(client), ['chat.accepted', 'error']);
  const turn = await node.system.turn(tenantId('acme'), taskId('cut'));
  assert.equal(turn.ok && turn.value.error?.code, 'INTERRUPTED');
});
