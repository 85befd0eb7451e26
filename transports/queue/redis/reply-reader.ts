/**
 * Reads replies: one connection for all requests of this node that share a list, and none at all for lists of single
 * requests, whose arrival key tracking reports.
 *
 * Replies are taken with BLMPOP, in batches and at most once: a reply whose connection breaks under it is lost, and its
 * requester hears PEER_TIMEOUT, as it does when the peer dies. Measured beside it: a BLMOVE a reply costs a third of
 * the rate, and a blocking connection a request costs two round trips and a socket each.
 */
import { type QueueName, REPLY_TTL_S } from '../../../src/domain/queues.ts';
import type { Log } from '../../../src/ports/telemetry.ts';
import { MAX_REPLY_QUEUES, type Requests } from '../requests.ts';
import { type Endpoint, textOf } from './connection.ts';
import type { KeyTracking } from './key-tracking.ts';
import { createListReader } from './list-reader.ts';
import { itemsOf } from './scripts.ts';

const BLOCK_MS = 2_000;
const MAX_BATCH = 256;

interface ReplyReader {
  /** Begins to read the shared list; once is enough. */
  shared(): void;
  /** Looks out for the reply on a queue for one request, also for a late one, as long as it may lie there. */
  single(queue: QueueName, correlationId: string): Promise<void>;
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
    { readonly untilMs: number; fetch(): void; readonly untrack: () => void }
  >();
  const sharedReader = createListReader(
    endpoint,
    { name: 'replies', key: sharedQueue, blockMs: BLOCK_MS, onBody: (body) => requests.reply(body) },
    log,
  );

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
    for (const [queue, { untilMs, untrack }] of lists) {
      if (untilMs > now && lists.size < MAX_REPLY_QUEUES) return;
      untrack();
      lists.delete(queue);
    }
  };

  const offReset = tracking.onReset(() => {
    for (const list of lists.values()) list.fetch();
  });

  return {
    shared: sharedReader.start,
    async single(queue, correlationId) {
      dropOld();
      const fetchNow = (): void => {
        fetch(queue, correlationId).catch((error: unknown) => {
          log.debug({ error: textOf(error) }, 'reading a reply broke off');
        });
      };
      const untilMs = performance.now() + REPLY_TTL_S * 1_000;
      lists.set(queue, { untilMs, fetch: fetchNow, untrack: tracking.key(queue, fetchNow) });
      if ((await tracking.reader.llen(queue)) > 0) fetchNow();
    },
    async close() {
      offReset();
      for (const { untrack } of lists.values()) untrack();
      lists.clear();
      await sharedReader.close();
    },
  };
}
