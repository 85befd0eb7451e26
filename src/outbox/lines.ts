/** Sends what was just stored from memory, a line for each queue, unless the queue lags. */
import { RefusalError } from '../domain/errors.ts';
import type { QueueName } from '../domain/queues.ts';
import type { Outgoing, WriteOutcome } from '../ports/store.ts';
import type { RelayTiming, SendStored } from './sender.ts';

interface OutboxLine {
  waiting: Outgoing[];
  /** While some of it is on its way. Never rejects. */
  running: Promise<void> | undefined;
}

/**
 * The queues that lag, and the lines of those that do not. Whoever reads the store for the former makes a pass:
 * beginPass; before each page beginPage(); endPass. What is stored while a page is read may be in it or not, so that it
 * waits in memory, and is sent after it unless the page had it: a queue catches up although more is stored all the time.
 */
export interface Lines {
  /** Takes what was just stored, in order. Ignored where it will be read from the store. */
  post(outgoing: Outgoing): void;
  /** From now on what the queue has is read from the store. */
  lag(queue: QueueName): void;
  /** The same of every queue: somebody else stored something. */
  lagAll(): void;
  lagging(): Lagging;
  /** What this pass is for. Resolves when nothing more is on its way to those queues. */
  beginPass(): Promise<Lagging>;
  /** Forgets what waits in memory for lagging queues, and collects what is stored from now on. */
  beginPage(): void;
  /** Only `still`, and what began to lag during the pass, lags. */
  endPass(still: Lagging): void;
  /** Takes no more; resolves when what waits was sent. */
  drain(): Promise<void>;
  /** Leaves what waits to the next start. */
  abandon(): void;
}

interface LinesDeps {
  readonly send: SendStored;
  readonly timing: RelayTiming;
  readonly onLag: (queue: QueueName) => void;
}

/** Begins with all queues lagging: an earlier process may have left something for any. */
export function createLines({ send, timing, onLag }: LinesDeps): Lines {
  const memory = createLineMemory();
  const { lines } = memory;
  let lagging: Lagging = 'all';
  /** Lag since the pass began, perhaps too late for it. */
  const lagSincePass = new Set<QueueName>();
  let allLagSincePass = false;
  let inPass = false;
  let draining = false;

  function lag(queue: QueueName): void {
    memory.drop(queue);
    lagSincePass.add(queue);
    lagging = joined(lagging, [queue]);
    onLag(queue);
  }

  function run(queue: QueueName, line: OutboxLine): void {
    if (line.running || line.waiting.length === 0) return;
    line.running = sendOff(queue, line).finally(() => memory.ended(queue, line));
  }

  /** A batch at a time: all of it in one tick, so that the transport can send it together. */
  async function sendOff(queue: QueueName, line: OutboxLine): Promise<void> {
    while (line.waiting.length > 0 && !isLagging(lagging, queue)) {
      const batch = line.waiting.splice(0, timing.page);
      const settled = await Promise.all(batch.map(send));
      memory.settled(batch.length);
      if (settled.includes(false)) lag(queue);
    }
  }

  const running = (among: Lagging): readonly Promise<void>[] =>
    [...lines].flatMap(([queue, line]) => (line.running && isLagging(among, queue) ? [line.running] : []));

  return {
    post(outgoing) {
      const { queue } = outgoing;
      if (queue === undefined || draining) return;
      const lags = isLagging(lagging, queue);
      if (lags && (!inPass || allLagSincePass || lagSincePass.has(queue))) return;
      if (memory.count() >= timing.maxInMemory) return lag(queue);
      const line = memory.push(queue, outgoing);
      if (!lags) run(queue, line);
    },
    lag,
    lagAll() {
      for (const queue of [...lines.keys()]) memory.drop(queue);
      allLagSincePass = true;
      lagging = 'all';
    },
    lagging: () => lagging,
    async beginPass() {
      for (let busy = running(lagging); busy.length > 0; busy = running(lagging)) await Promise.all(busy);
      lagSincePass.clear();
      allLagSincePass = false;
      return lagging;
    },
    beginPage() {
      for (const queue of [...lines.keys()]) if (isLagging(lagging, queue)) memory.drop(queue);
      inPass = true;
    },
    endPass(still) {
      lagging = allLagSincePass ? 'all' : joined(still, lagSincePass);
      inPass = false;
      for (const [queue, line] of [...lines])
        if (isLagging(lagging, queue)) memory.drop(queue);
        else run(queue, line);
    },
    async drain() {
      draining = true;
      for (let busy = running('all'); busy.length > 0; busy = running('all')) await Promise.all(busy);
    },
    abandon() {
      for (const queue of [...lines.keys()]) memory.drop(queue);
    },
  };
}

interface LineMemory {
  readonly lines: ReadonlyMap<QueueName, OutboxLine>;
  /** Messages in memory, waiting or on their way. */
  count(): number;
  push(queue: QueueName, outgoing: Outgoing): OutboxLine;
  /** Forgets what waits. */
  drop(queue: QueueName): void;
  /** That many are not on their way any more. */
  settled(count: number): void;
  /** Forgets a line without messages. */
  ended(queue: QueueName, line: OutboxLine): void;
}

function createLineMemory(): LineMemory {
  const lines = new Map<QueueName, OutboxLine>();
  let count = 0;
  return {
    lines,
    count: () => count,
    push(queue, outgoing) {
      const line = lines.get(queue) ?? { waiting: [], running: undefined };
      lines.set(queue, line);
      line.waiting.push(outgoing);
      count += 1;
      return line;
    },
    drop(queue) {
      const line = lines.get(queue);
      if (!line) return;
      count -= line.waiting.length;
      line.waiting = [];
      if (!line.running) lines.delete(queue);
    },
    settled(settled) {
      count -= settled;
    },
    ended(queue, line) {
      line.running = undefined;
      if (line.waiting.length === 0) lines.delete(queue);
    },
  };
}

export type Lagging = 'all' | ReadonlySet<QueueName>;

/** Queues that lag one by one; where there are more, all do. */
export const MAX_LAGGING = 1_000;

export const isLagging = (lagging: Lagging, queue: QueueName): boolean =>
  lagging === 'all' || lagging.has(queue);

export const anyLagging = (lagging: Lagging): boolean => lagging === 'all' || lagging.size > 0;

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
  add(outgoing: readonly Outgoing[], result: Promise<WriteOutcome>): Promise<WriteOutcome>;
}

/** A write that the store gave up may be carried out all the same: its queues are read from the store. */
export function createInOrder(lines: Pick<Lines, 'post' | 'lag'>): InOrder {
  const slots = new Set<OrderedWrite>();

  /** What was not stored waits for nothing: an end may be written for as long as the store is out. */
  function release(): void {
    let inOrder = true;
    for (const slot of slots) {
      inOrder &&= slot.state !== 'writing';
      if (slot.state === 'writing' || (slot.state === 'stored' && !inOrder)) continue;
      slots.delete(slot);
      if (slot.state === 'stored') slot.outgoing.forEach(lines.post);
      if (slot.state !== 'unknown') continue;
      for (const { queue } of slot.outgoing) if (queue !== undefined) lines.lag(queue);
    }
  }

  return {
    async add(outgoing, result) {
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
