/** The short path of an action in the one form says what the full path says (docs/decisions/0012). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type DomainAction,
  domainActionSchema,
  parseDomainAction,
  parseInFull,
} from '../../src/domain/domain-action.ts';

const AT = Date.UTC(2025, 0, 2, 3, 4, 5, 6);
const parse = (raw: unknown) => parseDomainAction(raw, AT, () => 'made-up');

function accepted(raw: unknown): DomainAction {
  const reply = parse(raw);
  assert.ok(reply.ok, reply.ok ? '' : reply.error.message);
  return reply.action;
}

const canonical = {
  action_id: 'a-1',
  action_type: 'execution.agent_run',
  tenant_id: 'acme',
  data: { message: 'hi' },
  metadata: {},
  timestamp: '2025-01-02T03:04:05.006Z',
};

/** Both paths must say the same, field by field, and leave what they were given as it was. */
function bothAgree(text: string): void {
  const raw: unknown = JSON.parse(text);
  const reply = parse(raw);
  assert.equal(JSON.stringify(raw), JSON.stringify(JSON.parse(text)));
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) return;
  const copy: Record<string, unknown> = JSON.parse(text);
  assert.deepEqual(
    reply,
    parseInFull(copy, AT, () => 'made-up'),
  );
}

test('an action as nodes write it is taken as it is, without a copy', () => {
  const full = {
    ...canonical,
    task_id: 't-1',
    tenant_tier: 'enterprise',
    session_id: 's-1',
    user_id: 'u@x',
    correlation_id: 'c:1',
    trace_id: 'x',
    callback_queue: 'orchestrator:acme:callback',
    timeout: 30.5,
  };
  assert.equal(accepted(full), full);
  assert.equal(accepted({ ...full, agent_id: 'b', data: { agent_id: 'b' } }).data.agent_id, 'b');
  const named = { ...full, agent_id: 'b' };
  assert.deepEqual(accepted(named).data, { message: 'hi', agent_id: 'b' });
  assert.deepEqual(named.data, { message: 'hi' });
});

test('the short path and the full one agree on every single change of an action', () => {
  const texts = [
    ...[
      '',
      ' ',
      'a',
      'a b',
      'a.b',
      '.a',
      'a.',
      'a..b',
      'A_-9',
      'a:b@c',
      'é',
      'K',
      'a\n',
      '\ud800',
      'x'.repeat(128),
    ],
    ...[
      'x'.repeat(129),
      'x'.repeat(512),
      'x'.repeat(513),
      '~!',
      '\x7f',
      '__proto__',
      'free',
      'gold',
      'Enterprise',
    ],
    ...[
      '2025-01-02T03:04:05.006Z',
      '2025-02-31T03:04:05.006Z',
      '2025-13-01T00:00:00.000Z',
      '2025-01-32T00:00:00.000Z',
    ],
    ...[
      '2025-01-01T24:00:00.000Z',
      '2025-01-01T23:60:00.000Z',
      '2025-01-01T23:59:60.000Z',
      '2025-01-01T25:00:00.000Z',
    ],
    ...[
      '2025-00-01T00:00:00.000Z',
      '2025-01-00T00:00:00.000Z',
      '0000-01-01T00:00:00.000Z',
      '2025-01-02t03:04:05.006z',
    ],
    ...[
      '2025-01-02 03:04',
      '2025-01-02T03:04:05.006+02',
      '٢٠٢٥-01-02T03:04:05.006Z',
      '2025-01-02T03:04:05,006Z',
    ],
  ];
  const numbers = [0, -0, 1, -1, 0.1, 86_400, 86_401, 1e300, 5e-324];
  const objects = [
    '{}',
    '[]',
    '[{}]',
    '{"a":null}',
    '{"agent_id":"x"}',
    '{"agent_id":null}',
    '{"session_id":"s"}',
  ];
  const hostile = [
    '{"__proto__":{"a":1}}',
    '{"constructor":{}}',
    '{"constructor":"x"}',
    '{"toString":1}',
    '{"1":2}',
  ];
  const values = [...texts, ...numbers, null, true, false].map((value) => JSON.stringify(value));
  const names = [
    ...Object.keys(domainActionSchema.shape),
    ...[
      'payload',
      'callback_queue_name',
      'execution_context',
      'message',
      'extra',
      '__proto__',
      'constructor',
      '1',
    ],
  ];
  for (const name of names) {
    const { [name]: _, ...rest }: Record<string, unknown> = canonical;
    const others = JSON.stringify(rest).slice(1);
    for (const value of [...values, ...objects, ...hostile])
      bothAgree(`{${JSON.stringify(name)}:${value},${others}`);
    bothAgree(JSON.stringify(rest));
  }
});

test('the short path and the full one agree on whatever comes', () => {
  const id = fc.oneof(fc.uuid(), fc.stringMatching(/^[\w.:@-]{1,128}$/));
  const key = fc.oneof(
    { weight: 20, arbitrary: fc.string() },
    {
      weight: 1,
      arbitrary: fc.constantFrom('agent_id', 'session_id', 'user_id', '__proto__', 'constructor'),
    },
  );
  const data = fc.dictionary(key, fc.jsonValue(), { maxKeys: 4 });
  const odd = fc.jsonValue();
  const mostly = <T>(likely: fc.Arbitrary<T>) =>
    fc.oneof({ weight: 60, arbitrary: likely }, { weight: 1, arbitrary: odd });
  const envelope = fc.record(
    {
      action_id: mostly(id),
      action_type: mostly(fc.stringMatching(/^[a-z0-9_]{1,20}(\.[a-zA-Z0-9_-]{1,20}){0,3}$/)),
      tenant_id: mostly(id),
      timestamp: mostly(
        fc
          .date({ noInvalidDate: true, min: new Date(0), max: new Date(4e12) })
          .map((date) => date.toISOString()),
      ),
      data: mostly(data),
      metadata: mostly(data),
      task_id: mostly(id),
      tenant_tier: mostly(fc.constantFrom('free', 'advance', 'professional', 'enterprise')),
      session_id: mostly(id),
      user_id: mostly(id),
      agent_id: mostly(id),
      correlation_id: mostly(id),
      trace_id: mostly(id),
      callback_queue: mostly(fc.stringMatching(/^[!-~]{1,60}$/)),
      timeout: mostly(fc.double({ min: -1, max: 90_000, noNaN: true })),
    },
    { requiredKeys: ['action_id', 'action_type', 'tenant_id', 'timestamp', 'data', 'metadata'] },
  );
  let short = 0;
  fc.assert(
    fc.property(envelope, fc.dictionary(key, odd, { maxKeys: 1 }), (raw, more) => {
      const text = JSON.stringify({ ...raw, ...more });
      bothAgree(text);
      const given: unknown = JSON.parse(text);
      const reply = parse(given);
      if (reply.ok && reply.action === given) short += 1;
    }),
    { numRuns: 2_000 },
  );
  assert.ok(short > 20, `only ${short} took the short path`);
});

test('what is no plain object is left to the full path, which makes one of it', () => {
  class Data {
    message = 'hi';
  }
  const action = accepted({ ...canonical, data: new Data(), metadata: new Map([['a', 1]]) });
  assert.deepEqual([action.data, action.metadata], [{ message: 'hi' }, {}]);
});
