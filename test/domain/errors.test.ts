/** The error table says what the protocol says: statuses, close codes, shape of a refusal. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  CLOSE,
  ERRORS,
  errorCodeSchema,
  errorDataSchema,
  RefusalError,
  refusal,
} from '../../src/domain/errors.ts';

/** PROTOCOL 3, and the codes of executions (4). */
const PROMISED: Readonly<Record<number, readonly string[]>> = {
  400: ['INVALID_REQUEST'],
  401: ['UNAUTHENTICATED'],
  403: ['FORBIDDEN'],
  404: ['NOT_FOUND'],
  409: ['CONFLICT', 'BUSY'],
  413: ['TOO_LARGE'],
  422: ['TIER_LIMIT'],
  429: ['RATE_LIMITED', 'QUOTA_EXCEEDED'],
  503: ['OVERLOADED', 'DRAINING', 'STORE_UNAVAILABLE', 'TRANSPORT_UNAVAILABLE'],
  504: ['EXECUTION_TIMEOUT'],
};
const EXECUTION_CODES = [
  ...['EXECUTION_TIMEOUT', 'MAX_ITERATIONS', 'MODEL_UNAVAILABLE', 'MODEL_RATE_LIMITED', 'MODEL_ERROR'],
  ...['TOOL_DENIED', 'TOOL_LOOP', 'AGENT_NOT_FOUND', 'AGENT_INACTIVE', 'TIER_LIMIT', 'QUOTA_EXCEEDED'],
  ...['RATE_LIMITED', 'PEER_TIMEOUT', 'INTERRUPTED', 'POISON', 'INTERNAL'],
];

test('every promised code answers with its promised status', () => {
  for (const [status, codes] of Object.entries(PROMISED))
    for (const code of codes) assert.equal(ERRORS[errorCodeSchema.parse(code)].http, Number(status), code);
});

test('every code that an execution may end in is in the table', () => {
  for (const code of EXECUTION_CODES) assert.ok(errorCodeSchema.safeParse(code).success, code);
});

test('what is worth retrying is a limit, a conflict with a running turn, or a server error', () => {
  for (const [code, entry] of Object.entries(ERRORS))
    if (entry.retryable) assert.ok(entry.http === 429 || entry.http === 409 || entry.http >= 500, code);
});

test('every text is a sentence', () => {
  for (const [code, entry] of Object.entries(ERRORS)) assert.match(entry.text, /^[A-Z].+\.$/, code);
});

test('a refusal takes its text and retryability from the table and leaves absent what is absent', () => {
  assert.deepEqual(refusal('BUSY'), { code: 'BUSY', message: ERRORS.BUSY.text, retryable: true });
});

test('a refusal carries whole milliseconds, never negative ones', () => {
  assert.equal(refusal('RATE_LIMITED', { retryAfterMs: 1.2 }).retry_after_ms, 2);
  assert.equal(refusal('RATE_LIMITED', { retryAfterMs: -5 }).retry_after_ms, 0);
});

test('every refusal is what the wire schema asks for', () => {
  for (const code of errorCodeSchema.options) {
    const data = refusal(code, { message: 'because', retryAfterMs: 5, details: { field: 'model' } });
    assert.deepEqual(errorDataSchema.parse(data), data);
  }
});

test('close codes are the promised ones, each used once', () => {
  const codes = Object.values(CLOSE).map((close) => close.code);

  assert.deepEqual(
    [...codes].sort((one, other) => one - other),
    [1001, 1012, 1013, 4400, 4401, 4403, 4408, 4409, 4429],
  );
  for (const close of Object.values(CLOSE)) assert.ok(Buffer.byteLength(close.reason) <= 123, close.reason);
});

test('an error that carries a refusal says which', () => {
  const error = new RefusalError(refusal('STORE_UNAVAILABLE'));

  assert.equal(error.data.code, 'STORE_UNAVAILABLE');
  assert.match(error.message, /^STORE_UNAVAILABLE: /);
});
