/**
 * Whose turn it is among thousands that wait: by the rules of `fair-queue.ts`, whose rounds cost a step for each that
 * waits, at the cost of a logarithm. Mutable, since a heap is.
 */
import type { Subscription } from './queues.ts';

/** How many of a group are looked at where the first ones can not be served now. */
const MAX_LOOKED_AT = 16;
/** Places of the heap that may belong to nobody any more. */
const MAX_LEFT = 64;

interface Waiting<T> {
  readonly item: T;
  readonly share: number;
  /** Of equals the one that has waited longest is first. */
  readonly since: number;
  due: number;
  hasLeft: boolean;
}

/** One group's part: its own turns among groups, and those of its members. */
interface Group<T> {
  readonly weight: number;
  start: number;
  clock: number;
  heap: Waiting<T>[];
  size: number;
}

export class FairOrder<T> {
  readonly #groups = new Map<string, Group<T>>();
  readonly #waiting = new Map<T, { readonly group: string; readonly waiting: Waiting<T> }>();
  #clock = 0;
  #count = 0;

  get size(): number {
    return this.#waiting.size;
  }

  has(item: T): boolean {
    return this.#waiting.has(item);
  }

  /** Newcomers, and groups that are new, begin at the clock. `had`: services that a new group counts as having had. */
  add(item: T, { group: name, weight, share }: Subscription, had = 0): void {
    if (this.#waiting.has(item)) return;
    let group = this.#groups.get(name);
    if (!group) {
      group = { weight, start: this.#clock + had / weight, clock: 0, heap: [], size: 0 };
      this.#groups.set(name, group);
    }
    this.#count += 1;
    const since = this.#count;
    const waiting = { item, share, since, due: group.clock + 1 / share, hasLeft: false };
    this.#waiting.set(item, { group: name, waiting });
    group.size += 1;
    pushed(group.heap, waiting);
  }

  delete(item: T): void {
    const found = this.#waiting.get(item);
    const group = found && this.#groups.get(found.group);
    if (!group) return;
    this.#waiting.delete(item);
    found.waiting.hasLeft = true;
    group.size -= 1;
    if (group.size === 0) this.#groups.delete(found.group);
    else if (group.heap.length > 2 * group.size + MAX_LEFT) group.heap = compacted(group.heap);
  }

  /** The one to be served next, of those that fit; undefined where none does among the first of each group. */
  next(fits: (item: T) => boolean): T | undefined {
    const groups = [...this.#groups.values()];
    const due = ({ start, weight }: Group<T>): number => start + 1 / weight;
    groups.sort((one, other) => due(one) - due(other));
    for (const group of groups) {
      const item = firstThat(group.heap, fits);
      if (item !== undefined) return item;
    }
    return undefined;
  }

  /** Counts a service of one that waits. It goes on waiting. */
  served(item: T): void {
    const found = this.#waiting.get(item);
    const group = found && this.#groups.get(found.group);
    if (!group) return;
    const { waiting } = found;
    group.start += 1 / group.weight;
    this.#clock = Math.max(this.#clock, group.start);
    group.clock = Math.max(group.clock, waiting.due);
    waiting.hasLeft = true;
    const { since, share, due } = waiting;
    const again = { item, share, since, due: due + 1 / share, hasLeft: false };
    this.#waiting.set(item, { group: found.group, waiting: again });
    pushed(group.heap, again);
  }
}

/** Looks at the first few in their order; those that have left are taken out. */
function firstThat<T>(heap: Waiting<T>[], fits: (item: T) => boolean): T | undefined {
  const passed: Waiting<T>[] = [];
  let found: Waiting<T> | undefined;
  while (found === undefined && passed.length < MAX_LOOKED_AT) {
    const first = shifted(heap);
    if (!first) break;
    if (first.hasLeft) continue;
    passed.push(first);
    if (fits(first.item)) found = first;
  }
  for (const each of passed) pushed(heap, each);
  return found?.item;
}

function compacted<T>(heap: readonly Waiting<T>[]): Waiting<T>[] {
  const kept: Waiting<T>[] = [];
  for (const each of heap) if (!each.hasLeft) pushed(kept, each);
  return kept;
}

// --- A binary heap ----------------------------------------------------------------------------------------------

const isBefore = <T>(one: Waiting<T>, other: Waiting<T>): boolean =>
  one.due === other.due ? one.since < other.since : one.due < other.due;

function pushed<T>(heap: Waiting<T>[], one: Waiting<T>): void {
  let at = heap.push(one) - 1;
  for (;;) {
    const above = (at - 1) >> 1;
    const parent = heap[above];
    if (at === 0 || !parent || !isBefore(one, parent)) break;
    heap[at] = parent;
    at = above;
  }
  heap[at] = one;
}

function shifted<T>(heap: Waiting<T>[]): Waiting<T> | undefined {
  const [first] = heap;
  const last = heap.pop();
  if (!first || !last || heap.length === 0) return first;
  let at = 0;
  for (;;) {
    const [left, right] = [heap[2 * at + 1], heap[2 * at + 2]];
    const isRight = right !== undefined && left !== undefined && isBefore(right, left);
    const child = isRight ? right : left;
    if (!child || !isBefore(child, last)) break;
    heap[at] = child;
    at = 2 * at + (isRight ? 2 : 1);
  }
  heap[at] = last;
  return first;
}
