/** Webhooks against a real receiver: what is sent, how often, and what becomes of it. */
import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { test } from 'node:test';
import { Webhook as Verifier } from 'standardwebhooks';
import { MAX_ATTEMPTS, RETRY_WAITS_MS } from '../../../transports/webhooks/retry.ts';
import { memoryStores } from '../../support/stores.ts';
import { loopTurns } from '../../support/until.ts';
import {
  notice,
  openReceiver,
  openWebhooks,
  SECRET,
  TEST_CERT,
  tenant,
  watchedStore,
} from './webhook-receiver.ts';

const page = { page: 1, pageSize: 100 };

test('a notice is kept first, then sent signed, and written down as delivered', async (t) => {
  const dispatcher = openWebhooks(t);
  const receiver = await openReceiver(t);
  await dispatcher.hook(`http://127.0.0.1:${receiver.port}/in?x=1`);
  const sent = notice();
  dispatcher.notices.publish(sent);
  const delivered = await dispatcher.store.until(({ status }) => status === 'delivered');

  const [request] = receiver.requests;
  assert.ok(request);
  assert.deepEqual([request.method, request.url], ['POST', '/in?x=1']);
  assert.equal(request.headers['content-type'], 'application/json');
  assert.deepEqual(new Verifier(SECRET).verify(request.body, request.headers), sent);
  assert.throws(() => new Verifier(SECRET).verify(`${request.body} `, request.headers));
  assert.equal(request.headers['webhook-id'], delivered.id);
  assert.deepEqual(
    dispatcher.store.kept.map(({ status, attempts }) => [status, attempts]),
    [
      ['pending', 0],
      ['pending', 1],
      ['delivered', 1],
    ],
  );
  assert.equal(delivered.delivered_at, new Date(dispatcher.clock.now()).toISOString());
});

test('a webhook hears the events it asked for, and nothing of another tenant', async (t) => {
  const dispatcher = openWebhooks(t);
  const [all, some, foreign] = [await openReceiver(t), await openReceiver(t), await openReceiver(t)];
  await dispatcher.hook(`http://127.0.0.1:${all.port}/`, { id: 'all' });
  await dispatcher.hook(`http://127.0.0.1:${some.port}/`, { id: 'some', events: ['agent_deleted'] });
  await dispatcher.hook(`http://127.0.0.1:${foreign.port}/`, { id: 'foreign', tenant_id: tenant('globex') });
  dispatcher.notices.publish(notice('agent_updated'));
  dispatcher.notices.publish(notice('agent_deleted'));
  await Promise.all([all.got(2), some.got(1)]);
  dispatcher.notices.publish(notice('agent_created', 'globex'));
  await foreign.got(1);
  assert.deepEqual([all.requests.length, some.requests.length, foreign.requests.length], [2, 1, 1]);
  assert.match(some.requests[0]?.body ?? '', /agent_deleted/);
});

test('https is checked like any other: a trusted certificate for the right name, and no other', async (t) => {
  const receiver = await openReceiver(t, undefined, true);
  const resolve = async () => [{ address: '127.0.0.1', family: 4 }];
  const trusting = openWebhooks(t, { resolve, ca: TEST_CERT });
  await trusting.hook(`https://hooks.test:${receiver.port}/`);
  trusting.notices.publish(notice());
  await trusting.store.until(({ status }) => status === 'delivered');

  await trusting.hook(`https://other.test:${receiver.port}/`, { tenant_id: tenant('globex') });
  trusting.notices.publish(notice('agent_updated', 'globex'));
  const misnamed = await trusting.store.until(({ last_error }) => last_error !== null);
  assert.match(misnamed.last_error ?? '', /ERR_TLS_CERT_ALTNAME_INVALID/);

  const strict = openWebhooks(t, { resolve });
  await strict.hook(`https://hooks.test:${receiver.port}/`);
  strict.notices.publish(notice());
  const untrusted = await strict.store.until(({ last_error }) => last_error !== null);
  assert.match(untrusted.last_error ?? '', /SELF_SIGNED/);
  assert.equal(receiver.requests.length, 1);
});

