/** Tells the store what was sent, many at a time. What it is never told is sent again by the next start. */
import type { Outgoing } from '../../src/action-ports.ts';
import type { Log, Store, Write } from '../../src/ports.ts';
import { backoff, type RelayTiming } from './relay-timing.ts';

type Sent = Extract<Write, { type: 'outgoing-sent' }>['sent'][number];

/** Sent, and not yet known to the store; beyond, the oldest are left to be sent twice. */
const MAX_WAITING = 50_000;

export interface Acks {
  add(outgoing: Outgoing): void;
  /** Writes what is left, once: what fails now is left to the next start. */
  close(): Promise<void>;
}

export interface AcksDeps {
  readonly store: Pick<Store, 'commit'>;
  readonly log: Log;
  readonly timing: RelayTiming;
  readonly random: () => number;
}

/** One write is on its way at a time; one that fails is written again, together with what has come since. */
export function createAcks({ store, log, timing, random }: AcksDeps): Acks {
  /** By tenant and id: what is met again before the store was told counts once. */
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
