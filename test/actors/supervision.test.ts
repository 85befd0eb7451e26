/** A node's actors on the memory store and a runner that is wound on by hand: what breaks, and what goes on. */

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { System } from '../../actors/system.ts';
import { isTerminal } from '../../src/domain/frames.ts';
import type { TaskId, TenantId } from '../../src/domain/ids.ts';
import { TIER_TABLE, type TierLimits, type TierTable } from '../../src/domain/tiers.ts';
import type { SayReply } from '../../src/domain/turn.ts';
import type { Store } from '../../src/ports/store.ts';
import type { Metrics } from '../../src/ports/telemetry.ts';
import { type HandRun, handRunner, openActors } from '../support/actors.ts';
import { uncounted } from '../support/quiet.ts';
import { memoryStore } from '../support/stores.ts';
import { loopTurns } from '../support/until.ts';
import {
  AGENT,
  type Listener,
  listener,
  ranTo,
  SESSION,
  sessionId,
  TENANT,
  taskId,
  turnRequest,
} from './fixtures.ts';

interface Node {
  readonly system: System;
  readonly runs: HandRun[];
  readonly counts: Record<string, number>;
  /** What the node's parts shall do wrong from now on. */
  readonly fault: {
    store: 'read' | 'write' | null;
    commit: boolean;
    metrics: boolean;
    tenant: boolean;
    /** Writes begin when it resolves. */
    hold: Promise<void> | null;
  };
  readonly store: Store;
  say(
    id: string,
    more?: { session?: string; onBusy?: 'enqueue' | 'reject' | 'interrupt' },
  ): Promise<SayReply>;
  attach(id: string, session?: string): Listener;
  /** The run of a task, once it has started. */
  run(id: string): Promise<HandRun>;
}

/** How many loop turns anything here takes at most. */
const ENOUGH_TURNS = 200;

async function until<T>(look: () => T | undefined): Promise<T> {
  for (let turn = 0; turn < ENOUGH_TURNS; turn += 1) {
    const found = look();
    if (found !== undefined) return found;
    await loopTurns(1);
  }
  return assert.fail('it never came');
}

function open(t: TestContext, options: { maxExecutions?: number; executions?: number } = {}): Node {
  const fault: Node['fault'] = { store: null, commit: false, metrics: false, tenant: false, hold: null };
  const memory = memoryStore();
  const reach = async <T>(access: 'read' | 'write', call: () => Promise<T>): Promise<T> => {
    if (fault.store === access) throw new Error('the store is away');
    return call();
  };
  const store: Store = {
    ...memory,
    tenant: (...asked) => reach('read', () => memory.tenant(...asked)),
    session: (...asked) => reach('read', () => memory.session(...asked)),
    turn: (...asked) => reach('read', () => memory.turn(...asked)),
    commit(write) {
      const commit = () => reach('write', () => memory.commit(write));
      if (fault.hold) return fault.hold.then(commit);
      if (!fault.commit) return commit();
      fault.commit = false;
      throw new Error('a bug in the store');
    },
  };
  const { runner, runs } = handRunner();
  const counts: Record<string, number> = {};
  const count = (what: string): void => {
    counts[what] = (counts[what] ?? 0) + 1;
  };
  const metrics: Metrics = {
    ...uncounted,
    turnEnded: (_tier, outcome) => count(outcome),
    turnRefused(_tier, code) {
      count(code);
      if (fault.metrics) throw new Error('a bug in the metrics');
    },
    deadLetter: (kind) => count(`${kind} dead letter`),
    actorCrashed: (kind) => count(`${kind} crashed`),
    toolUsed: () => count('tool'),
  };
  // Only a tenant asks how many of its turns may wait.
  const limits: TierLimits = {
    ...TIER_TABLE.professional,
    executions: options.executions ?? 2,
    get waiting() {
      if (fault.tenant) throw new Error('a bug in the tenant');
      return 100;
    },
  };
  const tiers: TierTable = { ...TIER_TABLE, professional: limits };
  const { maxExecutions = 10 } = options;
  const { say, ...actors } = openActors(t, { store, runner, metrics, tiers, maxExecutions });
  return {
    ...actors,
    runs,
    counts,
    fault,
    store,
    say: (id, { session = SESSION, onBusy = 'enqueue' } = {}) =>
      say(id, { sessionId: sessionId(session), onBusy }),
    run: (id) => until(() => runs.find(({ plan }) => plan.taskId === id)),
  };
}

