/** The queues that a consumer takes from, and what it knows of each: listed ones, and those that match its patterns while they last. */
import { type ErrorData, refusal } from '../../../src/domain/errors.ts';
import {
  patternSubscription,
  type QueueName,
  type QueuePattern,
  type Subscription,
} from '../../../src/domain/queues.ts';
import { createPauses } from '../delivery.ts';
import type { Endpoint } from './connection.ts';
import { createDiscovery, MAX_FOUND } from './discovery.ts';
import type { KeyTracking } from './key-tracking.ts';

export interface SubscriptionState {
  readonly subscription: Subscription;
  /** What waits there; Infinity where only that it has changed is known. */
  length: number;
  /** Goes up with every change that key tracking reports. */
  changes: number;
  readonly untrack: () => void;
  /** It was found, and goes again when it has been empty for a while. */
  readonly found: boolean;
}

export interface QueueSet {
  /** One that is there already is left as it is. */
  add(subscription: Subscription): void;
  drop(queue: QueueName): void;
  has(queue: QueueName): boolean;
  /** Whether it is taken from here, or would be if it held something. */
  covers(queue: QueueName): boolean;
  /** Those that may hold something and are not paused. */
  waiting(): readonly SubscriptionState[];
  /** The queue to wait on: that one where it can be, else another, or undefined. */
  next(hot: QueueName | undefined): QueueName | undefined;
  /** What is known of its length is not true any more. */
  mistrust(queue: QueueName): void;
  mistrustAll(): void;
  pause(queue: QueueName, error: ErrorData): void;
  isPaused(queue: QueueName): boolean;
  /** Redis does not let us take from it: tried again after a while. */
  bar(queue: QueueName): void;
  /** It was taken from. */
  unbar(queue: QueueName): void;
  barred(): readonly QueueName[];
  /** Finds queues that match the patterns, and lets those go that were found and are empty. */
  search(): Promise<void>;
  /** Hears of queues that match the patterns from now on. Rejects where Redis is away. */
  listen(endpoint: Endpoint): Promise<void>;
  close(): void;
}

/** A queue that Redis bars is left alone for that long. */
const BARRED = refusal('TRANSPORT_UNAVAILABLE', { retryAfterMs: 5_000 });

export function createQueueSet(
  tracking: KeyTracking,
  patterns: readonly QueuePattern[],
  events: {
    /** Key tracking says so. */
    readonly changed: (queue: QueueName) => void;
    /** A queue has come, or its pause is over. */
    readonly wake: () => void;
    /** The patterns must be searched. */
    readonly lost: () => void;
    readonly waitingOn: () => QueueName | undefined;
  },
): QueueSet {
  const subscriptions = new Map<QueueName, SubscriptionState>();
  let found = 0;
  const discovery = createDiscovery(tracking, patterns);
  const pauses = createPauses(() => events.wake());
  const barred = new Set<QueueName>();

  const add = (subscription: Subscription, isFound: boolean): void => {
    if (subscriptions.has(subscription.queue)) return;
    const { queue } = subscription;
    const untrack = tracking.key(queue, () => events.changed(queue));
    const length = Number.POSITIVE_INFINITY;
    subscriptions.set(queue, { subscription, length, changes: 0, untrack, found: isFound });
    if (isFound) found += 1;
    events.wake();
  };
  const drop = (queue: QueueName): void => {
    const state = subscriptions.get(queue);
    if (!state) return;
    state.untrack();
    subscriptions.delete(queue);
    barred.delete(queue);
    if (state.found) found -= 1;
  };
  const mistrust = (queue: QueueName): void => {
    const state = subscriptions.get(queue);
    if (!state) return;
    state.length = Number.POSITIVE_INFINITY;
    state.changes += 1;
  };
  const touched = (subscription: Subscription): void => {
    const state = subscriptions.get(subscription.queue);
    if (!state && found < MAX_FOUND) add(subscription, true);
    // Known to be empty, it may be on its way out when this is heard.
    else if (state?.found && state.length === 0) events.changed(subscription.queue);
  };

  return {
    add: (subscription) => add(subscription, false),
    drop,
    has: (queue) => subscriptions.has(queue),
    covers: (queue) => subscriptions.has(queue) || patternSubscription(patterns, queue) !== null,
    waiting: () =>
      [...subscriptions.values()].filter(
        ({ length, subscription }) =>
          length > 0 && subscription.queue !== events.waitingOn() && !pauses.has(subscription.queue),
      ),
    next(hot) {
      if (hot !== undefined && subscriptions.has(hot) && !pauses.has(hot)) return hot;
      for (const queue of subscriptions.keys()) if (!pauses.has(queue)) return queue;
      return undefined;
    },
    mistrust,
    mistrustAll() {
      for (const queue of subscriptions.keys()) if (queue !== events.waitingOn()) mistrust(queue);
    },
    pause: (queue, error) => pauses.pause(queue, error),
    isPaused: (queue) => pauses.has(queue),
    bar(queue) {
      barred.add(queue);
      pauses.pause(queue, BARRED);
    },
    unbar: (queue) => barred.delete(queue),
    barred: () => [...barred],
    async search() {
      for (const state of [...subscriptions.values()])
        if (state.found && state.length === 0 && state.subscription.queue !== events.waitingOn())
          drop(state.subscription.queue);
      for (const subscription of await discovery.search()) add(subscription, true);
    },
    listen: (endpoint) => discovery.listen(endpoint, { touched, reset: events.lost }),
    close() {
      discovery.close();
      pauses.close();
      for (const { untrack } of subscriptions.values()) untrack();
    },
  };
}
