/**
 * Weighted fair queueing, self-clocked: who is served next when several want more than there is. Pure.
 *
 * Time is virtual. A service costs 1/weight of it, so that over any busy period all are served in proportion to their
 * weights. The service that would end first is next, of equals the first listed. The clock stands where the latest
 * service ends. Newcomers start there: idleness saves nothing up. Nobody's start is past the clock, so that whoever
 * leaves is forgotten.
 */
import { emptyFifo, type Fifo, pushed, shifted, without } from './fifo.ts';
import type { Subscription } from './queues.ts';

/** One that waits. `start`: where its last service ended. */
interface Contender {
  readonly name: string;
  readonly weight: number;
  readonly start: number;
}

/** All that wait. */
interface Round<C extends Contender> {
  readonly clock: number;
  readonly waiting: readonly C[];
}

const dueOf = ({ start, weight }: Contender): number => start + 1 / weight;

const placeOf = (round: Round<Contender>, name: string): number =>
  round.waiting.findIndex((contender) => contender.name === name);

/** The place of the one to be served next; -1 where nobody waits. */
function nextPlace({ waiting }: Round<Contender>): number {
  let first = -1;
  let firstDue = Number.POSITIVE_INFINITY;
  waiting.forEach((contender, at) => {
    const due = dueOf(contender);
    if (due >= firstDue) return;
    first = at;
    firstDue = due;
  });
  return first;
}

/** Null: it leaves. */
const replaced = <C extends Contender>(waiting: readonly C[], at: number, by: C | null): readonly C[] =>
  by ? waiting.with(at, by) : waiting.toSpliced(at, 1);

/** The round after a service; `after` makes of the one that was served what it is now, or null where it leaves. */
function afterService<C extends Contender>(
  round: Round<C>,
  at: number,
  after: (served: C) => C | null,
): Round<C> {
  const contender = round.waiting[at];
  if (!contender) return round;
  const start = dueOf(contender);
  return {
    clock: Math.max(round.clock, start),
    waiting: replaced(round.waiting, at, after({ ...contender, start })),
  };
}

// --- With what waits: the scheduler's ---------------------------------------------------------------------------

/** What waits, by name: for the scheduler, by tenant. */
export interface FairQueue<T> extends Round<Contender & { readonly items: Fifo<T> }> {
  readonly size: number;
}

export const emptyFairQueue: FairQueue<never> = { clock: 0, waiting: [], size: 0 };

/** Puts an item behind the others of that name, whose weight is now this one. */
export function enqueued<T>(queue: FairQueue<T>, name: string, weight: number, item: T): FairQueue<T> {
  const at = placeOf(queue, name);
  const { start, items } = queue.waiting[at] ?? { start: queue.clock, items: emptyFifo };
  const contender = { name, weight, start, items: pushed<T>(items, item) };
  const waiting = at < 0 ? [...queue.waiting, contender] : queue.waiting.with(at, contender);
  return { clock: queue.clock, waiting, size: queue.size + 1 };
}

/** Takes the oldest item of whoever is to be served next. Null when nothing waits. */
export function dequeued<T>(queue: FairQueue<T>): { readonly item: T; readonly rest: FairQueue<T> } | null {
  const at = nextPlace(queue);
  const items = queue.waiting[at]?.items;
  const taken = items && shifted(items);
  if (!taken) return null;
  const { item, rest } = taken;
  const round = afterService(queue, at, (served) => (rest.size > 0 ? { ...served, items: rest } : null));
  return { item, rest: { ...round, size: queue.size - 1 } };
}

/** The queue without the items of that name that match; the same queue when none does. */
export function removed<T>(queue: FairQueue<T>, name: string, matches: (item: T) => boolean): FairQueue<T> {
  const at = placeOf(queue, name);
  const contender = queue.waiting[at];
  if (!contender) return queue;
  const items = without(contender.items, matches);
  if (items === contender.items) return queue;
  const waiting = replaced(queue.waiting, at, items.size > 0 ? { ...contender, items } : null);
  return { clock: queue.clock, waiting, size: queue.size - (contender.items.size - items.size) };
}

// --- Whose turn it is: the queue reader's -----------------------------------------------------------------------

/** Groups by weight, and within each its queues by share. */
export type Turns = Round<GroupTurn>;

interface GroupTurn extends Contender {
  readonly queues: Round<QueueTurn>;
}

interface QueueTurn extends Contender {
  readonly subscription: Subscription;
}

export const noTurns: Turns = { clock: 0, waiting: [] };
const NO_QUEUES: Round<QueueTurn> = { clock: 0, waiting: [] };

/** A queue that holds something; `length` may be Infinity where it is not known. */
export interface WaitingQueue {
  readonly subscription: Subscription;
  readonly length: number;
}

/** The turns of those that wait now, in the order given. */
export function enrolled(turns: Turns, waiting: readonly WaitingQueue[]): Turns {
  const groups = new Map<string, Subscription[]>();
  for (const { subscription, length } of waiting) {
    if (length <= 0) continue;
    const group = groups.get(subscription.group);
    if (group) group.push(subscription);
    else groups.set(subscription.group, [subscription]);
  }
  return among(turns, groups, (name, subscriptions, start, before) => ({
    name,
    weight: subscriptions[0]?.weight ?? 1,
    start,
    queues: among(
      before?.queues ?? NO_QUEUES,
      subscriptions.map((subscription) => [subscription.queue, subscription]),
      (queue, subscription, since) => ({
        name: queue,
        weight: subscription.share,
        start: since,
        subscription,
      }),
    ),
  }));
}

/** The round of those listed: newcomers begin at the clock. */
function among<C extends Contender, Listed>(
  { clock, waiting }: Round<C>,
  listed: Iterable<readonly [string, Listed]>,
  make: (name: string, one: Listed, start: number, before: C | undefined) => C,
): Round<C> {
  const known = new Map(waiting.map((contender) => [contender.name, contender]));
  return {
    clock,
    waiting: Array.from(listed, ([name, one]) => {
      const before = known.get(name);
      return make(name, one, before?.start ?? clock, before);
    }),
  };
}

/** The queue to be served next, of those enrolled; undefined where none is. */
export function nextSubscription(turns: Turns): Subscription | undefined {
  const queues = turns.waiting[nextPlace(turns)]?.queues ?? NO_QUEUES;
  return queues.waiting[nextPlace(queues)]?.subscription;
}

/** The turns after one action of an enrolled queue was taken; `isLast`: nothing waits there any more. */
export function served(turns: Turns, { group, queue }: Subscription, isLast = false): Turns {
  return afterService(turns, placeOf(turns, group), (turn) => {
    const queues = afterService(turn.queues, placeOf(turn.queues, queue), (each) => (isLast ? null : each));
    return queues.waiting.length > 0 ? { ...turn, queues } : null;
  });
}

/** How many to take from which queue, `free` in all, as if nothing else arrived meanwhile. */
export function shares(
  turns: Turns,
  waiting: readonly WaitingQueue[],
  free: number,
): ReadonlyMap<Subscription, number> {
  const lengths = new Map(waiting.map(({ subscription, length }) => [subscription, length]));
  const counts = new Map<Subscription, number>();
  let now = enrolled(turns, waiting);
  for (let n = 0; n < free; n += 1) {
    const subscription = nextSubscription(now);
    if (!subscription) break;
    const count = (counts.get(subscription) ?? 0) + 1;
    counts.set(subscription, count);
    now = served(now, subscription, count >= (lengths.get(subscription) ?? 0));
  }
  return counts;
}
