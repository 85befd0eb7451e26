/** Time, chance and the one queue of events of a simulated cluster: a seed decides all that happens. */
import { randomFrom } from '../support/dice.ts';

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly act: () => void;
}

export interface World {
  readonly now: () => number;
  readonly events: () => number;
  /** Does something so much later; what is due at the same time happens in the order of the calls. */
  after(ms: number, act: () => void): void;
  chance(probability: number): boolean;
  between(low: number, high: number): number;
  /** Undefined where there is none. */
  pick<T>(list: readonly T[]): T | undefined;
  /** Notes what happened, for who reads the run of one seed. */
  note(...what: readonly unknown[]): void;
  /** Something that must never be. */
  problem(what: string, about?: object): void;
  run(untilMs: number): void;
}

export interface Finding {
  readonly atMs: number;
  readonly what: string;
  readonly about: object;
}

/** More than a run may have: it goes round in circles. */
const MAX_EVENTS = 5_000_000;
/** One bug is found many times. */
const MAX_PROBLEMS = 5;

export function createWorld(
  seed: number,
  trace: ((line: string) => void) | undefined,
): World & { readonly problems: readonly Finding[] } {
  const random = randomFrom(seed);
  const heap: Event[] = [];
  const problems: Finding[] = [];
  let now = 0;
  let order = 0;
  let events = 0;

  function add(event: Event): void {
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent];
      if (!above || !isBefore(event, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
  }

  function take(): Event | undefined {
    const first = heap[0];
    const last = heap.pop();
    if (!first || !last || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      const left = heap[2 * at + 1];
      const right = heap[2 * at + 2];
      const isRight = right !== undefined && left !== undefined && isBefore(right, left);
      const child = isRight ? right : left;
      if (!child || !isBefore(child, last)) break;
      heap[at] = child;
      at = 2 * at + (isRight ? 2 : 1);
    }
    heap[at] = last;
    return first;
  }

  const problem = (what: string, about: object = {}): void => {
    if (problems.length < MAX_PROBLEMS) problems.push({ atMs: Math.round(now), what, about });
    trace?.(`${stamp(now)} PROBLEM ${what} ${JSON.stringify(about)}`);
  };

  return {
    problems,
    problem,
    now: () => now,
    events: () => events,
    after(ms, act) {
      order += 1;
      add({ atMs: now + ms, order, act });
    },
    chance: (probability) => random() < probability,
    between: (low, high) => low + random() * (high - low),
    pick: (list) => list[Math.floor(random() * list.length)],
    note(...what) {
      trace?.(
        `${stamp(now)} ${what.map((each) => (typeof each === 'string' ? each : JSON.stringify(each))).join(' ')}`,
      );
    },
    run(untilMs) {
      while (heap[0] && heap[0].atMs <= untilMs) {
        const event = take();
        if (!event) return;
        now = event.atMs;
        events += 1;
        event.act();
        if (events > MAX_EVENTS) return problem('too many events');
      }
    },
  };
}

const isBefore = (a: Event, b: Event): boolean => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);

const stamp = (ms: number): string => ms.toFixed(3).padStart(11);
