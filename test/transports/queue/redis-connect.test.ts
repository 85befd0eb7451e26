/** How the transport finds its Redis: URLs, passwords, users, sentinels, and what it refuses. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RefusalError } from '../../../src/domain/errors.ts';
import { nodeSubscriptions, workQueue } from '../../../src/domain/queues.ts';
import { openRedisTransport } from '../../../transports/queue/redis/transport.ts';
import { redisOptions } from '../../../transports/queue/redis/url.ts';
import { leakFree } from '../../support/leaks.ts';
import { quiet } from '../../support/quiet.ts';
import { beforeRedisStops, redisFor } from '../../support/redis-node.ts';
import { action, collecting, counting } from '../../support/transport.ts';

const open = (url: string) => openRedisTransport({ url, nodeId: 'test', log: quiet, meter: counting() });

const refusal = async (url: string): Promise<string> => {
  const error = await open(url).catch((reason: unknown) => reason);
  assert.ok(error instanceof RefusalError, String(error));
  assert.equal(error.data.code, 'TRANSPORT_UNAVAILABLE');
  return error.data.message;
};

test('every form of URL is read', () => {
  assert.deepEqual(redisOptions('redis://localhost'), { host: 'localhost', port: 6379, db: 0 });
  assert.deepEqual(redisOptions('redis://u:p%40ss@[::1]:7000/3'), {
    host: '::1',
    port: 7000,
    db: 3,
    username: 'u',
    password: 'p@ss',
  });
  assert.deepEqual(redisOptions('rediss://:secret@redis.example:6380'), {
    host: 'redis.example',
    port: 6380,
    db: 0,
    password: 'secret',
    tls: { servername: 'redis.example' },
  });
  assert.deepEqual(redisOptions('redis+sentinel://u:p@a:1,b/main/2?sentinel_user=s&sentinel_password=t'), {
    username: 'u',
    password: 'p',
    db: 2,
    name: 'main',
    sentinels: [
      { host: 'a', port: 1 },
      { host: 'b', port: 26379 },
    ],
    sentinelUsername: 's',
    sentinelPassword: 't',
  });
});

test('what is no URL is refused without its password', () => {
  for (const url of ['http://x', 'redis://:hush@host:99999', 'redis://:hush@h/x', 'redis+sentinel://:hush@h'])
    assert.throws(
      () => redisOptions(url),
      (error: Error) => !error.message.includes('hush'),
    );
});

test('a password and a user with the rights that are needed do', async (t) => {
  const redis = await redisFor(t, { password: 'pw' });
  const rights = ['~*', '&*', '+@all', '-@admin', '-@dangerous', '+info', '+client'];
  await redis.client.call('ACL', 'SETUSER', 'nooble', 'on', '>word', ...rights);
  const transport = await open(`redis://nooble:word@127.0.0.1:${redis.port}`);
  beforeRedisStops(t, () => transport.close());
  const heard = collecting();
  await transport.consume(nodeSubscriptions(), heard.listener, { credits: 1 });
  await transport.send(workQueue('free', 'default'), action(1), 'json');
  await heard.heard(1);

  assert.match(await refusal(`redis://127.0.0.1:${redis.port}`), /NOAUTH/);
  assert.match(await refusal(`redis://:wrong@127.0.0.1:${redis.port}`), /WRONGPASS/);
});

test('nobody there is said at once', async (t) => {
  leakFree(t);
  assert.match(await refusal('redis://127.0.0.1:1'), /ECONNREFUSED/);
});

test('a Redis Cluster is refused with what to use instead', async (t) => {
  const redis = await redisFor(t, { args: ['--cluster-enabled', 'yes'] });
  assert.match(await refusal(redis.url), /Redis Cluster/);
});
