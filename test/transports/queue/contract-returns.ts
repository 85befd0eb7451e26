/** Part of the contract of transports: actions given back uncounted, who is told of dead ones, replies that came another way. */
import assert from 'node:assert/strict';
import { RefusalError, refusal } from '../../../src/domain/errors.ts';
import { tenantIdSchema } from '../../../src/domain/ids.ts';
import { type Subscription, tierSubscription } from '../../../src/domain/queues.ts';
import { type ActionDelivery, NOT_ITS_FAULT, type ReadMessage } from '../../../src/ports/transport.ts';
import { action, collecting, gate, queue } from '../../support/transport.ts';
import { until } from '../../support/until.ts';
import type { Over } from './contract-requests.ts';

const lane = (name: string): Subscription => tierSubscription(queue(name), 'free');
const WORK = queue('execution_service:free:default');
const OTHER = queue('execution_service:enterprise:default');

const notNow = (retryAfterMs?: number): Promise<never> =>
  Promise.reject(new RefusalError(refusal('DRAINING', retryAfterMs === undefined ? {} : { retryAfterMs })));

export function returnContract(over: Over): void {
  over(
    'what is refused through no fault of its own comes again, uncounted, first, and not at once',
    async (subject) => {
      const { transport, meter } = subject;
      const codes = [...NOT_ITS_FAULT, ...NOT_ITS_FAULT];
      const heard = collecting(async () => {
        const code = codes.pop();
        if (code) throw new RefusalError(refusal(code, { retryAfterMs: 20 }));
      });
      for (const n of [1, 2, 3]) await transport.send(WORK, action(n), 'json');
      const begunMs = performance.now();
      await transport.consume([lane(WORK)], heard.listener, { credits: 1 });
      await heard.heard(9);

      assert.deepEqual(heard.numbers(), [1, 1, 1, 1, 1, 1, 1, 2, 3]);
      assert.ok(performance.now() - begunMs > 6 * 18, 'it waits before it takes again');
      assert.equal(meter.of('action.returned'), 6);
      assert.equal(meter.of('action.redelivered') + meter.of('action.dead'), 0);
    },
  );

  over('without a time in the refusal it waits all the same', async ({ transport }) => {
    const times: number[] = [];
    const heard = collecting(() => {
      times.push(performance.now());
      return times.length < 3 ? notNow() : Promise.resolve();
    });
    await transport.consume([lane(WORK)], heard.listener, { credits: 4 });
    await transport.send(WORK, action(1), 'msgpack');
    await heard.heard(3);

    const gaps = times.slice(1).map((time, at) => time - (times[at] ?? 0));
    assert.ok(
      gaps.every((gap) => gap > 200),
      String(gaps),
    );
  });

  over('while one queue is left alone the others are served', async ({ transport }) => {
    const heard = collecting(({ queue: from }) => (from === WORK ? notNow(60_000) : Promise.resolve()));
    await transport.consume([lane(WORK), lane(OTHER)], heard.listener, { credits: 1 });
    await transport.send(WORK, action(1), 'json');
    await heard.heard(1);
    for (let n = 2; n < 40; n += 1) {
      await transport.send(WORK, action(-n), 'json');
      await transport.send(OTHER, action(n), 'json');
      await heard.heard(n);
    }

    assert.deepEqual(
      heard.numbers(),
      [...Array(39).keys()].map((n) => n + 1),
    );
  });

  over('another consumer has it at once', async ({ transport }) => {
    const refusing = collecting(() => notNow(60_000));
    await transport.consume([lane(WORK)], refusing.listener, { credits: 8 });
    for (const n of [1, 2, 3, 4]) await transport.send(WORK, action(n), 'json');
    await refusing.heard(1);
    const heard = collecting();
    await transport.consume([lane(WORK)], heard.listener, { credits: 1 });
    await heard.heard(4);

    assert.deepEqual(heard.numbers().toSorted(), [1, 2, 3, 4]);
  });

  over(
    'a consumer that stops while its listeners refuse leaves everything, uncounted and in order',
    async (subject) => {
      const { transport, meter } = subject;
      for (let round = 0; round < 3; round += 1) {
        const door = gate();
        const refusing = collecting(() => door.opened.then(() => notNow(60_000)));
        if (round === 0)
          for (let n = 0; n < 20; n += 1) await transport.send(WORK, action(n), n % 2 ? 'json' : 'msgpack');
        const consumer = await transport.consume([lane(WORK)], refusing.listener, { credits: 12 });
        await refusing.heard(12);
        const stopping = consumer.stop();
        door.open();
        await stopping;
      }
      const heard = collecting();
      await transport.consume([lane(WORK)], heard.listener, { credits: 1 });
      await heard.heard(20);

      assert.deepEqual(heard.numbers(), [...Array(20).keys()]);
      assert.deepEqual(await transport.dead.queues(), []);
      assert.equal(meter.of('action.returned'), 36);
    },
  );

  over(
    'a consumer that stops gives back what is refused before all others are done',
    async ({ transport }) => {
      const [first, others] = [gate(), gate()];
      const refusing = collecting(({ action: { data } }) =>
        data.n === 1 ? first.opened : others.opened.then(() => notNow()),
      );
      for (const n of [1, 2, 3]) await transport.send(WORK, action(n), 'json');
      const consumer = await transport.consume([lane(WORK)], refusing.listener, { credits: 3 });
      await refusing.heard(3);
      const stopping = consumer.stop();
      others.open();
      const heard = collecting();
      await transport.consume([lane(WORK)], heard.listener, { credits: 1 });
      await heard.heard(2);
      first.open();
      await stopping;

      assert.deepEqual(heard.numbers(), [2, 3]);
    },
  );

  over('who wants to know is told of what is dead, as far as it can be read', async (subject) => {
    const { transport, push } = subject;
    const told: { readonly delivery: ActionDelivery; readonly code: string }[] = [];
    const options = {
      credits: 2,
      onDead: (delivery: ActionDelivery, { code }: { readonly code: string }) => {
        told.push({ delivery, code });
        throw new Error('a listener of its own kind');
      },
    };
    const failing = () => Promise.reject(new RefusalError(refusal('MODEL_ERROR')));
    await transport.consume([lane(WORK)], failing, options);
    const sent = action(1, { callback_queue: queue('somewhere'), correlation_id: 'c1' });
    await push(WORK, Buffer.from('{'));
    await transport.send(WORK, sent, 'msgpack');
    await until('both to be dead', async () => (await transport.dead.list(WORK, 9)).length === 2);
    await until('word of it', () => told.length > 0);

    assert.deepEqual(told, [
      { delivery: { action: sent, idGiven: true, format: 'msgpack', queue: WORK }, code: 'MODEL_ERROR' },
    ]);
  });

  over('who reads a form of its own is told of it in that form', async ({ transport, push }) => {
    const read: ReadMessage = (raw) => ({ ok: true, idGiven: false, action: action(0, { data: { raw } }) });
    const told: unknown[] = [];
    const onDead = ({ action: { data } }: ActionDelivery): void => void told.push(data);
    const failing = () => Promise.reject(new RefusalError(refusal('MODEL_ERROR')));
    await transport.consume([lane(WORK)], failing, { credits: 1, read, onDead });
    await push(WORK, Buffer.from('{"of":"its own"}'));
    await until('word of it', () => told.length > 0);

    assert.deepEqual(told, [{ raw: { of: 'its own' } }]);
  });

  over('a reply that came another way answers its request, once', async ({ transport, meter }) => {
    const callbacks = queue('agent_execution_service:free:callbacks');
    const asking = transport.request(WORK, action(7, { correlation_id: 'c7' }), {
      timeoutMs: 5_000,
      format: 'json',
    });
    const outcomes: boolean[] = [];
    const tell = collecting(async (delivery) => {
      outcomes.push(transport.replied(delivery.action));
    });
    await transport.consume([lane(callbacks)], tell.listener, { credits: 1 });
    const reply = action(8, { action_type: 'query.callback', correlation_id: 'c7' });
    await transport.send(callbacks, { ...reply, tenant_id: tenantIdSchema.parse('umbrella') }, 'json');
    await transport.send(callbacks, action(9), 'json');
    await transport.send(callbacks, reply, 'json');
    await transport.send(callbacks, reply, 'json');
    await tell.heard(4);

    assert.equal((await asking).data.n, 8);
    assert.deepEqual(outcomes, [false, false, true, false]);
    assert.deepEqual([meter.of('reply.foreign'), meter.of('reply.duplicate')], [2, 1]);
  });
}
