/**
 * Pushes actions onto queues: the first at once, and what comes while it is on its way together in one LPUSH, as TCP
 * does with small writes. A command an action costs half the rate with 256 requests in flight, and waiting for the end
 * of the tick costs latency with one.
 */
import { Command, type Redis } from 'ioredis';
import { RefusalError, refusal } from '../../../src/domain/errors.ts';
import {
  isNoticeQueue,
  isReplyQueue,
  MAX_UNREAD_NOTICES,
  NOTICE_TTL_S,
  type QueueName,
  REPLY_TTL_S,
  repliesQueue,
} from '../../../src/domain/queues.ts';
import { unavailable } from './connection.ts';

/** Bytes and actions of one LPUSH. */
const MAX_BATCH_BYTES = 1024 * 1024;
const MAX_BATCH = 500;
/** Shared reply lists are given their expiry that much later, all at once: usually they are empty by then. */
const EXPIRE_MS = 1_000;
const SHARED_REPLIES = repliesQueue('');

interface PendingPush {
  readonly body: Buffer;
  readonly sent: () => void;
  readonly failed: (error: unknown) => void;
}

interface Producer {
  /**
   * Resolves once Redis has it. Rejects with TRANSPORT_UNAVAILABLE, and then Redis may have it all the same; with
   * INVALID_REQUEST where it never will: the queue is no list, or this node may not write to it. What was handed over
   * behind it for the same queue is rejected with it: it must not overtake what its sender will repeat.
   */
  push(queue: QueueName, body: Buffer): Promise<void>;
  /** Resolves when nothing is on its way. */
  close(): Promise<void>;
}

export function createProducer(sender: Redis): Producer {
  /** Queues to which something is on its way, with what waits behind it. */
  const waiting = new Map<QueueName, PendingPush[]>();
  let idle: (() => void) | undefined;
  const bounds = createBounds(sender);

  const start = (queue: QueueName, items: readonly PendingPush[], behind: PendingPush[]): void => {
    write(queue, items).then(
      () => {
        for (const { sent } of items) sent();
        if (behind.length > 0) start(queue, behind.splice(0, batchOf(behind)), behind);
        else ended(queue);
      },
      (error: unknown) => {
        const reason = refusalOf(error);
        for (const { failed } of items) failed(reason);
        for (const { failed } of behind) failed(reason);
        ended(queue);
      },
    );
  };

  const ended = (queue: QueueName): void => {
    waiting.delete(queue);
    if (waiting.size === 0) idle?.();
  };

  const write = (queue: QueueName, items: readonly PendingPush[]): Promise<unknown> => {
    const bodies = items.map(({ body }) => body);
    const pushed = lpush(sender, queue, bodies);
    if (isReplyQueue(queue) || isNoticeQueue(queue)) return pushed.then(() => bounds.apply(queue));
    return pushed;
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
        const later: PendingPush[] = [];
        waiting.set(queue, later);
        start(queue, [item], later);
      }),
    async close() {
      if (waiting.size > 0) {
        await new Promise<void>((resolve) => {
          idle = resolve;
        });
      }
      bounds.close();
    },
  };
}

interface Bounds {
  /**
   * Sees to it that what nobody may ever fetch goes away. Only after the push: a key that is no list is not ours to
   * let expire. Where the node dies in between, whoever sends the reply once more sees to it.
   */
  apply(queue: QueueName): Promise<unknown> | undefined;
  close(): void;
}

function createBounds(sender: Redis): Bounds {
  const toExpire = new Set<QueueName>();
  let expiry: NodeJS.Timeout | undefined;

  const expireLater = (queue: QueueName): void => {
    toExpire.add(queue);
    expiry ??= setTimeout(() => {
      expiry = undefined;
      for (const each of toExpire) sender.expire(each, REPLY_TTL_S).catch(() => {});
      toExpire.clear();
    }, EXPIRE_MS);
  };

  return {
    apply(queue) {
      if (isNoticeQueue(queue)) {
        const trimmed = sender.ltrim(queue, 0, MAX_UNREAD_NOTICES - 1);
        return Promise.all([trimmed, sender.expire(queue, NOTICE_TTL_S)]);
      }
      if (!queue.startsWith(SHARED_REPLIES)) return sender.expire(queue, REPLY_TTL_S);
      expireLater(queue);
      return undefined;
    },
    close: () => clearTimeout(expiry),
  };
}

/** What a failed write means to its sender. */
function refusalOf(error: unknown): RefusalError {
  const text = error instanceof Error ? error.message : '';
  if (text.startsWith('WRONGTYPE')) return never('The queue is no list.');
  if (text.startsWith('NOPERM')) return never('This node may not write to the queue.');
  return unavailable(error);
}

const never = (message: string): RefusalError => new RefusalError(refusal('INVALID_REQUEST', { message }));

/** How many of them fit into one command; one at least. */
function batchOf(items: readonly PendingPush[]): number {
  let bytes = 0;
  const over = items.findIndex(({ body }, at) => {
    bytes += body.length;
    return at > 0 && (bytes > MAX_BATCH_BYTES || at >= MAX_BATCH);
  });
  return over < 0 ? items.length : over;
}

const CRLF = '\r\n';

/** Bytes of a body's length as RESP writes it, at most. */
const MAX_HEADER = 16;

class Lpush extends Command {
  readonly #queue: QueueName;
  readonly #bodies: readonly Buffer[];

  constructor(queue: QueueName, bodies: readonly Buffer[]) {
    // Errors quote the arguments: they need not quote the bodies.
    super('lpush', [queue]);
    this.#queue = queue;
    this.#bodies = bodies;
  }

  override toWritable(): Buffer {
    return lpushBytes(this.#queue, this.#bodies);
  }
}

/** Resolves once the list holds them; rejects as ioredis does. */
const lpush = async (redis: Redis, queue: QueueName, bodies: readonly Buffer[]): Promise<unknown> =>
  redis.sendCommand(new Lpush(queue, bodies));

/** The command as RESP: an array of bulk strings. A queue's name is ASCII, so its length is its size. */
export function lpushBytes(queue: QueueName, bodies: readonly Buffer[]): Buffer {
  let piece = `*${2 + bodies.length}\r\n$5\r\nlpush\r\n$${queue.length}\r\n${queue}\r\n`;
  let size = piece.length + CRLF.length;
  for (const body of bodies) size += MAX_HEADER + body.length + CRLF.length;
  const bytes = Buffer.allocUnsafe(size);
  let end = 0;
  for (const body of bodies) {
    // What lies between two bodies goes in at once.
    end += bytes.write(`${piece}$${body.length}${CRLF}`, end, 'latin1');
    bytes.set(body, end);
    end += body.length;
    piece = CRLF;
  }
  end += bytes.write(CRLF, end, 'latin1');
  return bytes.subarray(0, end);
}