test('a failure is tried again later, under the same id, until it is delivered', async (t) => {
  const dispatcher = openWebhooks(t);
  const receiver = await openReceiver(t, (response, count) =>
    response.writeHead(count < 3 ? 500 : 200).end('{}'),
  );
  await dispatcher.hook(`http://127.0.0.1:${receiver.port}/`);
  dispatcher.notices.publish(notice());
  for (const [index, waitMs] of [5_000, 30_000].entries()) {
    const after = await dispatcher.store.outcome(index + 1);
    assert.deepEqual([after.attempts, after.last_error], [index + 1, 'answered 500']);
    assert.equal(Date.parse(after.next_attempt_at ?? '') - dispatcher.clock.now(), waitMs);
    await dispatcher.advance(waitMs - 1);
    assert.equal(receiver.requests.length, index + 1);
    await dispatcher.advance(1);
    await receiver.got(index + 2);
  }
  const delivered = await dispatcher.store.until(({ status }) => status === 'delivered');
  assert.deepEqual([delivered.attempts, delivered.last_error], [3, null]);
  assert.equal(new Set(receiver.requests.map(({ headers }) => headers['webhook-id'])).size, 1);
});

test('after the last attempt a delivery is dead, and can be replayed', async (t) => {
  const dispatcher = openWebhooks(t);
  const receiver = await openReceiver(t, (response, count) =>
    response.writeHead(count <= MAX_ATTEMPTS ? 503 : 202).end(),
  );
  const webhook = await dispatcher.hook(`http://127.0.0.1:${receiver.port}/`);
  dispatcher.notices.publish(notice());
  for (const [index, waitMs] of RETRY_WAITS_MS.entries()) {
    await dispatcher.store.outcome(index + 1);
    await dispatcher.advance(waitMs);
    await receiver.got(index + 2);
  }
  const dead = await dispatcher.store.until(({ status }) => status === 'dead');
  assert.deepEqual([dead.attempts, dead.last_error, dead.next_attempt_at], [8, 'answered 503', null]);
  await dispatcher.advance(24 * 3_600_000);

  const again = await dispatcher.webhooks.replay(tenant('acme'), dead.id);
  assert.ok(again.ok);
  await dispatcher.store.until(({ status }) => status === 'delivered');
  assert.equal(receiver.requests.length, MAX_ATTEMPTS + 1);
  const kept = await dispatcher.webhooks.deliveries(tenant('acme'), webhook.id, page);
  assert.deepEqual(kept.ok && kept.value.items.map(({ status, attempts }) => [status, attempts]), [
    ['delivered', 1],
  ]);
});

test('410 is the end at once, a redirect is not followed, Retry-After is waited for', async (t) => {
  const dispatcher = openWebhooks(t);
  const target = await openReceiver(t);
  const answers = [
    { status: 410, headers: {}, waitMs: undefined },
    { status: 302, headers: { location: `http://127.0.0.1:${target.port}/` }, waitMs: 5_000 },
    { status: 429, headers: { 'retry-after': '600' }, waitMs: 600_000 },
    { status: 503, headers: { 'retry-after': '99999999' }, waitMs: 3_600_000 },
    { status: 503, headers: { 'retry-after': '1' }, waitMs: 5_000 },
    { status: 503, headers: { 'retry-after': 'soon' }, waitMs: 5_000 },
  ];
  for (const [index, { status, headers, waitMs }] of answers.entries()) {
    const receiver = await openReceiver(t, (response) => response.writeHead(status, headers).end());
    const name = `tenant-${index}`;
    await dispatcher.hook(`http://127.0.0.1:${receiver.port}/`, { tenant_id: tenant(name) });
    dispatcher.notices.publish(notice('agent_updated', name));
    const after = await dispatcher.store.until(
      ({ tenant_id, last_error }) => tenant_id === name && last_error !== null,
    );
    assert.match(after.last_error ?? '', new RegExp(`answered ${status}`));
    assert.equal(after.status, waitMs === undefined ? 'dead' : 'pending');
    const next = after.next_attempt_at;
    assert.equal(next === null ? undefined : Date.parse(next) - dispatcher.clock.now(), waitMs);
  }
  assert.equal(target.requests.length, 0);
});

