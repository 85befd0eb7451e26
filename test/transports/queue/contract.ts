/** What every transport must do, whatever carries it. Each implementation runs this suite over itself. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { RefusalError, refusal } from '../../../src/domain/errors.ts';
import {
  nodeSubscriptions,
  PRIORITIES,
  type Subscription,
  tierSubscription,
  workQueue,
} from '../../../src/domain/queues.ts';
import { TIERS } from '../../../src/domain/tiers.ts';
import { MAX_ACTION_BYTES } from '../../../transports/wire/codec.ts';
import { leakFree } from '../../support/leaks.ts';
import {
  action,
  collecting,
  counting,
  gate,
  type Meter,
  queue,
  refusedWith,
} from '../../support/transport.ts';
import { until } from '../../support/until.ts';
import { familyContract } from './contract-patterns.ts';
import { type Over, requestContract, type Subject } from './contract-requests.ts';
import { returnContract } from './contract-returns.ts';

/** Opens a transport that is closed after the test, with nothing on any queue. */
export type Open = (t: TestContext, meter: Meter) => Promise<Subject>;

const lane = (name: string): Subscription => tierSubscription(queue(name), 'free');
const WORK = queue('execution_service:free:default');
const ASK = { timeoutMs: 5_000, format: 'msgpack' } as const;

