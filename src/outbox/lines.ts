/** Sends what was just kept from memory, a line for each queue, unless the queue is behind. */
import { RefusalError } from '../domain/errors.ts';
import type { QueueName } from '../domain/queues.ts';
import type { Outgoing, WriteOutcome } from '../ports/store.ts';
import type { RelayTiming, SendKept } from './sender.ts';

interface OutboxLine {
  waiting: Outgoing[];
  /** While some of it is on its way. Never rejects. */
  running: Promise<void> | undefined;
}

/**
 * The queues that are behind, and the lines of those that are not. Who reads the store for the former makes a pass:
 * beginPass; before each page hold(); endPass. What is kept while a page is read may be in it or not, so it is held,
 * and sent after it unless the page had it: thus a queue comes back into order although more is kept all the time.
 */
export interface Lines {
  /** Takes what was just kept, in order. Ignored where it will be read from the store. */
  post(outgoing: Outgoing): void;
  /** From now on what the queue has is read from the store. */
  fall(queue: QueueName): void;
  lagging(): Lagging;
  /** What this pass is for. Resolves when nothing more is on its way to those queues. */
  beginPass(): Promise<Lagging>;
  /** Forgets what is held for queues that are behind, and holds what is kept from now on. */
  hold(): void;
  /** Only `still`, and what fell during the pass, is behind. */
  endPass(still: Lagging): void;
  /** Takes no more; resolves when what waits was sent. */
  drain(): Promise<void>;
  /** Leaves what waits to the next start. */
  abandon(): void;
}

interface LinesDeps {
  readonly send: SendKept;
  readonly timing: RelayTiming;
  readonly onFall: (queue: QueueName) => void;
}

/** Begins with all queues behind: an earlier process may have left something for any. */
export function createLines({ send, timing, onFall }: LinesDeps): Lines {
  const lines = new Map<QueueName, OutboxLine>();
  let lagging: Lagging = 'all';
  /** Fell since the pass began, perhaps too late for it. */
  const fallen = new Set<QueueName>();
  let holding = false;
  let held = 0;
  let draining = false;

  function drop(queue: QueueName): void {
    const line = lines.get(queue);
    if (!line) return;
    held -= line.waiting.length;
    line.waiting = [];
    if (!line.running) lines.delete(queue);
  }

  function fall(queue: QueueName): void {
    drop(queue);
    fallen.add(queue);
    lagging = joined(lagging, [queue]);
    onFall(queue);
  }

  function push(queue: QueueName, outgoing: Outgoing): OutboxLine {
    const line = lines.get(queue) ?? { waiting: [], running: undefined };
    lines.set(queue, line);
    line.waiting.push(outgoing);
    held += 1;
    return line;
  }

  function run(queue: QueueName, line: OutboxLine): void {
    if (line.running || line.waiting.length === 0) return;
    line.running = sendOff(queue, line).finally(() => {
      line.running = undefined;
      if (line.waiting.length === 0) lines.delete(queue);
    });
  }

  /** A batch at a time: all of it in one tick, so that the transport can send it together. */
  async function sendOff(queue: QueueName, line: OutboxLine): Promise<void> {
    while (line.waiting.length > 0 && !isLagging(lagging, queue)) {
      const batch = line.waiting.splice(0, timing.page);
      const settled = await Promise.all(batch.map(send));
      held -= batch.length;
      if (settled.includes(false)) fall(queue);
    }
  }

  const running = (among: Lagging): readonly Promise<void>[] =>
    [...lines].flatMap(([queue, line]) => (line.running && isLagging(among, queue) ? [line.running] : []));

  return {
    post(outgoing) {
      const { queue } = outgoing;
      const isHeld = queue !== undefined && isLagging(lagging, queue);
      if (queue === undefined || draining || (isHeld && (!holding || fallen.has(queue)))) return;
      if (held >= timing.maxHeld) return fall(queue);
      const line = push(queue, outgoing);
      if (!isHeld) run(queue, line);
    },
    fall,
    lagging: () => lagging,
    async beginPass() {
      for (let busy = running(lagging); busy.length > 0; busy = running(lagging)) await Promise.all(busy);
      fallen.clear();
      return lagging;
    },
    hold() {
      for (const queue of [...lines.keys()]) if (isLagging(lagging, queue)) drop(queue);
      holding = true;
    },
    endPass(still) {
      lagging = joined(still, fallen);
      holding = false;
      for (const [queue, line] of [...lines])
        if (isLagging(lagging, queue)) drop(queue);
        else run(queue, line);
    },
    async drain() {
      draining = true;
      for (let busy = running('all'); busy.length > 0; busy = running('all')) await Promise.all(busy);
    },
    abandon() {
      for (const queue of [...lines.keys()]) drop(queue);
    },
  };
}

export type Lagging = 'all' | ReadonlySet<QueueName>;

/** Queues that are behind one by one; where there are more, all are. */
export const MAX_LAGGING = 1_000;

export const isLagging = (lagging: Lagging, queue: QueueName): boolean =>
  lagging === 'all' || lagging.has(queue);

export const anyBehind = (lagging: Lagging): boolean => lagging === 'all' || lagging.size > 0;

function joined(some: Lagging, more: Iterable<QueueName>): Lagging {
  if (some === 'all') return some;
  const both = new Set([...some, ...more]);
  return both.size > MAX_LAGGING ? 'all' : both;
}

interface OrderedWrite {
  readonly outgoing: readonly Outgoing[];
  state: 'writing' | 'stored' | 'unknown' | 'none';
}

interface InOrder {
  /** Called with every write that has something to send, in the tick of its commit. Returns the same result. */
  watch(outgoing: readonly Outgoing[], result: Promise<WriteOutcome>): Promise<WriteOutcome>;
}

/** A write that the store gave up may be carried out all the same: its queues are read from the store. */
export function createInOrder(lines: Pick<Lines, 'post' | 'fall'>): InOrder {
  const slots = new Set<OrderedWrite>();

  function release(): void {
    for (const slot of slots) {
      if (slot.state === 'writing') return;
      slots.delete(slot);
      if (slot.state === 'stored') slot.outgoing.forEach(lines.post);
      if (slot.state !== 'unknown') continue;
      for (const { queue } of slot.outgoing) if (queue !== undefined) lines.fall(queue);
    }
  }

  return {
    async watch(outgoing, result) {
      if (outgoing.length === 0) return result;
      const slot: OrderedWrite = { outgoing, state: 'writing' };
      slots.add(slot);
      try {
        const outcome = await result;
        slot.state = outcome === 'stored' ? 'stored' : 'none';
        return outcome;
      } catch (error) {
        slot.state = error instanceof RefusalError ? 'unknown' : 'none';
        throw error;
      } finally {
        release();
      }
    },
  };
}
