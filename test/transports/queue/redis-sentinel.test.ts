/** The transport through Redis Sentinel: masters that die or are exchanged, sentinels that are down or locked. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { checkRedisUrl } from '../../../src/cli/redis-check.ts';
import { RefusalError } from '../../../src/domain/errors.ts';
import {
  managementPattern,
  managementQueue,
  responseQueue,
  tierSubscription,
} from '../../../src/domain/queues.ts';
import type { Transport } from '../../../src/ports/transport.ts';
import { askRedis } from '../../../transports/queue/redis/ping.ts';
import { openRedisTransport } from '../../../transports/queue/redis/transport.ts';
import { openShell } from '../../cli/shell.ts';
import { quiet } from '../../support/quiet.ts';
import { type RedisCluster, startCluster } from '../../support/redis-cluster.ts';
import { redisFor, SHORT_LEASE, transportFor } from '../../support/redis-node.ts';
import { authority } from '../../support/tls-files.ts';
import { action, answering, collecting, counting, queue, refusedWith } from '../../support/transport.ts';
import { until } from '../../support/until.ts';

const WORK = queue('execution_service:free:default');
const ASKED = queue('query_service:free:default');
const LANES = [tierSubscription(WORK, 'free')];
const ASK = { timeoutMs: 2_000, format: 'msgpack' } as const;
const OWN = { ...ASK, replyQueue: (id: string) => responseQueue('execution_service', 'test', id) };

const open = (url: string): Promise<Transport> =>
  openRedisTransport({ url, nodeId: 'node', log: quiet, meter: counting(), lease: SHORT_LEASE });

async function clusterFor(
  t: TestContext,
  options: Parameters<typeof startCluster>[1],
  url: (cluster: RedisCluster) => string,
) {
  const { cluster, beforeItEnds } = await startCluster(t, options);
  const node = async (): Promise<Transport> => {
    const transport = await open(url(cluster));
    beforeItEnds(() => transport.close());
    return transport;
  };
  return { cluster, node };
}

const goes = (doing: Promise<unknown>): Promise<boolean> =>
  doing.then(
    () => true,
    () => false,
  );

/** What `nooble doctor` exits with, and its line about Redis. */
async function doctor(t: TestContext, url: string): Promise<readonly [number, string]> {
  const shell = await openShell(t, { PORT: '0', REDIS_URL: url });
  const { code, out } = await shell.run('doctor');
  return [code, out.split('\n').find((line) => line.slice(6).startsWith('redis')) ?? out];
}

/** Sends until one gets through; resolves to how many were refused. Each must be refused as the port says. */
async function refusedUntilBack(transport: Transport, body: ReturnType<typeof action>): Promise<number> {
  let refused = 0;
  await until('the transport is back', async () => {
    try {
      await transport.send(WORK, body, 'json');
      return true;
    } catch (error) {
      assert.ok(error instanceof RefusalError, String(error));
      assert.equal(error.data.code, 'TRANSPORT_UNAVAILABLE');
      refused += 1;
      return false;
    }
  });
  return refused;
}

/** Everything that a node does with its transport works. */
async function works(transport: Transport, from: number): Promise<void> {
  const replies = await Promise.all([
    transport.request(ASKED, action(from), ASK),
    transport.request(ASKED, action(from + 1), OWN),
  ]);
  assert.deepEqual(
    replies.map(({ data }) => data.n),
    [from, from + 1],
  );
}

test('a master that is killed costs nothing that its replica had', async (t) => {
  const { cluster, node } = await clusterFor(t, {}, ({ place }) => `redis+sentinel://${place}`);
  const [sender, receiver] = [await node(), await node()];
  const heard = collecting();
  const families = collecting();
  await receiver.consume([tierSubscription(ASKED, 'free')], answering(receiver), { credits: 4 });
  await receiver.consume([], families.listener, { credits: 1, patterns: [managementPattern] });
  await works(sender, 1);
  for (let n = 0; n < 50; n += 1) await sender.send(WORK, action(n), 'json');
  await cluster.replicated();

  await cluster.killMaster();
  assert.equal(await refusedWith(sender.send(WORK, action(1_000), 'json')), 'TRANSPORT_UNAVAILABLE');
  assert.equal(await refusedWith(sender.request(ASKED, action(1_001), ASK)), 'TRANSPORT_UNAVAILABLE');
  assert.equal(await refusedWith(sender.ping()), 'TRANSPORT_UNAVAILABLE');
  await refusedUntilBack(sender, action(50));
  await cluster.failedOver();
  await until('the receiver is back', () => goes(receiver.ping()));

  await until('requests', () => goes(works(sender, 3)));
  await sender.send(managementQueue('tasks', 'acme'), action(7), 'json');
  await families.heard(1);
  await receiver.consume(LANES, heard.listener, { credits: 4 });
  await heard.heard(51);
  assert.deepEqual(heard.numbers(), [...Array(51).keys()]);
});

