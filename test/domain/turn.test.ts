/** How the end of a turn passes from one of its forms to another. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { refusal } from '../../src/domain/errors.ts';
import type { Frame } from '../../src/domain/frames.ts';
import { sessionIdSchema, taskIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import {
  contextOf,
  endOfFrame,
  endOfRecord,
  held,
  type TurnRecord,
  type TurnRequest,
  terminalEvent,
} from '../../src/domain/turn.ts';
import { decodeAction } from '../../transports/wire/codec.ts';
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

const BLANK: TurnRequest = {
  caller: { tenantId: tenantIdSchema.parse('t'), tier: undefined, userId: undefined },
  sessionId: sessionIdSchema.parse('s'),
  taskId: taskIdSchema.parse('t'),
  taskIdGiven: true,
  agentId: undefined,
  message: 'hi',
  context: undefined,
  stream: false,
  onBusy: 'enqueue',
  requestId: undefined,
};

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

test('a context waits as JSON and is what it was, large numbers among it', () => {
  const body =
    '{"action_type":"x","tenant_id":"t","data":{"context":{"a":[1.5,{"n":1234567890123456789},[-9007199254740993,"1234567890123456789"]],"b":"c"}}}';
  const read = decodeAction(Buffer.from(body), 0, () => 'id');
  assert.ok(read.ok);
  const context = read.action.data.context;
  assert.ok(typeof context === 'object' && context !== null);
  const request: Pick<TurnRequest, 'context' | 'contextText'> = { context: { ...context } };
  const waiting = held({ ...BLANK, ...request });
  assert.equal(waiting.context, undefined);
  assert.deepEqual(contextOf(waiting), {
    a: [1.5, { n: 1234567890123456789n }, [-9007199254740993n, '1234567890123456789']],
    b: 'c',
  });
  assert.equal(waiting.contextText, body.slice(body.indexOf('{"a"'), -2));
  assert.deepEqual(contextOf(held({ ...BLANK, context: { n: 7, o: {} } })), { n: 7, o: {} });
});
