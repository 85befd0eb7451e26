/** Bodies of requests: in turn by tenant where they are large, in memory that no two of them have at once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tenantIdSchema } from '../../../src/domain/ids.ts';
import { type BodyOutcome, requestBody } from '../../../transports/http/request-body.ts';
import { createLargeBodies } from '../../../transports/wire/large-bodies.ts';

const LOUD = tenantIdSchema.parse('loud');
const QUIET = tenantIdSchema.parse('quiet');
const MAX_BYTES = 256 * 1024;
const LARGE = 100_000;

const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString();
const never = (): void => {};

test('large bodies are read one a turn of the loop, tenants in turn; small ones wait for none', async () => {
  const bodies = createLargeBodies(MAX_BYTES);
  const order: string[] = [];
  const said = (text: string, bytes: number) =>
    requestBody(bodies, Promise.resolve({ body: bodies.joined([Buffer.alloc(bytes, text)], bytes) }), never);
  const read = (tenantId: typeof LOUD, text: string, bytes = LARGE): Promise<number> =>
    said(text, bytes).read(tenantId, (given) => order.push(textOf(given.subarray(0, 1))));
  await Promise.all([
    read(LOUD, 'a'),
    read(LOUD, 'b'),
    read(LOUD, 'c'),
    read(QUIET, 'q'),
    read(LOUD, 's', 20),
  ]);
  assert.equal(order.join(''), 'saqbc');
});

test('a body comes whole out of its pieces, and its memory is used again once it is read or nobody will', async () => {
  const bodies = createLargeBodies(MAX_BYTES);
  const places = new Set<ArrayBufferLike>();
  for (let round = 0; round < 8; round += 1) {
    const pieces = [Buffer.alloc(LARGE, `${round}`), Buffer.alloc(10, 'x')];
    const body = bodies.joined(pieces, LARGE + 10);
    assert.ok(body.equals(Buffer.concat(pieces)));
    places.add(body.buffer);
    const ends: (() => void)[] = [];
    const incoming = requestBody(bodies, Promise.resolve({ body }), (deed) => ends.push(deed));
    if (round % 2 === 0) await incoming.read(LOUD, never);
    for (const end of ends) end();
    await Promise.resolve();
  }
  assert.equal(places.size, 1);
});

test('two bodies at once have memory of their own, also where the first client is gone before it is read', async () => {
  const bodies = createLargeBodies(MAX_BYTES);
  const ends: (() => void)[] = [];
  const first = requestBody(
    bodies,
    Promise.resolve({ body: bodies.joined([Buffer.alloc(LARGE, 'a')], LARGE) }),
    (deed) => ends.push(deed),
  );
  const reading = first.read(LOUD, textOf);
  for (const end of ends) end();
  const second = bodies.joined([Buffer.alloc(LARGE, 'b')], LARGE);
  assert.equal(await reading, 'a'.repeat(LARGE));
  assert.equal(textOf(second), 'b'.repeat(LARGE));
});

test('what broke off, is refused, or fails while it is read rejects', async () => {
  const bodies = createLargeBodies(MAX_BYTES);
  const of = (outcome: BodyOutcome) =>
    requestBody(bodies, Promise.resolve(outcome), never).read(LOUD, textOf);
  await assert.rejects(of({}), /broke off/);
  const refused = { code: 'TOO_LARGE', message: 'too large', retryable: false } as const;
  await assert.rejects(of({ refused }), /TOO_LARGE/);
  for (const bytes of [10, LARGE]) {
    const body = bodies.joined([Buffer.alloc(bytes)], bytes);
    const incoming = requestBody(bodies, Promise.resolve({ body }), never);
    const failing = incoming.read(LOUD, () => assert.fail('as it is read'));
    await assert.rejects(failing, /as it is read/);
  }
});