export function transportContract(name: string, open: Open): void {
  const over: Over = (sentence, body) => {
    test(`${name}: ${sentence}`, async (t) => {
      leakFree(t);
      await body(await open(t, counting()));
    });
  };

  over('what is sent is heard, in order, with all its fields, in either format', async ({ transport }) => {
    const heard = collecting();
    const sent = [1, 2, 3, 4].map((n) => action(n, { correlation_id: `c${n}`, timeout: 3 }));
    for (const [at, each] of sent.entries()) await transport.send(WORK, each, at % 2 ? 'json' : 'msgpack');
    await transport.consume([lane(WORK)], heard.listener, { credits: 1 });
    await heard.heard(4);

    assert.deepEqual(
      heard.deliveries.map((delivery) => delivery.action),
      sent,
    );
    assert.deepEqual(
      heard.deliveries.map(({ format, idGiven, queue: from }) => [format, idGiven, from]),
      [1, 2, 3, 4].map((n) => [n % 2 ? 'msgpack' : 'json', true, WORK]),
    );
  });

  over('many at once from one sender keep their order', async ({ transport }) => {
    const heard = collecting();
    await transport.consume([lane(WORK)], heard.listener, { credits: 50 });
    await Promise.all(Array.from({ length: 2_000 }, (_, n) => transport.send(WORK, action(n), 'json')));
    await heard.heard(2_000);

    assert.deepEqual(heard.numbers(), [...Array(2_000).keys()]);
  });

  over('no more runs at once than there are credits', async ({ transport }) => {
    const doors = gate();
    let most = 0;
    let running = 0;
    const heard = collecting(async () => {
      running += 1;
      most = Math.max(most, running);
      await doors.opened;
      running -= 1;
    });
    const lanes = [lane(WORK), lane('execution_service:enterprise:default')];
    await transport.consume(lanes, heard.listener, { credits: 3 });
    for (let n = 0; n < 10; n += 1) await transport.send(lanes[n % 2]?.queue ?? WORK, action(n), 'json');
    await heard.heard(3);
    await transport.ping();
    doors.open();
    await heard.heard(10);

    assert.equal(most, 3);
  });

  over('an action on any queue starts although the node waits on another', async ({ transport }) => {
    const heard = collecting();
    const lanes = nodeSubscriptions();
    await transport.consume(lanes, heard.listener, { credits: 1 });
    for (const [n, each] of [...lanes, ...lanes].entries()) {
      await transport.send(each.queue, action(n), 'json');
      await heard.heard(n + 1);
    }

    assert.deepEqual(heard.numbers(), [...Array(2 * lanes.length).keys()]);
  });

  over('tiers are served by weight, high before default, and none is starved', async ({ transport }) => {
    const each = 20;
    for (const tier of TIERS)
      for (const priority of PRIORITIES)
        for (let n = 0; n < each; n += 1)
          await transport.send(workQueue(tier, priority), action(n), 'msgpack');
    const heard = collecting();
    await transport.consume(nodeSubscriptions(), heard.listener, { credits: 1 });
    await heard.heard(each * TIERS.length * PRIORITIES.length);

    const order = heard.deliveries.map(({ queue: from }) => from.split(':').slice(1).join(' '));
    const first = order.slice(0, 15).map((from) => from.split(' ')[0] ?? '');
    const share = (tier: string): number => first.filter((each) => each === tier).length;
    assert.deepEqual([...TIERS].reverse().map(share), [8, 4, 2, 1]);
    assert.equal(order[0], 'enterprise high_priority');
    for (const tier of TIERS) {
      const high = order.indexOf(`${tier} high_priority`);
      assert.ok(high < order.indexOf(`${tier} default`), `${tier}: high first`);
      const ofTier = order.filter((from) => from.startsWith(tier)).slice(0, 17);
      assert.ok(ofTier.includes(`${tier} default`), `${tier}: default is not starved`);
    }
  });

  over('queues come and go while it runs', async ({ transport }) => {
    const heard = collecting();
    const [here, there] = [lane('agent-management.tasks.acme'), lane('orchestrator:acme:callback')];
    const consumer = await transport.consume([here], heard.listener, { credits: 2 });
    consumer.add(there);
    consumer.add(there);
    await transport.send(there.queue, action(1), 'json');
    await heard.heard(1);
    await consumer.remove(there.queue);
    await transport.send(there.queue, action(2), 'json');
    await transport.send(here.queue, action(3), 'json');
    await heard.heard(2);
    assert.deepEqual(heard.numbers(), [1, 3]);

    consumer.add(there);
    await heard.heard(3);
    assert.deepEqual(heard.numbers(), [1, 3, 2]);
  });

  over('an action that fails comes again first, and after three deliveries it is dead', async (subject) => {
    const { transport, meter } = subject;
    const failing = collecting(async ({ action: { data } }) => {
      if (data.n === 1) throw new RefusalError(refusal('MODEL_ERROR'));
    });
    await transport.send(WORK, action(1), 'json');
    await transport.send(WORK, action(2), 'json');
    await transport.consume([lane(WORK)], failing.listener, { credits: 1 });
    await until('a dead letter', async () => (await transport.dead.list(WORK, 10)).length === 1);
    await failing.heard(4);

    const [letter] = await transport.dead.list(WORK, 10);
    assert.equal(letter?.error.code, 'MODEL_ERROR');
    assert.equal(letter.queue, WORK);
    assert.equal(JSON.parse(letter.body).data.n, 1);
    assert.equal(failing.numbers().filter((n) => n === 1).length, 3);
    assert.deepEqual([meter.of('action.redelivered'), meter.of('action.dead')], [2, 1]);
  });

  over('what a crash says stays out of the dead list', async ({ transport }) => {
    const crashing = collecting(() => Promise.reject(new Error('secret of a conversation')));
    await transport.send(WORK, action(1), 'msgpack');
    await transport.consume([lane(WORK)], crashing.listener, { credits: 1 });
    await until('a dead letter', async () => (await transport.dead.queues()).length === 1);

    const [letter] = await transport.dead.list(WORK, 1);
    assert.equal(letter?.error.code, 'INTERNAL');
    assert.doesNotMatch(JSON.stringify(letter.error), /secret/);
  });

  over('malformed bodies are dead at once with their reason, and stop nothing', async (subject) => {
    const { transport, push } = subject;
    const bodies = [
      Buffer.from('{"action_type":'),
      Buffer.from([0xc1, 0xff, 0x00, 0x80]),
      Buffer.alloc(0),
      Buffer.from('[]'),
      Buffer.from(`{"action_type":"x","tenant_id":"acme","data":${'['.repeat(200_000)}`),
      Buffer.from('{"action_type":"x y","tenant_id":"no tenant","data":{}}'),
      Buffer.alloc(MAX_ACTION_BYTES + 1, '{'),
    ];
    const heard = collecting();
    await transport.consume([lane(WORK)], heard.listener, { credits: 4 });
    for (const body of bodies) await push(WORK, body);
    await transport.send(WORK, action(1), 'json');
    await heard.heard(1);
    const listed = () => transport.dead.list(WORK, 100);
    await until('the dead letters', async () => (await listed()).length === bodies.length);

    const letters = await listed();
    assert.ok(letters.every(({ error }) => error.code === 'INVALID_REQUEST' && error.message.length < 1_000));
    assert.equal(letters.filter(({ replayable }) => !replayable).length, 1);
    assert.ok(letters.every(({ body }) => body.length < MAX_ACTION_BYTES));
    const binary = letters.find(({ encoding }) => encoding === 'base64');
    assert.deepEqual(Buffer.from(binary?.body ?? '', 'base64'), bodies[1]);
    assert.deepEqual(heard.numbers(), [1]);
  });

  over('dead letters are listed newest first, replayed, and dropped', async ({ transport }) => {
    let broken = true;
    const heard = collecting(async () => {
      if (broken) throw new RefusalError(refusal('MODEL_ERROR'));
    });
    await transport.consume([lane(WORK)], heard.listener, { credits: 1 });
    for (const n of [1, 2, 3, 4]) {
      await transport.send(WORK, action(n), 'json');
      await until('a letter', async () => (await transport.dead.list(WORK, 9)).length === n);
    }
    const numbers = async () =>
      (await transport.dead.list(WORK, 9)).map(({ body }) => JSON.parse(body).data.n);
    assert.deepEqual(await transport.dead.queues(), [WORK]);
    assert.deepEqual(await numbers(), [4, 3, 2, 1]);
    assert.equal((await transport.dead.list(WORK, 2)).length, 2);

    broken = false;
    const before = heard.deliveries.length;
    const [newest] = await transport.dead.list(WORK, 1);
    assert.equal(await transport.dead.drop(WORK, newest?.id), 1);
    assert.equal(await transport.dead.drop(WORK, newest?.id), 0);
    assert.equal(await transport.dead.replay(WORK, 'no such id'), 0);
    const [third] = await transport.dead.list(WORK, 1);
    assert.equal(await transport.dead.replay(WORK, third?.id), 1);
    await heard.heard(before + 1);
    assert.equal(await transport.dead.replay(WORK), 2);
    await heard.heard(before + 3);

    assert.deepEqual(heard.numbers().slice(before), [3, 1, 2]);
    assert.deepEqual([await numbers(), await transport.dead.queues()], [[], []]);
  });

  over('a large dead body comes back byte for byte', async ({ transport, push }) => {
    const line = Buffer.from('[1,\n"é"]\r\n');
    const bodies = [Buffer.alloc(300_000, line), Buffer.alloc(70_000, 0xc1), Buffer.alloc(65_537, '{')];
    await transport.consume([lane(WORK)], collecting().listener, { credits: 4 });
    for (const body of bodies) await push(WORK, body);
    await until('the letters', async () => (await transport.dead.list(WORK, 9)).length === bodies.length);
    const letters = (await transport.dead.list(WORK, 9)).map(({ encoding, body }) =>
      Buffer.from(body, encoding),
    );
    const bySize = (a: Buffer, b: Buffer): number => a.length - b.length;
    assert.deepEqual(letters.sort(bySize), bodies.sort(bySize));
    assert.equal(await transport.dead.replay(WORK), 3);
    await until('them again', async () => (await transport.dead.list(WORK, 9)).length === bodies.length);
    const again = (await transport.dead.list(WORK, 9)).map(({ size }) => size);
    assert.deepEqual(again.sort(), [300_000, 65_537, 70_000]);
  });

  over('an action larger than any receiver takes is refused where it is sent', async ({ transport }) => {
    const huge = action(1, { data: { text: 'x'.repeat(MAX_ACTION_BYTES) } });
    assert.equal(await refusedWith(transport.send(WORK, huge, 'json')), 'TOO_LARGE');
    assert.equal(await refusedWith(transport.request(WORK, huge, ASK)), 'TOO_LARGE');
  });

  over('large actions travel beside small ones', async ({ transport }) => {
    const heard = collecting();
    await transport.consume([lane(WORK)], heard.listener, { credits: 8 });
    const text = 'x'.repeat(3 * 1024 * 1024);
    const sizes = [text, '', text, '', text];
    await Promise.all(sizes.map((each, n) => transport.send(WORK, action(n, { data: { n, each } }), 'json')));
    await heard.heard(5);

    assert.deepEqual(
      heard.deliveries.map(({ action: { data } }) => data.each),
      sizes,
    );
  });

  requestContract(over);
  familyContract(over);
  returnContract(over);

  over('stop waits for what was taken and leaves the rest', async ({ transport }) => {
    const doors = gate();
    const heard = collecting(() => doors.opened);
    const consumer = await transport.consume([lane(WORK)], heard.listener, { credits: 1 });
    await transport.send(WORK, action(1), 'json');
    await heard.heard(1);
    await transport.send(WORK, action(2), 'json');
    let stopped = false;
    const stopping = consumer.stop().then(() => {
      stopped = true;
    });
    await transport.ping();
    assert.equal(stopped, false);
    doors.open();
    await stopping;
    await consumer.stop();
    assert.deepEqual(heard.numbers(), [1]);

    const next = collecting();
    await transport.consume([lane(WORK)], next.listener, { credits: 1 });
    await next.heard(1);
    assert.deepEqual(next.numbers(), [2]);
  });

  over('close refuses what waits and what comes after, twice as well as once', async ({ transport }) => {
    const asking = refusedWith(transport.request(WORK, action(1), ASK));
    await transport.ping();
    await Promise.all([transport.close(), transport.close()]);

    assert.equal(await asking, 'TRANSPORT_UNAVAILABLE');
    assert.equal(await refusedWith(transport.send(WORK, action(2), 'json')), 'TRANSPORT_UNAVAILABLE');
    assert.equal(await refusedWith(transport.request(WORK, action(3), ASK)), 'TRANSPORT_UNAVAILABLE');
    assert.equal(await refusedWith(transport.ping()), 'TRANSPORT_UNAVAILABLE');
    assert.equal(
      await refusedWith(transport.consume([], async () => {}, { credits: 1 })),
      'TRANSPORT_UNAVAILABLE',
    );
  });
}
