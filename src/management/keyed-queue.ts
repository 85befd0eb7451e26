/** Writes to one agent or template run one after the other: each reads what the one before has stored. */
import PQueue from 'p-queue';
import { type Reply, refusal } from '../domain/errors.ts';

/** Runs operations of the same key in the order of the calls; one that fails does not stop the next. */
type KeyedQueue = <T>(key: string, operation: () => Promise<Reply<T>>) => Promise<Reply<T>>;

/** Operations of one key that may run and wait: a store that hangs would gather them without end. */
const MAX_OF_ONE_KEY = 1_000;

export function createKeyedQueue(): KeyedQueue {
  const queues = new Map<string, PQueue>();
  return async (key, operation) => {
    const queue = queues.get(key) ?? new PQueue({ concurrency: 1 });
    if (queue.size + queue.pending >= MAX_OF_ONE_KEY)
      return { ok: false, error: refusal('OVERLOADED', { retryAfterMs: 1_000 }) };
    if (!queues.has(key)) {
      queues.set(key, queue);
      queue.addEventListener('idle', () => queues.delete(key));
    }
    return queue.add(operation);
  };
}
