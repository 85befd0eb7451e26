/** A Redis that answers and refuses: writes altogether, or one queue. The node waits, says so in /ready, and loses nothing. */
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import {
  type ActionClient,
  action,
  actionScene,
  ownList,
  pydantic2,
  WORK,
  workOf,
} from '../support/action-client.ts';
import { startScene } from '../support/node.ts';
import { redisFor } from '../support/redis-node.ts';
import { until } from '../support/until.ts';
import { settled } from './actions-cluster.ts';

/** How long the node is watched while Redis refuses, and scripts that it may run in a second. */
const WATCHED_MS = 1_500;
const MAX_SCRIPTS_A_SECOND = 20;
const RECOVERY_MS = 20_000;

const run = (list: string): string =>
  pydantic2(action('execution.agent_run', { message: 'Hi.' }, { callback_queue: list }));

/** Scripts that Redis was asked to run since its start, refused ones included. */
async function scripts({ redis }: ActionClient): Promise<number> {
  const info = await redis.client.info('commandstats');
  return [...info.matchAll(/^cmdstat_(?:evalsha|eval):calls=(\d+).*?rejected_calls=(\d+)/gm)]
    .map(([, calls, rejected]) => Number(calls) + Number(rejected))
    .reduce((sum, each) => sum + each, 0);
}

interface Refusal {
  readonly code: string;
  readonly prepare?: (client: ActionClient) => Promise<void>;
  readonly refuse: readonly [string, ...string[]];
  readonly allow: readonly [string, ...string[]];
}

/** A save in the background that fails: a folder stands where its file should. */
async function failingSave({ redis: { client } }: ActionClient): Promise<void> {
  const [, folder = ''] = await client.call('CONFIG', 'GET', 'dir').then(Object).then(Object.values);
  await mkdir(join(folder, 'dump.rdb', 'full'), { recursive: true });
  await client.bgsave();
  await until('it has failed', async () =>
    (await client.info('persistence')).includes('rdb_last_bgsave_status:err'),
  );
}

const REFUSALS: Readonly<Record<string, Refusal>> = {
  'without its replicas': {
    code: 'NOREPLICAS',
    refuse: ['CONFIG', 'SET', 'min-replicas-to-write', '1'],
    allow: ['CONFIG', 'SET', 'min-replicas-to-write', '0'],
  },
  'that is full': {
    code: 'OOM',
    refuse: ['CONFIG', 'SET', 'maxmemory', '1'],
    allow: ['CONFIG', 'SET', 'maxmemory', '0'],
  },
  'that has become a replica': {
    code: 'READONLY',
    refuse: ['REPLICAOF', '127.0.0.1', '1'],
    allow: ['REPLICAOF', 'NO', 'ONE'],
  },
  'that can not save': {
    code: 'MISCONF',
    prepare: failingSave,
    refuse: ['CONFIG', 'SET', 'save', '3600 1'],
    allow: ['CONFIG', 'SET', 'save', ''],
  },
};

for (const [name, { code, prepare, refuse, allow }] of Object.entries(REFUSALS))
  test(`a Redis ${name} is waited for, and its actions are done afterwards`, async (t) => {
    const { client, ask, stub } = await actionScene(t);
    const { client: redis } = client.redis;
    const list = ownList();
    await client.push(WORK, run(list));
    await client.reply(list);
    await prepare?.(client);
    const before = await scripts(client);
    // On another queue than the one that is waited on: a script must fetch it, which Redis then refuses.
    const pipeline = redis.pipeline().lpush(workOf('free'), run(list));
    await pipeline.call(...refuse).exec();
    await wait(WATCHED_MS);
    const rate = ((await scripts(client)) - before) / (WATCHED_MS / 1_000);
    assert.ok(rate < MAX_SCRIPTS_A_SECOND, `${rate} scripts a second`);
    const { status, body } = await ask('/ready');
    assert.equal(status, 503);
    assert.match(body.checks.redis.error, new RegExp(code));
    await redis.call(...allow);
    const reply = await client.reply(list);
    assert.equal(reply.data.status, 'success');
    await until('it is ready', async () => (await ask('/ready')).status === 200, RECOVERY_MS);
    await settled(client, workOf('free'));
    assert.equal(stub.requests.length, 2);
  });

test('one barred queue: the others are served, /ready names it, and it is served once it may be', async (t) => {
  const redis = await redisFor(t);
  await redis.client.call(
    'ACL',
    'SETUSER',
    'node',
    'on',
    '>word',
    '+@all',
    '&*',
    '~nooble:*',
    '~agent*',
    '~tests:*',
  );
  const others = ['advance', 'professional', 'enterprise'].flatMap((tier) => [
    workOf(tier),
    workOf(tier, 'high_priority'),
  ]);
  const barred = workOf('free');
  const allowed = [...others, workOf('free', 'high_priority')].map((queue) => `~${queue}`);
  await redis.client.call('ACL', 'SETUSER', 'node', ...allowed);
  const url = redis.url.replace('redis://', 'redis://node:word@');
  const { ask } = await startScene(t, { env: { REDIS_URL: url } });
  for (const queue of others) {
    const list = ownList();
    await redis.client.lpush(queue, run(list));
    await until(queue, async () => (await redis.client.llen(list)) === 1);
  }
  const waiting = ownList();
  await redis.client.lpush(barred, run(waiting));
  const { status, body } = await ask('/ready');
  assert.equal(status, 503);
  assert.match(body.checks.redis.error, new RegExp(`from ${barred}$`));
  await redis.client.call('ACL', 'SETUSER', 'node', `~${barred}`);
  await until('it is served', async () => (await redis.client.llen(waiting)) === 1, RECOVERY_MS);
  await until('it is ready', async () => (await ask('/ready')).status === 200, RECOVERY_MS);
});
