/** Brings a body off a queue to its listener and says what came of it; and the form of a dead letter. */
import { isUtf8 } from 'node:buffer';
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { defined } from '../../src/domain/defined.ts';
import { type ErrorData, errorDataSchema, RefusalError, refusal } from '../../src/domain/errors.ts';
import { type QueueName, queueNameSchema } from '../../src/domain/queues.ts';
import { WorkerPoolError } from '../../src/llm/worker-pool.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import {
  type ConsumeOptions,
  type DeadLetter,
  type Listener,
  NOT_ITS_FAULT,
  type Place,
  type ReadMessage,
  SetAside,
} from '../../src/ports/transport.ts';
import { decodeAction, MAX_ACTION_BYTES } from '../wire/codec.ts';
import type { BodyReader } from './body-reader.ts';

/** Dead letters of a queue; beyond, the oldest go. */
export const MAX_DEAD_LETTERS = 10_000;
/** Bytes of a body that stands in its dead letter as a whole. */
const MAX_WHOLE_BYTES = 64 * 1024;
/** Bytes that a dead letter shows of a larger one. */
const MAX_HEAD_BYTES = 4_096;
/** Actions that one consumer sets aside; each beyond holds a credit again, so that the rest stays on its queue. */
export const MAX_ASIDE = 50_000;

/** Bytes of an action, unless they are more than any receiver would take: then refused with TOO_LARGE. */
export function sized(body: Uint8Array): Uint8Array {
  if (body.length <= MAX_ACTION_BYTES) return body;
  const message = `The action has ${body.length} bytes; at most ${MAX_ACTION_BYTES} are taken.`;
  throw new RefusalError(refusal('TOO_LARGE', { message }));
}

type DeliveryVerdict =
  | { readonly type: 'done' }
  /** The listener failed: it may do better next time. */
  | { readonly type: 'failed'; readonly error: ErrorData }
  /** The listener can work on nothing now: NOT_ITS_FAULT. */
  | { readonly type: 'requeue'; readonly error: ErrorData }
  /** The listener has no place for it yet. */
  | { readonly type: 'aside'; readonly place: Place }
  /** Nobody will ever do better. */
  | { readonly type: 'malformed'; readonly error: ErrorData };

const DONE: DeliveryVerdict = { type: 'done' };

/** Never rejects. The listener is called in this tick where the body is read in it. */
export async function deliver(
  queue: QueueName,
  body: Uint8Array,
  listener: Listener,
  deps: DeliveryDeps,
  place?: Place,
): Promise<DeliveryVerdict> {
  const verdict = await listen(queue, body, listener, deps, place);
  if (verdict.type !== 'aside' || verdict.place !== place) place?.leave();
  return verdict;
}

async function listen(
  queue: QueueName,
  body: Uint8Array,
  listener: Listener,
  { log, bodies, read }: DeliveryDeps,
  place: Place | undefined,
): Promise<DeliveryVerdict> {
  let decoded = bodies.read(queue, body, read);
  if (decoded instanceof Promise) {
    const reading = await decoded.catch(unread);
    if ('type' in reading) return reading;
    decoded = reading;
  }
  if (!decoded.ok) return { type: 'malformed', error: decoded.error };
  const { action, idGiven, format } = decoded;
  try {
    await listener({ action, idGiven, format, queue, bytes: body.length, ...defined({ place }) });
    return DONE;
  } catch (error) {
    if (error instanceof SetAside) return { type: 'aside', place: error.place };
    if (error instanceof RefusalError) {
      const type = NOT_ITS_FAULT.has(error.data.code) ? 'requeue' : 'failed';
      return { type, error: error.data };
    }
    // What an exception says may quote a conversation: it goes to the log, not onto a queue.
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    log.error({ queue, type: action.action_type, error: text }, 'a listener crashed');
    return { type: 'failed', error: refusal('INTERNAL') };
  }
}

interface DeliveryDeps {
  readonly log: Log;
  readonly bodies: BodyReader;
  readonly read: ReadMessage | undefined;
}

/** Of a body that its worker gave no value of. */
function unread(error: unknown): DeliveryVerdict {
  const fault = error instanceof WorkerPoolError ? error.fault : 'crashed';
  if (fault === 'late' || fault === 'memory') {
    const message = 'The action is malformed: reading it takes too long, or too much memory.';
    return { type: 'malformed', error: refusal('INVALID_REQUEST', { message }) };
  }
  if (fault === 'crashed') return { type: 'failed', error: refusal('INTERNAL') };
  return { type: 'requeue', error: refusal(fault === 'closed' ? 'DRAINING' : 'TRANSPORT_UNAVAILABLE') };
}

/** Tells a consumer of an action that is dead, as far as it can read it. */
export type TellDead = (queue: QueueName, body: Uint8Array, error: ErrorData) => void;

