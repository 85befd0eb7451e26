/** What happens to actions when Redis, the network, or a node fails: nothing is lost, senders learn it soon, readers come back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Subscription, tierSubscription } from '../../../src/domain/queues.ts';
import type { Transport } from '../../../src/ports/transport.ts';
import { beforeRedisStops, redisFor, transportFor } from '../../support/redis-node.ts';
import { startTcpProxy } from '../../support/tcp-proxy.ts';
import { action, answering, collecting, gate, queue, refusedWith } from '../../support/transport.ts';
import { until } from '../../support/until.ts';

const WORK = queue('execution_service:free:default');
const LANES: readonly Subscription[] = [tierSubscription(WORK, 'free')];
const ASK = { timeoutMs: 5_000, format: 'json' } as const;

/** Sends numbers until told to stop; returns those that Redis has confirmed. */
function sending(transport: Transport): { readonly stop: () => Promise<readonly number[]> } {
  const confirmed: number[] = [];
  let stopped = false;
  const loop = (async () => {
    for (let n = 0; !stopped; n += 1) {
      await transport.send(WORK, action(n), 'json').then(
        () => confirmed.push(n),
        () => new Promise((resolve) => setTimeout(resolve, 10)),
      );
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  return {
    async stop() {
      stopped = true;
      await loop;
      return confirmed;
    },
  };
}

const missing = (wanted: readonly number[], heard: readonly number[]): readonly number[] => {
  const there = new Set(heard);
  return wanted.filter((n) => !there.has(n));
};

/** Lets sender and consumer run through `trouble`; then everything confirmed must be heard and all must work again. */
async function survives(
  sender: Transport,
  receiver: Transport,
  trouble: (heard: () => number) => Promise<void>,
): Promise<void> {
  const heard = collecting();
  const replier = answering(receiver);
  await receiver.consume(
    LANES,
    async (delivery) => {
      if (delivery.action.callback_queue) await replier(delivery);
      else await heard.listener(delivery);
    },
    { credits: 8 },
  );
  const stream = sending(sender);
  await heard.heard(50);
  await trouble(() => heard.deliveries.length);
  const before = heard.deliveries.length;
  await until('work to go on', () => heard.deliveries.length > before + 50, 20_000);
  const confirmed = await stream.stop();
  await until('all that was confirmed', () => missing(confirmed, heard.numbers()).length === 0);
  await until('a request to be answered', () =>
    sender.request(WORK, action(-1), ASK).then(
      () => true,
      () => false,
    ),
  );
}

test('Redis killed with -9 and restarted: what it confirmed is heard', async (t) => {
  const redis = await redisFor(t, { appendOnly: true });
  const [sender, receiver] = [await transportFor(t, redis.url), await transportFor(t, redis.url)];
  await survives(sender, receiver, async () => {
    await redis.kill();
    await until('a refusal', async () => (await refusedWith(sender.ping())) === 'TRANSPORT_UNAVAILABLE');
    const asking = sender.request(WORK, action(1), ASK);
    assert.equal(await refusedWith(asking), 'TRANSPORT_UNAVAILABLE');
    await redis.restart();
  });
});

test('Redis stopped for a while: senders are refused soon, and everything goes on after', async (t) => {
  const redis = await redisFor(t);
  const [sender, receiver] = [await transportFor(t, redis.url), await transportFor(t, redis.url)];
  await survives(sender, receiver, async () => {
    redis.signal('SIGSTOP');
    assert.equal(await refusedWith(sender.send(WORK, action(-2), 'json')), 'TRANSPORT_UNAVAILABLE');
    await until('links that know', async () => (await refusedWith(receiver.ping())) !== '');
    redis.signal('SIGCONT');
  });
});

test('Redis paused for clients: everything goes on after', async (t) => {
  const redis = await redisFor(t);
  const [sender, receiver] = [await transportFor(t, redis.url), await transportFor(t, redis.url)];
  await survives(sender, receiver, async () => {
    await redis.client.call('CLIENT', 'PAUSE', 2_500, 'ALL');
    assert.equal(await refusedWith(sender.send(WORK, action(-2), 'json')), 'TRANSPORT_UNAVAILABLE');
  });
});

test('connections killed by the server, again and again, lose nothing', async (t) => {
  const redis = await redisFor(t);
  const [sender, receiver] = [await transportFor(t, redis.url), await transportFor(t, redis.url)];
  await survives(sender, receiver, async (heard) => {
    for (let round = 0; round < 6; round += 1) {
      const before = heard();
      await redis.client.call('CLIENT', 'KILL', 'TYPE', round % 2 ? 'normal' : 'pubsub', 'SKIPME', 'yes');
      await until('work to go on', () => heard() > before + 20);
    }
  });
});

for (const trouble of ['cut', 'swallow', 'refuse'] as const) {
  test(`a network that does this to the receiver loses nothing: ${trouble}`, async (t) => {
    const redis = await redisFor(t);
    const proxy = await startTcpProxy(redis.port);
    beforeRedisStops(t, () => proxy.close());
    const sender = await transportFor(t, redis.url);
    const receiver = await transportFor(t, `redis://127.0.0.1:${proxy.port}`);
    await survives(sender, receiver, async (heard) => {
      proxy[trouble]();
      if (trouble === 'cut') return;
      await until('the receiver to notice', () =>
        receiver.ping().then(
          () => false,
          () => true,
        ),
      );
      proxy.heal();
      await until('work', () => heard() > 0);
    });
  });
}

test('a slow network only slows things down', async (t) => {
  const redis = await redisFor(t);
  const proxy = await startTcpProxy(redis.port);
  beforeRedisStops(t, () => proxy.close());
  const receiver = await transportFor(t, `redis://127.0.0.1:${proxy.port}`);
  proxy.delay(30);
  const heard = collecting(answering(receiver));
  await receiver.consume(LANES, heard.listener, { credits: 50 });
  const sender = await transportFor(t, redis.url);
  const numbers = [...Array(100).keys()];
  const replies = await Promise.all(numbers.map((n) => sender.request(WORK, action(n), ASK)));

  assert.deepEqual(
    replies.map(({ data }) => data.n),
    numbers,
  );
  assert.equal(heard.deliveries.length, 100);
});

test('an action that waits for nobody is not lost while its node is cut off in mid work', async (t) => {
  const redis = await redisFor(t);
  const proxy = await startTcpProxy(redis.port);
  beforeRedisStops(t, () => proxy.close());
  const receiver = await transportFor(t, `redis://127.0.0.1:${proxy.port}`);
  const doors = gate();
  const heard = collecting(() => doors.opened);
  await receiver.consume(LANES, heard.listener, { credits: 4 });
  const sender = await transportFor(t, redis.url);
  for (const n of [1, 2, 3]) await sender.send(WORK, action(n), 'json');
  await heard.heard(3);
  proxy.refuse();
  doors.open();
  proxy.heal();
  await sender.send(WORK, action(4), 'json');
  await heard.heard(4);
  await receiver.close();

  assert.deepEqual(heard.numbers(), [1, 2, 3, 4]);
  assert.deepEqual(await redis.client.keys('nooble:taken:*'), []);
});
