/** Part of the contract of transports: queues that are found by themselves, messages without an envelope, and notices. */
import assert from 'node:assert/strict';
import { refusal } from '../../../src/domain/errors.ts';
import {
  MAX_UNREAD_NOTICES,
  managementPattern,
  managementQueue,
  tierSubscription,
} from '../../../src/domain/queues.ts';
import type { ReadMessage } from '../../../src/ports/transport.ts';
import { action, collecting, gate } from '../../support/transport.ts';
import { until } from '../../support/until.ts';
import { notice } from '../webhooks/webhook-receiver.ts';
import type { Over } from './contract-requests.ts';

const ACME = managementQueue('tasks', 'acme');
const NOTICES = managementQueue('notifications', 'acme');

export function familyContract(over: Over): void {
  over('queues of a family are found, those before the consumer and those after', async ({ transport }) => {
    const heard = collecting();
    await transport.send(ACME, action(1), 'json');
    await transport.send(NOTICES, action(7), 'json');
    const families = [managementPattern];
    const lanes = [tierSubscription(managementQueue('templates', 'acme'), 'free')];
    await transport.consume(lanes, heard.listener, { credits: 2, patterns: families });
    await heard.heard(1);
    await transport.send(managementQueue('validation', 'tenant.of:many@parts'), action(2), 'json');
    await heard.heard(2);
    await transport.send(managementQueue('templates', 'acme'), action(3), 'json');
    await transport.send(ACME, action(4), 'json');
    await heard.heard(4);

    assert.deepEqual(heard.numbers().slice(0, 2), [1, 2]);
    assert.deepEqual(heard.numbers().slice(2).toSorted(), [3, 4]);
    assert.ok(!heard.deliveries.some(({ queue }) => queue === NOTICES));
  });

  over(
    'the first message of a tenant that was quiet is found within a second',
    async ({ transport, push }) => {
      const heard = collecting();
      await transport.consume([], heard.listener, { credits: 2, patterns: [managementPattern] });
      await transport.send(ACME, action(0), 'json');
      await heard.heard(1);
      for (let n = 1; n < 5; n += 1) {
        const begunMs = performance.now();
        const body = Buffer.from(JSON.stringify(action(n)));
        await push(managementQueue('validation', `quiet-${n}`), body);
        await heard.heard(n + 1);
        assert.ok(performance.now() - begunMs < 1_000, `message ${n} waited`);
      }
    },
  );

  over('a dead list is no queue of its family', async ({ transport }) => {
    const read: ReadMessage = () => ({ ok: false, error: refusal('FORBIDDEN') });
    const heard = collecting();
    await transport.consume([], heard.listener, { credits: 2, patterns: [managementPattern], read });
    await transport.send(ACME, action(1), 'json');
    await until('a dead letter', async () => (await transport.dead.list(ACME, 9)).length === 1);
    await transport.send(managementQueue('tasks', 'acme:dead'), action(2), 'json');
    await transport.send(managementQueue('tasks', 'other'), action(3), 'json');
    await until('another', async () => (await transport.dead.queues()).length === 2);

    assert.deepEqual((await transport.dead.queues()).toSorted(), [ACME, managementQueue('tasks', 'other')]);
    assert.equal((await transport.dead.list(ACME, 9))[0]?.error.code, 'FORBIDDEN');
    assert.deepEqual(heard.numbers(), []);
  });

  over('a consumer may read messages in a form of their own', async ({ transport, push }) => {
    const read: ReadMessage = (raw, queue, nowMs, newId) => ({
      ok: true,
      idGiven: false,
      action: action(1, { action_id: newId(), data: { raw, queue, isTime: nowMs > 0 } }),
    });
    const heard = collecting();
    await transport.consume([tierSubscription(ACME, 'free')], heard.listener, { credits: 1, read });
    await push(ACME, Buffer.from('{"any":["thing"]}'));
    await heard.heard(1);

    const data = { raw: { any: ['thing'] }, queue: ACME, isTime: true };
    assert.deepEqual(heard.deliveries[0]?.action.data, data);
  });

  over('of notices that a reader is behind with, the newest are kept', async ({ transport }) => {
    const read: ReadMessage = (raw) => ({ ok: true, idGiven: false, action: action(0, { data: { raw } }) });
    const door = gate();
    const heard = collecting(() => door.opened);
    await transport.consume([tierSubscription(NOTICES, 'free')], heard.listener, { credits: 1, read });
    const count = MAX_UNREAD_NOTICES + 100;
    const send = (n: number) => transport.send(NOTICES, { ...notice(), task_id: `task-${n}` }, 'json');
    await send(0);
    await heard.heard(1);
    await Promise.all(Array.from({ length: count }, (_, n) => send(n + 1)));
    door.open();
    const last = (): string => JSON.stringify(heard.deliveries.at(-1)?.action.data);
    await until('the last notice', () => last().includes(`"task-${count}"`));

    assert.equal(heard.deliveries.length, 1 + MAX_UNREAD_NOTICES);
  });
}
