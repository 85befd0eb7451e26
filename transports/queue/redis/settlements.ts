/** What became of actions in flight: told to Redis a moment later, together, and as often as it takes. */
import type { ErrorData } from '../../../src/domain/errors.ts';
import { deadQueue, MAX_DELIVERIES, type QueueName } from '../../../src/domain/queues.ts';
import type { Log } from '../../../src/ports/telemetry.ts';
import type { Place, TransportMeter } from '../../../src/ports/transport.ts';
import { MAX_INLINE_BYTES } from '../../wire/codec.ts';
import { MAX_DEAD_LETTERS, storedDeadLetter, type TellDead } from '../delivery.ts';
import { textOf } from './connection.ts';
import type { KeyTracking } from './key-tracking.ts';
import {
  DEAD_QUEUES,
  deadLetterScript,
  failScript,
  itemsOf,
  recoverScript,
  requeueScript,
} from './scripts.ts';

/** How long Redis remembers that an action has failed. */
export const FAILURES_TTL_S = 3_600;
/** How long Redis keeps a large body whose dead letter somebody else took off its list. */
const DEAD_BODY_TTL_S = 30 * 86_400;
/** Settlements of one kind in one command, and how long they wait for each other; with 10 ms nothing is faster. */
const MAX_ACKS = 500;
const SETTLE_DELAY_MS = 2;

/** One delivery, by the id under which it lies in the hash, or, with a list, by its body in the list of a BLMOVE. */
export interface InFlightEntry {
  id: string;
  list: string | undefined;
  readonly queue: QueueName;
  /** Empty of one that is set aside. */
  body: Buffer;
  /** For which it was set aside before. */
  readonly place?: Place;
}

interface BadEnd {
  readonly type: 'fail' | 'dead';
  readonly error: ErrorData;
  /** Its dead letter was written before, perhaps. */
  readonly isRepeated?: boolean;
}

type Settlement = { readonly type: 'ack' | 'requeue' } | BadEnd;

export interface Settlements {
  add(entry: InFlightEntry, settlement: Settlement): void;
  /** Tells Redis what is settled; what fails stays for the next time. Never rejects. */
  flush(): Promise<void>;
  /** Those that Redis does not know of yet. */
  entries(): readonly InFlightEntry[];
}

export interface SettlementDeps {
  readonly tracking: KeyTracking;
  readonly taken: string;
  readonly log: Log;
  readonly meter: TransportMeter;
  /** An action has gone back to its queue, by our own hand, which key tracking does not report. */
  readonly returned: (queue: QueueName) => void;
  /** Resolves when nothing of this consumer waits on that queue, where it would have at once what is requeued. */
  readonly left: (queue: QueueName) => Promise<void>;
  readonly tellDead: TellDead;
}

interface Settling extends SettlementDeps {
  readonly pending: Map<InFlightEntry, Settlement>;
}

export function createSettlements(deps: SettlementDeps): Settlements {
  const { tracking, log } = deps;
  const pending = new Map<InFlightEntry, Settlement>();
  let flushing: Promise<void> | undefined;
  let timer: NodeJS.Timeout | undefined;

  const flush = async (): Promise<void> => {
    // One at a time: what is on its way must not be sent again by the next.
    while (flushing) await flushing;
    clearTimeout(timer);
    timer = undefined;
    if (pending.size === 0 || !tracking.armed()) return;
    flushing = settleAll({ ...deps, pending })
      .catch((error: unknown) => log.debug({ error: textOf(error) }, 'Redis could not be told what is done'))
      .finally(() => {
        flushing = undefined;
      });
    await flushing;
  };

  return {
    add(entry, settlement) {
      pending.set(entry, settlement);
      // Told together, a moment later: what is requeued together stays in order, and an acknowledgement each would
      // cost a quarter of the latency of the next action.
      timer ??= setTimeout(() => {
        timer = undefined;
        void flush();
      }, SETTLE_DELAY_MS);
    },
    flush,
    entries: () => [...pending.keys()],
  };
}

async function settleAll(settling: Settling): Promise<void> {
  const acks: InFlightEntry[] = [];
  const listed: InFlightEntry[] = [];
  const returns = new Map<QueueName, InFlightEntry[]>();
  const work: Promise<void>[] = [];
  for (const [entry, settlement] of settling.pending) {
    if (settlement.type === 'requeue') {
      const ofQueue = returns.get(entry.queue) ?? [];
      ofQueue.push(entry);
      returns.set(entry.queue, ofQueue);
    } else if (settlement.type === 'fail' || settlement.type === 'dead')
      work.push(settleBadly(settling, entry, settlement));
    else if (entry.list !== undefined) listed.push(entry);
    else acks.push(entry);
  }
  for (let at = 0; at < acks.length; at += MAX_ACKS) work.push(ack(settling, acks.slice(at, at + MAX_ACKS)));
  if (listed.length > 0) work.push(ackListed(settling, listed));
  for (const [queue, entries] of returns) work.push(requeue(settling, queue, entries));
  const results = await Promise.allSettled(work);
  const failed = results.find((result) => result.status === 'rejected');
  if (failed) throw failed.reason;
}

