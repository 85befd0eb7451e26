/** DomainActions in every spelling that senders have used (PROTOCOL 4). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type DomainAction, domainActionSchema, parseDomainAction } from '../../src/domain/domain-action.ts';

const AT = Date.UTC(2025, 0, 2, 3, 4, 5, 6);
const parse = (raw: unknown) => parseDomainAction(raw, AT, () => 'made-up');
const minimal = { action_type: 'chat.process', tenant_id: 'acme' };

function accepted(raw: unknown): DomainAction {
  const reply = parse(raw);
  assert.ok(reply.ok, reply.ok ? '' : reply.error.message);
  return reply.action;
}

function refusal(raw: unknown): string {
  const reply = parse(raw);
  assert.ok(!reply.ok, 'was accepted');
  assert.equal(reply.error.code, 'INVALID_REQUEST');
  return reply.error.message;
}

test('an action without id, time or data is given them, and says that the id was not its own', () => {
  assert.deepEqual(parse(minimal), {
    ok: true,
    idGiven: false,
    action: {
      ...minimal,
      action_id: 'made-up',
      data: {},
      metadata: {},
      timestamp: '2025-01-02T03:04:05.006Z',
    },
  });
});

test('payload stands for data, callback_queue_name for callback_queue', () => {
  const action = accepted({ ...minimal, payload: { message: 'hi' }, callback_queue_name: 'q:1' });
  assert.deepEqual([action.data, action.callback_queue], [{ message: 'hi' }, 'q:1']);
  const both = accepted({ ...minimal, payload: { a: 1, b: 1 }, data: { b: 2 }, callback_queue: 'own' });
  assert.deepEqual([both.data, both.callback_queue, both.metadata], [{ a: 1, b: 2 }, 'own', {}]);
});

test('what belongs into data may lie flat beside the envelope', () => {
  const action = accepted({
    ...minimal,
    session_id: 'sess_abc123',
    agent_id: 'agent_xyz789',
    message: '¿Cuál es la capital de Francia?',
    user: { id: 'user_123', name: 'John Doe' },
    callback_queue: 'orchestrator:acme:callback',
  });
  assert.deepEqual(action.data, {
    message: '¿Cuál es la capital de Francia?',
    user: { id: 'user_123', name: 'John Doe' },
    agent_id: 'agent_xyz789',
  });
  assert.deepEqual([action.agent_id, action.session_id], ['agent_xyz789', 'sess_abc123']);
  const sent = accepted({
    ...minimal,
    action_type: 'websocket.send',
    message_type: 'x',
    message_data: { a: 1 },
  });
  assert.deepEqual(sent.data, { message_type: 'x', message_data: { a: 1 } });
});

test('ids inside data fill the envelope, and data wins over what lies flat', () => {
  const action = accepted({ ...minimal, message: 'flat', data: { message: 'own', agent_id: 'a-1' } });
  assert.equal(action.agent_id, 'a-1');
  assert.equal(action.data.message, 'own');
});

test('nulls are absent in the envelope and stay inside data', () => {
  const action = accepted({
    ...minimal,
    task_id: null,
    session_id: null,
    timeout: null,
    callback_queue: null,
    metadata: null,
    data: { x: null },
  });
  assert.deepEqual(Object.keys(action).sort(), [
    'action_id',
    'action_type',
    'data',
    'metadata',
    'tenant_id',
    'timestamp',
  ]);
  assert.deepEqual(action.data, { x: null });
});

test('unknown fields are kept in metadata', () => {
  const action = accepted({ ...minimal, origin_service: 'old', metadata: { a: 1, origin_service: 'mine' } });
  assert.deepEqual(action.metadata, { a: 1, origin_service: 'mine' });
  assert.deepEqual(accepted({ ...minimal, retries: 2 }).metadata, { retries: 2 });
});

test('an execution context fills the gaps of tenant, tier and agent, and only gaps', () => {
  const context = { tenant_id: 'ctx', tenant_tier: 'free', agent_id: 'ctx-agent', context_id: 'c' };
  const filled = accepted({ action_type: 'execution.agent_run', execution_context: context });
  assert.deepEqual([filled.tenant_id, filled.tenant_tier, filled.agent_id], ['ctx', 'free', 'ctx-agent']);
  assert.deepEqual(filled.metadata.execution_context, context);
  const own = accepted({
    ...minimal,
    tenant_tier: 'enterprise',
    agent_id: 'own',
    execution_context: context,
  });
  assert.deepEqual([own.tenant_id, own.tenant_tier, own.agent_id], ['acme', 'enterprise', 'own']);
});

test('times are brought to UTC with milliseconds; without a zone they are UTC', () => {
  const times: [string, string][] = [
    ['2025-01-02T03:04:05', '2025-01-02T03:04:05.000Z'],
    ['2025-01-02 03:04:05.123456', '2025-01-02T03:04:05.123Z'],
    ['2025-01-02T03:04:05.1Z', '2025-01-02T03:04:05.100Z'],
    ['2025-01-02T03:04:05+02:00', '2025-01-02T01:04:05.000Z'],
    ['2025-01-02T03:04:05.5-0530', '2025-01-02T08:34:05.500Z'],
    ['2025-01-02T03:04', '2025-01-02T03:04:00.000Z'],
  ];
  for (const [given, expected] of times)
    assert.equal(accepted({ ...minimal, timestamp: given }).timestamp, expected);
  for (const given of ['yesterday', '2025-13-45T03:04:05', 5, '', '2025-01-02'])
    assert.match(refusal({ ...minimal, timestamp: given }), /timestamp/);
});

test('what does not fit is refused with the name of the field', () => {
  const cases: [unknown, RegExp][] = [
    [null, /not an object/],
    [[minimal], /not an object/],
    ['text', /not an object/],
    [{ tenant_id: 'acme' }, /action_type/],
    [{ action_type: 'chat.process' }, /tenant_id/],
    [{ ...minimal, tenant_id: 'a b' }, /tenant_id/],
    [{ ...minimal, tenant_tier: 'gold' }, /tenant_tier/],
    [{ ...minimal, action_type: 'chat process' }, /action_type/],
    [{ ...minimal, action_type: 5 }, /action_type/],
    [{ ...minimal, task_id: 'x'.repeat(129) }, /task_id/],
    [{ ...minimal, data: [] }, /data/],
    [{ ...minimal, data: 'text' }, /data/],
    [{ ...minimal, metadata: 5 }, /metadata/],
    [{ ...minimal, execution_context: 'x' }, /execution_context/],
    [{ ...minimal, timeout: -1 }, /timeout/],
    ...['', 'soon', '-1', '0', '1e3', 'P', 'PT', 'PT1', 'P1Y', 'P1M', 'P2D', 'PT-1S', '30S'].map(
      (timeout): [unknown, RegExp] => [{ ...minimal, timeout }, /timeout/],
    ),
    [{ ...minimal, callback_queue: 'a b\n' }, /callback_queue/],
    [{ ...minimal, correlation_id: {} }, /correlation_id/],
  ];
  for (const [raw, problem] of cases) assert.match(refusal(raw), problem);
});

test('a timeout is seconds, as a number, its text, or a duration', () => {
  const cases: readonly (readonly [unknown, number])[] = [
    ['30', 30],
    ['2.5', 2.5],
    ['PT30S', 30],
    ['pt30s', 30],
    ['PT0.5S', 0.5],
    ['PT1,5M', 90],
    ['PT1H30M', 5_400],
    ['P1D', 86_400],
    ['P0DT0H1M0S', 60],
  ];
  for (const [timeout, seconds] of cases) assert.equal(accepted({ ...minimal, timeout }).timeout, seconds);
});

test('whatever comes, it is refused or brought to the one form', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.jsonValue(),
        fc.dictionary(fc.string(), fc.jsonValue()).map((more) => ({ ...minimal, ...more })),
      ),
      (raw) => {
        const reply = parse(raw);
        if (reply.ok) domainActionSchema.parse(reply.action);
      },
    ),
    { numRuns: 500 },
  );
});

test('an action in the one form is left as it is', () => {
  const once = accepted({
    ...minimal,
    message: 'hi',
    agent_id: 'a',
    extra: 1,
    timestamp: '2025-01-02 03:04',
  });
  assert.deepEqual(accepted(once), once);
});