const ends = (client: Listener, id: string): readonly string[] =>
  client.frames.filter((frame) => frame.taskId === id && isTerminal(frame.type)).map(({ type }) => type);
const ended = (client: Listener, id: string): Promise<string> => until(() => ends(client, id)[0]);
const closed = (client: Listener): Promise<number> => until(() => client.closes[0]);
const codes = (client: Listener): readonly unknown[] =>
  client.frames.flatMap(({ type, data }) =>
    type === 'error' && typeof data === 'object' && data !== null && 'code' in data ? [data.code] : [],
  );
const status = async (store: Store, tenant: TenantId, task: TaskId): Promise<string | undefined> =>
  (await store.turn(tenant, task))?.status;

/** Proves that no slot was lost: as many turns as the tier allows run at once, in sessions of their own. */
async function runsAtOnce(node: Node, count: number): Promise<void> {
  const names = Array.from({ length: count + 1 }, (_, index) => `probe${index}`);
  await Promise.all(names.map((name) => node.say(name, { session: name })));
  for (const name of names.slice(0, count)) await node.run(name);
  await loopTurns(10);
  assert.equal(node.runs.filter(({ plan }) => plan.taskId.startsWith('probe')).length, count);
  for (const { end, plan } of node.runs) if (plan.taskId.startsWith('probe')) end(ranTo(''));
  (await node.run(names[count] ?? '')).end(ranTo(''));
  await until(() => (turnsOf(node) === 0 ? true : undefined));
}

const turnsOf = ({ system }: Node): number =>
  Object.values(system.stats().turns).reduce((sum, { running, queued }) => sum + running + queued, 0);

test('a turn goes from the client to its run and back', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  const reply = await node.say('t');
  assert.equal(reply.ok, true);
  const { context, end } = await node.run('t');
  context.emit({ type: 'chat.delta', data: { content: 'hi' } });
  end(ranTo('hi'));
  await ended(client, 't');
  assert.deepEqual(
    client.frames.map(({ type, seq }) => [type, seq]),
    [
      ['session.ready', undefined],
      ['chat.accepted', 1],
      ['chat.delta', 2],
      ['chat.response', 3],
    ],
  );
  assert.equal(await status(node.store, TENANT, taskId('t')), 'completed');
  assert.equal(turnsOf(node), 0);
});

test('a run that throws ends its turn with INTERNAL; the session and its conversation go on', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  await node.say('t');
  (await node.run('t')).break(new Error('bug'));
  assert.equal(await ended(client, 't'), 'error');
  assert.deepEqual(
    [codes(client), node.counts['execution crashed'], node.counts.failed],
    [['INTERNAL'], 1, 1],
  );
  await node.say('u');
  const { plan, end } = await node.run('u');
  assert.deepEqual(
    plan.history.map(({ content }) => content),
    ['message t', 'message u'],
  );
  end(ranTo('fine'));
  assert.equal(await ended(client, 'u'), 'chat.response');
  assert.equal(node.counts['session crashed'], undefined);
  await runsAtOnce(node, 2);
});

