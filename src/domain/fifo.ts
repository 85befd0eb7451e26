/** A first-in-first-out queue as immutable data: joining and taking are O(1) amortised, nothing is copied. */

interface Cell<T> {
  readonly item: T;
  readonly next: Cell<T> | null;
}

/** `back` is newest first; it is turned round once `front` is used up. */
export interface Fifo<T> {
  readonly front: Cell<T> | null;
  readonly back: Cell<T> | null;
  readonly size: number;
}

export const emptyFifo: Fifo<never> = { front: null, back: null, size: 0 };

export const pushed = <T>(queue: Fifo<T>, item: T): Fifo<T> => ({
  front: queue.front,
  back: { item, next: queue.back },
  size: queue.size + 1,
});

/** Puts an item before the oldest that `follows` it, or last. O(1) where that is the newest's place, else O(size). */
export function inserted<T>(queue: Fifo<T>, item: T, follows: (other: T) => boolean): Fifo<T> {
  if (queue.size === 0 || (queue.back && !follows(queue.back.item))) return pushed(queue, item);
  const all = items(queue);
  const at = all.findIndex(follows);
  return all.toSpliced(at < 0 ? all.length : at, 0, item).reduce<Fifo<T>>(pushed, emptyFifo);
}

/** The oldest item and the queue without it, or null when there is none. */
export function shifted<T>(queue: Fifo<T>): { readonly item: T; readonly rest: Fifo<T> } | null {
  let { front, back } = queue;
  if (!front) {
    for (; back; back = back.next) front = { item: back.item, next: front };
  }
  if (!front) return null;
  return { item: front.item, rest: { front: front.next, back, size: queue.size - 1 } };
}

/** Oldest first. O(size). */
export function items<T>(queue: Fifo<T>): readonly T[] {
  const all: T[] = [];
  for (let cell = queue.front; cell; cell = cell.next) all.push(cell.item);
  const newest: T[] = [];
  for (let cell = queue.back; cell; cell = cell.next) newest.push(cell.item);
  return all.concat(newest.reverse());
}

/** The queue without the items that match, in the same order. O(size); the same queue when none does. */
export function without<T>(queue: Fifo<T>, matches: (item: T) => boolean): Fifo<T> {
  const kept = items(queue).filter((item) => !matches(item));
  return kept.length === queue.size ? queue : kept.reduce<Fifo<T>>(pushed, emptyFifo);
}
