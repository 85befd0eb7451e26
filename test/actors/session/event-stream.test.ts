/** The outbox: numbers, what waits for `chat.accepted`, deltas that travel together, seal and discard, resuming. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Pacer } from '../../../actors/session/delta-pacer.ts';
import {
  type AttachReady,
  createEventStream,
  type EventStream,
} from '../../../actors/session/event-stream.ts';
import { type Frame, MAX_REASONING_UNITS, type TurnEvent } from '../../../src/domain/frames.ts';
import type { ExecutionEvent } from '../../../src/ports/runner.ts';
import type { ResumePoint } from '../../../src/ports/sessions.ts';
import { handClock, INFO, listener, SESSION, TENANT, taskId } from '../fixtures.ts';

const T = taskId('t');
const ACCEPTED: TurnEvent = { type: 'chat.accepted', data: { status: 'processing', position: 0 } };
const CANCELLED: TurnEvent = { type: 'chat.cancelled', data: { content: '', abort_ms: 0 } };
const response = (content: string): TurnEvent => ({
  type: 'chat.response',
  data: { content, role: 'assistant', execution_info: INFO },
});
const delta = (content: string): ExecutionEvent => ({ type: 'chat.delta', data: { content } });
const TOOL: ExecutionEvent = { type: 'tool.started', data: { call_id: 'c', tool: 'x', args: {} } };

/** A pacer that is wound on by hand. */
function handPacer(): Pacer & { turn(): void; window(): void; readonly windows: number[] } {
  let due: (() => void)[] = [];
  let held: (() => void)[] = [];
  const windows: number[] = [];
  const run = (flushes: readonly (() => void)[]): void => {
    for (const flush of flushes) flush();
  };
  return {
    windows,
    soon: (_tenantId, flush) => void due.push(flush),
    later(_tenantId, flush, windowMs) {
      windows.push(windowMs);
      held.push(flush);
    },
    close() {},
    turn() {
      const now = due;
      due = [];
      run(now);
    },
    window() {
      const now = held;
      held = [];
      run(now);
    },
  };
}

function open(deltaWindowMs = 15) {
  const pacer = handPacer();
  const faults: unknown[] = [];
  const outbox = createEventStream({
    tenantId: TENANT,
    epoch: 'e1',
    clock: handClock(),
    pacer,
    deltaWindowMs,
    onFault: (error) => faults.push(error),
  });
  return { outbox, pacer, faults };
}

function ready(resume?: Partial<ResumePoint>, more: Partial<AttachReady> = {}): AttachReady {
  return {
    tenantId: TENANT,
    sessionId: SESSION,
    tier: 'free',
    running: [],
    resume: resume ? { lastSeq: 0, epoch: 'e1', ...resume } : undefined,
    messages: [],
    atMs: 1,
    ...more,
  };
}

const types = (frames: readonly Frame[]): readonly string[] => frames.map(({ type }) => type);
const contents = (frames: readonly Frame[]): readonly string[] =>
  frames.flatMap(({ type, data }) =>
    type === 'chat.delta' && typeof data === 'object' && data !== null && 'content' in data
      ? [String(data.content)]
      : [],
  );
const watch = (outbox: EventStream, id = 'c', windowMs = 15) => {
  const client = listener(id, windowMs);
  outbox.watch(client);
  return client;
};

test('every client gets every numbered event, in one order, and notices without a number', () => {
  const { outbox } = open();
  const [one, two] = [watch(outbox, '1'), watch(outbox, '2')];
  outbox.event(T, ACCEPTED, 1);
  outbox.notice({ type: 'pong', data: {} }, 2);
  outbox.event(T, CANCELLED, 3);
  assert.deepEqual(
    one.frames.map(({ seq }) => seq),
    [1, undefined, 2],
  );
  assert.deepEqual(one.frames, two.frames);
});

