/** A Redis that stands still for longer than every lease: its consumers come back, and none takes the other for dead. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { tierSubscription } from '../../../src/domain/queues.ts';
import { openRedisTransport } from '../../../transports/queue/redis/transport.ts';
import { quiet } from '../../support/quiet.ts';
import { beforeRedisStops, redisFor } from '../../support/redis-node.ts';
import { action, collecting, counting, queue, refusedWith } from '../../support/transport.ts';
import { until } from '../../support/until.ts';

const WORK = queue('execution_service:free:default');
/** Three times a lease. */
const STANDSTILL_MS = 20_000;

test('Redis stopped for 20 s: nothing is lost, and nothing runs twice unseen', async (t) => {
  const redis = await redisFor(t);
  const meter = counting();
  const open = async (nodeId: string) => {
    const transport = await openRedisTransport({ url: redis.url, nodeId, log: quiet, meter });
    beforeRedisStops(t, () => transport.close());
    return transport;
  };
  const [sender, ...receivers] = [await open('sender'), await open('a'), await open('b')];
  // Some are in work when it stops, and end while it stands still.
  const heard = collecting(() => wait(5));
  for (const receiver of receivers)
    await receiver.consume([tierSubscription(WORK, 'free')], heard.listener, { credits: 4 });

  const confirmed: number[] = [];
  let isOver = false;
  const stream = (async () => {
    for (let n = 0; !isOver; n += 1) {
      const sent = sender.send(WORK, action(n), 'json');
      await sent.then(
        () => confirmed.push(n),
        () => wait(20),
      );
      await wait(1);
    }
  })();
  await heard.heard(100);
  redis.signal('SIGSTOP');
  const stopped = wait(STANDSTILL_MS);
  for (const transport of [sender, ...receivers])
    await until('a link that knows', async () => (await refusedWith(transport.ping())) !== '');
  await stopped;
  const before = heard.deliveries.length;
  redis.signal('SIGCONT');
  await until('work to go on', () => heard.deliveries.length > before + 100, 20_000);
  isOver = true;
  await stream;
  const missing = (): readonly number[] => {
    const there = new Set(heard.numbers());
    return confirmed.filter((n) => !there.has(n));
  };
  await until('all that was confirmed', () => missing().length === 0, 20_000);

  const again = heard.deliveries.length - new Set(heard.numbers()).size;
  const seen = meter.of('action.returned') + meter.of('action.redelivered');
  t.diagnostic(`${confirmed.length} confirmed, ${again} ran again, ${seen} of them counted`);
  assert.ok(again <= seen, `${again} ran again, ${seen} were counted`);
  assert.deepEqual(await sender.dead.queues(), []);
});
