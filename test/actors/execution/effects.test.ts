/** What an execution's effects do in the world: the run it starts, what it writes, and how its end is told. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createExecutionEffects } from '../../../actors/execution/effects.ts';
import { createActorSystem } from '../../../actors/runtime/actor-system.ts';
import type { SessionMessage } from '../../../actors/session/protocol.ts';
import { type RefusalError, refusal } from '../../../src/domain/errors.ts';
import type { AgentRunner, ExecutionContext, ExecutionPlan } from '../../../src/ports/runner.ts';
import type { Write } from '../../../src/ports/store.ts';
import { leakFree } from '../../support/leaks.ts';
import { quiet } from '../../support/quiet.ts';
import { loopTurns, until } from '../../support/until.ts';
import { handClock, INFO, listener, PLAN, ranTo, TENANT, taskId } from '../fixtures.ts';
import { stubSession } from './session-stub.ts';

const T = taskId('t');

/** What the store is to do with a write. */
type Commit = (write: Write) => Promise<'stored' | 'fenced'>;
const stored: Commit = async () => 'stored';

function open(t: TestContext, run: AgentRunner['run'], commit: Commit = stored, mayAct?: () => boolean) {
  leakFree(t);
  const clock = handClock();
  const actors = createActorSystem({ clock, log: quiet });
  const heard: SessionMessage[] = [];
  const { ref, stream, close } = stubSession(actors, clock, (message) => void heard.push(message));
  t.after(async () => {
    await actors.close();
    close();
  });
  const client = listener('c');
  stream.watch(client);
  const execute = createExecutionEffects({
    actors,
    clock,
    runner: { run, close: async () => {} },
    store: { commit },
    registry: { session: () => ref },
    mayAct,
  });
  /** The outcome that the session heard of, once. */
  const outcome = () => {
    const [message, ...more] = heard;
    if (message?.type !== 'ended') throw new Error(`expected an end, heard ${JSON.stringify(heard)}`);
    assert.deepEqual(more, []);
    return message.outcome;
  };
  return { execute, outbox: stream, client, heard, ref, outcome };
}

test('a turn accepted in the very tick in which its execution was made holds nothing back', async (t) => {
  const { execute, outbox, client, heard, ref, outcome } = open(t, async (_plan, { emit, accepted }) => {
    await accepted;
    emit({ type: 'chat.delta', data: { content: 'hello' } });
    return ranTo('hello');
  });
  execute(ref, { type: 'execute', epoch: 1, plan: PLAN, options: { stream: true, accepted: false } });
  outbox.event(T, { type: 'chat.accepted', data: { status: 'processing', position: 0 } }, 1);
  await loopTurns(10);
  assert.deepEqual(
    client.frames.map(({ type }) => type),
    ['chat.accepted', 'chat.delta'],
  );
  const info = { ...INFO, execution_time_ms: 0, time_to_first_token_ms: 0, iterations: 1 };
  const ended = outcome();
  assert.deepEqual(
    { ...ended, info: { ...ended.info, execution_time_ms: 0, time_to_first_token_ms: 0 } },
    { type: 'answered', content: 'hello', info },
  );
  assert.deepEqual(heard, [{ type: 'ended', taskId: T, outcome: ended, text: 'hello', atMs: 1_000 }]);
  assert.equal(ref.execution, null);
});

test('an execution whose end is told is gone', async (t) => {
  const { execute, ref } = open(t, async () => ranTo(''));
  execute(ref, { type: 'execute', epoch: 1, plan: PLAN, options: { stream: true, accepted: true } });
  assert.equal(ref.execution?.taskId, T);
  await loopTurns(10);
  assert.equal(ref.execution, null);
});

