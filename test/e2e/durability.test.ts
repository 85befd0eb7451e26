/** What a node has acknowledged outlives it, byte for byte, until it is deleted or too old. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { taskIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import { TIER_TABLE } from '../../src/domain/tiers.ts';
import type { Store, Write } from '../../src/ports/store.ts';
import { openStores, type Stores } from '../../src/store/open.ts';
import { createRetention } from '../../src/store/retention.ts';
import { createLog } from '../../src/telemetry/log.ts';
import { last } from '../support/chatter.ts';
import { leakFree } from '../support/leaks.ts';
import { life, runNode, startScene } from '../support/node.ts';
import { say, stallAfter } from '../support/stub-model.ts';
import { temporary } from '../support/temporary.ts';
import { gate } from '../support/transport.ts';

const DAY_MS = 86_400_000;
const log = createLog({ level: 'silent', name: 'test', nodeId: 'test' });
const acme = tenantIdSchema.parse('acme');

const contents = (messages: readonly { readonly content: string }[]) =>
  messages.map(({ content }) => content);

/** Waits for what arrives at a wrapped store. */
function gated(stores: Stores) {
  const { opened, open } = gate();
  const held: Write['type'][] = [];
  const conversations: Store = {
    ...stores.conversations,
    async commit(write) {
      if (write.type.startsWith('turn-')) {
        held.push(write.type);
        await opened;
      }
      return stores.conversations.commit(write);
    },
  };
  return { open, held, stores: { ...stores, conversations } };
}

test('what a node has acknowledged is there after its stop, and goes on after its start', async (t) => {
  const env = { DATABASE_URL: temporary(t).database, SERVICE_TOKEN: 'a-service-token-of-enough-length' };
  const service = { headers: { authorization: `Bearer ${env.SERVICE_TOKEN}` } };
  const tasks: string[] = [];
  await life(t, 'the first life', { env }, async ({ chat, ask, running, stub }) => {
    stub.next(say('The first answer.'), say('The second answer.'));
    const client = await chat('acme', 's1');
    tasks.push(String((await client.turn('One.'))[0]?.task_id));
    const { status, body } = await ask('/api/chat/send', { body: { message: 'Two.', session_id: 's1' } });
    assert.equal(status, 202);
    tasks.push(body.task_id);
    await client.ended(body.task_id);
    await running.drain();
  });
  await life(t, 'the second life', { env }, async ({ chat, ask, stub }) => {
    const { body } = await ask('/api/sessions/s1/messages');
    assert.deepEqual(contents(body.messages), ['One.', 'The first answer.', 'Two.', 'The second answer.']);
    for (const [index, task] of tasks.entries()) {
      const turn = (await ask(`/api/chat/tasks/${task}`)).body;
      assert.equal(turn.status, 'completed');
      assert.equal(turn.result.content, ['The first answer.', 'The second answer.'][index]);
      assert.equal(turn.execution_info.tokens_used, 42);
    }
    const tenant = await ask('/internal/tenants/acme', { ...service, tenant: null });
    assert.equal(tenant.body.used, 2, tenant.text);
    const client = await chat('acme', 's1');
    await client.turn('Three.');
    assert.equal((await stub.request(0)).body.messages.length, 6, 'a system prompt and five messages');
    const again = client.say('One.', { task_id: tasks[0] });
    const accepted = await client.see((frame) => frame.task_id === again);
    assert.deepEqual([accepted.type, accepted.data.deduplicated], ['chat.accepted', true]);
  });
});

test('a drain that runs out of patience leaves its turns cancelled, not interrupted', async (t) => {
  const env = { DATABASE_URL: temporary(t).database, DRAIN_SECONDS: '0.1' };
  let task = '';
  await life(t, 'the first life', { env }, async ({ chat, running, stub }) => {
    stub.next(stallAfter('Half of '));
    const client = await chat('acme', 's1');
    task = client.say('Go.');
    await client.see('chat.delta');
    await running.drain();
    assert.equal((await client.ended(task)).type, 'chat.cancelled');
  });
  await life(t, 'the second life', { env }, async ({ ask, chat }) => {
    const { body } = await ask(`/api/chat/tasks/${task}`);
    assert.deepEqual([body.status, body.result?.content], ['cancelled', 'Half of ']);
    const client = await chat('acme', 's1');
    client.send({ type: 'ping' });
    await client.see('pong');
    assert.equal(client.frames.length, 2, 'nobody is told twice');
  });
});

