/** Turns watched to their end over a directory that does what the test says: each end once, and nobody left attached. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { createTurnObserver } from '../../../actors/executions/turn-observer.ts';
import { CLOSE, refusal } from '../../../src/domain/errors.ts';
import type { Frame } from '../../../src/domain/frames.ts';
import type { TurnRequest } from '../../../src/domain/turn.ts';
import type { Directory } from '../../../src/ports/sessions.ts';
import { answeredTurn, NOW_MS, scriptedDirectory } from '../../support/http-node.ts';
import { quiet } from '../../support/quiet.ts';
import { gate } from '../../support/transport.ts';
import { loopTurns } from '../../support/until.ts';
import { sessionId, turnRequest } from '../fixtures.ts';

const request = (taskId: string, session = 's1'): TurnRequest =>
  turnRequest(taskId, { sessionId: sessionId(session), taskIdGiven: true });

/** `activation`: what a session waits for before it attaches anybody. */
function open(t: TestContext, activation?: Promise<void>) {
  const { script, directory: scripted } = scriptedDirectory();
  const directory: Directory = {
    ...scripted,
    say: async (said, client) => {
      if (activation) await activation;
      return scripted.say(said, client);
    },
  };
  const observer = createTurnObserver({ directory, clock: { now: () => NOW_MS }, log: quiet });
  t.after(async () => {
    observer.close();
    await loopTurns();
    assert.deepEqual(script.attached('acme', 's1'), [], 'a watcher was left attached');
  });
  const leaving: (() => void)[] = [];
  const heard: string[][] = [];
  /** Notes the types of what each of its watchers hears. */
  const watch = (leave: () => void) => {
    const types: string[] = [];
    leaving.push(leave);
    heard.push(types);
    return { deltaWindowMs: 0, onFrame: ({ type, seq }: Frame) => void types.push(`${type} ${seq ?? '-'}`) };
  };
  const emit = (taskId: string, type: string) => script.emit('acme', 's1', taskId, type, refusal('BUSY'));
  const say = async (taskId: string) => {
    const observed = await observer.say(request(taskId), watch);
    assert.ok(observed.ok);
    return observed;
  };
  return { script, observer, heard, leaving, emit, say, watch };
}

test('a watcher hears its own turn to the terminal frame, which is the end', async (t) => {
  const { emit, heard, say } = open(t);
  const { ended } = await say('t1');
  emit('t2', 'error');
  emit('t1', 'chat.delta');
  emit('t1', 'error');
  emit('t1', 'chat.delta');
  const end = await ended;
  assert.equal(end.type === 'frame' && end.frame.seq, 4);
  assert.deepEqual(heard, [['chat.accepted 1', 'chat.delta 3', 'error 4']]);
});

test('a turn that ended before is told by its record, after the acceptance', async (t) => {
  const { heard, say, script } = open(t);
  script.putTurn(answeredTurn('t1'));
  const { ended, sessionId } = await say('t1');
  const end = await ended;
  assert.deepEqual([end.type === 'record' && end.turn.content, sessionId], ['hello', 's1']);
  assert.deepEqual(heard, [[], ['chat.accepted -']]);
});

test('of a repeated request only the second watcher hears what is to come', async (t) => {
  const { emit, heard, observer, script, watch } = open(t);
  script.putTurn(answeredTurn('t1', { status: 'processing' }));
  const held = gate();
  script.gate = held.opened;
  const saying = observer.say(request('t1'), watch);
  emit('t1', 'chat.delta');
  held.open();
  const observed = await saying;
  emit('t1', 'chat.delta');
  emit('t1', 'error');
  assert.equal(observed.ok && (await observed.ended).type, 'frame');
  assert.deepEqual(heard, [['chat.delta 1'], ['chat.accepted -', 'chat.delta 2', 'error 3']]);
});

test('a repeated turn that runs on another node is looked at until it has ended', async (t) => {
  const { script, say } = open(t);
  const { content: _, finishedAtMs: __, ...running } = answeredTurn('t1');
  script.putTurn({ ...running, status: 'processing' });
  const { ended } = await say('t1');
  await loopTurns();
  script.putTurn(answeredTurn('t1'));
  // The look itself keeps no process alive.
  const alive = setInterval(() => {}, 1_000);
  assert.equal((await ended).type, 'record');
  clearInterval(alive);
});

test('a repeated turn whose record is gone, or can not be read, has an end all the same', async (t) => {
  const { observer, say, script, watch } = open(t);
  for (const [breaks, code] of [
    [false, 'NOT_FOUND'],
    [true, 'INTERNAL'],
  ] as const) {
    script.putTurn(answeredTurn('t1', { status: 'processing' }));
    let attached = 0;
    script.events.on('attached', () => {
      attached += 1;
      if (attached < 2) return;
      script.turns.clear();
      script.breaks = breaks;
    });
    const { ended } = await say('t1');
    const end = await ended;
    assert.equal(end.type === 'unreadable' && end.error.code, code);
    script.events.removeAllListeners('attached');
  }
  await assert.rejects(observer.say(request('t2'), watch), /canary/);
  script.breaks = false;
});

test('a session that closes and an observer that closes end a watch, each in its way', async (t) => {
  const { observer, say, script } = open(t);
  const first = await say('t1');
  script.attached('acme', 's1')[0]?.close(CLOSE.restart);
  assert.deepEqual(await first.ended, { type: 'closed', by: 'session' });
  const second = await say('t2');
  observer.close();
  assert.deepEqual(await second.ended, { type: 'closed', by: 'node' });
  const late = await say('t3');
  assert.deepEqual(await late.ended, { type: 'closed', by: 'node' });
});

test('a watcher that leaves before it is attached hears nothing, and is detached once it is', async (t) => {
  const activation = gate();
  const { script, observer, leaving, heard, watch } = open(t, activation.opened);
  const saying = observer.say(request('t1'), watch);
  leaving[0]?.();
  await once(script.events, 'detached');
  activation.open();
  await saying;
  assert.deepEqual(heard, [[]]);
});

test('a refused request leaves no watcher, and is answered as the directory does', async (t) => {
  const { script, observer, watch } = open(t);
  script.refusal = refusal('BUSY');
  assert.deepEqual(await observer.say(request('t1'), watch), { ok: false, error: refusal('BUSY') });
});