/** A run that only waits until it may do what must not happen twice. */
function openWithEffects(t: TestContext, commit: Commit, mayAct?: () => boolean) {
  const asked: ExecutionContext[] = [];
  const told: string[] = [];
  const bench = open(
    t,
    async (_plan, context) => {
      asked.push(context);
      const attempts = [context.effects(), context.effects()];
      for (const attempt of await Promise.allSettled(attempts)) told.push(attempt.status);
      return ranTo('');
    },
    commit,
    mayAct,
  );
  bench.execute(bench.ref, {
    type: 'execute',
    epoch: 1,
    plan: PLAN,
    options: { stream: true, accepted: false },
  });
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
  assert.deepEqual(writes, [{ type: 'turn-effects', tenantId: TENANT, taskId: T, epoch: 1 }]);
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

test('a run whose session is not this node’s any more does nothing, and its session hears of it', async (t) => {
  const { outbox, told, heard } = openWithEffects(t, async () => 'fenced');
  outbox.event(T, { type: 'chat.accepted', data: { status: 'processing', position: 0 } }, 1);
  await loopTurns(10);
  assert.deepEqual(told, ['rejected', 'rejected']);
  assert.deepEqual(heard[0], { type: 'fenced' });
});

test('deeds wait while the node may have been given up, and end with their run', async (t) => {
  let sure = false;
  const { outbox, told } = openWithEffects(
    t,
    async () => 'stored',
    () => sure,
  );
  outbox.event(T, { type: 'chat.accepted', data: { status: 'processing', position: 0 } }, 1);
  await loopTurns(10);
  assert.deepEqual(told, []);
  sure = true;
  await until('they go on', () => told.length === 2);
  assert.deepEqual(told, ['fulfilled', 'fulfilled']);

  const other = openWithEffects(
    t,
    async () => 'stored',
    () => false,
  );
  other.outbox.event(T, { type: 'chat.accepted', data: { status: 'processing', position: 0 } }, 1);
  await loopTurns(10);
  other.ref.execution?.abort.abort();
  await until('they are given up', () => other.told.length === 2);
  assert.deepEqual(other.told, ['rejected', 'rejected']);
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

/** A plan with a time limit of its own. */
const within = (timeoutMs: number): ExecutionPlan => ({ ...PLAN, limits: { ...PLAN.limits, timeoutMs } });

test('an execution that is out of time ends, though its run lets nothing go', async (t) => {
  let seen: AbortSignal | undefined;
  const { execute, ref, outcome, heard } = open(t, (_plan, { signal }) => {
    seen = signal;
    return new Promise(() => {});
  });
  execute(ref, { type: 'execute', epoch: 1, plan: within(20), options: { stream: true, accepted: true } });
  await until('the end', () => heard.length > 0);
  const ended = outcome();
  assert.equal(ended.type === 'failed' && ended.error.code, 'EXECUTION_TIMEOUT');
  assert.equal(seen?.aborted, true);
});

test('what a run resolves to after it was aborted is an abort, with what it used by then', async (t) => {
  const { execute, ref, outcome, heard } = open(t, async (_plan, { signal, callStarted }) => {
    callStarted(() => 5);
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
    return ranTo('too late');
  });
  execute(ref, { type: 'execute', epoch: 1, plan: PLAN, options: { stream: true, accepted: true } });
  await loopTurns(5);
  ref.execution?.abort.abort();
  await until('the end', () => heard.length > 0);
  const ended = outcome();
  assert.equal(ended.type, 'aborted');
  assert.deepEqual([ended.info.iterations, ended.info.tokens_used], [1, 5]);
  const named = ['finish_reason', 'input_tokens', 'output_tokens'].filter((field) => field in ended.info);
  assert.deepEqual(named, [], 'a call without an end has none of these');
});

test('a run is told how many calls are left, and refused once its tokens are spent', async (t) => {
  const told: unknown[] = [];
  const { execute, ref, outcome, heard } = open(t, async (_plan, { callStarted, callEnded }) => {
    for (const tokens of [60, 40, 1]) {
      callStarted(() => 0);
      told.push(
        await callEnded({ tokens, finish: 'tool_calls' }).catch((error: RefusalError) => error.data.code),
      );
    }
    return { type: 'failed', error: refusal('TIER_LIMIT') };
  });
  execute(ref, { type: 'execute', epoch: 1, plan: PLAN, options: { stream: true, accepted: true } });
  await until('the end', () => heard.length > 0);
  assert.deepEqual(told, [2, 1, 'TIER_LIMIT']);
  assert.equal(outcome().info.tokens_used, 101);
});