test('a second node that is started by mistake, and finds the port taken, leaves running turns alone', async (t) => {
  const env = { DATABASE_URL: temporary(t).database };
  const { chat, ask, port, stub } = await startScene(t, { env });
  stub.next(stallAfter('Half of '));
  const client = await chat('acme', 's1');
  const task = client.say('Go.');
  await client.see('chat.delta');
  assert.equal((await runNode(t, { ...env, PORT: String(port) })).code, 1);
  assert.equal((await ask(`/api/chat/tasks/${task}`)).body.status, 'processing');
  client.send({ type: 'chat.cancel', task_id: task });
  assert.equal((await client.ended(task)).type, 'chat.cancelled');
  assert.equal((await ask('/api/sessions/s1/messages')).body.messages.length, 2);
});

test('who has seen an acknowledgement sees it in the database, too', async (t) => {
  const env = { DATABASE_URL: temporary(t).database };
  leakFree(t);
  const other = await openStores({ url: env.DATABASE_URL, log });
  t.after(() => other.close());
  const { chat, ask, stub } = await startScene(t, { env });
  const stored = async (id: unknown) => other.conversations.turn(acme, taskIdSchema.parse(id));
  stub.byDefault(() => say('An answer.', { chunks: 6, everyMs: 2 }));
  const client = await chat('acme', 's1');
  for (let round = 0; round < 20; round += 1) {
    const task = client.say('Go.');
    await client.see(({ task_id, type }) => task_id === task && type === 'chat.accepted');
    assert.ok(await stored(task), 'accepted, and not stored');
    await client.ended(task);
    assert.equal((await stored(task))?.status, 'completed');
    const { body } = await ask('/api/chat/send', { body: { message: 'Go.', session_id: 's2' } });
    assert.ok(await stored(body.task_id), 'answered with 202, and not stored');
    const { body: cancelled } = await ask('/api/chat/cancel', { body: { task_id: body.task_id } });
    assert.equal((await stored(body.task_id))?.status, cancelled.status);
  }
});

test('a tier that does not wait for the store answers before it, and is stored all the same', async (t) => {
  const place = temporary(t);
  const tiers = new URL('./durability-tiers.json', import.meta.url).pathname;
  const { stores, open, held } = gated(await openStores({ url: place.database, log }));
  const { chat, ask } = await startScene(t, { env: { TIERS_FILE: tiers }, parts: { stores } });
  const quick = await chat('acme', 's1', { query: { tier: 'advance' } });
  quick.send({ type: 'chat.send', message: 'Go.' });
  await quick.see('chat.response');
  assert.deepEqual(held, ['turn-accepted', 'turn-ended']);
  // A client's own id may have been said before: only the store knows.
  const chosen = quick.say('Go.');
  quick.send({ type: 'ping' });
  await quick.see('pong');
  assert.deepEqual(quick.of(chosen), []);

  const careful = await chat('other', 's1', { query: { tier: 'professional' } });
  const task = careful.say('Go.');
  careful.send({ type: 'ping' });
  await careful.see('pong');
  assert.deepEqual(careful.of(task), []);
  open();
  await careful.ended(task);
  await quick.ended(chosen);
  const { body } = await ask('/api/sessions/s1/messages');
  assert.deepEqual(contents(body.messages), ['Go.', 'Hello there.', 'Go.', 'Hello there.']);
});

