/** Weighted fair share between tenants (start-time fair queueing): who is served next when all want more than there is. */
import { emptyFifo, type Fifo, pushed, shifted, without } from './fifo.ts';

/** What waits for one tenant. `start` is the virtual time at which its oldest item is due. */
interface Lane<T> {
  readonly tenantId: string;
  readonly weight: number;
  readonly start: number;
  readonly waiting: Fifo<T>;
}

/** Lanes that hold something. `clock` is the virtual time of the last service. */
export interface FairQueue<T> {
  readonly lanes: readonly Lane<T>[];
  readonly clock: number;
  readonly size: number;
}

export const emptyFairQueue: FairQueue<never> = { lanes: [], clock: 0, size: 0 };

/** Puts an item behind its tenant's others. A tenant that was idle starts at the clock: idleness saves nothing up. */
export function enqueued<T>(queue: FairQueue<T>, tenantId: string, weight: number, item: T): FairQueue<T> {
  const at = queue.lanes.findIndex((lane) => lane.tenantId === tenantId);
  const lane = queue.lanes[at];
  const lanes = lane
    ? queue.lanes.with(at, { ...lane, weight, waiting: pushed(lane.waiting, item) })
    : [
        ...queue.lanes,
        { tenantId, weight, start: queue.clock + 1 / weight, waiting: pushed<T>(emptyFifo, item) },
      ];
  return { lanes, clock: queue.clock, size: queue.size + 1 };
}

/**
 * Takes from the lane that is due first; each service costs its tenant 1/weight of virtual time, so that
 * over any busy period tenants are served in proportion to their weights. Null when nothing waits.
 */
export function dequeued<T>(queue: FairQueue<T>): { readonly item: T; readonly rest: FairQueue<T> } | null {
  let at = -1;
  let due = Number.POSITIVE_INFINITY;
  queue.lanes.forEach((lane, index) => {
    if (lane.start < due) {
      at = index;
      due = lane.start;
    }
  });
  const lane = queue.lanes[at];
  const taken = lane && shifted(lane.waiting);
  if (!lane || !taken) return null;
  const lanes =
    taken.rest.size === 0
      ? queue.lanes.toSpliced(at, 1)
      : queue.lanes.with(at, { ...lane, start: lane.start + 1 / lane.weight, waiting: taken.rest });
  return { item: taken.item, rest: { lanes, clock: due, size: queue.size - 1 } };
}

/** The queue without a tenant's items that match; the same queue when none does. */
export function removed<T>(
  queue: FairQueue<T>,
  tenantId: string,
  matches: (item: T) => boolean,
): FairQueue<T> {
  const at = queue.lanes.findIndex((lane) => lane.tenantId === tenantId);
  const lane = queue.lanes[at];
  if (!lane) return queue;
  const waiting = without(lane.waiting, matches);
  if (waiting === lane.waiting) return queue;
  const lanes =
    waiting.size === 0 ? queue.lanes.toSpliced(at, 1) : queue.lanes.with(at, { ...lane, waiting });
  return { ...queue, lanes, size: queue.size - (lane.waiting.size - waiting.size) };
}
