/** The Python example's peer as a contract of its own, over plain Redis lists: what it answers, and what it never loses. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { z } from 'zod';
import { type ExternalService, serviceQueue } from '../../src/domain/queues.ts';
import { TIERS } from '../../src/domain/tiers.ts';
import { parseDeadLetter } from '../../transports/queue/delivery.ts';
import { type PythonPeer, parsed, pythonCluster, request, stopped } from '../support/python.ts';
import type { RedisServer } from '../support/redis.ts';
import { until } from '../support/until.ts';

const SERVICES: Readonly<Record<string, ExternalService>> = {
  management: 'management',
  conversation: 'conversation',
  embedding: 'embedding',
  query: 'query',
  tool: 'tool_registry',
};

const queueOf = (type: string, tier: (typeof TIERS)[number] = 'free'): string =>
  serviceQueue(SERVICES[type.split('.')[0] ?? ''] ?? 'query', tier);

/** Sends one action and takes its reply off the list it names. */
async function ask({ client }: RedisServer, type: string, data: object, more: object = {}) {
  const replies = `test:responses:${type}:${randomUUID()}`;
  await client.lpush(
    queueOf(type),
    JSON.stringify(request(type, data, { callback_queue: replies, ...more })),
  );
  return parsed((await client.brpop(replies, 20))?.[1]);
}

const resultsSchema = z.object({ results: z.array(z.looseObject({ source: z.string() })) });

test('every list of every tier is answered in the envelope of its request', async (t) => {
  const { redis, peer } = await pythonCluster(t);
  await peer();
  const asked = {
    'management.get_agent_config': { agent_id: 'support' },
    'conversation.get_history': { session_id: 's1', limit: 5 },
    'conversation.save_message': { session_id: 's1', role: 'user', content: 'Hi' },
    'embedding.request': { texts: ['anvil'] },
    'query.request': { query: 'anvil', collections: ['handbook'], limit: 2 },
    'tool.execute': { tool: 'add', args: { a: 1, b: 2 } },
  };
  for (const tier of TIERS)
    for (const [type, data] of Object.entries(asked)) {
      const ids = { task_id: 'task-1', correlation_id: randomUUID(), trace_id: 'trace-1' };
      const replies = `test:responses:${type}:${ids.correlation_id}`;
      const body = request(type, data, { ...ids, tenant_tier: tier, callback_queue: replies });
      await redis.client.lpush(queueOf(type, tier), JSON.stringify(body));
      await until(`${type} of ${tier}`, async () => (await redis.client.llen(replies)) === 1);
      assert.ok((await redis.client.ttl(replies)) > 290);
      const reply = parsed(await redis.client.rpop(replies));
      const callback = /^(query|embedding)\.request$/.test(type);
      assert.equal(reply.action_type, callback ? type.replace('request', 'callback') : `${type}.response`);
      assert.deepEqual(
        [reply.task_id, reply.correlation_id, reply.trace_id, reply.tenant_id, reply.tenant_tier],
        ['task-1', ids.correlation_id, 'trace-1', 'acme', tier],
      );
      assert.notEqual(reply.action_id, body.action_id);
      assert.equal(reply.data.success, true);
    }
  // A list that no reply is named after does not expire.
  const work = request('tool.execute', { tool: 'add', args: { a: 2, b: 2 } }, { callback_queue: 'inbox' });
  await redis.client.lpush(queueOf('tool.execute'), JSON.stringify(work));
  await until('the reply', async () => (await redis.client.llen('inbox')) === 1);
  assert.equal(await redis.client.ttl('inbox'), -1);
});

