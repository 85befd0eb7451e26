/** Reads bodies off queues: small ones at once, large ones in a worker, those of one queue in their order. */
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { parseDomainAction } from '../../src/domain/domain-action.ts';
import { tenantIdSchema } from '../../src/domain/ids.ts';
import type { QueueName } from '../../src/domain/queues.ts';
import { createWorkerPool } from '../../src/llm/worker-pool.ts';
import type { ReadMessage } from '../../src/ports/transport.ts';
import {
  actionOf,
  type Body,
  type DecodedAction,
  MAX_ACTION_BYTES,
  MAX_INLINE_BYTES,
  readBody,
} from '../wire/codec.ts';

/** Bytes of a body in which the sender is looked for, also where there are too many for an action. */
const MAX_TOLD_BYTES = 2 * MAX_ACTION_BYTES;
/** A body of that size takes some 50 ms. */
const DEADLINE_MS = 5_000;
const START_DEADLINE_MS = 30_000;
/** Taken bodies are bounded by the credits of their consumers. */
const MAX_WAITING = 100_000;
const LIMITS = { maxOldGenerationSizeMb: 256, maxYoungGenerationSizeMb: 32 };

/** Whose a body is, only its reading shows. */
const ANYBODY = tenantIdSchema.parse('anybody');

export interface BodyReader {
  /**
   * In this tick where the body is small and no other of its queue is still being read. Rejects with a WorkerPoolError.
   * `read`: as in ConsumeOptions.
   */
  read(queue: QueueName, body: Uint8Array, read?: ReadMessage): DecodedAction | Promise<DecodedAction>;
  /** The same of a reply: those wait for no other. */
  readReply(body: Uint8Array): DecodedAction | Promise<DecodedAction>;
  close(): Promise<void>;
}

const bodySchema = z.custom<Body>(
  (value) => typeof value === 'object' && value !== null && 'format' in value,
);

/** The thread starts with the first large body. */
export function createBodyReader(): BodyReader {
  // Fresh memory of that size costs more than the copying: the thread gets its bodies one after the other, in this one.
  const shared = new SharedArrayBuffer(MAX_TOLD_BYTES);
  const room = new Uint8Array(shared);
  const pool = createWorkerPool<number, Body>({
    url: new URL('../wire/decode-worker.ts', import.meta.url),
    limits: LIMITS,
    deadlineMs: DEADLINE_MS,
    startDeadlineMs: START_DEADLINE_MS,
    threads: 1,
    maxWaiting: MAX_WAITING,
    maxWaitingOfOne: MAX_WAITING,
    reply: bodySchema,
    data: shared,
  });
  let turn: Promise<unknown> = Promise.resolve();
  const last = new Map<QueueName, Promise<unknown>>();

  const isSmall = (body: Uint8Array): boolean => body.length <= MAX_INLINE_BYTES;
  const plain = (body: Body): DecodedAction => actionOf(body, Date.now(), randomUUID, parseDomainAction);
  const parsed = (body: Body, queue: QueueName, read: ReadMessage | undefined): DecodedAction =>
    read
      ? actionOf(body, Date.now(), randomUUID, (raw, now, newId) => read(raw, queue, now, newId))
      : plain(body);
  const readLarge = (body: Uint8Array): Promise<Body> => {
    const reading = turn.then(() => {
      const told = body.subarray(0, MAX_TOLD_BYTES);
      room.set(told);
      return pool.run(told.length, ANYBODY);
    });
    turn = reading.catch(() => {});
    return reading;
  };
  const bodyOf = (body: Uint8Array): Body | Promise<Body> =>
    isSmall(body) ? readBody(body) : readLarge(body);

  return {
    read(queue, body, read) {
      const before = last.get(queue);
      if (!before && isSmall(body)) return parsed(readBody(body), queue, read);
      const reading = Promise.resolve(before)
        .catch(() => {})
        .then(() => bodyOf(body))
        .then((each) => parsed(each, queue, read))
        .finally(() => {
          if (last.get(queue) === reading) last.delete(queue);
        });
      last.set(queue, reading);
      return reading;
    },
    readReply(body) {
      const value = bodyOf(body);
      return value instanceof Promise ? value.then(plain) : plain(value);
    },
    close: () => pool.close(),
  };
}
