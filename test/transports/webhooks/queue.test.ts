/** How deliveries wait, and how long: fair queues with bounds, and waits that grow. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deliverySchema, type Webhook } from '../../../src/domain/agent-record.ts';
import type { ClaimedDelivery } from '../../../src/ports/management.ts';
import { createDeliveryQueue, QUEUE_BOUNDS } from '../../../transports/webhooks/queue.ts';
import { afterAttempt, MAX_ATTEMPTS, RETRY_WAITS_MS } from '../../../transports/webhooks/retry.ts';
import type { Sent } from '../../../transports/webhooks/send.ts';
import { loopTurns } from '../../support/until.ts';
import { notice, SECRET, tenant } from './webhook-receiver.ts';

const NOW = Date.parse('2026-01-02T03:04:05.006Z');

const delivery = (id: string, webhookId: string, tenantId = 'acme', attempts = 0) =>
  deliverySchema.parse({
    id,
    webhook_id: webhookId,
    tenant_id: tenantId,
    event: 'agent_updated',
    payload: notice('agent_updated', tenantId),
    status: 'pending',
    attempts,
    next_attempt_at: null,
    last_error: null,
    created_at: new Date(NOW).toISOString(),
    delivered_at: null,
  });

function job(id: string, webhookId: string, tenantId = 'acme'): ClaimedDelivery {
  const webhook: Webhook = {
    id: webhookId,
    tenant_id: tenant(tenantId),
    url: 'https://a.example/',
    events: null,
    secret: SECRET,
    created_at: new Date(NOW).toISOString(),
  };
  return { webhook, delivery: delivery(id, webhookId, tenantId), untilMs: NOW };
}

/** A queue whose attempts end when the test says so. */
function openQueue(bounds: Partial<typeof QUEUE_BOUNDS> = {}) {
  const running = new Map<string, () => void>();
  const started: string[] = [];
  const stops: unknown[] = [];
  const keysOf = ({ delivery: { id }, webhook }: ClaimedDelivery) => ({
    id,
    receiver: webhook.id,
    tenantId: webhook.tenant_id,
  });
  const queue = createDeliveryQueue<ClaimedDelivery>(
    { ...QUEUE_BOUNDS, ...bounds },
    keysOf,
    (one, signal) => {
      started.push(one.delivery.id);
      return new Promise((resolve) => {
        running.set(one.delivery.id, resolve);
        signal.addEventListener('abort', () => {
          stops.push(signal.reason);
          resolve();
        });
      });
    },
  );
  const end = async (id: string): Promise<void> => {
    running.get(id)?.();
    running.delete(id);
    await loopTurns();
  };
  return { queue, running, started, stops, end };
}

test('each webhook, each tenant and the node run so many at once and no more', () => {
  const { queue, started } = openQueue({ runningPerReceiver: 2, runningPerTenant: 3, running: 4 });
  for (const [webhookId, name] of [
    ['w1', 'acme'],
    ['w2', 'acme'],
    ['w3', 'globex'],
    ['w4', 'initech'],
  ] as const)
    for (let n = 1; n <= 3; n += 1) queue.add(job(`${webhookId}-${n}`, webhookId, name));
  assert.deepEqual(started, ['w1-1', 'w1-2', 'w2-1', 'w3-1']);
});

test('a webhook that never ends its attempts delays nobody else', async () => {
  const { queue, started, end } = openQueue({ runningPerReceiver: 1, runningPerTenant: 2, running: 2 });
  for (let n = 1; n <= 5; n += 1) queue.add(job(`dead-${n}`, 'dead', 'acme'));
  for (let n = 1; n <= 3; n += 1) queue.add(job(`good-${n}`, 'good', 'globex'));
  for (const id of ['good-1', 'good-2', 'good-3']) await end(id);
  assert.deepEqual(started, ['dead-1', 'good-1', 'good-2', 'good-3']);
});

