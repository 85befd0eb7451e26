/** Services, embedded and over queues: the same answers, and what happens when they are slow, wrong, or away. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import type { DomainAction } from '../../../src/domain/domain-action.ts';
import { tierSubscription } from '../../../src/domain/queues.ts';
import type { PeerRequest } from '../../../src/ports/peers.ts';
import { leakFree } from '../../support/leaks.ts';
import { redisFor, transportFor } from '../../support/redis-node.ts';
import { counting, gate, memoryTransport, queue, refusedWith } from '../../support/transport.ts';
import { until } from '../../support/until.ts';
import { peersContract } from './contract.ts';
import {
  acme,
  embeddedFor,
  globex,
  nobody,
  onItsQueue,
  peersOver,
  sales,
  session,
  startServices,
  task,
} from './peer-fixtures.ts';

peersContract('embedded', async (t, embedded) => {
  leakFree(t);
  const transport = memoryTransport(t);
  return peersOver(transport, 'embedded', embedded);
});

peersContract('over queues in the process', async (t, embedded) => {
  leakFree(t);
  const transport = memoryTransport(t);
  await startServices(transport, embedded);
  return peersOver(transport, 'redis');
});

peersContract('over Redis', async (t, embedded) => {
  const redis = await redisFor(t);
  await startServices(await transportFor(t, redis.url), embedded);
  return peersOver(await transportFor(t, redis.url), 'redis');
});

const anAgent: PeerRequest = {
  type: 'management.get_agent_config',
  tenantId: acme,
  agentId: sales,
  data: { agent_id: sales },
};
const aQuery: PeerRequest = {
  type: 'query.request',
  tenantId: acme,
  data: { query: 'x', collections: ['docs'] },
};

test('a request says what old services expect of it, and management is answered on a list of its own', async (t) => {
  const transport = memoryTransport(t);
  const heard = await startServices(transport, embeddedFor(t));
  const peers = peersOver(transport, 'redis', nobody, { timeoutMs: 2_500 });

  await peers.ask({ ...anAgent, sessionId: session, taskId: task, traceId: 'trace-1' });
  await peers.ask(aQuery);
  const [first, second] = heard;
  assert.ok(first && second);

  assert.match(first.callback_queue ?? '', /^agent_execution_service:responses:get_agent_config:[\w-]+$/);
  assert.equal(first.callback_queue?.endsWith(`:${first.correlation_id}`), true);
  assert.partialDeepStrictEqual(first, {
    action_type: 'management.get_agent_config',
    tenant_id: 'acme',
    tenant_tier: 'advance',
    session_id: 'session-1',
    task_id: 'task-1',
    trace_id: 'trace-1',
    agent_id: 'sales',
    timeout: 2.5,
    data: { agent_id: 'sales' },
  });
  assert.match(second.callback_queue ?? '', /^nooble:replies:/);
});

test("a query may be answered on the tier's queue of callbacks, and a second answer changes nothing", async (t) => {
  const meter = counting();
  const transport = memoryTransport(t, meter);
  const callbacks = queue('agent_execution_service:advance:callbacks');
  await startServices(transport, embeddedFor(t), async ({ callback_queue: _, ...request }, data) => {
    const reply = (): DomainAction => ({
      ...request,
      action_id: randomUUID(),
      action_type: 'query.callback',
      data,
    });
    await transport.send(callbacks, reply(), 'json');
    await transport.send(callbacks, reply(), 'json');
  });
  await transport.consume(
    [tierSubscription(callbacks, 'advance')],
    async ({ action }) => void transport.replied(action),
    {
      credits: 1,
    },
  );

  const { results } = await peersOver(transport, 'redis').ask({
    ...aQuery,
    data: { query: 'days', collections: ['docs'] },
  });
  assert.ok(Array.isArray(results) && results.length === 1);
  await until('the second one to be counted', () => meter.of('reply.duplicate') === 1);
});

test("another tenant's reply answers nothing", async (t) => {
  const meter = counting();
  const transport = memoryTransport(t, meter);
  const reply = onItsQueue(transport);
  await startServices(transport, embeddedFor(t), (request, data) =>
    reply({ ...request, tenant_id: globex }, data),
  );

  assert.equal(
    await refusedWith(peersOver(transport, 'redis').ask({ ...anAgent, timeoutMs: 100 })),
    'PEER_TIMEOUT',
  );
  assert.equal(meter.of('reply.foreign'), 1);
});

test('a request that is called off rejects at once, and its reply is taken and forgotten', async (t) => {
  leakFree(t);
  const transport = memoryTransport(t);
  const held = gate();
  const reply = onItsQueue(transport);
  const heard = await startServices(transport, embeddedFor(t), async (request, data) => {
    await held.opened;
    await reply(request, data);
  });
  const peers = peersOver(transport, 'redis');
  const stop = new AbortController();

  const asked = refusedWith(peers.ask({ ...anAgent, signal: stop.signal }));
  await until('the service to have it', () => heard.length === 1);
  stop.abort();
  assert.equal(await asked, 'INTERRUPTED');
  held.open();
  assert.equal((await peers.ask(anAgent)).success, true);
});

test('a reply that comes too late is counted as such, and the next request has its own', async (t) => {
  const meter = counting();
  const transport = memoryTransport(t, meter);
  const held = gate();
  const reply = onItsQueue(transport);
  await startServices(transport, embeddedFor(t), async (request, data) => {
    await held.opened;
    await reply(request, data);
  });
  const peers = peersOver(transport, 'redis');

  assert.equal(await refusedWith(peers.ask({ ...anAgent, timeoutMs: 20 })), 'PEER_TIMEOUT');
  held.open();
  assert.equal((await peers.ask(anAgent)).success, true);
  await until('the late one to be counted', () => meter.of('reply.late') === 1);
});

test('an embedded answer that takes too long is told to stop', async (t) => {
  const transport = memoryTransport(t);
  let told = false;
  const slow = {
    ...nobody,
    'query.request': (_: PeerRequest, signal: AbortSignal) =>
      new Promise<never>(() => {
        signal.addEventListener('abort', () => {
          told = true;
        });
      }),
  };

  assert.equal(
    await refusedWith(peersOver(transport, 'embedded', slow).ask({ ...aQuery, timeoutMs: 30 })),
    'PEER_TIMEOUT',
  );
  assert.equal(told, true);
  assert.equal(await refusedWith(peersOver(transport, 'embedded').ask(aQuery)), 'INTERNAL');
});

test('a tier that nobody can find out refuses the request; one that hangs counts into its time', async (t) => {
  const transport = memoryTransport(t);
  const broken = peersOver(transport, 'redis', nobody, { tierOf: () => Promise.reject(new Error('down')) });
  assert.equal(await refusedWith(broken.ask(anAgent)), 'INTERNAL');
  const hanging = peersOver(transport, 'redis', nobody, { tierOf: () => new Promise(() => {}) });
  assert.equal(await refusedWith(hanging.ask({ ...anAgent, timeoutMs: 30 })), 'PEER_TIMEOUT');
});

test('a service that is away is left alone after some requests, until it is back; others are asked meanwhile', async (t) => {
  const meter = counting();
  const transport = memoryTransport(t, meter);
  const peers = peersOver(transport, 'redis', nobody, { timeoutMs: 20 });

  for (let n = 0; n < 5; n += 1) assert.equal(await refusedWith(peers.ask(anAgent)), 'PEER_TIMEOUT');
  const before = performance.now();
  await assert.rejects(peers.ask({ ...anAgent, timeoutMs: 5_000 }), /asked again after a while/);
  assert.ok(performance.now() - before < 1_000);
  assert.equal(meter.of('circuit.opened'), 1);

  await startServices(transport, embeddedFor(t));
  assert.equal((await peers.ask({ ...aQuery, timeoutMs: 5_000 })).success, true);
});

test('while Redis is away requests are refused, at once or in their time, and answered once it is back', async (t) => {
  const redis = await redisFor(t, { appendOnly: true });
  const service = await transportFor(t, redis.url);
  await startServices(service, embeddedFor(t));
  const peers = peersOver(await transportFor(t, redis.url), 'redis', nobody, { timeoutMs: 500 });
  assert.equal((await peers.ask(anAgent)).success, true);

  await redis.kill();
  const code = await refusedWith(peers.ask(anAgent));
  assert.ok(code === 'TRANSPORT_UNAVAILABLE' || code === 'PEER_TIMEOUT', code);
  await redis.restart();
  await until('an answer', () =>
    peers.ask(anAgent).then(
      ({ success }) => success === true,
      () => false,
    ),
  );
});

test('replies of any shape and size end the request, and never the node', async (t) => {
  const transport = memoryTransport(t);
  const replies: readonly Record<string, unknown>[] = [
    {},
    { success: 'no', error: [] },
    { error: { code: { code: 'NOT_FOUND' }, message: 7 } },
    { agent_config: 'x'.repeat(1_000_000) },
    { success: true, agent_config: Array(4_000).fill({}) },
  ];
  let next = 0;
  const reply = onItsQueue(transport);
  await startServices(transport, embeddedFor(t), (request) => reply(request, replies[next] ?? {}));
  const peers = peersOver(transport, 'redis');

  const outcomes: string[] = [];
  for (; next < replies.length; next += 1)
    outcomes.push(
      await peers.ask(anAgent).then(
        () => 'data',
        (error: unknown) => (error instanceof Error ? error.message.slice(0, 8) : ''),
      ),
    );
  assert.deepEqual(outcomes, ['data', 'INTERNAL', 'INTERNAL', 'data', 'data']);
});
