/**
 * Pushes actions onto queues: the first at once, and what comes while it is on its way together in one LPUSH, as TCP
 * does with small writes. A command an action costs half the rate with 256 requests in flight, and waiting for the end
 * of the tick costs latency with one.
 */
import type { Redis } from 'ioredis';
import {
  isNoticeQueue,
  MAX_UNREAD_NOTICES,
  NOTICE_TTL_S,
  type QueueName,
  REPLY_TTL_S,
} from '../../src/domain/queues.ts';
import { unavailable } from './link.ts';

/** Bytes and actions of one LPUSH. */
const MAX_BATCH_BYTES = 1024 * 1024;
const MAX_BATCH = 500;
/** Shared reply lists are given their expiry that much later, all at once: usually they are empty again by then. */
const EXPIRE_MS = 1_000;

interface Item {
  readonly body: Buffer;
  readonly sent: () => void;
  readonly failed: (error: unknown) => void;
}

export interface Post {
  /** Resolves once Redis has it; rejects with TRANSPORT_UNAVAILABLE, and then it may have it all the same. */
  push(queue: QueueName, body: Buffer): Promise<void>;
  /** Resolves when nothing is on its way. */
  close(): Promise<void>;
}

export function createPost(sender: Redis): Post {
  /** Queues to which something is on its way, with what waits behind it. */
  const waiting = new Map<QueueName, Item[]>();
  const busy = new Set<Promise<void>>();
  const toExpire = new Set<QueueName>();
  let expiry: NodeJS.Timeout | undefined;

  const write = async (queue: QueueName, items: readonly Item[]): Promise<void> => {
    try {
      const pushed = sender.lpush(queue, ...items.map(({ body }) => body));
      if (queue.includes(':responses:')) await Promise.all([pushed, sender.expire(queue, REPLY_TTL_S)]);
      else if (isNoticeQueue(queue)) {
        const trimmed = sender.ltrim(queue, 0, MAX_UNREAD_NOTICES - 1);
        await Promise.all([pushed, trimmed, sender.expire(queue, NOTICE_TTL_S)]);
      } else await pushed;
      for (const { sent } of items) sent();
      if (queue.startsWith('nooble:replies:')) expireLater(queue);
    } catch (error) {
      for (const { failed } of items) failed(unavailable(error));
    }
  };

  const writeOn = async (queue: QueueName, first: Item): Promise<void> => {
    const behind: Item[] = [];
    waiting.set(queue, behind);
    await write(queue, [first]);
    while (behind.length > 0) await write(queue, behind.splice(0, batchOf(behind)));
    waiting.delete(queue);
  };

  const expireLater = (queue: QueueName): void => {
    toExpire.add(queue);
    expiry ??= setTimeout(() => {
      expiry = undefined;
      for (const each of toExpire) sender.expire(each, REPLY_TTL_S).catch(() => {});
      toExpire.clear();
    }, EXPIRE_MS);
  };

  return {
    push: (queue, body) =>
      new Promise<void>((sent, failed) => {
        const item = { body, sent, failed };
        const behind = waiting.get(queue);
        if (behind) {
          behind.push(item);
          return;
        }
        const done = writeOn(queue, item).finally(() => busy.delete(done));
        busy.add(done);
      }),
    async close() {
      while (busy.size > 0) await Promise.all(busy);
      clearTimeout(expiry);
    },
  };
}

/** How many of them fit into one command; one at least. */
function batchOf(items: readonly Item[]): number {
  let bytes = 0;
  const over = items.findIndex(({ body }, at) => {
    bytes += body.length;
    return at > 0 && (bytes > MAX_BATCH_BYTES || at >= MAX_BATCH);
  });
  return over < 0 ? items.length : over;
}
