/** The deliveries that this node holds in memory: a queue for each receiver, served in turn, so that a dead receiver delays nobody else. */
import type { TenantId } from '../../src/domain/ids.ts';
import type { DeliveryStats } from '../../src/ports/telemetry.ts';

/** Where a delivery waits. */
interface QueueKeys {
  /** Held once at a time. */
  readonly id: string;
  readonly receiver: string;
  readonly tenantId: TenantId;
}

export interface QueueBounds {
  readonly runningPerReceiver: number;
  readonly runningPerTenant: number;
  readonly running: number;
  readonly heldPerReceiver: number;
  readonly heldPerTenant: number;
  readonly held: number;
}

export const QUEUE_BOUNDS: QueueBounds = {
  runningPerReceiver: 4,
  runningPerTenant: 8,
  running: 64,
  heldPerReceiver: 50,
  heldPerTenant: 200,
  held: 5_000,
};

/** Why an attempt is broken off. */
type Stop = 'removed' | 'closing';

interface DeliveryQueue<J> {
  /** False where it is held already, or too many are. */
  add(job: J): boolean;
  has(id: string): boolean;
  /** How many are held, running ones included. */
  size(): number;
  stats(): DeliveryStats;
  /** Forgets a receiver's deliveries; resolves when none of its attempts runs. */
  drop(tenantId: TenantId, receiver: string): Promise<void>;
  /** Breaks off what runs and takes no more; resolves when nothing runs. */
  close(): Promise<void>;
}

interface ReceiverQueue<J> {
  readonly tenantId: TenantId;
  readonly receiver: string;
  readonly waiting: J[];
  readonly running: Map<Promise<void>, AbortController>;
}

/** `run` makes one attempt and never rejects; its signal's reason is a Stop. */
export function createDeliveryQueue<J>(
  bounds: QueueBounds,
  keysOf: (job: J) => QueueKeys,
  run: (job: J, signal: AbortSignal) => Promise<void>,
): DeliveryQueue<J> {
  const queues = createReceiverQueues<J>();
  const held = createHeld(bounds);
  const running = createCounter<TenantId>();
  let closed = false;

  function start(queue: ReceiverQueue<J>, job: J): void {
    const aborter = new AbortController();
    running.add(queue.tenantId, 1);
    const attempt = run(job, aborter.signal).finally(() => {
      running.add(queue.tenantId, -1);
      queue.running.delete(attempt);
      held.release(keysOf(job));
      queues.forgetIdle(queue);
      startNext();
    });
    queue.running.set(attempt, aborter);
  }

  const mayRun = (queue: ReceiverQueue<J>): boolean =>
    queue.running.size < bounds.runningPerReceiver && running.of(queue.tenantId) < bounds.runningPerTenant;

  function startNext(): void {
    while (!closed && running.total() < bounds.running) {
      const next = queues.next(mayRun);
      if (!next) return;
      start(next.queue, next.job);
    }
  }

  async function stop(queue: ReceiverQueue<J>, reason: Stop): Promise<void> {
    for (const job of queue.waiting.splice(0)) held.release(keysOf(job));
    for (const aborter of queue.running.values()) aborter.abort(reason);
    queues.forgetIdle(queue);
    await Promise.all(queue.running.keys());
  }

  return {
    add(job) {
      const queue = queues.of(keysOf(job));
      if (closed || queue.waiting.length >= bounds.heldPerReceiver || !held.take(keysOf(job))) return false;
      queue.waiting.push(job);
      queues.add(queue);
      startNext();
      return true;
    },
    has: held.has,
    size: held.size,
    stats: () => ({ running: running.total(), waiting: held.size() - running.total() }),
    async drop(tenantId, receiver) {
      const queue = queues.of({ tenantId, receiver });
      if (queue.tenantId === tenantId) await stop(queue, 'removed');
    },
    async close() {
      closed = true;
      await Promise.all(queues.all().map((queue) => stop(queue, 'closing')));
    },
  };
}

/** Queues in the order in which they are served: the one that was served last stands last. */
function createReceiverQueues<J>() {
  const queues = new Map<string, ReceiverQueue<J>>();
  return {
    all: (): readonly ReceiverQueue<J>[] => [...queues.values()],
    /** The receiver's queue, or a new one that is served once it is added. */
    of({ tenantId, receiver }: Omit<QueueKeys, 'id'>): ReceiverQueue<J> {
      return queues.get(receiver) ?? { tenantId, receiver, waiting: [], running: new Map() };
    },
    add(queue: ReceiverQueue<J>): void {
      queues.set(queue.receiver, queue);
    },
    forgetIdle({ receiver, waiting, running }: ReceiverQueue<J>): void {
      if (running.size === 0 && waiting.length === 0) queues.delete(receiver);
    },
    /** Takes a job of the first queue that has one and may run it. */
    next(mayRun: (queue: ReceiverQueue<J>) => boolean) {
      for (const queue of queues.values()) {
        const job = mayRun(queue) ? queue.waiting.shift() : undefined;
        if (job === undefined) continue;
        queues.delete(queue.receiver);
        queues.set(queue.receiver, queue);
        return { queue, job };
      }
      return undefined;
    },
  };
}

/** What is held, within its bounds by tenant and in all. */
export function createHeld(bounds: Pick<QueueBounds, 'held' | 'heldPerTenant'>) {
  const ids = new Set<string>();
  const held = createCounter<TenantId>();
  return {
    has: (id: string): boolean => ids.has(id),
    size: held.total,
    /** False where it is held already, or too many are. */
    take({ id, tenantId }: Pick<QueueKeys, 'id' | 'tenantId'>): boolean {
      if (ids.has(id) || held.total() >= bounds.held || held.of(tenantId) >= bounds.heldPerTenant)
        return false;
      ids.add(id);
      held.add(tenantId, 1);
      return true;
    },
    /** Nothing happens where it is not held. */
    release({ id, tenantId }: Pick<QueueKeys, 'id' | 'tenantId'>): void {
      if (ids.delete(id)) held.add(tenantId, -1);
    },
  };
}

/** Counts that forget what is back at zero. */
function createCounter<K>() {
  const counts = new Map<K, number>();
  const of = (key: K): number => counts.get(key) ?? 0;
  let total = 0;
  return {
    of,
    total: (): number => total,
    add(key: K, by: number): void {
      total += by;
      const count = of(key) + by;
      if (count > 0) counts.set(key, count);
      else counts.delete(key);
    },
  };
}
