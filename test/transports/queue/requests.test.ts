/** Requests that wait: their deadlines, how they are remembered, and what their circuit makes of their ends. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { DomainAction } from '../../../src/domain/domain-action.ts';
import { tenantIdSchema } from '../../../src/domain/ids.ts';
import { createBodyReader } from '../../../transports/queue/body-reader.ts';
import { createRequests } from '../../../transports/queue/requests.ts';
import { encodeAction } from '../../../transports/wire/codec.ts';
import { leakFree } from '../../support/leaks.ts';
import { quiet } from '../../support/quiet.ts';
import { action, counting, queue as named, refusedWith } from '../../support/transport.ts';

const PEER = named('query_service:free:default');

function requesting(t: TestContext) {
  leakFree(t);
  const meter = counting();
  const bodies = createBodyReader();
  const requests = createRequests(named('replies'), { log: quiet, meter, bodies });
  t.after(async () => {
    requests.close();
    await bodies.close();
  });
  const ask = (timeoutMs: number, more: Partial<DomainAction> = {}, send = async (): Promise<void> => {}) =>
    requests.run(PEER, action(1, more), { timeoutMs, format: 'json' }, send);
  const reply = (id: string, more: Partial<DomainAction> = {}): void =>
    requests.reply(encodeAction(action(2, { correlation_id: id, ...more }), 'json'));
  return { requests, meter, ask, reply };
}

test('each request has its own deadline, and none hears of it too early', async (t) => {
  const { ask } = requesting(t);
  const ended: number[] = [];
  const timed = async (timeoutMs: number): Promise<void> => {
    const from = performance.now();
    assert.equal(await refusedWith(ask(timeoutMs)), 'PEER_TIMEOUT');
    assert.ok(performance.now() - from >= timeoutMs, `${timeoutMs} was over too early`);
    ended.push(timeoutMs);
  };
  await Promise.all([180, 20, 120, 60].map(timed));
  assert.deepEqual(ended, [20, 60, 120, 180]);
});

test('a request made after a quiet time still ends', async (t) => {
  const { ask, reply } = requesting(t);
  const answered = ask(1_000, { correlation_id: 'a' });
  reply('a');
  await answered;
  assert.equal(await refusedWith(ask(30)), 'PEER_TIMEOUT');
  assert.equal(await refusedWith(ask(30)), 'PEER_TIMEOUT');
});

test('an id that is asked with again is remembered by its last end', async (t) => {
  const { meter, ask, reply } = requesting(t);
  assert.equal(await refusedWith(ask(10, { correlation_id: 'a' })), 'PEER_TIMEOUT');
  reply('a');
  assert.equal(meter.of('reply.late'), 1);
  const again = ask(5_000, { correlation_id: 'a' });
  assert.equal(await refusedWith(ask(5_000, { correlation_id: 'a' })), 'CONFLICT');
  reply('a', { data: { n: 3 } });
  assert.equal((await again).data.n, 3);
  reply('a');
  reply('never-asked');
  assert.deepEqual(
    [meter.of('reply.late'), meter.of('reply.duplicate'), meter.of('reply.foreign')],
    [1, 1, 1],
  );
});

test('the latest 10,000 ends are remembered, older ones go', async (t) => {
  const { meter, ask, reply } = requesting(t);
  for (let n = 0; n < 25_000; n += 1) {
    const answered = ask(5_000, { correlation_id: `r-${n}` });
    reply(`r-${n}`);
    await answered;
  }
  reply('r-15000');
  assert.equal(meter.of('reply.duplicate'), 1);
  reply('r-0');
  assert.equal(meter.of('reply.foreign'), 1);
});

test('a reply of another tenant answers nobody', async (t) => {
  const { meter, ask, reply } = requesting(t);
  const asked = ask(5_000, { correlation_id: 'a' });
  reply('a', { tenant_id: tenantIdSchema.parse('other') });
  assert.equal(meter.of('reply.foreign'), 1);
  reply('a');
  await asked;
});

test('only timeouts in a row open a circuit: an answer, and a send that fails, do not', async (t) => {
  const { meter, ask, reply } = requesting(t);
  const silent = async (times: number): Promise<void> => {
    for (let n = 0; n < times; n += 1) assert.equal(await refusedWith(ask(1)), 'PEER_TIMEOUT');
  };
  await silent(4);
  const answered = ask(5_000, { correlation_id: 'a' });
  reply('a');
  await answered;
  await silent(4);
  await assert.rejects(
    ask(5_000, {}, () => Promise.reject(new Error('away'))),
    /away/,
  );
  assert.equal(meter.of('circuit.opened'), 0);
  await silent(1);
  assert.equal(meter.of('circuit.opened'), 1);
  // Whoever heard of the last one asks again at once: and is not let through.
  let sent = 0;
  const refused = ask(5_000, {}, async () => {
    sent += 1;
  });
  assert.equal(await refusedWith(refused), 'PEER_TIMEOUT');
  assert.equal(sent, 0);
});

test('many that time out together open the circuit once; then one probe decides', async (t) => {
  t.mock.timers.enable({ apis: ['Date'], now: 1_000_000 });
  const { meter, ask, reply } = requesting(t);
  const codes = await Promise.all(Array.from({ length: 20 }, () => refusedWith(ask(5))));
  assert.deepEqual(new Set(codes), new Set(['PEER_TIMEOUT']));
  assert.equal(meter.of('circuit.opened'), 1);
  t.mock.timers.tick(5_001);
  assert.equal(await refusedWith(ask(5)), 'PEER_TIMEOUT');
  assert.equal(meter.of('circuit.opened'), 2);
  t.mock.timers.tick(5_001);
  const probe = ask(5_000, { correlation_id: 'probe' });
  const behind = ask(5_000, { correlation_id: 'behind' });
  await new Promise((resolve) => setImmediate(resolve));
  reply('probe');
  await probe;
  await new Promise((resolve) => setImmediate(resolve));
  reply('behind');
  await behind;
  const after = ask(5_000, { correlation_id: 'after' });
  reply('after');
  await after;
});

test('close refuses all that wait and leaves no clock ticking', async (t) => {
  const { requests, ask } = requesting(t);
  const waiting = [refusedWith(ask(60_000)), refusedWith(ask(60_000))];
  requests.close();
  assert.deepEqual(await Promise.all(waiting), ['TRANSPORT_UNAVAILABLE', 'TRANSPORT_UNAVAILABLE']);
});

test('what one tenant finds dead leaves everything else of the service as it is', async (t) => {
  const { meter, ask, reply } = requesting(t);
  const dead = { action_type: 'tool.execute', data: { tool: 'dead' } };
  for (let n = 0; n < 5; n += 1) assert.equal(await refusedWith(ask(1, dead)), 'PEER_TIMEOUT');
  assert.equal(meter.of('circuit.opened'), 1);
  const others: readonly Partial<DomainAction>[] = [
    { ...dead, data: { tool: 'healthy' } },
    { ...dead, tenant_id: tenantIdSchema.parse('other') },
    { action_type: 'query.request' },
  ];
  for (const [n, other] of others.entries()) {
    const answered = ask(5_000, { ...other, correlation_id: `o-${n}` });
    reply(`o-${n}`, { tenant_id: other.tenant_id ?? action(1).tenant_id });
    await answered;
  }
  let sent = 0;
  const refused = ask(5_000, dead, async () => {
    sent += 1;
  });
  assert.equal(await refusedWith(refused), 'PEER_TIMEOUT');
  assert.equal(sent, 0, 'it is left alone itself');
});

test('where whatever is asked goes unanswered, the service is left alone', async (t) => {
  const { meter, ask } = requesting(t);
  const tool = (name: string): Partial<DomainAction> => ({
    action_type: 'tool.execute',
    data: { tool: name },
  });
  for (const name of ['a', 'b', 'c', 'd', 'e'])
    assert.equal(await refusedWith(ask(1, tool(name))), 'PEER_TIMEOUT');
  assert.equal(meter.of('circuit.opened'), 1);
  let sent = 0;
  const refused = ask(5_000, tool('f'), async () => {
    sent += 1;
  });
  assert.equal(await refusedWith(refused), 'PEER_TIMEOUT');
  assert.equal(sent, 0);
});

test('a small reply waits for no large one, whoever sent that', async (t) => {
  const { ask, reply } = requesting(t);
  const order: string[] = [];
  const asked = ['large', 'small'].map((id) =>
    ask(20_000, { correlation_id: id }).then(({ data }) => order.push(`${id} ${String(data.text).length}`)),
  );
  reply('large', { data: { text: 'x'.repeat(200_000) } });
  reply('small', { data: { text: 'x' } });
  await Promise.all(asked);
  assert.deepEqual(order, ['small 1', 'large 200000']);
});
