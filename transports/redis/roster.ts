/** The queues that a consumer takes from, and what it knows of each: listed ones, and those of families while they last. */
import type { ErrorData } from '../../src/domain/errors.ts';
import { type Family, familyLane, type Lane, type QueueName } from '../../src/domain/queues.ts';
import { createPauses } from '../pauses.ts';
import { findLanes, MAX_FOUND, openScout } from './families.ts';
import type { Endpoint } from './link.ts';
import type { Watch } from './watch.ts';

/** Families are looked through that often although their scout hears of every write. */
const SEARCH_MS = 60_000;

export interface LaneState {
  readonly lane: Lane;
  /** What waits there; Infinity where only that it has changed is known. */
  length: number;
  /** Goes up with every change that the watch reports. */
  changes: number;
  readonly unwatch: () => void;
  /** It was found, and goes again when it has been empty for a while. */
  readonly found: boolean;
}

export interface Roster {
  /** One that is there already is left as it is. */
  add(lane: Lane): void;
  drop(queue: QueueName): void;
  has(queue: QueueName): boolean;
  /** Whether it is taken from here, or would be if it held something. */
  covers(queue: QueueName): boolean;
  /** Those that may hold something and are not paused. */
  waiting(): readonly LaneState[];
  /** The queue to wait on: that one where it can be, else another, or undefined. */
  next(hot: QueueName | undefined): QueueName | undefined;
  /** What is known of its length is not true any more. */
  mistrust(queue: QueueName): void;
  mistrustAll(): void;
  pause(queue: QueueName, error: ErrorData): void;
  isPaused(queue: QueueName): boolean;
  /** Finds families' queues, and lets those go that were found and are empty. */
  search(): Promise<void>;
  /** Hears of families' queues from now on. Rejects where Redis is away. */
  listen(endpoint: Endpoint): Promise<void>;
  close(): void;
}

export function createRoster(
  watch: Watch,
  families: readonly Family[],
  events: {
    /** The watch says so. */
    readonly changed: (queue: QueueName) => void;
    /** A queue has come, or may be taken from again. */
    readonly wake: () => void;
    /** Families must be searched. */
    readonly lost: () => void;
    readonly waitingOn: () => QueueName | undefined;
  },
): Roster {
  const lanes = new Map<QueueName, LaneState>();
  let found = 0;
  let searchedMs = Number.NEGATIVE_INFINITY;
  let scout: Awaited<ReturnType<typeof openScout>> | undefined;
  const pauses = createPauses(() => events.wake());

  const add = (lane: Lane, isFound: boolean): void => {
    if (lanes.has(lane.queue)) return;
    const unwatch = watch.key(lane.queue, () => events.changed(lane.queue));
    lanes.set(lane.queue, { lane, length: Number.POSITIVE_INFINITY, changes: 0, unwatch, found: isFound });
    if (isFound) found += 1;
    events.wake();
  };
  const drop = (queue: QueueName): void => {
    const state = lanes.get(queue);
    if (!state) return;
    state.unwatch();
    lanes.delete(queue);
    if (state.found) found -= 1;
  };
  const mistrust = (queue: QueueName): void => {
    const state = lanes.get(queue);
    if (!state) return;
    state.length = Number.POSITIVE_INFINITY;
    state.changes += 1;
  };
  const touched = (lane: Lane): void => {
    const state = lanes.get(lane.queue);
    if (!state && found < MAX_FOUND) add(lane, true);
    // Known to be empty, it may be on its way out when this is heard.
    else if (state?.found && state.length === 0) events.changed(lane.queue);
  };

  return {
    add: (lane) => add(lane, false),
    drop,
    has: (queue) => lanes.has(queue),
    covers: (queue) => lanes.has(queue) || familyLane(families, queue) !== null,
    waiting: () =>
      [...lanes.values()].filter(
        ({ length, lane }) => length > 0 && lane.queue !== events.waitingOn() && !pauses.has(lane.queue),
      ),
    next(hot) {
      if (hot !== undefined && lanes.has(hot) && !pauses.has(hot)) return hot;
      for (const queue of lanes.keys()) if (!pauses.has(queue)) return queue;
      return undefined;
    },
    mistrust,
    mistrustAll() {
      for (const queue of lanes.keys()) if (queue !== events.waitingOn()) mistrust(queue);
    },
    pause: (queue, error) => pauses.pause(queue, error),
    isPaused: (queue) => pauses.has(queue),
    async search() {
      for (const state of [...lanes.values()])
        if (state.found && state.length === 0 && state.lane.queue !== events.waitingOn())
          drop(state.lane.queue);
      const now = performance.now();
      if (families.length === 0 || (scout?.armed() && now - searchedMs < SEARCH_MS)) return;
      for (const lane of await findLanes(watch.taker, families)) add(lane, true);
      searchedMs = now;
    },
    async listen(endpoint) {
      if (families.length === 0) return;
      const reset = (): void => {
        searchedMs = Number.NEGATIVE_INFINITY;
        events.lost();
      };
      scout = await openScout(endpoint, families, { touched, reset });
    },
    close() {
      scout?.close();
      pauses.close();
      for (const { unwatch } of lanes.values()) unwatch();
    },
  };
}
