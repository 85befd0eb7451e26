/** What a consumer has taken and not settled: runs the listener and tells Redis what came of it, as often as it takes. */
import type { ErrorData } from '../../../src/domain/errors.ts';
import { deadQueue, MAX_DELIVERIES, type QueueName, queueNameSchema } from '../../../src/domain/queues.ts';
import type { Log } from '../../../src/ports/telemetry.ts';
import type { Listener, ReadMessage, TransportMeter } from '../../../src/ports/transport.ts';
import { deadLetter, deliver, MAX_DEAD_LETTERS, type TellDead } from '../delivery.ts';
import type { BlockingReader } from './blocking-reader.ts';
import { textOf } from './connection.ts';
import type { KeyTracking } from './key-tracking.ts';
import { buryScript, DEAD_QUEUES, failScript, giveBackScript, itemsOf, recoverScript } from './scripts.ts';

/** How long Redis remembers that an action has failed. */
export const FAILURES_TTL_S = 3_600;
/** Settlements of one kind in one command, and how long they wait for each other; with 10 ms nothing is faster. */
const MAX_ACKS = 500;
const SETTLE_DELAY_MS = 2;

/** One delivery, by the id under which it lies in the hash, or, with a list, by its body in the list of a BLMOVE. */
interface InFlightEntry {
  id: string;
  list: string | undefined;
  readonly queue: QueueName;
  readonly body: Buffer;
}

interface BadEnd {
  readonly type: 'fail' | 'bury';
  readonly error: ErrorData;
  /** Its burial was tried before, and may have been done. */
  readonly isRepeated?: boolean;
}

type Settlement = { readonly type: 'ack' | 'give-back' } | BadEnd;
const ACK: Settlement = { type: 'ack' };

interface InFlight {
  /** Listeners that run. */
  running(): number;
  /** Ids that this process works on or has yet to settle. */
  knows(id: string): boolean;
  /** Calls the listener in this tick. */
  start(entry: InFlightEntry): void;
  /** Takes note that a body was moved from a list to the hash; false where nothing of that list has that body. */
  moved(list: string, body: Buffer, id: string): boolean;
  /** Puts on the dead list what lies in the hash under that id. */
  deadLetter(entry: InFlightEntry, error: ErrorData): void;
  /** Tells Redis what is settled; what fails stays for the next time. */
  flush(): Promise<void>;
  /** Resolves when no listener runs. */
  idle(): Promise<void>;
  unsettled(): number;
}

