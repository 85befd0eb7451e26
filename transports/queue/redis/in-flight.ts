/** What a consumer has taken and not settled: runs the listener, and finds what this process or Redis has missed. */
import type { ErrorData } from '../../../src/domain/errors.ts';
import { type QueueName, queueNameSchema } from '../../../src/domain/queues.ts';
import type { Listener, ReadMessage } from '../../../src/ports/transport.ts';
import type { BodyReader } from '../body-reader.ts';
import { deliver } from '../delivery.ts';
import type { BlockingReader } from './blocking-reader.ts';
import type { KeyTracking } from './key-tracking.ts';
import { itemsOf, recoverScript } from './scripts.ts';
import { createSettlements, type InFlightEntry, type SettlementDeps } from './settlements.ts';

export interface InFlight {
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

  const work = async (entry: InFlightEntry): Promise<void> => {
    const verdict = await deliver(entry.queue, entry.body, listener, deps);
    running.delete(entry);
    if (verdict.type === 'done') settlements.add(entry, { type: 'ack' });
    else if (verdict.type === 'requeue') {
      deps.pause(entry.queue, verdict.error);
      settlements.add(entry, { type: 'requeue' });
    } else {
      const type = verdict.type === 'failed' ? 'fail' : 'dead';
      settlements.add(entry, { type, error: verdict.error });
    }
    deps.freed();
  };
  const all = (): readonly InFlightEntry[] => [...running.keys(), ...settlements.entries()];

  return {
    running: () => running.size,
    knows: (id) => all().some((entry) => entry.id === id),
    start(entry) {
      const done = work(entry);
      running.set(entry, done);
    },
    moved(list, body, id) {
      const entry = all().find((each) => each.list === list && each.body.equals(body));
      if (!entry) return false;
      entry.list = undefined;
      entry.id = id;
      return true;
    },
    deadLetter: (entry, error) => settlements.add(entry, { type: 'dead', error }),
    flush: settlements.flush,
    async idle() {
      while (running.size > 0) await Promise.all(running.values());
    },
    unsettled: () => settlements.entries().length,
  };
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
  const ids = (await tracking.reader.hkeys(taken)).filter((id) => /^\d+$/.test(id) && !inFlight.knows(id));
  for (const id of ids.slice(0, Math.max(0, consumer.room()))) {
    const entry = await tracking.reader.hgetBuffer(taken, id);
    const cut = entry?.indexOf('\n') ?? -1;
    if (!entry || cut < 0 || inFlight.knows(id)) continue;
    const queue = queueNameSchema.safeParse(entry.toString('latin1', 0, cut)).data;
    if (queue) inFlight.start({ id, queue, body: entry.subarray(cut + 1), list: undefined });
  }
}