test('a receiver that hangs, closes, or is not there counts as a failure and holds nothing up', async (t) => {
  const dispatcher = openWebhooks(t, { timing: { timeoutMs: 100 } });
  const silent = await openReceiver(t, () => {});
  const rude = await openReceiver(t, (response) => response.destroy());
  const endless = await openReceiver(t, (response) => {
    response.writeHead(200);
    const more = (): void => {
      if (!response.destroyed) response.write(Buffer.alloc(64 * 1024), () => setImmediate(more));
    };
    more();
  });
  const urls: [string, string, RegExp | null][] = [
    ['silent', `http://127.0.0.1:${silent.port}/`, /no answer within 100 ms/],
    ['rude', `http://127.0.0.1:${rude.port}/`, /could not be reached: ECONNRESET/],
    ['nobody', 'http://127.0.0.1:1/', /could not be reached: ECONNREFUSED/],
    ['nowhere', 'http://no-such-host.invalid/', /could not be reached: (ENOTFOUND|EAI_AGAIN)/],
    ['endless', `http://127.0.0.1:${endless.port}/`, null],
  ];
  for (const [name, url] of urls) await dispatcher.hook(url, { id: name, tenant_id: tenant(name) });
  for (const [name] of urls) dispatcher.notices.publish(notice('agent_updated', name));
  for (const [name, , error] of urls) {
    const after = await dispatcher.store.until(
      ({ tenant_id, last_error, status }) =>
        tenant_id === name && (last_error !== null || status === 'delivered'),
    );
    if (error) assert.match(after.last_error ?? '', error);
    else assert.equal(after.status, 'delivered');
  }
});

test('an answer is its status: however its body goes on, what was delivered is not sent again', async (t) => {
  const dispatcher = openWebhooks(t, { timing: { timeoutMs: 300 } });
  const bodies: Readonly<Record<string, readonly [number, (response: ServerResponse) => void]>> = {
    never: [200, (response) => response.flushHeaders()],
    half: [204, (response) => response.flushHeaders()],
    announced: [200, (response) => response.setHeader('content-length', '100').write('10')],
    cut: [
      202,
      (response) => {
        response.setHeader('content-length', '100').write('10', () => response.destroy());
      },
    ],
    drips: [
      201,
      (response) => {
        const drip = setInterval(() => response.write('.'), 20);
        response.on('close', () => clearInterval(drip));
      },
    ],
    failing: [500, (response) => response.flushHeaders()],
  };
  for (const [name, [status, body]] of Object.entries(bodies)) {
    const receiver = await openReceiver(t, (response) => {
      response.statusCode = status;
      body(response);
    });
    await dispatcher.hook(`http://127.0.0.1:${receiver.port}/`, { tenant_id: tenant(name) });
    dispatcher.notices.publish(notice('agent_updated', name));
    const after = await dispatcher.store.until(
      ({ tenant_id, last_error, status: now }) =>
        tenant_id === name && (last_error !== null || now === 'delivered'),
    );
    const expected = status === 500 ? ['pending', 'answered 500'] : ['delivered', null];
    assert.deepEqual([after.status, after.last_error], expected, name);
    assert.equal(receiver.requests.length, 1);
  }
});

test('what a stopped process left is sent by the next one, and at once if it stopped in good order', async (t) => {
  const store = watchedStore();
  const first = openWebhooks(t, { store });
  const receiver = await openReceiver(t, (response, count) => {
    if (count > 1) response.writeHead(204).end();
  });
  await first.hook(`http://127.0.0.1:${receiver.port}/`);
  first.notices.publish(notice());
  await receiver.got(1);
  await first.webhooks.close();
  const left = store.kept.at(-1);
  assert.deepEqual([left?.status, left?.attempts], ['pending', 0]);
  first.notices.publish(notice('agent_deleted'));

  const second = openWebhooks(t, { store });
  await second.advance(1_000);
  const delivered = await store.until(({ status }) => status === 'delivered');
  assert.equal(delivered.id, left?.id);
  assert.equal(receiver.requests.length, 2);

  // A killed process leaves its lease behind.
  await store.saveDelivery({
    ...delivered,
    id: 'leased',
    status: 'pending',
    next_attempt_at: inAMinute(second.clock.now()),
  });
  await second.advance(30_000);
  assert.equal(receiver.requests.length, 2);
  await second.advance(30_000);
  await store.until(({ id, status }) => id === 'leased' && status === 'delivered');
});

const inAMinute = (nowMs: number): string => new Date(nowMs + 60_000).toISOString();