test('what an execution writes before its turn is accepted comes right after `chat.accepted`', async () => {
  const { outbox, pacer } = open();
  const client = watch(outbox);
  const sink = outbox.turn(T, { stream: true, accepted: false });
  let isAccepted = false;
  const accepted = sink.accepted.then(() => {
    isAccepted = true;
  });
  sink.emit(delta('early '));
  sink.emit(TOOL);
  pacer.turn();
  assert.deepEqual([client.frames, isAccepted], [[], false]);
  outbox.event(T, ACCEPTED, 1);
  assert.deepEqual(types(client.frames), ['chat.accepted', 'chat.delta', 'tool.started']);
  await accepted;
  assert.equal(isAccepted, true);
});

test('the first delta goes with its loop turn, later ones travel together once a window', () => {
  const { outbox, pacer } = open(15);
  const client = watch(outbox);
  const { emit } = outbox.turn(T, { stream: true, accepted: true });
  emit(delta('a'));
  emit(delta('b'));
  assert.deepEqual(client.frames, [], 'not before the loop turn is over');
  pacer.turn();
  emit(delta('c'));
  emit(delta('d'));
  pacer.turn();
  assert.deepEqual(contents(client.frames), ['ab']);
  pacer.window();
  assert.deepEqual([contents(client.frames), pacer.windows], [['ab', 'cd'], [15]]);
});

test("one client that asks for no window has every loop turn's deltas at once, until it leaves", () => {
  const { outbox, pacer } = open(15);
  const client = watch(outbox);
  watch(outbox, 'eager', 0);
  const { emit } = outbox.turn(T, { stream: true, accepted: true });
  for (const text of ['a', 'b', 'c']) {
    emit(delta(text));
    pacer.turn();
  }
  assert.deepEqual(contents(client.frames), ['a', 'b', 'c']);
  outbox.detach('eager');
  emit(delta('d'));
  pacer.turn();
  assert.deepEqual(contents(client.frames), ['a', 'b', 'c']);
  pacer.window();
  assert.deepEqual(contents(client.frames), ['a', 'b', 'c', 'd']);
});

test('deltas that are held back go out before whatever follows them', () => {
  const { outbox, pacer } = open();
  const client = watch(outbox);
  const { emit } = outbox.turn(T, { stream: true, accepted: true });
  emit(delta('a'));
  emit(TOOL);
  emit(delta('b'));
  outbox.event(T, response('ab'), 2);
  pacer.turn();
  pacer.window();
  assert.deepEqual(types(client.frames), ['chat.delta', 'tool.started', 'chat.delta', 'chat.response']);
});

test('a turn that does not stream has no deltas, but its partial text is known', () => {
  const { outbox, pacer } = open();
  const client = watch(outbox);
  const { emit } = outbox.turn(T, { stream: false, accepted: true });
  emit(delta('a'));
  emit(TOOL);
  emit(delta('b'));
  pacer.turn();
  assert.deepEqual(types(client.frames), ['tool.started']);
  assert.equal(outbox.seal(T).text, 'ab');
});

const thought = (content: string, isFirst = false): ExecutionEvent => ({
  type: 'chat.reasoning',
  data: { content },
  isFirst,
});
const thoughts = (frames: readonly Frame[]): readonly unknown[] =>
  frames.filter(({ type }) => type === 'chat.reasoning').map(({ data }) => data);
const asking = (outbox: EventStream, id = 'asking', windowMs = 15) => {
  const client = { ...listener(id, windowMs), reasoning: true };
  outbox.watch(client);
  return client;
};

test('reasoning goes, without a number, to clients that asked for it and to no others', () => {
  const { outbox, pacer } = open();
  const [plain, asked] = [watch(outbox), asking(outbox)];
  const { emit } = outbox.turn(T, { stream: true, accepted: true });
  emit(thought('Let me'));
  pacer.turn();
  emit(thought(' think'));
  emit(thought('.'));
  pacer.window();
  emit(delta('Yes'));
  pacer.turn();
  outbox.event(T, response('Yes'), 2);
  assert.deepEqual(thoughts(asked.frames), [{ content: 'Let me' }, { content: ' think.' }]);
  assert.deepEqual(
    asked.frames.filter(({ type }) => type === 'chat.reasoning').map(({ seq, taskId }) => [seq, taskId]),
    [
      [undefined, T],
      [undefined, T],
    ],
  );
  assert.deepEqual(
    asked.frames.filter(({ seq }) => seq !== undefined),
    plain.frames,
  );
  assert.deepEqual(
    plain.frames.map(({ type, seq }) => [type, seq]),
    [
      ['chat.delta', 1],
      ['chat.response', 2],
    ],
  );
});