export function createInFlight(
  deps: {
    readonly watch: KeyTracking;
    readonly taken: string;
    readonly log: Log;
    readonly meter: TransportMeter;
    readonly read: ReadMessage | undefined;
    /** A listener has settled: there is room for another. */
    readonly freed: () => void;
    /** An action has gone back to its queue, by our own hand, which the watch does not report. */
    readonly returned: (queue: QueueName) => void;
    /** The listener can not work on what is there now. */
    readonly pause: (queue: QueueName, error: ErrorData) => void;
    /** Resolves when nothing of this consumer waits on that queue, where it would have at once what is given back. */
    readonly left: (queue: QueueName) => Promise<void>;
    readonly tellDead: TellDead;
  },
  listener: Listener,
): InFlight {
  const { watch, taken, log, meter } = deps;
  const running = new Map<InFlightEntry, Promise<void>>();
  const settlements = new Map<InFlightEntry, Settlement>();
  let flushing: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;

  const settle = (entry: InFlightEntry, settlement: Settlement): void => {
    settlements.set(entry, settlement);
    // Told together, a moment later: what is given back together keeps its order, and an acknowledgement each would
    // cost a quarter of the latency of the next action.
    timer ??= setTimeout(() => {
      timer = undefined;
      void flush();
    }, SETTLE_DELAY_MS);
  };

  const work = async (entry: InFlightEntry): Promise<void> => {
    const verdict = await deliver(entry.queue, entry.body, listener, log, deps.read);
    running.delete(entry);
    if (verdict.type === 'done') settle(entry, ACK);
    else if (verdict.type === 'requeue') {
      deps.pause(entry.queue, verdict.error);
      settle(entry, { type: 'give-back' });
    } else settle(entry, { type: verdict.type === 'failed' ? 'fail' : 'bury', error: verdict.error });
    deps.freed();
  };

  const ack = async (entries: readonly InFlightEntry[]): Promise<void> => {
    await watch.reader.hdel(taken, ...entries.map(({ id }) => id));
    for (const entry of entries) settlements.delete(entry);
  };

  /** By body, since what lies in a list has no other name; near its right end, as it is among the oldest. */
  const ackListed = async (entries: readonly InFlightEntry[]): Promise<void> => {
    const pipeline = watch.reader.pipeline();
    const lists = entries.map(({ list }) => list);
    for (const { list = '', body } of entries) pipeline.lrem(list, -1, body);
    const results = (await pipeline.exec()) ?? [];
    for (const [at, entry] of entries.entries()) {
      const error = results[at]?.[0];
      if (error) throw error;
      // Moved meanwhile by our own stocktaking: then it is the hash's turn.
      if (entry.list === lists[at]) settlements.delete(entry);
    }
  };

  const deadLetterNow = async (
    entry: InFlightEntry,
    error: ErrorData,
    isRepeated: boolean,
  ): Promise<void> => {
    const letter = deadLetter(entry.queue, entry.body, error);
    const keys = [taken, deadQueue(letter.queue), DEAD_QUEUES];
    const args = [entry.id, JSON.stringify(letter), letter.queue, MAX_DEAD_LETTERS];
    settlements.set(entry, { type: 'bury', error, isRepeated: true });
    const trimmed = Number(await buryScript(watch.reader, keys, args));
    settlements.delete(entry);
    if (trimmed >= 0 || isRepeated) deps.tellDead(entry.queue, entry.body, error);
    if (trimmed < 0) return;
    meter.counted('action.dead', 1);
    const { queue } = letter;
    log.warn({ queue, id: letter.id, code: error.code, reason: error.message }, 'an action is dead');
    if (trimmed > 0) log.warn({ queue, count: trimmed }, 'a dead list is full: its oldest letters are gone');
  };

  /** Moves what lies in the list of a BLMOVE to the hash, where scripts find it. */
  const intoHash = async (entry: InFlightEntry): Promise<void> => {
    if (entry.list === undefined) return;
    await recoverScript(watch.reader, [taken, entry.list], [entry.id, entry.queue, entry.body]);
    entry.list = undefined;
  };

  const settleBadly = async (
    entry: InFlightEntry,
    { type, error, isRepeated = false }: BadEnd,
  ): Promise<void> => {
    await intoHash(entry);
    if (type === 'bury') return deadLetterNow(entry, error, isRepeated);
    const keys = [taken, entry.queue];
    const outcome = Number(await failScript(watch.reader, keys, [entry.id, MAX_DELIVERIES, FAILURES_TTL_S]));
    // Poison. From here on it must not be counted again, whatever breaks.
    if (outcome === 2) return deadLetterNow(entry, error, false);
    settlements.delete(entry);
    if (outcome === 0) return;
    meter.counted('action.redelivered', 1);
    deps.returned(entry.queue);
  };

  /** All of one queue, in one step and in their order: what one flush brings was taken together. */
  const requeue = async (queue: QueueName, entries: readonly InFlightEntry[]): Promise<void> => {
    await deps.left(queue);
    await Promise.all(entries.map(intoHash));
    const ids = entries.map(({ id }) => id).sort((a, b) => Number(b) - Number(a));
    const count = Number(await giveBackScript(watch.reader, [taken, queue], ids));
    for (const entry of entries) settlements.delete(entry);
    meter.counted('action.returned', count);
    deps.returned(queue);
  };

  const flushAll = async (): Promise<void> => {
    const acks: InFlightEntry[] = [];
    const listed: InFlightEntry[] = [];
    const returns = new Map<QueueName, InFlightEntry[]>();
    const settling: Promise<void>[] = [];
    for (const [entry, settlement] of settlements) {
      if (settlement.type === 'give-back') {
        const ofQueue = returns.get(entry.queue) ?? [];
        ofQueue.push(entry);
        returns.set(entry.queue, ofQueue);
      } else if (settlement.type === 'fail' || settlement.type === 'bury')
        settling.push(settleBadly(entry, settlement));
      else if (entry.list !== undefined) listed.push(entry);
      else acks.push(entry);
    }
    for (let at = 0; at < acks.length; at += MAX_ACKS) settling.push(ack(acks.slice(at, at + MAX_ACKS)));
    if (listed.length > 0) settling.push(ackListed(listed));
    for (const [queue, entries] of returns) settling.push(requeue(queue, entries));
    const results = await Promise.allSettled(settling);
    const failed = results.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
  };

  const flush = async (): Promise<void> => {
    // One at a time: what is on its way must not be sent again by the next.
    while (flushing) await flushing;
    clearTimeout(timer);
    timer = undefined;
    if (settlements.size === 0 || !watch.armed()) return;
    flushing = flushAll()
      .catch((error: unknown) => log.debug({ error: textOf(error) }, 'Redis could not be told what is done'))
      .finally(() => {
        flushing = undefined;
      });
    await flushing;
  };

  return {
    running: () => running.size,
    knows: (id) => [...running.keys(), ...settlements.keys()].some((entry) => entry.id === id),
    start(entry) {
      const done = work(entry);
      running.set(entry, done);
    },
    moved(list, body, id) {
      const all = [...running.keys(), ...settlements.keys()];
      const entry = all.find((each) => each.list === list && each.body.equals(body));
      if (!entry) return false;
      entry.list = undefined;
      entry.id = id;
      return true;
    },
    deadLetter: (entry, error) => settle(entry, { type: 'bury', error }),
    flush,
    async idle() {
      while (running.size > 0) await Promise.all(running.values());
    },
    unsettled: () => settlements.size,
  };
}

