/** The execution's decisions: it runs once, is aborted once, reports once, and breaks aloud. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ExecutionMessage, execution, newExecution } from '../../../actors/execution/execution.ts';
import type { CallCounts } from '../../../src/ports/runner.ts';
import { PLAN, ranTo } from '../fixtures.ts';

const play = (...messages: readonly ExecutionMessage[]) =>
  messages.map(
    ((state) => (message: ExecutionMessage) => {
      const [next, effects] = execution(state, message);
      state = next;
      return { state: next, effects };
    })(newExecution(PLAN)),
  );
const finished: ExecutionMessage = { type: 'finished', outcome: ranTo('hi') };

test('an execution runs its plan once', () => {
  const [first, second] = play({ type: 'start' }, { type: 'start' });
  assert.deepEqual([first?.effects, second?.effects], [[{ type: 'run', plan: PLAN }], []]);
});

test('a second cancel, and one after the end, change nothing', () => {
  const steps = play({ type: 'start' }, { type: 'cancel' }, { type: 'cancel' }, finished, { type: 'cancel' });
  assert.deepEqual(
    steps.map(({ effects }) => effects.map(({ type }) => type)),
    [['run'], ['abortRun', 'report', 'stopExecution'], [], [], []],
  );
});

test('an execution reports its end once', () => {
  const [, , twice] = play({ type: 'start' }, finished, finished);
  assert.deepEqual(twice?.effects, []);
});

test('the tools that run now are known by their calls', () => {
  const steps = play(
    { type: 'start' },
    { type: 'toolStarted', callId: 'c1', tool: 'calculator' },
    { type: 'toolStarted', callId: 'c2', tool: 'current_time' },
    { type: 'toolFinished', callId: 'c1' },
  );
  const second = { callId: 'c2', tool: 'current_time' };
  assert.deepEqual(steps[2]?.state.tools, [{ callId: 'c1', tool: 'calculator' }, second]);
  assert.deepEqual(
    [steps[3]?.state.tools, steps[3]?.state.toolsUsed],
    [[second], ['calculator', 'current_time']],
  );
});

test('an answer over the budget is a failure, and counts', () => {
  const [, step] = play(
    { type: 'start' },
    {
      type: 'finished',
      outcome: { type: 'answered', content: 'hi', counts: { tokens: 101, finish: 'stop' } },
    },
  );
  const report = step?.effects.find((effect) => effect.type === 'report');
  assert.equal(report?.end.type === 'failed' && report.end.error.code, 'TIER_LIMIT');
  assert.equal(report?.used.tokens, 101);
});

const used = (...messages: readonly ExecutionMessage[]) =>
  play({ type: 'start' }, ...messages)
    .flatMap(({ effects }) => effects)
    .find((effect) => effect.type === 'report')?.used;
const called = (counts: CallCounts): ExecutionMessage => ({ type: 'callEnded', counts, replyTo: 1 });
const ended = (counts: CallCounts): ExecutionMessage => ({
  type: 'finished',
  outcome: { type: 'answered', content: 'hi', counts },
});

test('what the provider counts is added up over the calls; the last of them says how it ended', () => {
  const first: CallCounts = { tokens: 12, inputTokens: 10, outputTokens: 2, finish: 'tool_calls' };
  const last: CallCounts = { tokens: 25, inputTokens: 20, outputTokens: 5, finish: 'length' };
  const whole = used(called(first), ended(last));
  assert.deepEqual(
    [whole?.tokens, whole?.inputTokens, whole?.outputTokens, whole?.finish],
    [37, 30, 7, 'length'],
  );
});

test('a sum that lacks a call is none, whichever call was not counted', () => {
  const counted: CallCounts = { tokens: 12, inputTokens: 10, outputTokens: 2, finish: 'tool_calls' };
  const uncounted: CallCounts = { tokens: 3, outputTokens: 1, finish: 'stop' };
  for (const [first, last] of [
    [counted, uncounted],
    [uncounted, counted],
  ] as const) {
    const both = used(called(first), ended(last));
    assert.deepEqual([both?.tokens, both?.inputTokens, both?.outputTokens], [15, null, 3]);
  }
});

test('a run that threw crashes its execution, for its supervisor to tell the session', () => {
  assert.throws(() => play({ type: 'start' }, { type: 'broke', error: new Error('bug') }), /bug/);
});