test('text and reasoning come in the order in which they were written, each kind put together', () => {
  const { outbox, pacer } = open();
  const client = asking(outbox);
  const { emit } = outbox.turn(T, { stream: true, accepted: false });
  for (const event of [thought('a'), thought('b'), delta('c'), delta('d'), thought('e'), TOOL]) emit(event);
  outbox.event(T, ACCEPTED, 1);
  pacer.turn();
  assert.deepEqual(types(client.frames), [
    'chat.accepted',
    ...['chat.reasoning', 'chat.delta', 'chat.reasoning', 'tool.started'],
  ]);
  assert.deepEqual(thoughts(client.frames), [{ content: 'ab' }, { content: 'e' }]);
});

test('the reasoning of a turn is known at its end, whether or not anybody asked: bounded, whole characters', () => {
  const { outbox } = open();
  const { emit } = outbox.turn(T, { stream: false, accepted: true });
  emit(thought('First.', true));
  emit(TOOL);
  emit(thought('\ud83d', true));
  emit(thought('\ude00 then'));
  assert.deepEqual(outbox.seal(T), { text: '', reasoning: 'First.\n\n\ud83d\ude00 then' });

  const long = outbox.turn(T, { stream: true, accepted: true });
  for (let written = 0; written <= MAX_REASONING_UNITS; written += 3) long.emit(thought('\ud83d\ude00a'));
  const { reasoning = '' } = outbox.seal(T);
  assert.ok(reasoning.length <= MAX_REASONING_UNITS && reasoning.length > MAX_REASONING_UNITS - 3);
  assert.ok(reasoning.isWellFormed());
});

test('what a failed attempt thought is no part of the turn, and whoever saw it is told what stands', () => {
  const { outbox, pacer } = open();
  const client = asking(outbox);
  const plain = watch(outbox);
  const { emit } = outbox.turn(T, { stream: true, accepted: false });
  const DROPPED: ExecutionEvent = { type: 'reasoning.dropped' };
  for (const event of [thought('a', true), thought('b'), DROPPED, thought('c', true)]) emit(event);
  outbox.event(T, ACCEPTED, 1);
  pacer.turn();
  emit(thought('d', true));
  pacer.window();
  emit(DROPPED);
  emit(delta('Yes'));
  pacer.turn();
  assert.deepEqual(thoughts(client.frames), [
    { content: '', replace: true },
    { content: 'c' },
    { content: '\n\nd' },
    { content: 'c', replace: true },
  ]);
  assert.deepEqual(types(plain.frames), ['chat.accepted', 'chat.delta']);
  assert.deepEqual(outbox.seal(T), { text: 'Yes', reasoning: 'c' });

  const quiet = outbox.turn(T, { stream: false, accepted: true });
  for (const event of [thought('e', true), DROPPED]) quiet.emit(event);
  assert.deepEqual(outbox.seal(T), { text: '' });
  assert.equal(thoughts(client.frames).length, 4);
});

test('a client that resumes misses no event for reasoning that it has not seen', () => {
  const { outbox, pacer } = open();
  const gone = asking(outbox, 'gone');
  const { emit } = outbox.turn(T, { stream: true, accepted: true });
  emit(thought('Hm.'));
  pacer.turn();
  outbox.detach('gone');
  emit(thought(' Well.'));
  emit(delta('Yes'));
  pacer.turn();
  assert.deepEqual(types(gone.frames), ['chat.reasoning']);
  const back = { ...listener('back', 15), reasoning: true };
  outbox.attach(back, ready({ lastSeq: 0 }));
  assert.deepEqual(types(back.frames), ['session.ready', 'chat.delta']);
  assert.equal(outbox.seal(T).reasoning, 'Hm. Well.');
});

