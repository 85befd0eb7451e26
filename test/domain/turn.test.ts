/** How the end of a turn passes from one of its forms to another. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { refusal } from '../../src/domain/errors.ts';
import type { Frame } from '../../src/domain/frames.ts';
import { endOfFrame, endOfRecord, type TurnRecord, terminalEvent } from '../../src/domain/turn.ts';
import { answeredTurn } from '../support/http-node.ts';

const { info } = answeredTurn('t');
assert.ok(info);
const record = (fields: Partial<TurnRecord>): TurnRecord => {
  const { content: _, info: __, ...rest } = answeredTurn('t');
  return { ...rest, ...fields };
};
const frame = (event: { type: string; data: unknown }): Frame => ({
  ...event,
  seq: 1,
  atMs: 0,
  taskId: 't',
});

test('the end of a record comes back from its terminal event, but for what that does not carry', () => {
  const timeout = refusal('EXECUTION_TIMEOUT');
  const failure = refusal('MODEL_ERROR');
  for (const fields of [
    { status: 'completed', content: 'hello', info },
    { status: 'cancelled', content: 'hel' },
    { status: 'failed', error: failure },
    { status: 'timeout', error: timeout },
  ] as const) {
    const end = endOfRecord(record(fields));
    assert.deepEqual(end, fields);
    assert.deepEqual(end && endOfFrame(frame(terminalEvent(end, 0))), fields);
  }
});

test('a turn that goes on has no end; a record that lacks its error has one of its status', () => {
  assert.equal(endOfRecord(record({ status: 'queued' })), undefined);
  assert.equal(endOfRecord(record({ status: 'processing', content: 'so far' })), undefined);
  const codes = (['failed', 'timeout', 'completed'] as const).map(
    (status) => endOfRecord(record({ status }))?.error?.code,
  );
  assert.deepEqual(codes, ['INTERNAL', 'EXECUTION_TIMEOUT', 'INTERNAL']);
});

test('a frame that ends no turn has no end', () => {
  assert.throws(() => endOfFrame(frame({ type: 'chat.delta', data: { content: 'x' } })));
});
