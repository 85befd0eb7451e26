/** What an execution's effects do in the world: the run it starts, what it writes, and how its end is told. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createExecutionEffects } from '../../../actors/execution/effects.ts';
import type { SessionRef } from '../../../actors/registry.ts';
import { createActorSystem } from '../../../actors/runtime/actor-system.ts';
import { createPacer } from '../../../actors/session/delta-pacer.ts';
import { createEventStream } from '../../../actors/session/event-stream.ts';
import type { SessionMessage } from '../../../actors/session/protocol.ts';
import type { TenantMessage } from '../../../actors/tenant/protocol.ts';
import type { AgentRunner, ExecutionContext } from '../../../src/ports/runner.ts';
import type { Write } from '../../../src/ports/store.ts';
import { leakFree } from '../../support/leaks.ts';
import { quiet } from '../../support/quiet.ts';
import { loopTurns } from '../../support/until.ts';
import { answered, handClock, listener, PLAN, SESSION, TENANT, taskId } from '../fixtures.ts';

const T = taskId('t');

/** What the store is to do with a write. */
type Commit = (write: Write) => Promise<'stored'>;
const stored: Commit = async () => 'stored';

function open(t: TestContext, run: AgentRunner['run'], commit: Commit = stored) {
  leakFree(t);
  const clock = handClock();
  const pacer = createPacer();
  const actors = createActorSystem({ clock, log: quiet });
  t.after(async () => {
    await actors.close();
    pacer.close();
  });
  const heard: SessionMessage[] = [];
  const place = { mailboxLimit: 100, restarts: { max: 0, withinMs: 1 } };
  const tenant = actors.spawn<null, TenantMessage, never>(
    null,
    { kind: 'tenant', behaviour: (state) => [state, []], ...place },
    { name: 'tenant', initial: null, interpret() {} },
  );
  const address = actors.spawn<null, SessionMessage, never>(
    null,
    {
      kind: 'session',
      behaviour(state, message) {
        heard.push(message);
        return [state, []];
      },
      ...place,
    },
    { name: 'session', initial: null, interpret() {} },
  );
  const outbox = createEventStream({
    epoch: 'e',
    clock,
    pacer,
    deltaWindowMs: 0,
    onFault: (error) => assert.fail(String(error)),
  });
  const client = listener('c');
  outbox.watch(client);
  const ref: SessionRef = {
    tenant: { tenantId: TENANT, tenancy: 1, address: tenant, sessions: new Set() },
    sessionId: SESSION,
    address,
    stream: outbox,
    arriving: new Map(),
    execution: null,
  };
  const execute = createExecutionEffects({
    actors,
    clock,
    runner: { run, close: async () => {} },
    store: { commit },
    registry: { session: () => ref },
  });
  return { execute, outbox, client, heard, ref };
}

test('a turn accepted in the very tick in which its execution was made holds nothing back', async (t) => {
  const { execute, outbox, client, heard, ref } = open(t, async (_plan, { emit, accepted }) => {
    await accepted;
    emit({ type: 'chat.delta', data: { content: 'hello' } });
    return answered('hello');
  });
  execute(ref, { type: 'execute', plan: PLAN, options: { stream: true, accepted: false } });
  outbox.event(T, { type: 'chat.accepted', data: { status: 'processing', position: 0 } }, 1);
  await loopTurns(10);
  assert.deepEqual(
    client.frames.map(({ type }) => type),
    ['chat.accepted', 'chat.delta'],
  );
  assert.deepEqual(heard, [
    { type: 'ended', taskId: T, outcome: answered('hello'), text: 'hello', atMs: 1_000 },
  ]);
  assert.equal(ref.execution, null);
});

test('an execution whose end is told is gone', async (t) => {
  const { execute, ref } = open(t, async () => answered(''));
  execute(ref, { type: 'execute', plan: PLAN, options: { stream: true, accepted: true } });
  assert.equal(ref.execution?.taskId, T);
  await loopTurns(10);
  assert.equal(ref.execution, null);
});

/** A run that only waits until it may do what must not happen twice. */
function openWithEffects(t: TestContext, commit: Commit) {
  const asked: ExecutionContext[] = [];
  const told: string[] = [];
  const bench = open(
    t,
    async (_plan, context) => {
      asked.push(context);
      const attempts = [context.effects(), context.effects()];
      for (const attempt of await Promise.allSettled(attempts)) told.push(attempt.status);
      return answered('');
    },
    commit,
  );
  bench.execute(bench.ref, { type: 'execute', plan: PLAN, options: { stream: true, accepted: false } });
  return { ...bench, told, asked };
}

test('that a turn has effects is kept once, after the turn was accepted and before anything is done', async (t) => {
  const writes: Write[] = [];
  const keeping: (() => void)[] = [];
  const { outbox, told } = openWithEffects(t, (write) => {
    writes.push(write);
    return new Promise((resolve) => keeping.push(() => resolve('stored')));
  });
  await loopTurns(10);
  assert.deepEqual([writes, told], [[], []], 'the turn is not accepted yet');
  outbox.event(T, { type: 'chat.accepted', data: { status: 'processing', position: 0 } }, 1);
  await loopTurns(10);
  assert.deepEqual(writes, [{ type: 'turn-effects', tenantId: TENANT, taskId: T }]);
  assert.deepEqual(told, [], 'it is not kept yet');
  for (const keep of keeping) keep();
  await loopTurns(10);
  assert.deepEqual(told, ['fulfilled', 'fulfilled']);
});

test('effects that can not be kept must not begin', async (t) => {
  const away = async (): Promise<'stored'> => {
    throw new Error('the store is away');
  };
  const { outbox, told } = openWithEffects(t, away);
  outbox.event(T, { type: 'chat.accepted', data: { status: 'processing', position: 0 } }, 1);
  await loopTurns(10);
  assert.deepEqual(told, ['rejected', 'rejected']);
});

test('a turn that is taken back before it was accepted keeps no effects', async (t) => {
  const writes: Write[] = [];
  const { outbox, ref, told } = openWithEffects(t, async (write) => {
    writes.push(write);
    return 'stored';
  });
  await loopTurns(10);
  ref.execution?.abort.abort();
  outbox.discard(T);
  await loopTurns(10);
  assert.deepEqual([told, writes], [['rejected', 'rejected'], []]);
});
