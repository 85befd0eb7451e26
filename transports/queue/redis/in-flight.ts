/** What a consumer has taken and not settled: runs the listener, and finds what this process or Redis has missed. */
import type { ErrorData } from '../../../src/domain/errors.ts';
import { type QueueName, queueNameSchema } from '../../../src/domain/queues.ts';
import type { Listener, Place, ReadMessage } from '../../../src/ports/transport.ts';
import type { BodyReader } from '../body-reader.ts';
import { deliver, MAX_ASIDE } from '../delivery.ts';
import type { BlockingReader } from './blocking-reader.ts';
import type { KeyTracking } from './key-tracking.ts';
import { itemsOf, recoverScript } from './scripts.ts';
import {
  createSettlements,
  type InFlightEntry,
  intoHash,
  type SettlementDeps,
  type Settlements,
} from './settlements.ts';

export interface InFlight {
  /** Listeners that run, and what is set aside beyond MAX_ASIDE. */
  running(): number;
  /** Ids that this process works on, has set aside, or has yet to settle. */
  known(): ReadonlySet<string>;
  /** Calls the listener in this tick. */
  start(entry: InFlightEntry): void;
  /** Takes note that a body was moved from a list to the hash; false where nothing of that list has that body. */
  moved(list: string, body: Buffer, id: string): boolean;
  /** Puts on the dead list what lies in the hash under that id. */
  deadLetter(entry: InFlightEntry, error: ErrorData): void;
  /** Tells Redis what is settled; what fails stays for the next time. */
  flush(): Promise<void>;
  /** Requeues what is set aside, and from now on what would be. */
  requeueAsides(): void;
  /** Resolves when no listener runs. */
  idle(): Promise<void>;
  unsettled(): number;
}

interface InFlightDeps extends SettlementDeps {
  readonly bodies: BodyReader;
  readonly read: ReadMessage | undefined;
  /** A listener has settled: there is room for another. */
  readonly freed: () => void;
  /** The listener can not work on what is there now. */
  readonly pause: (queue: QueueName, error: ErrorData) => void;
}

export function createInFlight(deps: InFlightDeps, listener: Listener): InFlight {
  const running = new Map<InFlightEntry, Promise<void>>();
  const settlements = createSettlements(deps);
  const asides = createAsides(deps, settlements, start);

  function start(entry: InFlightEntry): void {
    const done = work(entry);
    running.set(entry, done);
  }

  const work = async (entry: InFlightEntry): Promise<void> => {
    const verdict = await deliver(entry.queue, entry.body, listener, deps, entry.place);
    running.delete(entry);
    if (verdict.type === 'aside') asides.add(entry, verdict.place);
    else if (verdict.type === 'done') settlements.add(entry, { type: 'ack' });
    else if (verdict.type === 'requeue') {
      deps.pause(entry.queue, verdict.error);
      settlements.add(entry, { type: 'requeue' });
    } else {
      const type = verdict.type === 'failed' ? 'fail' : 'dead';
      settlements.add(entry, { type, error: verdict.error });
    }
    deps.freed();
  };
  const all = (): readonly InFlightEntry[] => [
    ...running.keys(),
    ...asides.entries(),
    ...settlements.entries(),
  ];

  return {
    running: () => running.size + Math.max(0, asides.size() - MAX_ASIDE),
    known: () => new Set(all().map(({ id }) => id)),
    start,
    moved(list, body, id) {
      const entry = all().find((each) => each.list === list && each.body.equals(body));
      if (!entry) return false;
      entry.list = undefined;
      entry.id = id;
      return true;
    },
    deadLetter: (entry, error) => settlements.add(entry, { type: 'dead', error }),
    flush: settlements.flush,
    requeueAsides: asides.requeue,
    async idle() {
      while (running.size > 0) await Promise.all(running.values());
    },
    unsettled: () => settlements.entries().length,
  };
}

const NO_BODY = Buffer.alloc(0);

/** Actions whose listener has no place for them: they lie in the hash alone, by their ids, until it has. */
function createAsides(
  { tracking, taken }: Pick<InFlightDeps, 'tracking' | 'taken'>,
  settlements: Settlements,
  start: (entry: InFlightEntry) => void,
) {
  const asides = new Map<InFlightEntry, Place>();
  let isOver = false;

  const requeueOne = (entry: InFlightEntry, place: Place): void => {
    place.leave();
    settlements.add(entry, { type: 'requeue' });
  };

  async function wait(entry: InFlightEntry, place: Place): Promise<void> {
    // Where that fails the body stays here, and is found where it lies.
    await intoHash(tracking, taken, entry).catch(() => {});
    if (entry.list === undefined) entry.body = NO_BODY;
    await place.granted;
    if (!asides.has(entry)) return;
    const body = entry.list === undefined ? await fetched(entry.id) : entry.body;
    if (!asides.delete(entry)) return;
    // What Redis did not give is found again by the next reconcile, if it is still ours.
    if (body) start({ ...entry, body, place });
    else place.leave();
  }

  async function fetched(id: string): Promise<Buffer | undefined> {
    const entry = await tracking.reader.hgetBuffer(taken, id).catch(() => null);
    return entry ? entryOf(entry)?.body : undefined;
  }

  return {
    size: () => asides.size,
    entries: () => asides.keys(),
    add(entry: InFlightEntry, place: Place): void {
      if (isOver) return requeueOne(entry, place);
      asides.set(entry, place);
      void wait(entry, place);
    },
    requeue(): void {
      isOver = true;
      const all = [...asides];
      asides.clear();
      for (const [entry, place] of all) requeueOne(entry, place);
    },
  };
}

/** What lies in the hash of what is taken: queue, newline, body. */
function entryOf(entry: Buffer): { readonly queue: QueueName; readonly body: Buffer } | undefined {
  const cut = entry.indexOf('\n');
  const queue = queueNameSchema.safeParse(entry.toString('latin1', 0, Math.max(0, cut))).data;
  return queue && { queue, body: entry.subarray(cut + 1) };
}

/** Ids set aside for what one list may hold: more than a few only when a server stood still for long. */
const SPARE_IDS = 1_000;

/** Tells Redis what it has missed, and starts what this process has missed, as far as there is room. */
export async function reconcile(consumer: {
  readonly tracking: KeyTracking;
  readonly taken: string;
  readonly inFlight: InFlight;
  readonly reader: BlockingReader;
  readonly nextId: (count: number) => number;
  readonly room: () => number;
}): Promise<void> {
  const { tracking, taken, inFlight, reader } = consumer;
  await inFlight.flush();
  for (const { list, queue } of reader.leftBehind()) {
    const args = [consumer.nextId(SPARE_IDS), queue];
    const moved = itemsOf(await recoverScript(tracking.reader, [taken, list], args));
    for (let at = 0; at < moved.length; at += 2) {
      const [id, body] = [String(moved[at]), moved[at + 1]];
      if (Buffer.isBuffer(body) && !inFlight.moved(list, body, id))
        inFlight.start({ id, queue, body, list: undefined });
    }
  }
  const held = await tracking.reader.hkeys(taken);
  const known = inFlight.known();
  const ids = held.filter((id) => /^\d+$/.test(id) && !known.has(id));
  for (const id of ids.slice(0, Math.max(0, consumer.room()))) {
    const entry = await tracking.reader.hgetBuffer(taken, id);
    const found = entry && !inFlight.known().has(id) ? entryOf(entry) : undefined;
    if (found) inFlight.start({ id, list: undefined, ...found });
  }
}
