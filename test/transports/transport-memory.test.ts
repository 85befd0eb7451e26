/** The in-process transport keeps the contract of transports. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { managementQueue, tierLane } from '../../src/domain/queues.ts';
import { createMemoryTransport } from '../../transports/memory.ts';
import { quiet } from '../store/quiet.ts';
import { leakFree } from '../support/leaks.ts';
import { action, collecting, counting, queue } from '../support/transport.ts';
import { transportContract } from './transport-contract.ts';
import { notice } from './webhook-receiver.ts';

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
  await transport.consume([tierLane(notices, 'free')], heard.listener, options);
  await transport.send(notices, notice(), 'json');
  await heard.heard(1);
  assert.equal(heard.deliveries.length, 1);
});