test('the queues of receivers take turns', async () => {
  const { queue, started, end } = openQueue({ running: 1 });
  for (const id of ['a-1', 'a-2', 'a-3', 'b-1', 'b-2']) queue.add(job(id, id.slice(0, 1), id.slice(0, 1)));
  const order = ['a-1', 'a-2', 'b-1', 'a-3', 'b-2'];
  for (const id of order) await end(id);
  assert.deepEqual(started, order);
  assert.equal(queue.size(), 0);
});

test('what is held is bounded, by webhook, by tenant and in all, and held once', async () => {
  const { queue, end } = openQueue({ heldPerReceiver: 2, heldPerTenant: 4, held: 5, running: 1 });
  const taken = ['a1', 'a2', 'a3', 'a4'].map((id) => queue.add(job(id, 'a')));
  assert.deepEqual(taken, [true, true, true, false]);
  assert.deepEqual(
    ['b1', 'b2'].map((id) => queue.add(job(id, 'b'))),
    [true, false],
  );
  assert.equal(queue.add(job('c1', 'c', 'globex')), true);
  assert.equal(queue.add(job('d1', 'd', 'initech')), false);
  assert.equal(queue.add(job('a2', 'a')), false);
  assert.deepEqual([queue.size(), queue.has('a2'), queue.has('a4')], [5, true, false]);
  await end('a1');
  assert.equal(queue.add(job('d1', 'd', 'initech')), true);
});

test('a webhook of another tenant is not dropped; its own running attempts end', async () => {
  const { queue, stops, started } = openQueue({ runningPerReceiver: 1 });
  for (const id of ['a1', 'a2']) queue.add(job(id, 'a'));
  await queue.drop(tenant('globex'), 'a');
  assert.equal(queue.size(), 2);
  await queue.drop(tenant('acme'), 'a');
  assert.deepEqual([queue.size(), stops, started], [0, ['removed'], ['a1']]);
});

test('closing ends what runs and takes no more', async () => {
  const { queue, stops } = openQueue();
  queue.add(job('a1', 'a'));
  await queue.close();
  assert.deepEqual(stops, ['closing']);
  assert.equal(queue.add(job('a2', 'a')), false);
  await queue.close();
});

const answered = (status: number, retryAfter?: string): Sent => ({ type: 'answered', status, retryAfter });

test('waits grow, are drawn between one second and their bound, and end', () => {
  for (const [index, bound] of RETRY_WAITS_MS.entries())
    for (const random of [0, 0.5, 1]) {
      const after = afterAttempt(delivery('d', 'w', 'acme', index + 1), answered(500), NOW, random);
      const waitMs = Date.parse(after.next_attempt_at ?? '') - NOW;
      assert.equal(waitMs, 1_000 + random * (bound - 1_000));
    }
  const last = afterAttempt(delivery('d', 'w', 'acme', MAX_ATTEMPTS), answered(500), NOW, 0);
  assert.deepEqual([last.status, last.next_attempt_at], ['dead', null]);
});

test('a date in Retry-After counts from now, and one in the past does not', () => {
  const wait = (header: string): number => {
    const after = afterAttempt(delivery('d', 'w', 'acme', 1), answered(503, header), NOW, 0);
    return Date.parse(after.next_attempt_at ?? '') - NOW;
  };
  assert.equal(wait(new Date(NOW + 60_000).toUTCString()), 60_000 - 6);
  assert.equal(wait(new Date(NOW - 60_000).toUTCString()), 1_000);
  assert.equal(wait('-5'), 1_000);
});

test('any 2xx is delivered, nothing else is', () => {
  for (const status of [200, 201, 202, 204, 299])
    assert.equal(afterAttempt(delivery('d', 'w', 'acme', 1), answered(status), NOW, 0).status, 'delivered');
  for (const status of [0, 101, 199, 300, 304, 400, 404, 410, 500])
    assert.notEqual(
      afterAttempt(delivery('d', 'w', 'acme', 1), answered(status), NOW, 0).status,
      'delivered',
    );
});
