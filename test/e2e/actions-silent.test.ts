/** One tenant's runs over Redis that wait hold up nobody: other tenants' runs, cancels and questions go on. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { type ActionClient, action, ownList, pydantic2, workOf } from '../support/action-client.ts';
import type { Env } from '../support/node.ts';
import { say, silence } from '../support/stub-model.ts';
import { until } from '../support/until.ts';
import { actionCluster, heldKeys } from './actions-cluster.ts';

const MIB = 1024 * 1024;
const ENTERPRISE = workOf('enterprise');
/** A node whose one tenant could take all places, if it were let. */
const SMALL: Env = { NODE_MAX_EXECUTIONS: '16', MODEL_FIRST_TOKEN_SECONDS: '60', DRAIN_SECONDS: '0.2' };

const MODEL_OF = ({ body }: { readonly body: { readonly messages: readonly { content?: unknown }[] } }) =>
  String(body.messages.at(-1)?.content).startsWith('silent') ? silence() : say('Here.');

/** A run of a tenant; what begins with `silent` gets no word from its model. */
const run = (tenant_id: string, input: string, more: object = {}, data: object = {}): string =>
  pydantic2(
    action('execution.agent_run', { input, ...data }, { tenant_id, tenant_tier: 'enterprise', ...more }),
  );

const flood = (tenant: string, count: number, more: object = {}): readonly string[] =>
  Array.from({ length: count }, (_, n) => run(tenant, `silent ${n}`, { task_id: `${tenant}-${n}`, ...more }));

async function pushAll(client: ActionClient, queue: string, bodies: readonly string[]): Promise<void> {
  for (let at = 0; at < bodies.length; at += 500) await client.push(queue, ...bodies.slice(at, at + 500));
}

async function smallNode(t: TestContext, env: Env = {}) {
  const { client, stub, node } = await actionCluster(t);
  stub.byDefault(MODEL_OF);
  const child = await node({ ...SMALL, ...env });
  const answered = async (tenant: string, queue: string = ENTERPRISE) => {
    const list = ownList();
    await client.push(queue, run(tenant, 'Hi.', { callback_queue: list }));
    const reply = await client.reply(list);
    assert.equal(reply.data.response, 'Here.', JSON.stringify(reply.data));
  };
  return { client, stub, child, answered };
}

test('1,500 runs of one silent tenant: others of its tier, of lower ones and of high priority are answered', async (t) => {
  const { client, stub, answered } = await smallNode(t);
  await pushAll(client, ENTERPRISE, flood('loud', 1_500));
  await until('it has its places', () => stub.requests.length >= 14);
  await answered('other');
  await answered('other', workOf('enterprise', 'high_priority'));
  await answered('small', workOf('free'));
  assert.ok(stub.requests.length < 20, 'it holds all places');
});

test('a flood of 10,000 that was there first is read past, and one that goes on at another tier, too', async (t) => {
  const { client, node, stub } = await actionCluster(t);
  stub.byDefault(MODEL_OF);
  const list = ownList();
  await pushAll(client, ENTERPRISE, flood('loud', 10_000));
  await client.push(ENTERPRISE, run('other', 'Hi.', { callback_queue: list }));
  await pushAll(client, workOf('professional'), flood('loud', 500, { tenant_tier: 'professional' }));
  await client.push(workOf('professional'), run('small', 'Hi.', { callback_queue: list }));
  const child = await node(SMALL);
  for (const { data } of await client.replies(list, 2)) assert.equal(data.response, 'Here.');
  assert.ok(stub.requests.length <= 16, `${stub.requests.length} runs`);

  assert.equal((await child.kill('SIGTERM')).code, 0);
  const left =
    (await client.redis.client.llen(ENTERPRISE)) + (await client.redis.client.llen(workOf('professional')));
  assert.equal(left, 10_500);
  assert.deepEqual(await heldKeys(client), []);
  // Behind the 14 that ran.
  const oldest = await client.redis.client.lrange(ENTERPRISE, -17, -15);
  assert.deepEqual(
    oldest.toReversed().map((body) => JSON.parse(body).data.input),
    ['silent 14', 'silent 15', 'silent 16'],
  );
});

test('many silent tenants share the places; what is left is for who comes', async (t) => {
  const tiers = new URL('silent-tiers.json', import.meta.url).pathname;
  const { client, stub, answered } = await smallNode(t, { TIERS_FILE: tiers });
  for (let n = 0; n < 7; n += 1) await pushAll(client, ENTERPRISE, flood(`loud-${n}`, 300));
  await until('they have their places', () => stub.requests.length >= 14);
  await answered('other');
  assert.equal(stub.requests.length, 15);
});

