/** A restricted user of Redis does: the whole contract of transports with the rights that docs/protocol.md names. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { nodeSubscriptions, workQueue } from '../../../src/domain/queues.ts';
import { openRedisTransport } from '../../../transports/queue/redis/transport.ts';
import { leakFree } from '../../support/leaks.ts';
import { quiet } from '../../support/quiet.ts';
import { startRedis } from '../../support/redis.ts';
import { SHORT_LEASE } from '../../support/redis-node.ts';
import { action, collecting, counting } from '../../support/transport.ts';
import { transportContract } from './contract.ts';

/** Commands that docs/protocol.md, section 4, names. */
const BROAD = ['+@all', '-@admin', '-@dangerous', '+info', '+client'];
/** No more than the transport uses. */
const NARROW = [
  ...['-@all', '+auth', '+select', '+ping', '+info', '+client|id', '+client|setname'],
  ...['+client|tracking', '+client|unblock', '+subscribe', '+scan', '+evalsha', '+eval'],
  ...['+lpush', '+rpush', '+rpop', '+ltrim', '+llen', '+lrange', '+lrem', '+blmove', '+blmpop'],
  ...['+set', '+exists', '+del', '+expire', '+incr'],
  ...['+hset', '+hget', '+hgetall', '+hkeys', '+hdel', '+sadd', '+srem', '+smembers'],
];
/** What a node reads and writes: queues, dead lists, replies, its own notes. */
const KEYS = [
  ...['~nooble:*', '~execution_service:*', '~agent_execution_service:*', '~orchestrator:*'],
  ...['~agent-management.*', '~management_service:*', '~conversation_service:*', '~embedding_service:*'],
  ...['~query_service:*', '~tool_registry_service:*'],
];
const CHANNELS = ['resetchannels', '&__redis__:invalidate'];

const server = await startRedis();
after(() => server.stop());

const WORK = workQueue('free', 'default');
const USERS = [
  ['a user with the documented rights', [...BROAD, '~*', '&*']],
  ['a user with the least rights', [...NARROW, ...KEYS, '~somewhere', ...CHANNELS]],
] as const;
const URL = `redis://nooble:word@127.0.0.1:${server.port}/1`;

async function allow(rights: readonly string[]): Promise<void> {
  await server.client.flushall();
  await server.client.select(1);
  await server.client.call('ACL', 'SETUSER', 'nooble', 'reset', 'on', '>word', ...rights);
  await server.client.call('ACL', 'LOG', 'RESET');
}

async function nothingRefused(): Promise<void> {
  assert.deepEqual(await server.client.call('ACL', 'LOG'), [], 'something was refused');
}

for (const [name, rights] of USERS) {
  transportContract(name, async (t, meter) => {
    await allow(rights);
    const transport = await openRedisTransport({ url: URL, nodeId: 'test', log: quiet, meter });
    t.after(async () => {
      await transport.close();
      await nothingRefused();
    });
    return {
      transport,
      meter,
      push: async (name, body) => void (await server.client.lpush(name, Buffer.from(body))),
    };
  });

  test(`${name}: what a dead node had taken goes back`, async (t) => {
    leakFree(t);
    await allow(rights);
    const options = { url: URL, nodeId: 'test', log: quiet, meter: counting(), lease: SHORT_LEASE };
    const transport = await openRedisTransport(options);
    t.after(() => transport.close());
    const heard = collecting();
    const intake = 'nooble:intake:dead:1:0';
    await server.client.hset('nooble:taken:dead:1', '1', `${WORK}\n${JSON.stringify(action(1))}`);
    await server.client.hset('nooble:taken:dead:1', `hot:${intake}`, WORK);
    await server.client.lpush(intake, JSON.stringify(action(2)));
    await server.client.sadd('nooble:holders', 'dead:1');
    await transport.consume(nodeSubscriptions(), heard.listener, { credits: 1 });
    await heard.heard(2);
    assert.deepEqual(heard.numbers(), [1, 2]);
    await nothingRefused();
  });
}

test('a user without CLIENT TRACKING is told so at the start', async (t) => {
  leakFree(t);
  await allow(['+@all', '-@admin', '-@dangerous', '-client|tracking', '~*', '&*']);
  const opening = openRedisTransport({ url: URL, nodeId: 'test', log: quiet, meter: counting() });
  await assert.rejects(opening, /NOPERM.*client\|tracking/);
});

test('a user without a database of its own does not work in another one unnoticed', async (t) => {
  leakFree(t);
  await allow([...BROAD, '-select', '~*', '&*']);
  const opening = openRedisTransport({ url: URL, nodeId: 'test', log: quiet, meter: counting() });
  await assert.rejects(opening, /NOPERM.*select/);
});