test('a session that crashes over a deed goes on with its conversation, and the turn is refused', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  await node.say('first');
  (await node.run('first')).end(ranTo('one'));
  await ended(client, 'first');
  node.fault.commit = true;
  const reply = await node.say('t');
  assert.ok(!reply.ok && reply.error.code === 'STORE_UNAVAILABLE');
  assert.equal(node.counts['session crashed'], 1);
  await node.say('u');
  const { plan, end } = await node.run('u');
  assert.deepEqual(
    plan.history.map(({ content }) => content),
    ['message first', 'one', 'message u'],
  );
  end(ranTo('two'));
  await ended(client, 'u');
  assert.deepEqual([ends(client, 't'), client.closes], [[], []]);
  await runsAtOnce(node, 2);
});

test('a session that keeps crashing stops: its turns end, its clients are told and closed with 1012', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  await node.say('runs');
  await node.say('waits');
  const { context } = await node.run('runs');
  node.fault.metrics = true;
  for (const id of ['1', '2', '3', '4']) await node.say(id, { onBusy: 'reject' });
  assert.equal(await closed(client), 1012);
  assert.deepEqual([ends(client, 'runs'), ends(client, 'waits')], [['error'], ['error']]);
  assert.deepEqual(codes(client), ['INTERNAL', 'INTERNAL', 'INTERNAL'], 'of two turns, and of the session');
  assert.equal(context.signal.aborted, true);
  assert.equal(node.counts['session crashed'], 4);
  node.fault.metrics = false;
  assert.deepEqual(await Promise.all(['runs', 'waits'].map((id) => status(node.store, TENANT, taskId(id)))), [
    'failed',
    'failed',
  ]);
  await runsAtOnce(node, 2);
  const back = node.attach('back');
  await node.say('again');
  (await node.run('again')).end(ranTo('here'));
  assert.equal(await ended(back, 'again'), 'chat.response');
});

test('a tenant that keeps crashing stops with its sessions; clients are told, and the node gets its slots back', async (t) => {
  const node = open(t, { maxExecutions: 2 });
  const clients = ['a', 'b', 'c'].map((name) => node.attach(name, name));
  for (const name of ['a', 'b', 'c']) await node.say(`run-${name}`, { session: name });
  const { context } = await node.run('run-a');
  node.fault.tenant = true;
  const replies = await Promise.all(
    [1, 2, 3, 4].map((number) => node.say(`crash${number}`, { session: `x${number}` })),
  );
  assert.ok(replies.every((reply) => !reply.ok));
  for (const client of clients) assert.equal(await closed(client), 1012);
  assert.equal(context.signal.aborted, true);
  assert.deepEqual(
    clients.map((client, index) => ends(client, `run-${'abc'[index]}`)),
    [['error'], ['error'], ['error']],
  );
  assert.equal(node.counts['tenant crashed'], 4);
  node.fault.tenant = false;
  await runsAtOnce(node, 2);
});

test('a tenant that crashes over a claim refuses it and goes on', async (t) => {
  const node = open(t, { executions: 1 });
  const client = node.attach('c');
  await node.say('t');
  node.fault.tenant = true;
  const reply = await node.say('u', { session: 'other' });
  assert.ok(!reply.ok && reply.error.code === 'INTERNAL');
  node.fault.tenant = false;
  (await node.run('t')).end(ranTo('hi'));
  assert.equal(await ended(client, 't'), 'chat.response');
  await runsAtOnce(node, 1);
});

test('where the store can not be read nobody waits, and the next message tries afresh', async (t) => {
  const node = open(t);
  node.fault.store = 'read';
  const client = node.attach('c');
  const reply = await node.say('t');
  assert.ok(!reply.ok && reply.error.code === 'STORE_UNAVAILABLE');
  assert.equal(await closed(client), 1013);
  assert.deepEqual(codes(client), ['STORE_UNAVAILABLE']);
  node.fault.store = null;
  // The tenant's own look-up may still be under way, and fail who joins it.
  await loopTurns(5);
  const back = node.attach('back');
  await node.say('t');
  (await node.run('t')).end(ranTo('hi'));
  assert.equal(await ended(back, 't'), 'chat.response');
});

