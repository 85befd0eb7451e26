/** The replay log: numbers, what is still there, bounds, and the memory of finished turns. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createReplayLog, MAX_FRAMES, MAX_UNITS } from '../../../actors/session/replay-log.ts';

const delta = (content: string): { content: string } => ({ content });
const filled = (count: number) => {
  const log = createReplayLog();
  for (let index = 1; index <= count; index += 1) log.append('chat.delta', index, 't', delta(`${index}`));
  return log;
};

test('frames are numbered from one, without gaps', () => {
  const log = createReplayLog();
  assert.equal(log.seq(), 0);
  assert.deepEqual(
    ['a', 'b', 'c'].map((type) => log.append(type, 0, 't', {}).seq),
    [1, 2, 3],
  );
  assert.equal(log.seq(), 3);
});

test('who was there to the end misses nothing, who was not gets exactly what came after', () => {
  const log = filled(5);
  assert.deepEqual(log.after(5), []);
  assert.deepEqual(
    log.after(2)?.map(({ seq }) => seq),
    [3, 4, 5],
  );
  assert.deepEqual(log.after(0)?.length, 5);
});

test('a number that was never given out, or whose successors are gone, is refused', () => {
  assert.equal(filled(5).after(6), null);
  const long = filled(MAX_FRAMES + 1);
  assert.equal(long.after(0), null);
  assert.equal(long.after(MAX_FRAMES)?.length, 1);
});

test('the log is bounded in frames and in text, keeps the newest, and always the last', () => {
  const many = filled(5 * MAX_FRAMES);
  const from = 5 * MAX_FRAMES - MAX_FRAMES * 0.7;
  assert.equal(many.after(from)?.at(-1)?.seq, 5 * MAX_FRAMES);
  assert.equal(many.after(4 * MAX_FRAMES - 1), null);
  const large = createReplayLog();
  large.append('a', 0, 't', {});
  large.append('chat.response', 0, 't', delta('x'.repeat(MAX_UNITS + 1)));
  assert.deepEqual([large.after(0), large.after(1)?.length], [null, 1]);
});

test('what is resumed is always a gapless tail', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(MAX_UNITS / 8), { maxLength: 60 }), fc.nat(60), (sizes, asked) => {
      const log = createReplayLog();
      for (const size of sizes) log.append('chat.delta', 0, 't', delta('y'.repeat(size)));
      const after = log.after(asked);
      if (asked > sizes.length) return after === null;
      return after === null || after.every((frame, index) => frame.seq === asked + index + 1);
    }),
    { numRuns: 50 },
  );
});

test('compaction keeps what the frames say, and touches only the turn it is about', () => {
  const log = createReplayLog();
  log.append('chat.delta', 0, 'old', delta('before'));
  log.append('execution.started', 0, 't', {});
  const texts = ['Hello, ', 'beautiful and ', 'very large world'];
  for (const text of texts) log.append('chat.delta', 0, 't', delta(text));
  log.append('chat.queued', 0, 'other', { position: 1 });
  const before = structuredClone(log.after(0));
  log.compact('t', texts.join(''));
  assert.deepEqual(log.after(0), before);
});

test('deltas that do not add up to the answer are left as they are', () => {
  const log = createReplayLog();
  log.append('chat.delta', 0, 't', delta('I will use a tool. '));
  log.append('chat.delta', 0, 't', delta('42'));
  const before = structuredClone(log.after(0));
  log.compact('t', '42');
  assert.deepEqual(log.after(0), before);
});
