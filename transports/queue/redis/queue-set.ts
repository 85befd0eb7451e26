/** The queues that a consumer takes from, and what it knows of each: listed ones, and those that match its patterns while they last. */
import type { Redis } from 'ioredis';
import type { ErrorData } from '../../../src/domain/errors.ts';
import {
  patternSubscription,
  type QueueName,
  type QueuePattern,
  queueNameSchema,
  type Subscription,
} from '../../../src/domain/queues.ts';
import { createPauses } from '../delivery.ts';
import { closeConnection, connected, type Endpoint, openConnection, textOf } from './connection.ts';
import { INVALIDATIONS, type KeyTracking } from './key-tracking.ts';
import { itemsOf } from './scripts.ts';

/** The patterns are searched that often although discovery hears of every write. */
const SEARCH_MS = 60_000;

export interface SubscriptionState {
  readonly subscription: Subscription;
  /** What waits there; Infinity where only that it has changed is known. */
  length: number;
  /** Goes up with every change that key tracking reports. */
  changes: number;
  readonly unwatch: () => void;
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
  /** Finds queues that match the patterns, and lets those go that were found and are empty. */
  search(): Promise<void>;
  /** Hears of queues that match the patterns from now on. Rejects where Redis is away. */
  listen(endpoint: Endpoint): Promise<void>;
  close(): void;
}

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
  let searchedMs = Number.NEGATIVE_INFINITY;
  let discovery: Awaited<ReturnType<typeof openDiscovery>> | undefined;
  const pauses = createPauses(() => events.wake());

  const add = (subscription: Subscription, isFound: boolean): void => {
    if (subscriptions.has(subscription.queue)) return;
    const unwatch = tracking.key(subscription.queue, () => events.changed(subscription.queue));
    subscriptions.set(subscription.queue, {
      subscription: subscription,
      length: Number.POSITIVE_INFINITY,
      changes: 0,
      unwatch,
      found: isFound,
    });
    if (isFound) found += 1;
    events.wake();
  };
  const drop = (queue: QueueName): void => {
    const state = subscriptions.get(queue);
    if (!state) return;
    state.unwatch();
    subscriptions.delete(queue);
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
    async search() {
      for (const state of [...subscriptions.values()])
        if (state.found && state.length === 0 && state.subscription.queue !== events.waitingOn())
          drop(state.subscription.queue);
      const now = performance.now();
      if (patterns.length === 0 || (discovery?.armed() && now - searchedMs < SEARCH_MS)) return;
      for (const subscription of await findQueues(tracking.reader, patterns)) add(subscription, true);
      searchedMs = now;
    },
    async listen(endpoint) {
      if (patterns.length === 0) return;
      const reset = (): void => {
        searchedMs = Number.NEGATIVE_INFINITY;
        events.lost();
      };
      discovery = await openDiscovery(endpoint, patterns, { touched, reset });
    },
    close() {
      discovery?.close();
      pauses.close();
      for (const { unwatch } of subscriptions.values()) unwatch();
    },
  };
}

/** Keys that Redis looks at before it answers others. */
const SCAN_COUNT = 1_000;

/** Queues found at once; the others are found when these are empty. */
const MAX_FOUND = 1_000;

/** Subscriptions of the queues that match a pattern and hold something: a list that is empty is no key. */
async function findQueues(redis: Redis, patterns: readonly QueuePattern[]): Promise<readonly Subscription[]> {
  const subscriptions: Subscription[] = [];
  for (const { prefix } of patterns) {
    let cursor = '0';
    do {
      const more = ['MATCH', `${prefix}*`, 'COUNT', SCAN_COUNT, 'TYPE', 'list'];
      const [next, keys] = itemsOf(await redis.call('SCAN', cursor, ...more));
      cursor = String(next);
      for (const key of itemsOf(keys)) {
        const subscription = subscriptionOf(patterns, key);
        if (subscription) subscriptions.push(subscription);
      }
    } while (cursor !== '0' && subscriptions.length < MAX_FOUND);
  }
  return subscriptions;
}

function subscriptionOf(patterns: readonly QueuePattern[], key: unknown): Subscription | null {
  const queue = queueNameSchema.safeParse(String(key)).data;
  return queue ? patternSubscription(patterns, queue) : null;
}

interface QueueDiscovery {
  /** False while queues may appear unheard. */
  armed(): boolean;
  close(): void;
}

interface DiscoveryEvents {
  /** Somebody wrote to this queue: pushed to it, or took from it. */
  touched(subscription: Subscription): void;
  /** Queues may have appeared unheard; from now on they are heard. */
  reset(): void;
}

/**
 * Hears of every write to queues that match the patterns, also by strangers' plain LPUSHes, on a connection of its own: Redis's
 * client-side caching in its broadcasting mode, which costs the server nothing a key. Without it a tenant's first
 * message waits for the next SCAN. A user who may not do this is left with that; the reason is in the log.
 * Rejects where Redis is away.
 */
async function openDiscovery(
  endpoint: Endpoint,
  patterns: readonly QueuePattern[],
  events: DiscoveryEvents,
): Promise<QueueDiscovery> {
  const link = openConnection(endpoint, 'discovery', 0);
  let isArmed = false;
  const arm = async (): Promise<void> => {
    // To itself: what the old protocol allows on a connection that listens, it must be told before it does.
    const id = await link.client('ID');
    const prefixes = distinct(patterns).flatMap((prefix) => ['PREFIX', prefix]);
    await link.call('CLIENT', 'TRACKING', 'ON', 'REDIRECT', id, 'BCAST', ...prefixes);
    await link.subscribe(INVALIDATIONS);
    isArmed = true;
    events.reset();
  };
  const rearm = (): void => {
    arm().catch((error: unknown) => {
      endpoint.log.warn({ error: textOf(error) }, 'Redis does not report new queues: they are looked for');
    });
  };
  link.on('messageBuffer', (_channel: Buffer, names: unknown) => {
    // Null after FLUSHALL: nothing is there any more.
    for (const name of itemsOf(names)) {
      const subscription = subscriptionOf(patterns, name);
      if (subscription) events.touched(subscription);
    }
  });
  link.on('close', () => {
    isArmed = false;
  });
  await connected(link);
  rearm();
  link.on('ready', rearm);
  return {
    armed: () => isArmed,
    close() {
      link.off('ready', rearm);
      closeConnection(link);
    },
  };
}

/** Redis refuses prefixes of which one begins with another. */
function distinct(patterns: readonly QueuePattern[]): readonly string[] {
  const prefixes = [...new Set(patterns.map(({ prefix }) => prefix))];
  return prefixes.filter((one) => !prefixes.some((other) => other !== one && one.startsWith(other)));
}
