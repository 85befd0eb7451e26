/**
 * The transport over Redis lists: senders push left, receivers take from the right (PROTOCOL 4).
 * Redis carries messages and keeps no truth.
 *
 * Connections of a node: `sender`, `reader` and `invalidations` (key-tracking.ts), `replies` once a request shares the common list, and
 * a `blocker` for each consumer, with a `discovery` (queue-set.ts) where it takes queues by patterns.
 */
import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { type ErrorData, RefusalError, refusal } from '../../../src/domain/errors.ts';
import { type QueueName, repliesQueue } from '../../../src/domain/queues.ts';
import type { Log } from '../../../src/ports/telemetry.ts';
import type {
  ActionFormat,
  Consumption,
  Sendable,
  Transport,
  TransportMeter,
} from '../../../src/ports/transport.ts';
import { encodeAction } from '../../wire/codec.ts';
import { createBodyReader } from '../body-reader.ts';
import { sized } from '../delivery.ts';
import { closed, createRequests } from '../requests.ts';
import {
  closeConnection,
  connected,
  type Endpoint,
  notWritable,
  openConnection,
  unavailable,
} from './connection.ts';
import { type NodeConsumer, startConsumer } from './consumer.ts';
import { createDeadLetters } from './dead-letters.ts';
import { openKeyTracking } from './key-tracking.ts';
import { LEASE_TIMES, type LeaseTimes } from './lease.ts';
import { createProducer } from './producer.ts';
import { createReplyReader } from './reply-reader.ts';
import { readyKey } from './scripts.ts';
import { redisOptions } from './url.ts';

interface RedisTransportOptions {
  /** See redisOptions. */
  readonly url: string;
  /** Names this node in Redis; every start adds something of its own. */
  readonly nodeId: string;
  readonly log: Log;
  readonly meter: TransportMeter;
  readonly lease?: LeaseTimes;
}

/**
 * Connects; rejects with TRANSPORT_UNAVAILABLE and the reason where the first try fails, and for a Redis Cluster.
 * Throws an Error for a URL that is none.
 */
export async function openRedisTransport(settings: RedisTransportOptions): Promise<Transport> {
  const { log, meter, nodeId } = settings;
  const endpoint: Endpoint = { options: redisOptions(settings.url), log, meter };
  const { sender, tracking } = await openConnections(endpoint);
  const start = `${nodeId}:${randomUUID()}`;
  const shared = repliesQueue(start);
  const bodies = createBodyReader();
  const requests = createRequests(shared, { log, meter, bodies });
  const replies = createReplyReader(endpoint, tracking, shared, requests, log);
  const consumptions = new Set<Consumption>();
  const consumers = new Set<NodeConsumer>();
  const producer = createProducer(sender);
  let consumersStarted = 0;
  let closing: Promise<void> | undefined;

  const send = async (queue: QueueName, message: Sendable, format: ActionFormat): Promise<void> => {
    if (closing) throw closed();
    const body = sized(encodeAction(message, format));
    await producer.push(queue, Buffer.from(body.buffer, body.byteOffset, body.byteLength));
  };

  const ping = async (): Promise<void> => {
    if (closing) throw closed();
    // A server that refuses to write answers a PING as always.
    await sender.set(readyKey(start), '1', 'PX', READY_TTL_MS).catch((error: unknown) => {
      throw notWritable(error);
    });
  };

  const close = async (): Promise<void> => {
    await Promise.all([...consumptions].map((consumption) => consumption.stop()));
    requests.close();
    await producer.close();
    await replies.close();
    await bodies.close();
    tracking.close();
    closeConnection(sender);
  };

  return {
    send,
    async request(queue, action, options) {
      if (closing) throw closed();
      return requests.run(queue, action, options, async (sending) => {
        if (options.replyQueue) {
          const watching = replies.single(sending.replyQueue, sending.correlationId);
          await Promise.all([watching, send(queue, sending.action, options.format)]).catch((error) => {
            throw unavailable(error);
          });
        } else {
          replies.shared();
          await send(queue, sending.action, options.format);
        }
      });
    },
    async consume(subscriptions, listener, options) {
      if (closing) throw closed();
      if (!(options.credits >= 1))
        throw new RefusalError(refusal('INVALID_REQUEST', { message: 'A consumer needs a credit.' }));
      consumersStarted += 1;
      const holder = `${start}:${consumersStarted}`;
      const lease = settings.lease ?? LEASE_TIMES;
      const setup = { endpoint, tracking, holder, lease, consumers, bodies, log, meter };
      const consumption = await startConsumer(setup, subscriptions, listener, options);
      consumptions.add(consumption);
      const stop = async (): Promise<void> => {
        await consumption.stop();
        consumptions.delete(consumption);
      };
      return { ...consumption, stop };
    },
    replied: (reply) => requests.replied(reply),
    dead: createDeadLetters(sender),
    ping,
    async ready() {
      await ping();
      const barred = [...consumers].flatMap((consumer) => consumer.barred());
      if (barred.length > 0) throw new RefusalError(notReadable(barred));
    },
    close() {
      closing ??= close();
      return closing;
    },
  };
}

const READY_TTL_MS = 60_000;

const notReadable = (queues: readonly QueueName[]): ErrorData => {
  const reason = `Redis does not let this node take from ${queues.join(', ')}`;
  return refusal('TRANSPORT_UNAVAILABLE', { message: reason, details: { reason } });
};

async function openConnections(endpoint: Endpoint) {
  const sender = openConnection(endpoint, 'sender', 0);
  await connected(sender);
  try {
    await single(sender);
    return { sender, tracking: await openKeyTracking(endpoint) };
  } catch (error) {
    closeConnection(sender);
    throw unavailable(error);
  }
}

/** Scripts touch several queues at once, which a cluster keeps on different machines. */
async function single(redis: Redis): Promise<void> {
  // A user who may not ask is believed: a cluster would refuse the first script.
  const info = await redis.info('cluster').catch(() => '');
  if (!/^cluster_enabled:1/m.test(info)) return;
  throw new RefusalError(
    refusal('TRANSPORT_UNAVAILABLE', {
      message: 'REDIS_URL names a Redis Cluster; use a single server, a replicated one, or Sentinel.',
    }),
  );
}