test('a conversation is kept once a message, newest last, and tenants see nothing of each other', async (t) => {
  const { redis, peer } = await pythonCluster(t);
  await peer();
  const save = (content: string, more: object = {}) =>
    ask(redis, 'conversation.save_message', { role: 'user', content }, { session_id: 's1', ...more });
  const twice = { action_id: randomUUID() };
  for (const content of ['one', 'two', 'three']) await save(content);
  assert.equal((await save('four', twice)).data.saved, true);
  assert.equal((await save('four', twice)).data.saved, false);
  const history = async (tenant: string) => {
    const { data } = await ask(
      redis,
      'conversation.get_history',
      { session_id: 's1', limit: 2 },
      { tenant_id: tenant },
    );
    return z
      .object({ messages: z.array(z.looseObject({ content: z.string() })) })
      .parse(data)
      .messages.map(({ content }) => content);
  };
  assert.deepEqual(await history('acme'), ['three', 'four']);
  assert.deepEqual(await history('globex'), []);

  const agent = async (tenant: string, id: string) =>
    (await ask(redis, 'management.get_agent_config', { agent_id: id }, { tenant_id: tenant })).data;
  const promptOf = async (tenant: string) =>
    z
      .looseObject({ agent_config: z.looseObject({ system_prompt: z.string() }) })
      .parse(await agent(tenant, 'support')).agent_config.system_prompt;
  assert.match(await promptOf('acme'), /Acme/);
  assert.match(await promptOf('globex'), /Globex/);
  assert.deepEqual(await agent('globex', 'guide'), {
    success: false,
    error: { code: 'AGENT_NOT_FOUND', message: 'The tenant has no such agent.' },
  });
  const sources = async (tenant: string) =>
    resultsSchema
      .parse(
        (await ask(redis, 'query.request', { query: 'can an anvil be returned' }, { tenant_id: tenant }))
          .data,
      )
      .results.map(({ source, text }) => `${source} ${String(text).includes('Globex')}`);
  assert.equal((await sources('acme'))[0], 'returns.md false');
  assert.deepEqual(await sources('globex'), ['returns.md true']);
  assert.deepEqual(await sources('nobody'), []);
});

test('what is wrong is refused with a code, what is no action lies on the dead list, and the peer goes on', async (t) => {
  const { redis, peer } = await pythonCluster(t);
  const running = await peer();
  const wrong: readonly (readonly [string, object, string])[] = [
    ['tool.execute', { tool: 'add', args: { a: true, b: 1 } }, 'INVALID_REQUEST'],
    ['tool.execute', { tool: 'add', args: [] }, 'INVALID_REQUEST'],
    ['tool.execute', { tool: 'rm', args: {} }, 'NOT_FOUND'],
    ['tool.execute', { tool: '__class__', args: {} }, 'NOT_FOUND'],
    ['tool.forget', {}, 'INVALID_REQUEST'],
    ['query.request', { query: 7 }, 'INVALID_REQUEST'],
    ['query.request', { query: 'x', limit: -1 }, 'INVALID_REQUEST'],
    ['query.request', { query: 'x', collections: 'handbook' }, 'INVALID_REQUEST'],
    ['embedding.request', { texts: ['ok', null] }, 'INVALID_REQUEST'],
    ['embedding.request', { text: 'x'.repeat(200_001) }, 'INVALID_REQUEST'],
    ['conversation.get_history', {}, 'INVALID_REQUEST'],
    ['conversation.save_message', { session_id: 's', role: 'root', content: 'x' }, 'INVALID_REQUEST'],
    ['management.get_agent_config', { agent_id: 'constructor' }, 'AGENT_NOT_FOUND'],
  ];
  for (const [type, data, code] of wrong) {
    const { data: answer } = await ask(redis, type, data);
    assert.equal(answer.success, false, type);
    assert.equal(z.object({ error: z.object({ code: z.string() }) }).parse(answer).error.code, code, type);
  }
  const list = queueOf('query.request');
  const base = JSON.stringify(request('query.request', { query: 'x' }));
  const malformed = [
    Buffer.from('{"half":'),
    Buffer.from('[1]'),
    Buffer.from('null'),
    Buffer.from('['.repeat(200_000)),
    Buffer.from([0x81, 0xa1, 0x61, 0xc0, 0xff]),
    Buffer.from(base.replace('acme', '../etc')),
    Buffer.from(base.replace('"data":{"query":"x"}', '"data":[NaN]')),
    Buffer.from(base.replace('"x"', '1e999')),
    Buffer.alloc(4 * 1024 * 1024 + 1, 'x'),
  ];
  for (const body of malformed) await redis.client.lpush(list, body);
  await ask(redis, 'query.request', { query: 'anvil' });
  const letters = (await redis.client.lrange(`${list}:dead`, 0, -1)).map(parseDeadLetter).reverse();
  assert.deepEqual(
    letters.map((letter) => [letter?.error.code, letter?.size]),
    malformed.map((body) => ['INVALID_REQUEST', body.length]),
  );
  assert.deepEqual(await redis.client.smembers('nooble:dead-queues'), [list]);
  // A reply that its list does not take is nobody's fault but the asker's.
  await redis.client.set('a-text', 'x');
  await redis.client.lpush(
    list,
    JSON.stringify(request('query.request', { query: 'x' }, { callback_queue: 'a-text' })),
  );
  await running.line(({ outcome }) => outcome === 'reply_refused');
  assert.deepEqual(await redis.client.keys('*:processing:*'), []);
  assert.deepEqual(await redis.client.get('a-text'), 'x');
});

