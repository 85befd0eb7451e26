/** Sends one stored message, and says whether anything is left to do about it. */
import { LRUCache } from 'lru-cache';
import { RefusalError } from '../domain/errors.ts';
import type { Outgoing, Store, Write } from '../ports/store.ts';
import type { Log } from '../ports/telemetry.ts';
import type { Transport } from '../ports/transport.ts';

/** Messages remembered after they were sent, so that one found in the store, or stored anew, is not sent twice. */
const MAX_REMEMBERED = 10_000;

/** True: it is settled, sent or given up, or another call sends it. False: not now. Never rejects. */
export type SendStored = (outgoing: Outgoing) => Promise<boolean>;

interface SendDeps {
  readonly transport: Pick<Transport, 'send'>;
  readonly acks: Acks;
  readonly log: Log;
}

/**
 * What is refused and may be taken later is for the caller to repeat. What never will be taken (too large, no such
 * queue, not to be encoded) is logged and counts as sent: it must not stand in the way of the rest.
 */
export function createSend({ transport, acks, log }: SendDeps): SendStored {
  const known = new LRUCache<string, 'sending' | 'settled'>({ max: MAX_REMEMBERED });

  return async (outgoing) => {
    const key = `${outgoing.tenantId} ${outgoing.id}`;
    const state = known.get(key);
    if (state === 'sending') return true;
    if (state === undefined) {
      known.set(key, 'sending');
      const error = await attempt(transport, outgoing);
      if (error && passes(error)) {
        known.delete(key);
        return false;
      }
      if (error) giveUp(log, outgoing, error);
      if (known.has(key)) known.set(key, 'settled');
    }
    acks.add(outgoing);
    return true;
  };
}

/** Null once the transport has it. Asks it in this tick. */
export async function attempt(
  transport: Pick<Transport, 'send'>,
  { queue, action, format }: Outgoing,
): Promise<Error | null> {
  try {
    if (queue === undefined) return null;
    if (action === undefined) return new Error('there is nothing to send');
    await transport.send(queue, action, format);
    return null;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  }
}

/** Whether the same may be taken later. Whatever is no refusal comes of the message itself: it can not be encoded. */
export const passes = (error: Error): boolean => error instanceof RefusalError && error.data.retryable;

export function giveUp(log: Log, { tenantId, id, queue }: Outgoing, error: Error): void {
  log.error({ tenant_id: tenantId, id, queue, err: error }, 'a stored message can never be sent: given up');
}

type Sent = Extract<Write, { type: 'outgoing-sent' }>['sent'][number];

/** Sent, and not yet known to the store; beyond, the oldest are left to be sent twice. */
const MAX_WAITING = 50_000;

interface Acks {
  add(outgoing: Outgoing): void;
  /** Writes what is left, once: what fails now is left to the next start. */
  close(): Promise<void>;
}

interface AcksDeps {
  readonly store: Pick<Store, 'commit'>;
  readonly log: Log;
  readonly timing: RelayTiming;
  readonly random: () => number;
}

/** One write is on its way at a time; one that fails is repeated, together with what has come since. */
export function createAcks({ store, log, timing, random }: AcksDeps): Acks {
  /** By tenant and id: what is met twice before the store was told counts once. */
  let waiting = new Map<string, Sent>();
  let writing: Promise<boolean> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let failures = 0;
  let closed = false;

  /** The oldest, taken out. */
  function taken(count: number): readonly (readonly [string, Sent])[] {
    const oldest: [string, Sent][] = [];
    for (const entry of waiting) {
      if (oldest.length >= count) break;
      oldest.push(entry);
      waiting.delete(entry[0]);
    }
    return oldest;
  }

  async function write(): Promise<boolean> {
    const sent = taken(timing.ackBatch);
    try {
      await store.commit({ type: 'outgoing-sent', sent: sent.map(([, each]) => each) });
      failures = 0;
      return true;
    } catch (error) {
      failures += 1;
      if (failures === 1)
        log.warn({ err: error, count: sent.length }, 'the store was not told what was sent');
      waiting = new Map([...sent, ...waiting]);
      return false;
    }
  }

  function begin(): void {
    clearTimeout(timer);
    timer = undefined;
    writing = write().finally(() => {
      writing = undefined;
      schedule();
    });
  }

  function schedule(): void {
    if (closed || writing || waiting.size === 0) return;
    if (failures === 0 && waiting.size >= timing.ackBatch) return begin();
    timer ??= setTimeout(begin, failures === 0 ? timing.ackMs : backoff(failures, timing, random)).unref();
  }

  function shed(): void {
    if (waiting.size <= MAX_WAITING) return;
    const { length: count } = taken(MAX_WAITING / 2);
    log.error({ count }, 'the store does not take what was sent: some will be sent twice');
  }

  return {
    add({ tenantId, id }) {
      if (closed) return;
      waiting.set(`${tenantId} ${id}`, { tenantId, id });
      shed();
      schedule();
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      await writing;
      while (waiting.size > 0 && (await write()));
    },
  };
}

export interface RelayTiming {
  /** What was sent is told to the store this much later, together with what is sent meanwhile … */
  readonly ackMs: number;
  /** … or as soon as there is that much of it, which is also the most for one write. */
  readonly ackBatch: number;
  /** Between tries while the transport or the store is away: from the first, doubled up to the second, with jitter. */
  readonly backoffMs: number;
  readonly maxBackoffMs: number;
  /** Read from the store at once; also the most that is on its way to one queue. */
  readonly page: number;
  /** Messages in memory, on their way or waiting for it; what is beyond is read from the store later. */
  readonly maxInMemory: number;
  /** How long close() waits for sends, and then again for the store. */
  readonly closeMs: number;
}

export const RELAY_TIMING: RelayTiming = {
  ackMs: 20,
  ackBatch: 200,
  backoffMs: 200,
  maxBackoffMs: 5_000,
  page: 256,
  maxInMemory: 10_000,
  closeMs: 2_000,
};

/** The wait before the next try, after that many failures (1 or more) in a row; `random` is from 0 to 1. */
export const backoff = (
  failures: number,
  { backoffMs, maxBackoffMs }: RelayTiming,
  random: () => number,
): number => Math.min(maxBackoffMs, backoffMs * 2 ** (failures - 1)) * (0.5 + random() / 2);