test('a run that waits is cancelled over Redis, as one that runs is, and a question is answered', async (t) => {
  const { client, stub } = await smallNode(t);
  const list = ownList();
  await pushAll(client, ENTERPRISE, flood('loud', 200, { callback_queue: list }));
  await until('it has its places', () => stub.requests.length >= 14);
  const ask = (type: string, task_id: string) =>
    client.ask(type, { task_id }, { tenant_id: 'loud', task_id: undefined });
  const queued = (await ask('chat.status', 'loud-150')).data;
  assert.deepEqual([queued.status, queued.task_id], ['queued', 'loud-150']);
  assert.equal((await ask('execution.cancel', 'loud-150')).data.status, 'cancelled');
  const waiting = await client.reply(list);
  assert.deepEqual([waiting.task_id, waiting.data.status], ['loud-150', 'cancelled']);
  assert.equal((await ask('chat.status', 'loud-3')).data.status, 'processing');
  assert.equal((await ask('execution.cancel', 'loud-3')).data.status, 'cancelled');
  const running = await client.reply(list);
  assert.deepEqual([running.task_id, running.data.status], ['loud-3', 'cancelled']);
  await until('the next one runs', () => stub.requests.length === 15);
  assert.equal(String(stub.requests[14]?.body.messages.at(-1)?.content), 'silent 14');
});

test('the same action many times over takes one place, and is answered each time', async (t) => {
  const { client, stub, answered } = await smallNode(t);
  const list = ownList();
  const same = run('loud', 'silent 0', { task_id: 'loud-0', callback_queue: list });
  await pushAll(
    client,
    ENTERPRISE,
    Array.from({ length: 400 }, () => same),
  );
  await until('it runs', () => stub.requests.length === 1);
  await answered('other');
  await client.ask('execution.cancel', { task_id: 'loud-0' }, { tenant_id: 'loud' });
  const replies = await client.replies(list, 400);
  assert.equal(new Set(replies.map(({ action_id }) => action_id)).size, 1);
});

test('of large runs a tenant has so many bytes in hand; the rest is held by Redis, not by the node', async (t) => {
  const { client, stub, answered } = await smallNode(t, { NODE_MAX_EXECUTIONS: '200' });
  const text = `silent ${'x'.repeat(MIB)}`;
  for (let n = 0; n < 40; n += 1) await client.push(ENTERPRISE, run('loud', text, { task_id: `l-${n}` }));
  await until('all are taken', async () => (await client.redis.client.llen(ENTERPRISE)) === 0, 60_000);
  await answered('other');
  const large = stub.requests.filter(({ body }) => JSON.stringify(body).length > MIB);
  assert.ok(large.length < 24, `${large.length} of them are in hand`);
});

test('turns of one session take one place, and one that interrupts reaches it', async (t) => {
  const { client, stub, answered } = await smallNode(t);
  const list = ownList();
  const said = (n: number, more: object = {}): string =>
    pydantic2(
      action(
        'chat.process',
        { message: `silent ${n}`, ...more },
        { tenant_id: 'loud', session_id: 's1', task_id: `t${n}`, callback_queue: list },
      ),
    );
  await client.push(ENTERPRISE, ...Array.from({ length: 60 }, (_, n) => said(n)));
  await until('the first runs', () => stub.requests.length === 1);
  await client.push(ENTERPRISE, run('loud', 'silent elsewhere', {}, { session_id: 's2' }));
  await until('another session runs', () => stub.requests.length === 2);
  await client.push(ENTERPRISE, said(60, { on_busy: 'interrupt' }));
  assert.equal((await client.reply(list)).task_id, 't0');
  await until('what interrupted runs', () => stub.requests.length === 3);
  // With the one that was interrupted before its answer began.
  assert.match(String(stub.requests[2]?.body.messages.at(-1)?.content), /silent 60$/);
  await answered('other');
});

test('a node that dies over waiting runs leaves them to the next, each once', {
  timeout: 90_000,
}, async (t) => {
  const { client, stub, node } = await actionCluster(t);
  stub.byDefault(MODEL_OF);
  const first = await node({ NODE_MAX_EXECUTIONS: '3' });
  const list = ownList();
  await client.push(ENTERPRISE, ...flood('loud', 2));
  await until('they run', () => stub.requests.length === 2);
  const waiting = Array.from({ length: 30 }, (_, n) => run('loud', `Run ${n}.`, { callback_queue: list }));
  await client.push(ENTERPRISE, ...waiting);
  await until('all are taken', async () => (await client.redis.client.llen(ENTERPRISE)) === 0);
  await wait(50);
  await first.kill('SIGKILL');
  stub.byDefault(() => say('Here.'));
  await node({ NODE_MAX_EXECUTIONS: '3' });
  const replies = await client.replies(list, waiting.length);
  assert.equal(new Set(replies.map(({ task_id }) => task_id)).size, waiting.length);
  const asked = stub.requests.map(({ body }) => String(body.messages.at(-1)?.content));
  const runs = asked.filter((text) => text.startsWith('Run'));
  assert.equal(new Set(runs).size, runs.length, 'one ran twice');
});