test('texts of every kind survive a restart byte for byte', async (t) => {
  const texts = {
    'the character NUL': 'a\u0000b\u0000',
    'halves of surrogate pairs': '\ud800 and \udc00 and \udfff\ud800',
    'control characters': '\u0001\u001f\u007f\u0085\u2028\u2029\ufeff\ufffe\uffff',
    'what SQL and JSON mean by it': `'; DROP TABLE turns; -- " \\ \\u0000 $1 ? %s {"a":1}`,
    'many scripts': 'Grüße, 世界, שלום, 🌍👩‍👩‍👧 é é',
    'only spaces': ' \t\n ',
    'the longest message': '🌍'.repeat(16_000),
  };
  const env = { DATABASE_URL: temporary(t).database, DEFAULT_TIER: 'enterprise' };
  const answer = 'NUL \u0000 and a half \ud83c.';
  await life(t, 'the first life', { env }, async ({ ask, stub, chat }) => {
    const client = await chat('acme', 's1');
    for (const [name, message] of Object.entries(texts)) {
      stub.next(say(answer, { chunks: 1 }));
      const { status, body } = await ask('/api/chat/send', { body: { message, session_id: 's1' } });
      assert.equal(status, 202, name);
      assert.equal((await client.ended(body.task_id)).type, 'chat.response', name);
    }
  });
  await life(t, 'the second life', { env }, async ({ ask, chat }) => {
    const { body } = await ask('/api/sessions/s1/messages?limit=100');
    const pairs = Object.keys(texts).map((name, index) => ({ name, index: index * 2 }));
    for (const { name, index } of pairs)
      assert.equal(body.messages[index].content, Object.values(texts)[index / 2], name);
    const answers = body.messages.filter(({ role }: { role: string }) => role === 'assistant');
    for (const { content, task_id } of answers) {
      assert.equal(content, answer.toWellFormed());
      assert.equal((await ask(`/api/chat/tasks/${task_id}`)).body.result.content, answer.toWellFormed());
    }
    const back = await chat('acme', 's1', { query: { last_seq: '1' } });
    const { data } = await back.see('session.snapshot');
    assert.deepEqual(contents(data.messages), contents(body.messages));
  });
});

test('what is deleted is gone, for the file and the next life too', async (t) => {
  const env = { DATABASE_URL: temporary(t).database };
  let task = '';
  await life(t, 'the first life', { env }, async ({ ask, chat, stub }) => {
    const client = await chat('acme', 's1');
    task = String((await client.turn('A secret.'))[0]?.task_id);
    stub.next(stallAfter('Still '));
    const running = client.say('And another.');
    await client.see(({ task_id, type }) => task_id === running && type === 'chat.delta');
    const [other] = await (await chat('other', 's1')).turn('Of somebody else.');
    assert.equal((await ask('/api/sessions/s1', { method: 'DELETE' })).status, 204);
    await client.closed;
    assert.equal((await ask('/api/sessions/s1/messages')).status, 404);
    assert.equal((await ask(`/api/chat/tasks/${task}`)).status, 404);
    assert.equal((await ask(`/api/chat/tasks/${other?.task_id}`, { tenant: 'other' })).status, 200);
  });
  await life(t, 'the second life', { env }, async ({ ask, chat, stub }) => {
    assert.equal((await ask('/api/sessions/s1/messages')).status, 404);
    assert.equal((await ask(`/api/chat/tasks/${task}`)).status, 404);
    assert.equal((await ask('/api/sessions/s1/messages', { tenant: 'other' })).body.messages.length, 2);
    const client = await chat('acme', 's1');
    const [accepted] = await client.turn('Hello?', { task_id: task });
    assert.equal(accepted?.data.deduplicated, undefined);
    assert.equal((await stub.request(0)).body.messages.length, 2, 'nothing of the old conversation');
  });
});

test('conversations older than their tier keeps them are forgotten, others are not', async (t) => {
  const place = temporary(t);
  const stores = await openStores({ url: place.database, log });
  const { chat, ask } = await startScene(t, { parts: { stores } });
  for (const tenant of ['acme', 'brick', 'cash'])
    last(await (await chat(tenant, 's1')).turn('Go.'), 'chat.response');
  await stores.conversations.commit({ type: 'tenant-tier', tenantId: acme, tier: 'free' });
  const cash = tenantIdSchema.parse('cash');
  await stores.conversations.commit({ type: 'tenant-tier', tenantId: cash, tier: 'enterprise' });
  /** Messages that are left of each; their sockets keep the sessions themselves alive. */
  const left = () =>
    Promise.all(
      ['acme', 'brick', 'cash'].map(
        async (tenant) => (await ask('/api/sessions/s1/messages', { tenant })).body.messages.length,
      ),
    );
  const after = async (days: number) => {
    const clock = { now: () => Date.now() + days * DAY_MS };
    const { conversations: store, webhooks, batches } = stores;
    const tiers = TIER_TABLE;
    const job = createRetention({ store, webhooks, batches, tiers, defaultTier: 'professional', clock, log });
    t.after(() => job.close());
    await job.run();
    return left();
  };
  assert.deepEqual(await after(29), [2, 2, 2]);
  assert.deepEqual(await after(31), [0, 2, 2]);
  assert.deepEqual(await after(366), [0, 0, 2]);
});