test('a sealed turn takes nothing more, and tells what its clients have been given', () => {
  const { outbox, pacer } = open();
  const client = watch(outbox);
  const { emit } = outbox.turn(T, { stream: true, accepted: true });
  emit(delta('given'));
  assert.equal(outbox.seal(T).text, 'given');
  emit(delta(' late'));
  pacer.turn();
  outbox.event(T, CANCELLED, 2);
  emit(delta(' later'));
  pacer.turn();
  pacer.window();
  assert.deepEqual(contents(client.frames), ['given']);
  assert.equal(client.frames.at(-1)?.type, 'chat.cancelled');
});

test('what a turn wrote before it was sealed and accepted is sent when it is accepted', () => {
  const { outbox } = open();
  const client = watch(outbox);
  const { emit } = outbox.turn(T, { stream: true, accepted: false });
  emit(delta('held'));
  assert.equal(outbox.seal(T).text, 'held');
  outbox.event(T, ACCEPTED, 1);
  outbox.event(T, CANCELLED, 2);
  assert.deepEqual(types(client.frames), ['chat.accepted', 'chat.delta', 'chat.cancelled']);
});

test('after its terminal event a turn writes nothing, sealed or not', () => {
  const { outbox, pacer } = open();
  const client = watch(outbox);
  const { emit } = outbox.turn(T, { stream: true, accepted: true });
  outbox.event(T, CANCELLED, 1);
  emit(delta('late'));
  pacer.turn();
  assert.deepEqual(types(client.frames), ['chat.cancelled']);
});

test('a discarded turn is never seen, and whoever waits for its acceptance is let go', async () => {
  const { outbox, pacer } = open();
  const client = watch(outbox);
  const sink = outbox.turn(T, { stream: true, accepted: false });
  sink.emit(delta('a'));
  outbox.discard(T);
  sink.emit(delta('b'));
  pacer.turn();
  await sink.accepted;
  outbox.event(T, ACCEPTED, 1);
  pacer.turn();
  assert.deepEqual(types(client.frames), ['chat.accepted']);
  assert.equal(outbox.seal(T).text, '');
});

test("another turn's events do not touch the one that writes", () => {
  const { outbox, pacer } = open();
  const client = watch(outbox);
  const { emit } = outbox.turn(T, { stream: true, accepted: true });
  emit(delta('a'));
  outbox.event(taskId('other'), CANCELLED, 1);
  assert.equal(outbox.seal(taskId('other')).text, '');
  outbox.discard(taskId('other'));
  emit(delta('b'));
  pacer.turn();
  assert.deepEqual(contents(client.frames), ['ab']);
});

test('a client that resumes gets exactly what it missed, then what follows', () => {
  const { outbox } = open();
  const there = watch(outbox, 'there');
  for (let at = 1; at <= 4; at += 1) outbox.event(T, ACCEPTED, at);
  const back = listener('back');
  outbox.attach(back, ready({ lastSeq: 2 }));
  outbox.event(T, CANCELLED, 5);
  const [first, ...rest] = back.frames;
  assert.deepEqual([first?.type, first?.seq], ['session.ready', undefined]);
  assert.deepEqual(rest, there.frames.slice(2));
});

function recovered(frame: Frame | undefined): unknown {
  return typeof frame?.data === 'object' && frame.data !== null && 'recovered' in frame.data
    ? frame.data.recovered
    : undefined;
}

test('`recovered` says whether all was there: wrong epoch, no epoch, too old or beyond bring a snapshot', () => {
  const { outbox } = open();
  for (let at = 1; at <= 1_500; at += 1) outbox.event(T, ACCEPTED, at);
  const attach = (resume?: Partial<ResumePoint>): readonly Frame[] => {
    const client = listener('c');
    outbox.attach(client, ready(resume));
    return client.frames;
  };
  assert.deepEqual(types(attach()), ['session.ready']);
  assert.equal(recovered(attach()[0]), undefined);
  assert.deepEqual(types(attach({ lastSeq: 1_500 })), ['session.ready']);
  assert.equal(recovered(attach({ lastSeq: 1_500 })[0]), true);
  for (const lost of [{ epoch: 'e0' }, { epoch: undefined }, { lastSeq: 3 }, { lastSeq: 1_501 }]) {
    const frames = attach({ lastSeq: 1_499, ...lost });
    assert.deepEqual(types(frames), ['session.ready', 'session.snapshot'], JSON.stringify(lost));
    assert.equal(recovered(frames[0]), false);
  }
});

