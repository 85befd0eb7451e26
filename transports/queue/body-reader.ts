/**
 * Reads bodies off queues: small ones at once, large ones in a worker that tenants take in turn. Those of one tenant on
 * one queue keep their order; whose a large one is, its first bytes say.
 */
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
  envelopeFields,
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
   * In this tick where the body is small and no other of its tenant and queue is still being read. Rejects with a
   * WorkerPoolError. `read`: as in ConsumeOptions.
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
  const turns = createTurns();
  /** What is still being read, by queue and tenant. */
  const pending = new Map<QueueName, Map<Owner, Promise<unknown>>>();

  const isSmall = (body: Uint8Array): boolean => body.length <= MAX_INLINE_BYTES;
  const plain = (body: Body): DecodedAction => actionOf(body, Date.now(), randomUUID, parseDomainAction);
  const parsed = (body: Body, queue: QueueName, read: ReadMessage | undefined): DecodedAction =>
    read
      ? actionOf(body, Date.now(), randomUUID, (raw, now, newId) => read(raw, queue, now, newId))
      : plain(body);
  const readLarge = (body: Uint8Array, owner: string): Promise<Body> =>
    turns.run(owner, () => {
      const told = body.subarray(0, MAX_TOLD_BYTES);
      room.set(told);
      return pool.run(told.length, ANYBODY);
    });

  /** What has to be read before, so that nothing of its tenant is overtaken. */
  function before(queue: QueueName, owner: Owner): readonly Promise<unknown>[] {
    const others = pending.get(queue);
    if (!others) return [];
    if (owner === undefined) return [...others.values()];
    return [others.get(owner), others.get(undefined)].flatMap((each) => each ?? []);
  }

  function noted<T>(queue: QueueName, owner: Owner, reading: Promise<T>): Promise<T> {
    const others = pending.get(queue) ?? new Map<Owner, Promise<unknown>>();
    pending.set(queue, others);
    const noting: Promise<T> = reading.finally(() => {
      if (others.get(owner) === noting) others.delete(owner);
      if (others.size === 0 && pending.get(queue) === others) pending.delete(queue);
    });
    others.set(owner, noting);
    return noting;
  }

  return {
    read(queue, body, read) {
      const small = isSmall(body) ? readBody(body) : undefined;
      if (small && !pending.has(queue)) return parsed(small, queue, read);
      const owner = small ? tenantOf(small) : peeked(body);
      const others = before(queue, owner);
      if (small && others.length === 0) return parsed(small, queue, read);
      const reading = Promise.allSettled(others)
        .then(() => small ?? readLarge(body, owner ?? queue))
        .then((each) => parsed(each, queue, read));
      return noted(queue, owner, reading);
    },
    readReply(body) {
      return isSmall(body) ? plain(readBody(body)) : readLarge(body, peeked(body) ?? '').then(plain);
    },
    close: () => pool.close(),
  };
}

/** A tenant as a body names it; undefined where that is not plain from its first bytes. */
type Owner = string | undefined;

/** Bytes of a large body in which its tenant is looked for. */
const HEAD_BYTES = 4_096;

const tenantOf = (body: Body): Owner => textIn(body.ok ? body.value : body.fields);

const peeked = (body: Uint8Array): Owner => textIn(envelopeFields(body.subarray(0, HEAD_BYTES)));

function textIn(fields: unknown): Owner {
  const tenant: unknown =
    typeof fields === 'object' && fields !== null ? Reflect.get(fields, 'tenant_id') : undefined;
  return typeof tenant === 'string' ? tenant : undefined;
}

/** One piece of work at a time: of each owner in its order, owners one after the other. */
function createTurns() {
  const waiting = new Map<string, (() => Promise<void>)[]>();
  let isBusy = false;

  async function next(): Promise<void> {
    if (isBusy) return;
    const [first] = waiting;
    if (!first) return;
    const [owner, works] = first;
    waiting.delete(owner);
    const work = works.shift();
    if (works.length > 0) waiting.set(owner, works);
    isBusy = true;
    await work?.();
    isBusy = false;
    next();
  }

  return {
    run: <T>(owner: string, work: () => Promise<T>): Promise<T> =>
      new Promise((resolve, reject) => {
        const works = waiting.get(owner) ?? [];
        works.push(() => work().then(resolve, reject));
        waiting.set(owner, works);
        next();
      }),
  };
}
