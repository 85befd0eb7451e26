/** Tiers and limits as they meet actions on the queues: who goes first, and how a refusal is told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  action,
  actionClient,
  actionScene,
  ownList,
  pydantic2,
  WORK,
  workOf,
} from '../support/action-client.ts';
import { startScene } from '../support/node.ts';
import { say } from '../support/stub-model.ts';

const SERVICE_TOKEN = 'a-token-of-a-service';
const EACH = 8;
const FREE = ['f0', 'f1', 'f2', 'f3'];
/** Enterprise has eight times the weight of free: of nine that run, one is free. */
const ROUND = 9;

test('a full node takes enterprise first by its weight, and free is not starved', async (t) => {
  const client = await actionClient(t);
  const list = ownList();
  const runOf = (tenant_id: string, tenant_tier: string) => (_: unknown, n: number) =>
    pydantic2(
      action(
        'execution.agent_run',
        { input: `${tenant_tier} ${tenant_id} ${n}` },
        { tenant_id, tenant_tier, callback_queue: list },
      ),
    );
  const numbers = Array.from({ length: EACH });
  // All wait there before the node comes, free first.
  for (const tenant of FREE) await client.push(workOf('free'), ...numbers.map(runOf(tenant, 'free')));
  for (let part = 0; part < FREE.length; part += 1)
    await client.push(workOf('enterprise'), ...numbers.map(runOf(`big-${part}`, 'enterprise')));

  const { stub } = await startScene(t, { env: { REDIS_URL: client.redis.url, NODE_MAX_EXECUTIONS: '2' } });
  const all = 2 * EACH * FREE.length;
  const replies = await client.replies(list, all);
  for (const { data } of replies) assert.equal(data.status, 'success', JSON.stringify(data));
  assert.equal(stub.requests.length, all);
  const tiers = stub.requests.map(({ body }) => String(body.messages.at(-1)?.content).split(' ')[0]);
  const free = tiers.flatMap((tier, place) => (tier === 'free' ? [place] : []));
  // Two run at once, so that a request may overtake its neighbours.
  for (let round = 0; round < 3; round += 1) {
    const place = free[round] ?? Number.POSITIVE_INFINITY;
    assert.ok(
      place >= round * ROUND - 2 && place < (round + 1) * ROUND + 2,
      `free number ${round} is at ${place}: ${tiers.join(' ')}`,
    );
  }
});

test('the tier in an action counts only where the tenant has none of its own', async (t) => {
  const { client, ask } = await actionScene(t, { env: { SERVICE_TOKEN } });
  const set = await ask('/internal/tenants/acme', {
    method: 'PUT',
    body: { tier: 'free' },
    headers: { authorization: `Bearer ${SERVICE_TOKEN}` },
  });
  assert.equal(set.status, 200, set.text);
  const as = (tenant_id: string) =>
    client.ask('execution.agent_run', { input: 'Hi.' }, { tenant_id, tenant_tier: 'enterprise' });
  for (let n = 0; n < 10; n += 1) assert.equal((await as('acme')).data.status, 'success');
  const refused = await as('acme');
  assert.equal(refused.action_type, 'execution.error');
  assert.equal(refused.data.error_code, 'RATE_LIMITED');
  const { retryable, retry_after_ms } = refused.data.error_details;
  assert.equal(retryable, true);
  assert.ok(retry_after_ms > 0 && retry_after_ms <= 60_000, `${retry_after_ms}`);
  for (let n = 0; n < 12; n += 1) assert.equal((await as('globex')).data.status, 'success');
});

test('a limit of the moment is no answer for ever: the same action may be sent again', async (t) => {
  const env = { ORCHESTRATOR_MAX_REQUESTS_PER_SESSION: '1' };
  const { client, stub, ask } = await actionScene(t, { env });
  const more = { action_id: 'again-1', session_id: 's1', task_id: 'again-1' };
  await client.ask('execution.agent_run', { input: 'First.' }, { session_id: 's1' });
  const first = await client.ask('execution.agent_run', { input: 'Second.' }, more);
  const second = await client.ask('execution.agent_run', { input: 'Second.' }, more);
  assert.deepEqual([first.data.error_code, second.data.error_code], ['RATE_LIMITED', 'RATE_LIMITED']);
  assert.equal(stub.requests.length, 1);
  assert.equal((await ask('/api/chat/tasks/again-1')).status, 404, 'a refused run was kept');
});

test('what a tier does not include is refused with what it lacks', async (t) => {
  const { client, ask, stub } = await actionScene(t);
  stub.byDefault(() => say('Here you are.'));
  for (const [slug, more, about] of [
    ['large', { model: 'gpt-4.1' }, { field: 'model', value: 'gpt-4.1' }],
    ['high', { minimum_tier: 'advance' }, { field: 'minimum_tier', value: 'advance', tier: 'advance' }],
  ] as const) {
    const made = await ask('/api/agents', {
      body: { name: slug, slug, system_prompt: 'Be kind.', ...more },
    });
    assert.equal(made.status, 201, made.text);
    const run = { agent_id: made.body.id, input: 'Hi.' };
    const refused = await client.ask('execution.agent_run', run, { tenant_tier: 'free' });
    assert.deepEqual([refused.action_type, refused.data.error_code], ['execution.error', 'TIER_LIMIT']);
    assert.deepEqual(refused.data.error_details, { retryable: false, details: about });
    const taken = await client.ask('execution.agent_run', run, { tenant_tier: 'advance' });
    assert.equal(taken.data.response, 'Here you are.');
  }
  const unknown = await client.ask('execution.agent_run', { agent_id: 'nobody', input: 'Hi.' });
  assert.equal(unknown.data.error_code, 'AGENT_NOT_FOUND');
  const wrong = pydantic2(action('execution.agent_run', { input: 'Hi.' }, { tenant_tier: 'platinum' }));
  await client.push(WORK, wrong);
  const dead = await client.redis.client.brpop(`${WORK}:dead`, 10);
  assert.match(String(dead?.[1]), /tenant_tier/);
});