export function tellingDead(
  { onDead, onRefused, onUnread, read }: ConsumeOptions,
  { log, bodies }: Pick<DeliveryDeps, 'log' | 'bodies'>,
): TellDead {
  return async (queue, body, error) => {
    try {
      const decoded = await bodies.read(queue, body, read);
      const { format } = decoded;
      if (!decoded.ok) onUnread?.(queue, error);
      if (decoded.ok) onDead?.({ action: decoded.action, idGiven: decoded.idGiven, format, queue }, error);
      else if (decoded.envelope)
        onRefused?.({ action: decoded.envelope, idGiven: false, format, queue }, error);
    } catch (thrown) {
      const text = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
      log.error({ queue, error: text }, 'who was told of a dead action crashed');
    }
  };
}

const deadLetterSchema = z.object({
  id: z.string(),
  queue: queueNameSchema,
  error: errorDataSchema,
  diedAtMs: z.number(),
  size: z.number(),
  encoding: z.enum(['utf8', 'base64']),
  body: z.string(),
  replayable: z.boolean(),
  isApart: z.boolean().default(false),
});
/** With `isApart` the body is its beginning, and the whole lies under the letter's id. */
export type StoredDeadLetter = z.infer<typeof deadLetterSchema>;

/** A body with the reason why nobody works on it; of one that is larger than an action may be, its beginning. */
export function deadLetter(queue: QueueName, body: Uint8Array, error: ErrorData): DeadLetter {
  const replayable = body.length <= MAX_ACTION_BYTES;
  const shown = shownAs(replayable ? body : body.subarray(0, MAX_HEAD_BYTES));
  return { id: randomUUID(), queue, error, diedAtMs: Date.now(), size: body.length, replayable, ...shown };
}

/** Text where it is one: it reads well in a list. */
function shownAs(bytes: Uint8Array) {
  const encoding = isUtf8(bytes) ? 'utf8' : 'base64';
  const shown = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { encoding, body: shown.toString(encoding) } as const;
}

/**
 * The same as it is stored where its body lies already: a large one is kept apart, and only its beginning is shown. To
 * make a text of it and to send that takes longer than one turn of the loop may.
 */
export function storedDeadLetter(queue: QueueName, body: Uint8Array, error: ErrorData) {
  const isApart = body.length > MAX_WHOLE_BYTES && body.length <= MAX_ACTION_BYTES;
  if (!isApart) return { ...deadLetter(queue, body, error), isApart };
  const head = deadLetter(queue, body.subarray(0, MAX_HEAD_BYTES), error);
  return { ...head, size: body.length, isApart };
}

/** A dead letter out of its JSON text; null where it is none (another program may write to the list, too). */
export function parseDeadLetter(text: string): StoredDeadLetter | null {
  try {
    return deadLetterSchema.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}

/** The letter with the body that was kept apart; without one it can not be replayed. */
export const withBody = (letter: StoredDeadLetter, body: Buffer | null): DeadLetter =>
  body ? { ...letter, ...shownAs(body) } : { ...letter, replayable: false };

export const bodyOf = (letter: DeadLetter): Buffer => Buffer.from(letter.body, letter.encoding);

const labelSchema = z.object({
  tenant_id: z.string(),
  action_type: z.string().optional(),
  type: z.string().optional(),
});

/** What a dead body says of itself: the type of an action, task or notice, and its tenant. Null where it is unreadable. */
export function labelOf(letter: DeadLetter): { readonly type: string; readonly tenantId: string } | null {
  const found: unknown[] = [];
  decodeAction(
    bodyOf(letter),
    letter.diedAtMs,
    () => '',
    (raw) => {
      found.push(raw);
      return { ok: false, error: letter.error };
    },
  );
  const { data } = labelSchema.safeParse(found[0]);
  return data ? { type: data.action_type ?? data.type ?? '', tenantId: data.tenant_id } : null;
}

/** Where the refusal does not say when to try again, and the longest that it is believed. */
const PAUSE_MS = 250;

const MAX_PAUSE_MS = 10_000;

interface Pauses {
  /** From now on for the refusal's `retry_after_ms`, or PAUSE_MS; one that lasts longer already stays as it is. */
  pause(queue: QueueName, error: ErrorData): void;
  has(queue: QueueName): boolean;
  /** No more of them, and no more word of those that there are. */
  close(): void;
}

/** `ended` hears of each that is over. */
export function createPauses(ended: (queue: QueueName) => void): Pauses {
  const pauses = new Map<QueueName, { readonly untilMs: number; readonly timer: NodeJS.Timeout }>();
  let isClosed = false;
  return {
    pause(queue, error) {
      const forMs = Math.min(error.retry_after_ms ?? PAUSE_MS, MAX_PAUSE_MS);
      const untilMs = performance.now() + forMs;
      const running = pauses.get(queue);
      if (isClosed || (running && running.untilMs >= untilMs)) return;
      clearTimeout(running?.timer);
      const timer = setTimeout(() => {
        pauses.delete(queue);
        ended(queue);
      }, forMs);
      pauses.set(queue, { untilMs, timer });
    },
    has: (queue) => pauses.has(queue),
    close() {
      isClosed = true;
      for (const { timer } of pauses.values()) clearTimeout(timer);
      pauses.clear();
    },
  };
}