test('a store that fails for a while loses no notice and sends none twice', async (t) => {
  const dispatcher = openWebhooks(t);
  const receiver = await openReceiver(t);
  await dispatcher.hook(`http://127.0.0.1:${receiver.port}/`);
  dispatcher.store.script.failures = 2;
  dispatcher.notices.publish(notice());
  while (dispatcher.store.script.failures > 0) {
    await loopTurns();
    await dispatcher.advance(200);
  }
  await dispatcher.advance(1_000);
  await dispatcher.store.until(({ status }) => status === 'delivered');
  assert.equal(receiver.requests.length, 1);
});

test('a removed webhook is sent nothing more, and its running attempt is broken off', async (t) => {
  const dispatcher = openWebhooks(t);
  const receiver = await openReceiver(t, () => {});
  const webhook = await dispatcher.hook(`http://127.0.0.1:${receiver.port}/`);
  dispatcher.notices.publish(notice());
  await receiver.got(1);
  assert.ok(!(await dispatcher.webhooks.remove(tenant('globex'), webhook.id)).ok);
  assert.ok((await dispatcher.webhooks.remove(tenant('acme'), webhook.id)).ok);
  dispatcher.notices.publish(notice());
  await dispatcher.advance(3_600_000);
  assert.equal(receiver.requests.length, 1);
  const { claimed } = await dispatcher.store.claimDue(Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, 10);
  assert.deepEqual(claimed, []);
});

test('a burst beyond what is held is put off in the store and arrives whole', async (t) => {
  const dispatcher = openWebhooks(t);
  const receiver = await openReceiver(t);
  await dispatcher.hook(`http://127.0.0.1:${receiver.port}/`);
  const count = 150;
  for (let n = 0; n < count; n += 1) dispatcher.notices.publish(notice('agent_updated', 'acme', { n }));
  await receiver.got(50);
  while (receiver.requests.length < count) {
    await dispatcher.advance(1_000);
    await loopTurns();
  }
  await dispatcher.store.until(
    () => dispatcher.store.kept.filter(({ status }) => status === 'delivered').length === count,
  );
  assert.equal(new Set(receiver.requests.map(({ headers }) => headers['webhook-id'])).size, count);
});

test('a secret that was given is used, and stands in no log line', async (t) => {
  const dispatcher = openWebhooks(t);
  const receiver = await openReceiver(t, (response) => response.writeHead(410).end());
  const secret = `whsec_${Buffer.alloc(24, 9).toString('base64')}`;
  const url = `http://127.0.0.1:${receiver.port}/canary-path`;
  const made = await dispatcher.webhooks.create(tenant('acme'), { url, secret });
  assert.ok(made.ok);
  dispatcher.notices.publish(notice());
  await dispatcher.store.until(({ status }) => status === 'dead');
  const [request] = receiver.requests;
  assert.ok(request);
  new Verifier(secret).verify(request.body, request.headers);
  assert.ok(dispatcher.lines.length > 0);
  assert.ok(
    !dispatcher.lines.join('\n').includes(secret.slice(6)) && !dispatcher.lines.join('\n').includes('canary'),
  );
});

test('two dispatchers over one store send each attempt once, and one takes up what the other left', async (t) => {
  const store = memoryStores().webhooks;
  const seen = new Map<string, number>();
  const receiver = await openReceiver(t, (response) => {
    const id = String(receiver.requests.at(-1)?.headers['webhook-id']);
    seen.set(id, (seen.get(id) ?? 0) + 1);
    response.writeHead(seen.get(id) === 1 ? 500 : 200).end();
  });
  const [one, two] = [
    openWebhooks(t, { store: watchedStore(store) }),
    openWebhooks(t, { store: watchedStore(store) }),
  ];
  await one.hook(`http://127.0.0.1:${receiver.port}/`);
  const count = 30;
  for (let n = 0; n < count; n += 1) one.notices.publish(notice('agent_updated', 'acme', { n }));
  await receiver.got(count);
  while (receiver.requests.length < 2 * count) {
    await Promise.all([one.advance(1_000), two.advance(1_000)]);
    await loopTurns();
  }
  const delivered = () =>
    [...one.store.kept, ...two.store.kept].filter(({ status }) => status === 'delivered').length;
  while (delivered() < count) await loopTurns();
  await Promise.all([one.advance(120_000), two.advance(120_000)]);
  assert.deepEqual(new Set(seen.values()), new Set([2]));
  assert.deepEqual([seen.size, receiver.requests.length], [count, 2 * count]);
});