test('masters that are exchanged while all live are followed before anything is lost', async (t) => {
  const { cluster, node } = await clusterFor(t, {}, ({ place }) => `redis+sentinel://${place}`);
  const [sender, receiver] = [await node(), await node()];
  const heard = collecting();
  await receiver.consume([tierSubscription(ASKED, 'free')], answering(receiver), { credits: 4 });
  await receiver.consume(LANES, heard.listener, { credits: 4 });
  await cluster.exchange();
  const begunMs = performance.now();
  await until('requests', () => goes(works(sender, 1)));
  assert.ok(performance.now() - begunMs < 6_000, 'the old master would be made a replica by then');
  await refusedUntilBack(sender, action(1));
  await heard.heard(1);
  assert.deepEqual(heard.numbers(), [1]);
});

test('a master that was made a replica is left, so that the next connection finds another', async (t) => {
  const redis = await redisFor(t);
  const meter = counting();
  const transport = await transportFor(t, redis.url, meter);
  const heard = collecting();
  await transport.consume(LANES, heard.listener, { credits: 1 });
  await redis.client.call('REPLICAOF', '127.0.0.1', '1');
  await assert.rejects(transport.send(WORK, action(1), 'json'), /READONLY/);
  await until('the link to be left', () => meter.of('link.lost') > 0);
  await redis.client.call('REPLICAOF', 'NO', 'ONE');
  await refusedUntilBack(transport, action(2));
  await heard.heard(1);
  assert.deepEqual(heard.numbers(), [2]);
});

test('sentinels with a password, over TLS, of which one is down and one hangs', async (t) => {
  const secrets = { password: 'p w', sentinelPassword: 's+w' };
  const url = ({ place }: RedisCluster): string =>
    `rediss+sentinel://:p%20w@${place}?sentinel_password=s+w&ssl_ca_certs=${encodeURIComponent(authority)}`;
  const { cluster, node } = await clusterFor(t, { ...secrets, tls: true }, url);
  await cluster.killSentinel(0);
  const transport = await node();
  await transport.consume([tierSubscription(ASKED, 'free')], answering(transport), { credits: 4 });
  await works(transport, 1);
  await cluster.killMaster();
  await cluster.failedOver();

  const [code, line] = await doctor(t, url(cluster));
  assert.equal(code, 0, line);
  const [down] = cluster.sentinelPorts;
  assert.match(line, new RegExp(`^ok .*the master is .*: it answers; but .*127.0.0.1:${down}: ECONNREFUSED`));
  assert.doesNotMatch(line, /p w|p%20w|s\+w/);

  cluster.signalSentinel(1, 'SIGSTOP');
  await until('requests', () => goes(works(transport, 3)));
});

test('what is wrong with sentinels is said at once, with what to do', async (t) => {
  const { cluster } = await startCluster(t, { password: 'hush', sentinelPassword: 'hush' });
  const [port = 0] = cluster.sentinelPorts;
  const at = `127.0.0.1:${port}`;
  const wrong: readonly (readonly [string, RegExp, RegExp])[] = [
    [
      'redis+sentinel://127.0.0.1:1,127.0.0.1:2/cluster',
      /no sentinel names a master \(127.0.0.1:1: .*; 127.0.0.1:2: /,
      /no sentinel names a master: sentinel 127.0.0.1:1: ECONNREFUSED, sentinel .*REDIS_URL/,
    ],
    [`redis+sentinel://${at}/cluster`, new RegExp(`${at}: NOAUTH`), /NOAUTH.*sentinel_password/],
    [`redis+sentinel://${at}/cluster?sentinel_password=loud`, /WRONGPASS/, /WRONGPASS.*sentinel_password/],
    [
      `redis+sentinel://:hush@${at}/city?sentinel_password=hush`,
      /No such master/,
      /it knows no master of that name.*sentinel monitor/,
    ],
    [`redis+sentinel://${at}/cluster?sentinel_password=hush`, /NOAUTH/, /the master is .*NOAUTH.*password/],
  ];
  for (const [url, said, doctorSays] of wrong) {
    const error = await open(url).catch((reason: unknown) => reason);
    assert.ok(error instanceof RefusalError, String(error));
    assert.equal(error.data.code, 'TRANSPORT_UNAVAILABLE');
    assert.match(error.data.message, said);
    const [code, line] = await doctor(t, url);
    assert.equal(code, 1, line);
    assert.match(line, doctorSays);
    assert.doesNotMatch(`${error.data.message} ${line}`, /hush|loud/);
  }
  const plain = await checkRedisUrl(askRedis, `rediss+sentinel://${at}/cluster?sentinel_password=hush`, 300);
  assert.match(plain.text, /no answer.*sentinel_tls=no in REDIS_URL/);
  cluster.signalSentinel(0, 'SIGSTOP');
  const hanging = open(`redis+sentinel://${at}/cluster?sentinel_password=hush`);
  await assert.rejects(hanging, /no sentinel names a master .*timed out/);
});
