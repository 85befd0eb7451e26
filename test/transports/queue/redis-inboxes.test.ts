/** Inboxes over a real Redis keep their contract, whatever becomes of Redis, and whatever lies in the list. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Bundle, Inboxes, InboxProblem } from '../../../src/ports/links.ts';
import { inboxKey, openRedisInboxes } from '../../../transports/queue/redis/inboxes.ts';
import { encodeBundle } from '../../../transports/wire/bundle-codec.ts';
import { encodePlain } from '../../../transports/wire/codec.ts';
import { quiet } from '../../support/quiet.ts';
import { beforeRedisStops, redisFor } from '../../support/redis-node.ts';
import { counting } from '../../support/transport.ts';
import { until } from '../../support/until.ts';
import { ask, bundle, inboxContract, linked, TICK } from './inbox-contract.ts';

const CLUSTER = 'test';

function opened(t: TestContext, url: string) {
  const dropped: Record<InboxProblem, number> = { malformed: 0, newer: 0 };
  const open = (clusterId = CLUSTER): Inboxes => {
    const meter = {
      ...counting(),
      dropped: (problem: InboxProblem, count: number) => {
        dropped[problem] += count;
      },
    };
    const inboxes = openRedisInboxes({ url, clusterId, log: quiet, meter });
    beforeRedisStops(t, () => inboxes.close());
    return inboxes;
  };
  return { open, dropped };
}

/** Resolves once it takes something. */
const writable = (inboxes: Inboxes): Promise<void> =>
  until('an inbox that takes', () =>
    inboxes.push(99, bundle(1, TICK)).then(
      () => true,
      () => false,
    ),
  );

inboxContract('redis', async (t) => {
  const redis = await redisFor(t, { appendOnly: true });
  const { open } = opened(t, redis.url);
  const ready = [open(), open()];
  await Promise.all(ready.map(writable));
  return {
    open: () => ready.shift() ?? open(),
    setAway: (isAway) => (isAway ? redis.kill() : redis.restart()),
  };
});

test('redis: a server that stands still loses questions within two seconds, and all comes back', async (t) => {
  const redis = await redisFor(t);
  const { open } = opened(t, redis.url);
  const ours = open();
  await writable(ours);
  const [a, b] = [await linked(t, ours, 1), await linked(t, open(), 2)];
  await until('an answer', async () => (await ask(a.links, 2, 1)).type === 'ok');
  redis.signal('SIGSTOP');
  const begunMs = performance.now();
  assert.deepEqual(await ask(a.links, 2, 2), { type: 'lost', why: 'away' });
  assert.ok(performance.now() - begunMs < 2_900, 'before the question itself gave up');
  redis.signal('SIGCONT');
  await until('an answer', async () => {
    a.links.tick([2]);
    b.links.tick([1]);
    await new Promise((resolve) => setTimeout(resolve, 50));
    return (await ask(a.links, 2, 3)).type === 'ok';
  });
});

test('redis: whatever bytes lie in an inbox, the bundles behind them are read, and the rest is counted', async (t) => {
  const redis = await redisFor(t);
  const { open, dropped } = opened(t, redis.url);
  const key = inboxKey(CLUSTER, 2);
  const whole = encodeBundle(bundle(1, TICK));
  const hostile: readonly Uint8Array[] = [
    Buffer.alloc(0),
    Buffer.from('{"json":true}'),
    Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff]),
    Buffer.alloc(100_000, 0x91),
    whole.subarray(0, whole.length - 1),
    Buffer.concat([whole, whole]),
    encodePlain(null),
    encodePlain({ version: 1 }),
    encodePlain(['1', 1, 'L', 1, []]),
    encodePlain([1, -1, 'L', 1, []]),
    encodePlain([1, 1, 'L', 1.5, []]),
    encodePlain([1, 1, 7, 1, []]),
    encodePlain([1, 1, 'L', 1, 'items']),
  ];
  for (const body of hostile) await redis.client.lpush(key, Buffer.from(body));
  await redis.client.lpush(key, encodePlain([2, 1, 'L', 1, []]));
  const items = [
    '{"kind":"tick"}',
    '{"kind":"sing"}',
    '{"kind":"request","id":"x","of":"say"}',
    '{"kind":"detach","tenantId":"../..","sessionId":"s","clientId":"c"}',
    'no json',
    '['.repeat(100_000),
    7,
    null,
    [[['c', 1]], [[1, 'chat.delta', 0, null]]],
    [[['c', 'x']], []],
    [[['c', 1]], [[-1, 'chat.delta', 0, null, '{}']]],
  ];
  await redis.client.lpush(key, encodePlain([1, 1, 'L', 1, items]));
  const heard: Bundle[] = [];
  await open().read(2, (each) => {
    heard.push(each);
    throw new Error('the listener broke');
  });
  await until('the bundle with one item', () => heard.length === 1);
  assert.deepEqual(heard, [bundle(1, TICK)]);
  assert.deepEqual(dropped, { malformed: hostile.length + 7, newer: 1 + 3 });
  await redis.client.lpush(key, encodeBundle(bundle(2, TICK)));
  await until('the next', () => heard.length === 2);
});

test('redis: an inbox that nobody reads grows as its writers are told, and goes away by itself', async (t) => {
  const redis = await redisFor(t);
  const { open } = opened(t, redis.url);
  const ours = open();
  await writable(ours);
  const lengths = [];
  for (let n = 1; n <= 3; n += 1) lengths.push(await ours.push(2, bundle(n, TICK)));
  assert.deepEqual(lengths, [1, 2, 3]);
  const ttlMs = () => redis.client.pttl(inboxKey(CLUSTER, 2));
  await until('its end', async () => (await ttlMs()) > 0);
  assert.ok((await ttlMs()) > 25_000);
});

test('redis: two installations on one server have their own boots', async (t) => {
  const redis = await redisFor(t);
  const { open } = opened(t, redis.url);
  const [ours, others] = [open(), open('other')];
  await Promise.all([writable(ours), writable(others)]);
  const heard: Bundle[] = [];
  await open().read(2, (each) => heard.push(each));
  await others.push(2, bundle(1, TICK));
  await ours.push(2, bundle(2, TICK));
  await until('ours', () => heard.length === 1);
  assert.deepEqual(heard, [bundle(2, TICK)]);
});

test('redis: it may be away at the start', async (t) => {
  const redis = await redisFor(t);
  await redis.kill();
  const { open } = opened(t, redis.url);
  const [ours, theirs] = [open(), open()];
  const heard: Bundle[] = [];
  await theirs.read(2, (each) => heard.push(each));
  await assert.rejects(ours.push(2, bundle(1, TICK)), /TRANSPORT_UNAVAILABLE/);
  await redis.restart();
  await writable(ours);
  await ours.push(2, bundle(2, TICK));
  await until('a bundle', () => heard.length === 1);
});
