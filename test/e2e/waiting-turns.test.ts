/** Turns that wait: in which order they run, what the model reads of those that never ran, and who else may end them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { action, actionScene, ownList, packed, pydantic2, workOf } from '../support/action-client.ts';
import { life, startScene } from '../support/node.ts';
import { type StubRequest, say, stallAfter } from '../support/stub-model.ts';
import { temporary } from '../support/temporary.ts';

/** What the model was given besides the system prompt. */
const told = (request: StubRequest): readonly string[] =>
  request.body.messages.slice(1).map(({ content }) => String(content));
const contents = (body: { readonly messages: readonly { readonly content: string }[] }) =>
  body.messages.map(({ content }) => content);

test('what is withdrawn before it ran is read by no model, in this life of the session or the next', async (t) => {
  const env = { DATABASE_URL: temporary(t).database };
  await life(t, 'the first life', { env }, async ({ chat, ask, stub, running }) => {
    stub.next(stallAfter('First '), say('Third.'), say('Fifth.'));
    const client = await chat('acme', 's1');
    const first = client.say('A');
    await client.see('chat.delta');
    const second = client.say('B');
    await client.see(({ task_id, type }) => task_id === second && type === 'chat.accepted');
    client.send({ type: 'chat.cancel', task_id: second });
    await client.ended(second);
    const third = client.say('C');
    client.send({ type: 'chat.cancel', task_id: first });
    await client.ended(third);
    assert.deepEqual(told(await stub.request(1)), ['A', 'First ', 'C']);
    assert.deepEqual(contents((await ask('/api/sessions/s1/messages')).body), ['A', 'First ', 'C', 'Third.']);
    assert.equal((await ask(`/api/chat/tasks/${second}`)).body.status, 'cancelled');
    await running.drain();
  });
  await life(t, 'the second life', { env }, async ({ chat, ask, stub }) => {
    stub.next(say('Fifth.'));
    const client = await chat('acme', 's1', { query: { last_seq: '0', epoch: 'another' } });
    const snapshot = await client.see('session.snapshot');
    assert.deepEqual(contents(snapshot.data), ['A', 'First ', 'C', 'Third.']);
    await client.turn('E');
    assert.deepEqual(told(await stub.request(0)), ['A', 'First ', 'C', 'Third.', 'E']);
    assert.equal((await ask('/api/sessions/s1/messages')).body.messages.length, 6);
  });
});

test('history has the order in which turns ran, in this life of the session and the next', async (t) => {
  const env = { DATABASE_URL: temporary(t).database };
  const ran = ['A', 'a', 'C', 'c', 'B', 'b'];
  await life(t, 'the first life', { env }, async ({ chat, ask, stub, running }) => {
    stub.next(stallAfter('a'), say('c'), say('b'));
    const client = await chat('acme', 's1');
    client.say('A');
    await client.see('chat.delta');
    const patient = client.say('B');
    await client.see(({ task_id, type }) => task_id === patient && type === 'chat.accepted');
    client.say('C', { on_busy: 'interrupt' });
    await client.ended(patient);
    assert.deepEqual(told(await stub.request(2)), ['A', 'a', 'C', 'c', 'B']);
    assert.deepEqual(contents((await ask('/api/sessions/s1/messages')).body), ran);
    await running.drain();
  });
  await life(t, 'the second life', { env }, async ({ chat, stub }) => {
    stub.next(say('d'));
    await (await chat('acme', 's1')).turn('D');
    assert.deepEqual(told(await stub.request(0)), [...ran, 'D']);
  });
});

for (const [change, code] of [
  ['switched off', 'AGENT_INACTIVE'],
  ['deleted', 'AGENT_NOT_FOUND'],
] as const)
  test(`an agent that is ${change} answers no turn that waits; the one that runs is finished`, async (t) => {
    const { chat, ask, stub } = await startScene(t);
    stub.next(stallAfter('I am '), say('Next.'));
    const { body: agent } = await ask('/api/agents', { body: { name: 'Helper' } });
    const client = await chat('acme', 's1');
    const running = client.say('1', { agent_id: agent.id });
    await client.see('chat.delta');
    const waiting = [client.say('2', { agent_id: agent.id }), client.say('3', { agent_id: agent.id })];
    const other = client.say('4');
    await client.see(({ task_id, type }) => task_id === other && type === 'chat.accepted');
    const path = `/api/agents/${agent.id}`;
    const changed =
      change === 'deleted'
        ? await ask(path, { method: 'DELETE' })
        : await ask(path, { method: 'PATCH', body: { is_active: false } });
    assert.ok(changed.status < 300, changed.text);
    for (const task of waiting) assert.equal((await client.ended(task)).data.code, code);
    client.send({ type: 'chat.cancel', task_id: running });
    assert.equal((await client.ended(running)).data.content, 'I am ');
    assert.equal((await client.ended(other)).data.content, 'Next.');
    assert.deepEqual(told(await stub.request(1)), ['1', 'I am ', '4']);
    assert.equal(stub.requests.length, 2);
  });

/** Where in `order` each of `ids` stands too late, by how many places. */
const late = (order: readonly string[]): readonly number[] =>
  order.map((id, place) => place - Number(id.split('-').at(-1)));

test('what a tenant pushed first starts first, whatever it had to look up', async (t) => {
  const { client, stub, ask } = await actionScene(t);
  stub.byDefault(() => say('Done.', { everyMs: 10 }));
  // Some have a session to load, some an agent, some neither; some come alone, some together.
  for (let round = 0; round < 6; round += 1) {
    const tenant = `order-${round}`;
    const made = await ask('/api/agents', { body: { name: 'Helper' }, tenant, tier: 'free' });
    assert.equal(made.status, 201, made.text);
    const before = stub.requests.length;
    const list = ownList();
    const sent = Array.from({ length: 9 }, (_, place) =>
      action(
        'execution.agent_run',
        {
          input: `run-${place}`,
          ...(place % 3 === 0 ? { session_id: `s-${round}-${place}` } : {}),
          ...(place % 4 === 1 ? { agent_id: made.body.id } : {}),
        },
        { tenant_id: tenant, tenant_tier: 'free', callback_queue: list },
      ),
    );
    if (round % 2 === 0) for (const one of sent) await client.push(workOf('free'), pydantic2(one));
    else await client.push(workOf('free'), ...sent.map(packed));
    await client.replies(list, 9);
    const order = stub.requests.slice(before).map((request) => told(request).at(-1) ?? '');
    for (const places of late(order)) assert.ok(Math.abs(places) <= 2, order.join(' '));
  }
});
