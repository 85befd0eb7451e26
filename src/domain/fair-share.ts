/** Weighted fair share between tenants (start-time fair queueing): who is served next when all want more than there is. */
import { emptyFifo, type Fifo, pushed, shifted, without } from './fifo.ts';

/** What waits for one tenant. `start` is the virtual time at which its oldest item is due. */
interface TenantQueue<T> {
  readonly tenantId: string;
  readonly weight: number;
  readonly start: number;
  readonly waiting: Fifo<T>;
}

/** Lanes that hold something. `clock` is the virtual time of the last service. */
export interface FairQueue<T> {
  readonly tenants: readonly TenantQueue<T>[];
  readonly clock: number;
  readonly size: number;
}

export const emptyFairQueue: FairQueue<never> = { tenants: [], clock: 0, size: 0 };

/** Puts an item behind its tenant's others. A tenant that was idle starts at the clock: idleness saves nothing up. */
export function enqueued<T>(queue: FairQueue<T>, tenantId: string, weight: number, item: T): FairQueue<T> {
  const at = queue.tenants.findIndex((queueOfTenant) => queueOfTenant.tenantId === tenantId);
  const queueOfTenant = queue.tenants[at];
  const tenants = queueOfTenant
    ? queue.tenants.with(at, { ...queueOfTenant, weight, waiting: pushed(queueOfTenant.waiting, item) })
    : [
        ...queue.tenants,
        { tenantId, weight, start: queue.clock + 1 / weight, waiting: pushed<T>(emptyFifo, item) },
      ];
  return { tenants: tenants, clock: queue.clock, size: queue.size + 1 };
}

/**
 * Takes from the queue that is due first; each service costs its tenant 1/weight of virtual time, so that
 * over any busy period tenants are served in proportion to their weights. Null when nothing waits.
 */
export function dequeued<T>(queue: FairQueue<T>): { readonly item: T; readonly rest: FairQueue<T> } | null {
  let at = -1;
  let due = Number.POSITIVE_INFINITY;
  queue.tenants.forEach((queueOfTenant, index) => {
    if (queueOfTenant.start < due) {
      at = index;
      due = queueOfTenant.start;
    }
  });
  const queueOfTenant = queue.tenants[at];
  const taken = queueOfTenant && shifted(queueOfTenant.waiting);
  if (!queueOfTenant || !taken) return null;
  const tenants =
    taken.rest.size === 0
      ? queue.tenants.toSpliced(at, 1)
      : queue.tenants.with(at, {
          ...queueOfTenant,
          start: queueOfTenant.start + 1 / queueOfTenant.weight,
          waiting: taken.rest,
        });
  return { item: taken.item, rest: { tenants: tenants, clock: due, size: queue.size - 1 } };
}

/** The queue without a tenant's items that match; the same queue when none does. */
export function removed<T>(
  queue: FairQueue<T>,
  tenantId: string,
  matches: (item: T) => boolean,
): FairQueue<T> {
  const at = queue.tenants.findIndex((queueOfTenant) => queueOfTenant.tenantId === tenantId);
  const queueOfTenant = queue.tenants[at];
  if (!queueOfTenant) return queue;
  const waiting = without(queueOfTenant.waiting, matches);
  if (waiting === queueOfTenant.waiting) return queue;
  const tenants =
    waiting.size === 0
      ? queue.tenants.toSpliced(at, 1)
      : queue.tenants.with(at, { ...queueOfTenant, waiting });
  return { ...queue, tenants: tenants, size: queue.size - (queueOfTenant.waiting.size - waiting.size) };
}