test('a snapshot holds the conversation and what the running turn has said, and the rest follows', () => {
  const { outbox, pacer } = open();
  const { emit } = outbox.turn(T, { stream: true, accepted: true });
  emit(delta('so far'));
  const client = listener('c', 15);
  const said = { role: 'user', content: 'hi', taskId: T, atMs: 1 } as const;
  outbox.attach(client, ready({ epoch: 'gone' }, { messages: [said], running: [T] }));
  emit(delta(', so good'));
  pacer.turn();
  pacer.window();
  const [, snapshot, ...rest] = client.frames;
  assert.deepEqual(snapshot?.data, {
    messages: [
      { role: 'user', content: 'hi', task_id: T },
      { role: 'assistant', content: 'so far', task_id: T, partial: true },
    ],
  });
  assert.deepEqual(contents(rest), [', so good']);
});

test('a client that throws is let go, and the others get their frames', () => {
  const { outbox, faults } = open();
  outbox.watch({ ...listener('broken'), send: () => assert.fail('broken') });
  const client = watch(outbox);
  outbox.event(T, ACCEPTED, 1);
  outbox.event(T, CANCELLED, 2);
  assert.deepEqual([client.frames.length, faults.length], [2, 1]);
});

test('closing closes every client once', () => {
  const { outbox } = open();
  const client = watch(outbox);
  outbox.close({ code: 1012, reason: 'restart, reconnect' });
  outbox.close({ code: 1012, reason: 'restart, reconnect' });
  assert.deepEqual(client.closes, [1012]);
});

test('however deltas are cut, delayed and resumed, their texts add up to the answer', () => {
  const step = fc.oneof(
    fc.record({ type: fc.constant('delta' as const), text: fc.string({ minLength: 1, maxLength: 8 }) }),
    fc.constantFrom({ type: 'turn' as const }, { type: 'window' as const }, { type: 'resume' as const }),
    fc.constantFrom({ type: 'accept' as const }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.constantFrom(0, 15), (steps, windowMs) => {
      const { outbox, pacer } = open(windowMs);
      let seen: Frame[] = [];
      let client = watch(outbox, '0', windowMs);
      const { emit } = outbox.turn(T, { stream: true, accepted: false });
      let text = '';
      let isAccepted = false;
      const accept = (): void => {
        if (!isAccepted) outbox.event(T, ACCEPTED, 1);
        isAccepted = true;
      };
      for (const [index, each] of steps.entries()) {
        if (each.type === 'delta') {
          emit(delta(each.text));
          text += each.text;
        } else if (each.type === 'turn') pacer.turn();
        else if (each.type === 'window') pacer.window();
        else if (each.type === 'accept') accept();
        else {
          outbox.detach(client.id);
          seen = [...seen, ...client.frames.filter(({ seq }) => seq !== undefined)];
          client = listener(`${index + 1}`, windowMs);
          outbox.attach(client, ready({ lastSeq: seen.at(-1)?.seq ?? 0 }));
        }
      }
      accept();
      outbox.seal(T);
      outbox.event(T, response(text), 2);
      seen = [...seen, ...client.frames.filter(({ seq }) => seq !== undefined)];
      assert.deepEqual(
        seen.map(({ seq }) => seq),
        seen.map((_, index) => index + 1),
      );
      assert.equal(contents(seen).join(''), text);
      assert.equal(seen[0]?.type, 'chat.accepted');
      assert.equal(seen.at(-1)?.type, 'chat.response');
    }),
    { numRuns: 150 },
  );
});