/** Ids set aside for what one list may hold: more than a few only when a server stood still for long. */
const SPARE_IDS = 1_000;

/** Tells Redis what it has missed, and starts what this process has missed, as far as there is room. */
export async function reconcile(consumer: {
  readonly watch: KeyTracking;
  readonly taken: string;
  readonly held: InFlight;
  readonly intake: BlockingReader;
  readonly nextId: (count: number) => number;
  readonly room: () => number;
}): Promise<void> {
  const { watch, taken, held, intake } = consumer;
  await held.flush();
  for (const { list, queue } of intake.leftBehind()) {
    const args = [consumer.nextId(SPARE_IDS), queue];
    const moved = itemsOf(await recoverScript(watch.reader, [taken, list], args));
    for (let at = 0; at < moved.length; at += 2) {
      const [id, body] = [String(moved[at]), moved[at + 1]];
      if (Buffer.isBuffer(body) && !held.moved(list, body, id))
        held.start({ id, queue, body, list: undefined });
    }
  }
  const ids = (await watch.reader.hkeys(taken)).filter((id) => /^\d+$/.test(id) && !held.knows(id));
  for (const id of ids.slice(0, Math.max(0, consumer.room()))) {
    const entry = await watch.reader.hgetBuffer(taken, id);
    const cut = entry?.indexOf('\n') ?? -1;
    if (!entry || cut < 0 || held.knows(id)) continue;
    const queue = queueNameSchema.safeParse(entry.toString('latin1', 0, cut)).data;
    if (queue) held.start({ id, queue, body: entry.subarray(cut + 1), list: undefined });
  }
}
