/** Which queues are behind: what is for them is read from the store, in order, not sent from memory. Pure. */
import type { QueueName } from '../../src/domain/queues.ts';

export type Behind = 'all' | ReadonlySet<QueueName>;

/** Queues that are behind one by one; where there are more, all are. */
export const MAX_BEHIND = 1_000;

export const noneBehind: Behind = new Set<QueueName>();

export const isBehind = (behind: Behind, queue: QueueName): boolean => behind === 'all' || behind.has(queue);

export const anyBehind = (behind: Behind): boolean => behind === 'all' || behind.size > 0;

export function joined(some: Behind, more: Iterable<QueueName>): Behind {
  if (some === 'all') return some;
  const both = new Set([...some, ...more]);
  return both.size > MAX_BEHIND ? 'all' : both;
}