test('a store that takes no beginning refuses the turn; nobody else hears of it, and its run is aborted', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  await until(() => client.frames[0]);
  node.fault.store = 'write';
  const reply = await node.say('t');
  assert.ok(!reply.ok && reply.error.code === 'STORE_UNAVAILABLE' && reply.error.retryable);
  node.fault.store = null;
  await runsAtOnce(node, 2);
  assert.ok(node.runs.every(({ plan, context }) => plan.taskId !== 't' || context.signal.aborted));
  assert.deepEqual(
    client.frames.map(({ type }) => type),
    ['session.ready'],
  );
});

test('a store that takes no end makes it an error, once', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  await node.say('t');
  const { end } = await node.run('t');
  node.fault.store = 'write';
  end(ranTo('lost'));
  await ended(client, 't');
  node.fault.store = null;
  assert.deepEqual([ends(client, 't'), codes(client)], [['error'], ['STORE_UNAVAILABLE']]);
  await runsAtOnce(node, 2);
});

test('a cancel right behind its turn finds it, also while the session still loads', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  const [reply, cancelled] = await Promise.all([node.say('t'), node.system.cancel(TENANT, taskId('t'))]);
  assert.deepEqual([reply.ok, cancelled.ok && cancelled.status], [true, 'cancelled']);
  assert.deepEqual(ends(client, 't'), ['chat.cancelled']);
  await runsAtOnce(node, 2);
});

test('a cancel that the session has no room for leaves the run alone; the next one stops it', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  await node.say('t');
  const { context } = await node.run('t');
  const id = taskId('t');
  const flood = Array.from({ length: 1_000 }, () => node.system.turn(TENANT, id));
  const refused = await node.system.cancel(TENANT, id);
  assert.ok(!refused.ok && refused.error.code === 'OVERLOADED');
  assert.equal(context.signal.aborted, false, 'who is told that it was not stopped must find it running');
  await Promise.all(flood);

  const cancelled = node.system.cancel(TENANT, id);
  assert.equal(context.signal.aborted, true, 'in the tick of the frame');
  assert.equal((await cancelled).ok, true);
  assert.equal(await ended(client, 't'), 'chat.cancelled');
});

test('one task in two sessions is a conflict, and the same one in its own session runs once', async (t) => {
  const node = open(t);
  const [first, second, third] = await Promise.all([
    node.say('t'),
    node.say('t', { session: 'other' }),
    node.say('t'),
  ]);
  assert.ok(first.ok && !second.ok && second.error.code === 'CONFLICT');
  assert.ok(third.ok && third.accepted.deduplicated === true);
  (await node.run('t')).end(ranTo('hi'));
  await until(() => (turnsOf(node) === 0 ? true : undefined));
  assert.equal(node.runs.length, 1);
});

test('a task that only the store knows is deduplicated, and neither model nor tool hears of it', async (t) => {
  const node = open(t);
  const turn = { tenantId: TENANT, sessionId: SESSION, taskId: taskId('t'), agentId: AGENT.id } as const;
  await node.store.commit({
    type: 'turn-accepted',
    turn: { ...turn, status: 'queued', createdAtMs: 1 },
    message: { role: 'user', content: 'hi', taskId: taskId('t'), atMs: 1 },
    day: '1970-01-01',
  });
  let release = (): void => {};
  node.fault.hold = new Promise((resolve) => {
    release = resolve;
  });
  const client = node.attach('c');
  const said = node.say('t');
  await loopTurns(20);
  release();
  const reply = await said;
  assert.ok(reply.ok && reply.accepted.deduplicated);
  assert.deepEqual(node.runs, []);
  assert.deepEqual(
    client.frames.map(({ type }) => type),
    ['session.ready', 'chat.accepted'],
  );
  await runsAtOnce(node, 2);
});