async function ack({ tracking, taken, pending }: Settling, entries: readonly InFlightEntry[]): Promise<void> {
  await tracking.reader.hdel(taken, ...entries.map(({ id }) => id));
  for (const entry of entries) pending.delete(entry);
}

/** By body, since what lies in a list has no other name; near its right end, as it is among the oldest. */
async function ackListed({ tracking, pending }: Settling, entries: readonly InFlightEntry[]): Promise<void> {
  const pipeline = tracking.reader.pipeline();
  const lists = entries.map(({ list }) => list);
  for (const { list = '', body } of entries) pipeline.lrem(list, -1, body);
  const results = (await pipeline.exec()) ?? [];
  for (const [at, entry] of entries.entries()) {
    const error = results[at]?.[0];
    if (error) throw error;
    // Moved meanwhile by reconcile: then the hash is next.
    if (entry.list === lists[at]) pending.delete(entry);
  }
}

/** All of one queue, in their order: what one flush brings was taken together. */
async function requeue(
  { tracking, taken, meter, pending, left, returned }: Settling,
  queue: QueueName,
  entries: readonly InFlightEntry[],
): Promise<void> {
  await left(queue);
  await Promise.all(entries.map((entry) => intoHash(tracking, taken, entry)));
  const ids = entries.map(({ id }) => id).sort((a, b) => Number(b) - Number(a));
  for (let at = 0; at < ids.length; at += MAX_ACKS) {
    const some = ids.slice(at, at + MAX_ACKS);
    meter.counted('action.returned', Number(await requeueScript(tracking.reader, [taken, queue], some)));
  }
  for (const entry of entries) pending.delete(entry);
  returned(queue);
}

async function settleBadly(
  settling: Settling,
  entry: InFlightEntry,
  { type, error, isRepeated = false }: BadEnd,
): Promise<void> {
  const { tracking, taken, meter, pending, returned } = settling;
  await intoHash(tracking, taken, entry);
  if (type === 'dead') return writeDeadLetter(settling, entry, error, isRepeated);
  const args = [entry.id, MAX_DELIVERIES, FAILURES_TTL_S];
  const outcome = Number(await failScript(tracking.reader, [taken, entry.queue], args));
  // Poison. From here on it must not be counted again, whatever breaks.
  if (outcome === 2) return writeDeadLetter(settling, entry, error, false);
  pending.delete(entry);
  if (outcome === 0) return;
  meter.counted('action.redelivered', 1);
  returned(entry.queue);
}

async function writeDeadLetter(
  { tracking, taken, log, meter, pending, tellDead }: Settling,
  entry: InFlightEntry,
  error: ErrorData,
  isRepeated: boolean,
): Promise<void> {
  const letter = storedDeadLetter(entry.queue, entry.body, error);
  const keys = [taken, deadQueue(letter.queue), DEAD_QUEUES];
  const apart = letter.isApart ? letter.id : '';
  const args = [entry.id, JSON.stringify(letter), letter.queue, MAX_DEAD_LETTERS, apart, DEAD_BODY_TTL_S];
  pending.set(entry, { type: 'dead', error, isRepeated: true });
  const trimmed = Number(await deadLetterScript(tracking.reader, keys, args));
  pending.delete(entry);
  if (trimmed >= 0 || isRepeated) tellDead(entry.queue, entry.body, error);
  if (trimmed < 0) return;
  meter.counted('action.dead', 1);
  const { queue } = letter;
  log.warn({ queue, id: letter.id, code: error.code, reason: error.message }, 'an action is dead');
  if (trimmed > 0) log.warn({ queue, count: trimmed }, 'a dead list is full: its oldest letters are gone');
}

/** Moves what lies in the list of a BLMOVE to the hash, where scripts find it. A large body is named by its length, not sent. */
export async function intoHash(tracking: KeyTracking, taken: string, entry: InFlightEntry): Promise<void> {
  if (entry.list === undefined) return;
  const { list, id, queue, body } = entry;
  const moved = (...named: readonly (Buffer | number | string)[]) =>
    recoverScript(tracking.reader, [taken, list], [id, queue, ...named]);
  const isMoved = body.length > MAX_INLINE_BYTES && itemsOf(await moved(body.length, 'length')).length > 0;
  if (!isMoved) await moved(body);
  entry.list = undefined;
}
