/**
 * Reads replies: one connection for all requests of this node that share a list, and none at all for lists of single
 * requests, whose arrival key tracking reports.
 *
 * Replies are taken with BLMPOP, in batches and at most once: a reply whose connection breaks under it is lost, and its
 * requester hears PEER_TIMEOUT, as it does when the peer dies. Measured beside it: a BLMOVE a reply costs a third of
 * the rate, and a blocking connection a request costs two round trips and a socket each.
 */
import type { Redis } from 'ioredis';
import { type QueueName, REPLY_TTL_S } from '../../../src/domain/queues.ts';
import type { Log } from '../../../src/ports/telemetry.ts';
import { MAX_REPLY_QUEUES, type Requests } from '../requests.ts';
import { closeConnection, type Endpoint, openConnection, textOf } from './connection.ts';
import type { KeyTracking } from './key-tracking.ts';
import { itemsOf } from './scripts.ts';

const BLOCK_S = 2;
const MAX_BATCH = 256;

interface ReplyReader {
  /** Begins to read the shared list; once is enough. */
  shared(): void;
  /** Looks out for a reply on a list of its own, also for a late one, as long as it may lie there. */
  own(queue: QueueName, correlationId: string): Promise<void>;
  close(): Promise<void>;
}

export function createReplyReader(
  endpoint: Endpoint,
  tracking: KeyTracking,
  sharedQueue: QueueName,
  requests: Requests,
  log: Log,
): ReplyReader {
  const lists = new Map<
    QueueName,
    { readonly untilMs: number; fetch(): void; readonly unwatch: () => void }
  >();
  let reader: Redis | undefined;
  let reading: Promise<void> = Promise.resolve();
  let isClosed = false;
  let goOn = (): void => {};

  const read = async (link: Redis): Promise<void> => {
    const args = [BLOCK_S, 1, sharedQueue, 'RIGHT', 'COUNT', MAX_BATCH];
    while (!isClosed) {
      if (link.status !== 'ready') {
        // Not `end`: a link that is closed while it waits to reconnect never says so.
        await new Promise<void>((resolve) => {
          goOn = resolve;
          link.once('ready', resolve);
        });
        continue;
      }
      try {
        const [, bodies] = itemsOf(await link.callBuffer('BLMPOP', ...args));
        for (const body of itemsOf(bodies)) if (Buffer.isBuffer(body)) requests.reply(body);
        // What the requesters send next goes out before we ask again.
        await new Promise(process.nextTick);
      } catch (error) {
        if (isClosed) return;
        log.debug({ error: textOf(error) }, 'reading replies broke off');
        // An error that is no lost connection would come back at once.
        if (link.status === 'ready') await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  };

  /** Takes what is there, and reads the length: that makes the server tell us of the next push. */
  const fetch = async (queue: QueueName, correlationId: string): Promise<void> => {
    let left = 1;
    while (left > 0) {
      const [popped, length] = await Promise.all([
        tracking.reader.callBuffer('RPOP', queue, MAX_BATCH),
        tracking.reader.llen(queue),
      ]);
      for (const body of itemsOf(popped)) if (Buffer.isBuffer(body)) requests.reply(body, correlationId);
      left = length;
    }
  };

  const dropOld = (): void => {
    const now = performance.now();
    for (const [queue, { untilMs, unwatch }] of lists) {
      if (untilMs > now && lists.size < MAX_REPLY_QUEUES) return;
      unwatch();
      lists.delete(queue);
    }
  };

  const offReset = tracking.onReset(() => {
    for (const list of lists.values()) list.fetch();
  });

  return {
    shared() {
      if (reader) return;
      const link = openConnection(endpoint, 'replies', BLOCK_S * 1_000);
      reader = link;
      // Where it fails it is tried again; requests have deadlines.
      link.connect().catch(() => {});
      reading = read(link);
    },
    async own(queue, correlationId) {
      dropOld();
      const again = (): void => {
        fetch(queue, correlationId).catch((error: unknown) => {
          log.debug({ error: textOf(error) }, 'reading a reply broke off');
        });
      };
      const untilMs = performance.now() + REPLY_TTL_S * 1_000;
      lists.set(queue, { untilMs, fetch: again, unwatch: tracking.key(queue, again) });
      if ((await tracking.reader.llen(queue)) > 0) again();
    },
    async close() {
      isClosed = true;
      offReset();
      for (const { unwatch } of lists.values()) unwatch();
      lists.clear();
      if (reader) closeConnection(reader);
      goOn();
      await reading;
    },
  };
}