test('draining refuses new turns, lets running ones end, tells clients first, and closes them with 1012', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  await node.say('t');
  const { end } = await node.run('t');
  const draining = node.system.drain(10_000);
  const late = await node.say('late');
  assert.ok(!late.ok && late.error.code === 'DRAINING');
  end(ranTo('done'));
  await draining;
  assert.deepEqual(
    client.frames.map(({ type }) => type),
    ['session.ready', 'chat.accepted', 'server.draining', 'chat.response'],
  );
  assert.deepEqual(client.closes, [1012]);
});

test('a drain with nothing to wait for still tells its clients before it closes them', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  await until(() => client.frames[0]);
  await node.system.drain(10_000);
  assert.deepEqual(
    [client.frames.map(({ type }) => type), client.closes],
    [['session.ready', 'server.draining'], [1012]],
  );
});

test('a turn offered just before a drain is waited for or refused, never lost', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  await until(() => client.frames[0]);
  const said = node.say('t');
  const draining = node.system.drain(0);
  const reply = await said;
  await draining;
  assert.deepEqual(ends(client, 't'), reply.ok ? ['chat.cancelled'] : []);
  assert.deepEqual([client.closes, turnsOf(node)], [[1012], 0]);
});

test('a session that is forgotten in mid-turn cancels it, closes its clients, and is gone from the store', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  await node.say('t');
  await node.run('t');
  assert.deepEqual(await node.system.forget(TENANT, SESSION), { ok: true, value: null });
  assert.deepEqual([ends(client, 't'), client.closes], [['chat.cancelled'], [1001]]);
  const page = await node.system.messages(TENANT, SESSION, { limit: 10, before: undefined });
  assert.ok(!page.ok && page.error.code === 'NOT_FOUND');
  await runsAtOnce(node, 2);
});

test('closing in mid-turn ends it as INTERRUPTED, for its clients and in the store', async (t) => {
  const node = open(t);
  const client = node.attach('c');
  await node.say('t');
  const { context } = await node.run('t');
  await node.system.close();
  assert.deepEqual([ends(client, 't'), codes(client), client.closes], [['error'], ['INTERRUPTED'], [1001]]);
  assert.equal(context.signal.aborted, true);
  assert.equal(await status(node.store, TENANT, taskId('t')), 'failed');
});

test('an observer of one turn sees it from its first frame on, and nothing once it has left', async (t) => {
  const node = open(t);
  const observer = listener('sse');
  const reply = await node.system.say(turnRequest('t'), observer);
  assert.equal(reply.ok, true);
  (await node.run('t')).end(ranTo('hi'));
  await ended(observer, 't');
  assert.equal(observer.frames[0]?.type, 'chat.accepted');
  node.system.detach(TENANT, SESSION, 'sse');
  await node.say('u');
  (await node.run('u')).end(ranTo('ho'));
  await until(() => (turnsOf(node) === 0 ? true : undefined));
  assert.equal(
    observer.frames.some((frame) => frame.taskId === 'u'),
    false,
  );
});

test('how a turn stands includes the tools that run for it, which its execution knows', async (t) => {
  const node = open(t);
  await node.say('t');
  const { context, end } = await node.run('t');
  const tools = async () => {
    const found = await node.system.turn(TENANT, taskId('t'));
    return found.ok ? found.value.tools : found.error;
  };
  assert.deepEqual(await tools(), []);
  const data = { call_id: 'c1', tool: 'calculator', args: {} };
  context.emit({ type: 'tool.started', data });
  context.emit({ type: 'tool.started', data: { ...data, call_id: 'c2', tool: 'current_time' } });
  assert.deepEqual(await tools(), [
    { callId: 'c1', tool: 'calculator' },
    { callId: 'c2', tool: 'current_time' },
  ]);
  const done = { call_id: 'c1', tool: 'calculator', ok: true, result: '2', duration_ms: 1 };
  context.emit({ type: 'tool.finished', data: done });
  assert.deepEqual(await tools(), [{ callId: 'c2', tool: 'current_time' }]);
  end(ranTo('hi'));
  await until(() => (turnsOf(node) === 0 ? true : undefined));
  assert.equal(await tools(), undefined, 'a stored turn has none');
});