/** Has a peer take an action and never come to answering it. */
async function heldBy(peer: PythonPeer, { client }: RedisServer, body: object): Promise<void> {
  const [list, text] = [queueOf('tool.execute'), JSON.stringify(body)];
  for (;;) {
    peer.kill('SIGSTOP');
    // Redis hands it at once to the connection that waits, whether its process runs or not.
    await client.lpush(list, text);
    if ((await client.exists(`${list}:processing:peer`)) === 1) return;
    // It was between two waits.
    await client.lrem(list, 1, text);
    peer.kill('SIGCONT');
    await until('the peer to wait', async () => /blocked_clients:20\b/.test(await client.info('clients')));
  }
}

test('what a peer held when it was killed is answered by the next, and what kills three is dead', async (t) => {
  const { redis, peer } = await pythonCluster(t);
  const replies = 'test:responses:tool.execute:held';
  const sum = (a: number) =>
    request('tool.execute', { tool: 'add', args: { a, b: 0 } }, { callback_queue: replies });
  const first = await peer();
  await heldBy(first, redis, sum(1));
  await redis.client.lpush(queueOf('tool.execute'), JSON.stringify(sum(2)));
  await stopped(first);
  const second = await peer();
  assert.equal((await second.line('given_back')).count, 1);
  for (const n of [1, 2]) assert.equal(parsed((await redis.client.brpop(replies, 20))?.[1]).data.result, n);

  // As three starts leave it that died of it.
  const body = JSON.stringify(sum(3));
  let last = second;
  for (let deaths = 1; deaths <= 3; deaths += 1) {
    await stopped(last);
    await redis.client.lpush(`${queueOf('tool.execute')}:processing:peer`, body);
    last = await peer();
    if (deaths < 3) assert.equal(parsed((await redis.client.brpop(replies, 20))?.[1]).data.result, 3);
  }
  const dead = await redis.client.lrange(`${queueOf('tool.execute')}:dead`, 0, -1);
  assert.deepEqual(
    dead.map((text) => parseDeadLetter(text)?.error.code),
    ['POISON'],
  );
});

test('kill -9 and SIGTERM amid a stream of actions lose none, and the log has no texts', async (t) => {
  const { redis, peer } = await pythonCluster(t);
  const COUNT = 600;
  const replies = 'test:responses:tool.execute:stream';
  const push = (from: number) =>
    redis.client.lpush(
      queueOf('tool.execute'),
      ...Array.from({ length: COUNT / 3 }, (_, at) => {
        const args = { city: `canary-${from + at}` };
        return JSON.stringify(
          request('tool.execute', { tool: 'weather', args }, { callback_queue: replies }),
        );
      }),
    );
  const answered = async () => await redis.client.llen(replies);
  const logged: unknown[] = [];

  const killed = await peer();
  await push(0);
  await until('some answers', async () => (await answered()) > 20);
  await stopped(killed);
  const ended = await peer();
  await push(COUNT / 3);
  await until('more answers', async () => (await answered()) > COUNT / 3);
  ended.kill('SIGTERM');
  assert.equal(await ended.exit, 0);
  assert.deepEqual(await redis.client.keys('*:processing:*'), []);
  assert.equal(ended.lines.at(-1)?.event, 'stopped');
  const last = await peer();
  await push((COUNT / 3) * 2);
  await until('all answers', async () => (await redis.client.llen(queueOf('tool.execute'))) === 0, 30_000);
  last.kill('SIGTERM');
  await last.exit;
  const cities = (await redis.client.lrange(replies, 0, -1)).map(
    (text) => z.object({ result: z.object({ city: z.string() }) }).parse(parsed(text).data).result.city,
  );
  assert.equal(new Set(cities).size, COUNT);
  for (const { lines } of [killed, ended, last]) logged.push(...lines);
  assert.ok(last.actions().length > 0);
  assert.doesNotMatch(JSON.stringify(logged), /canary/);
});

test('a peer outlives its Redis', async (t) => {
  const { redis, peer } = await pythonCluster(t);
  const running = await peer();
  await redis.restart();
  await running.line('redis_away');
  const { data } = await ask(redis, 'tool.execute', { tool: 'add', args: { a: 20, b: 22 } });
  assert.equal(data.result, 42);
  await running.line('redis_back');
});
