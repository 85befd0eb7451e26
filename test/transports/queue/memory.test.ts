/** The in-process transport keeps the contract of transports. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { managementQueue, tierSubscription } from '../../../src/domain/queues.ts';
import { createMemoryTransport } from '../../../transports/queue/memory.ts';
import { leakFree } from '../../support/leaks.ts';
import { quiet } from '../../support/quiet.ts';
import { action, collecting, counting, queue, refusedWith } from '../../support/transport.ts';
import { notice } from '../webhooks/webhook-receiver.ts';
import { transportContract } from './contract.ts';

transportContract('memory', async (t, meter) => {
  const transport = createMemoryTransport(quiet, meter);
  t.after(() => transport.close());
  return {
    transport,
    meter,
    push: async (name, body) => transport.push(queue(name), body),
  };
});

test('memory: notices that nobody reads are not kept', async (t) => {
  leakFree(t);
  const transport = createMemoryTransport(quiet, counting());
  t.after(() => transport.close());
  const notices = managementQueue('notifications', 'acme');
  await transport.send(notices, notice(), 'json');
  const heard = collecting();
  const options = { credits: 1, read: () => ({ ok: true, idGiven: false, action: action(1) }) as const };
  await transport.consume([tierSubscription(notices, 'free')], heard.listener, options);
  await transport.send(notices, notice(), 'json');
  await heard.heard(1);
  assert.equal(heard.deliveries.length, 1);
});

test('memory: what is sent behind something refused does not overtake it, and other queues go on', async (t) => {
  leakFree(t);
  const transport = createMemoryTransport(quiet, counting());
  t.after(() => transport.close());
  const large = Buffer.alloc(4 * 1024 * 1024);
  // All but 8 KiB of what may wait.
  for (let n = 0; n < 63; n += 1) transport.push(queue('full'), large);
  transport.push(queue('full'), large.subarray(8 * 1024));
  const long = action(1, { data: { text: 'x'.repeat(16 * 1024) } });

  const sends = [
    refusedWith(transport.send(queue('q'), long, 'json')),
    refusedWith(transport.send(queue('q'), action(2), 'json')),
    transport.send(queue('other'), action(3), 'json'),
  ];
  assert.deepEqual(await Promise.all(sends), ['OVERLOADED', 'OVERLOADED', undefined]);
  await new Promise((resolve) => setImmediate(resolve));
  await transport.send(queue('q'), action(4), 'json');
  const heard = collecting();
  await transport.consume([tierSubscription(queue('q'), 'free')], heard.listener, { credits: 1 });
  await heard.heard(1);
  assert.deepEqual(heard.numbers(), [4]);
});
