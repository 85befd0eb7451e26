/** Brings a body off a queue to its listener and says what came of it; and the form of a dead letter. */
import { isUtf8 } from 'node:buffer';
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { type ErrorData, errorDataSchema, RefusalError, refusal } from '../../src/domain/errors.ts';
import { type QueueName, queueNameSchema } from '../../src/domain/queues.ts';
import { WorkerPoolError } from '../../src/llm/worker-pool.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import {
  type ConsumeOptions,
  type DeadLetter,
  type Listener,
  NOT_ITS_FAULT,
  type ReadMessage,
} from '../../src/ports/transport.ts';
import { decodeAction, MAX_ACTION_BYTES } from '../wire/codec.ts';
import type { BodyReader } from './body-reader.ts';

/** Dead letters of a queue; beyond, the oldest go. */
export const MAX_DEAD_LETTERS = 10_000;
/** Bytes of a body that its dead letter shows as text; a larger one is written as base64, in a fraction of the time. */
const MAX_TEXT_BYTES = 512 * 1024;
/** Bytes that a dead letter has of a body that is larger than an action may be. */
const MAX_HEAD_BYTES = 4_096;

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
  /** Nobody will ever do better. */
  | { readonly type: 'malformed'; readonly error: ErrorData };

const DONE: DeliveryVerdict = { type: 'done' };

/** Never rejects. The listener is called in this tick where the body is read in it. */
export async function deliver(
  queue: QueueName,
  body: Uint8Array,
  listener: Listener,
  { log, bodies, read }: DeliveryDeps,
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
    await listener({ action, idGiven, format, queue });
    return DONE;
  } catch (error) {
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
  { onDead, onRefused, read }: ConsumeOptions,
  { log, bodies }: Pick<DeliveryDeps, 'log' | 'bodies'>,
): TellDead {
  return async (queue, body, error) => {
    try {
      const decoded = await bodies.read(queue, body, read);
      const { format } = decoded;
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
});

/** All of a dead letter but its body, and the bytes to be shown as that. */
function letterOf(queue: QueueName, body: Uint8Array, error: ErrorData) {
  const replayable = body.length <= MAX_ACTION_BYTES;
  const shown = asBuffer(replayable ? body : body.subarray(0, MAX_HEAD_BYTES));
  const encoding = shown.length <= MAX_TEXT_BYTES && isUtf8(shown) ? 'utf8' : 'base64';
  const size = body.length;
  const letter = {
    id: randomUUID(),
    queue,
    error,
    diedAtMs: Date.now(),
    size,
    encoding,
    replayable,
  } as const;
  return { letter, shown };
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** A body with the reason why nobody works on it. */
export function deadLetter(queue: QueueName, body: Uint8Array, error: ErrorData): DeadLetter {
  const { letter, shown } = letterOf(queue, body, error);
  return { ...letter, body: shown.toString(letter.encoding) };
}

/** Bytes that are made base64 at once; a multiple of three. */
const BASE64_BYTES = 48 * 1024;

/** The same as JSON text, without its body beside it. No text of the size of a large body is ever made: that takes long. */
export function deadLetterJson(queue: QueueName, body: Uint8Array, error: ErrorData) {
  const { letter, shown } = letterOf(queue, body, error);
  if (letter.encoding === 'utf8')
    return { letter, json: Buffer.from(JSON.stringify({ ...letter, body: shown.toString() })) };
  const head = `${JSON.stringify(letter).slice(0, -1)},"body":"`;
  const headBytes = Buffer.byteLength(head);
  const json = Buffer.allocUnsafe(headBytes + 4 * Math.ceil(shown.length / 3) + 2);
  let at = json.write(head);
  for (let from = 0; from < shown.length; from += BASE64_BYTES)
    at += json.write(
      shown.toString('base64', from, Math.min(from + BASE64_BYTES, shown.length)),
      at,
      'latin1',
    );
  json.write('"}', at);
  return { letter, json };
}

/** A dead letter out of its JSON text; null where it is none (another program may write to the list, too). */
export function parseDeadLetter(text: string): DeadLetter | null {
  try {
    return deadLetterSchema.safeParse(JSON.parse(text)).data ?? null;
  } catch {
    return null;
  }
}

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
