/** What every transport must do with requests and their replies: the second half of the contract. */
import assert from 'node:assert/strict';
import { RefusalError } from '../../../src/domain/errors.ts';
import { tenantIdSchema } from '../../../src/domain/ids.ts';
import { responseQueue, type Subscription, tierSubscription } from '../../../src/domain/queues.ts';
import type { Transport } from '../../../src/ports/transport.ts';
import {
  action,
  answering,
  collecting,
  gate,
  type Meter,
  queue,
  refusedWith,
} from '../../support/transport.ts';
import { until } from '../../support/until.ts';

export interface Subject {
  readonly transport: Transport;
  readonly meter: Meter;
  /** Puts bytes on a queue as a stranger would. */
  push(name: string, body: Uint8Array): Promise<void>;
}

/** Makes a test of a sentence and what proves it. */
export type Over = (sentence: string, body: (subject: Subject) => Promise<void>) => void;

const lane = (name: string): Subscription => tierSubscription(queue(name), 'free');
const WORK = queue('execution_service:free:default');
const ASK = { timeoutMs: 5_000, format: 'msgpack' } as const;

export function requestContract(over: Over): void {
  over('a request has its own reply, whatever order replies come in', async ({ transport, meter }) => {
    const answer = answering(transport);
    const first = gate();
    await transport.consume(
      [lane(WORK)],
      async (delivery) => {
        if (delivery.action.data.n === 0) await first.opened;
        await answer(delivery);
        if (delivery.action.data.n === 9) first.open();
      },
      { credits: 20 },
    );
    const replies = await Promise.all(
      Array.from({ length: 10 }, (_, n) => transport.request(WORK, action(n), ASK)),
    );

    assert.deepEqual(
      replies.map(({ data, action_type: type }) => [data.n, type]),
      [...Array(10).keys()].map((n) => [n, 'test.counted']),
    );
    assert.equal(meter.of('reply.foreign') + meter.of('reply.duplicate') + meter.of('reply.late'), 0);
  });

  over('a reply on a list of its own need not say what it answers', async ({ transport }) => {
    const asked = collecting(answering(transport, () => ({ correlation_id: undefined })));
    await transport.consume([lane(WORK)], asked.listener, { credits: 5 });
    const options = {
      ...ASK,
      format: 'json',
      replyQueue: (id: string) => responseQueue('execution_service', 'test.count', id),
    } as const;
    const replies = await Promise.all([1, 2, 3].map((n) => transport.request(WORK, action(n), options)));

    assert.deepEqual(
      replies.map(({ data }) => data.n),
      [1, 2, 3],
    );
    const [request] = asked.deliveries;
    assert.equal(
      request?.action.callback_queue,
      `execution_service:responses:test.count:${request?.action.correlation_id}`,
    );
  });

  over('late, duplicate, foreign and malformed replies are counted and not delivered', async (subject) => {
    const { transport, meter, push } = subject;
    const asked = collecting();
    await transport.consume([lane(WORK)], asked.listener, { credits: 5 });
    const late = transport.request(WORK, action(1), { ...ASK, timeoutMs: 30 });
    assert.equal(await refusedWith(late), 'PEER_TIMEOUT');
    await asked.heard(1);
    const [lateOne] = asked.deliveries;
    if (lateOne) await answering(transport)(lateOne);
    await until('the late reply', () => meter.of('reply.late') === 1);

    const asking = transport.request(WORK, action(2), ASK);
    await asked.heard(2);
    const [, second] = asked.deliveries;
    assert.ok(second);
    const stranger = { tenant_id: tenantIdSchema.parse('umbrella'), data: { n: 666 } };
    await answering(transport, () => stranger)(second);
    await answering(transport, () => ({ correlation_id: 'nobody-asked' }))(second);
    await push(second.action.callback_queue ?? '', Buffer.from('{'));
    await answering(transport)(second);
    await answering(transport)(second);

    assert.equal((await asking).data.n, 2);
    await until('the duplicate', () => meter.of('reply.duplicate') === 1);
    assert.deepEqual([meter.of('reply.foreign'), meter.of('reply.malformed')], [2, 1]);
  });

  over('a service that does not answer is left alone after a while, others are not', async (subject) => {
    const { transport, meter } = subject;
    const silent = queue('query_service:free:default');
    for (let n = 0; n < 5; n += 1)
      assert.equal(
        await refusedWith(transport.request(silent, action(n), { ...ASK, timeoutMs: 5 })),
        'PEER_TIMEOUT',
      );
    const error = await transport.request(silent, action(6), { ...ASK, timeoutMs: 60_000 }).catch((e) => e);
    assert.ok(error instanceof RefusalError);
    assert.equal(error.data.code, 'PEER_TIMEOUT');
    assert.ok((error.data.retry_after_ms ?? 0) > 0);
    assert.equal(meter.of('circuit.opened'), 1);

    await transport.consume([lane(WORK)], answering(transport), { credits: 1 });
    assert.equal((await transport.request(WORK, action(7), ASK)).data.n, 7);
  });
}
