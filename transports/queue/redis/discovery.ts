/** Finds queues that match a consumer's patterns: by search, and by hearing of every write to them. */
import type { Redis } from 'ioredis';
import {
  patternSubscription,
  type QueuePattern,
  queueNameSchema,
  type Subscription,
} from '../../../src/domain/queues.ts';
import { closeConnection, connected, type Endpoint, openConnection, textOf } from './connection.ts';
import { INVALIDATIONS, type KeyTracking } from './key-tracking.ts';
import { itemsOf } from './scripts.ts';

/** The patterns are searched that often although every write is heard of. */
const SEARCH_MS = 60_000;

interface QueueDiscovery {
  /** Queues that hold something; none where a search would bring nothing that was not heard of. */
  search(): Promise<readonly Subscription[]>;
  /** Hears of queues from now on. Rejects where Redis is away. */
  listen(endpoint: Endpoint, events: DiscoveryEvents): Promise<void>;
  close(): void;
}

export function createDiscovery(tracking: KeyTracking, patterns: readonly QueuePattern[]): QueueDiscovery {
  let searchedMs = Number.NEGATIVE_INFINITY;
  let listening: Listening | undefined;
  return {
    async search() {
      const now = performance.now();
      if (patterns.length === 0 || (listening?.armed() && now - searchedMs < SEARCH_MS)) return [];
      const found = await findQueues(tracking.reader, patterns);
      searchedMs = now;
      return found;
    },
    async listen(endpoint, { touched, reset }) {
      if (patterns.length === 0) return;
      listening = await openListening(endpoint, patterns, {
        touched,
        reset() {
          searchedMs = Number.NEGATIVE_INFINITY;
          reset();
        },
      });
    },
    close: () => listening?.close(),
  };
}

/** Keys that Redis looks at before it answers others. */
const SCAN_COUNT = 1_000;

/** Queues found at once; the others are found when these are empty. */
export const MAX_FOUND = 1_000;

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

interface Listening {
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
async function openListening(
  endpoint: Endpoint,
  patterns: readonly QueuePattern[],
  events: DiscoveryEvents,
): Promise<Listening> {
  const connection = openConnection(endpoint, 'discovery', 0);
  let isArmed = false;
  const arm = async (): Promise<void> => {
    // To itself: what the old protocol allows on a connection that listens, it must be told before it does.
    const id = await connection.client('ID');
    const prefixes = distinct(patterns).flatMap((prefix) => ['PREFIX', prefix]);
    await connection.call('CLIENT', 'TRACKING', 'ON', 'REDIRECT', id, 'BCAST', ...prefixes);
    await connection.subscribe(INVALIDATIONS);
    isArmed = true;
    events.reset();
  };
  const rearm = (): void => {
    arm().catch((error: unknown) => {
      endpoint.log.warn({ error: textOf(error) }, 'Redis does not report new queues: they are looked for');
    });
  };
  connection.on('messageBuffer', (_channel: Buffer, names: unknown) => {
    // Null after FLUSHALL: nothing is there any more.
    for (const name of itemsOf(names)) {
      const subscription = subscriptionOf(patterns, name);
      if (subscription) events.touched(subscription);
    }
  });
  connection.on('close', () => {
    isArmed = false;
  });
  await connected(connection);
  rearm();
  connection.on('ready', rearm);
  return {
    armed: () => isArmed,
    close() {
      connection.off('ready', rearm);
      closeConnection(connection);
    },
  };
}

/** Redis refuses prefixes of which one begins with another. */
function distinct(patterns: readonly QueuePattern[]): readonly string[] {
  const prefixes = [...new Set(patterns.map(({ prefix }) => prefix))];
  return prefixes.filter((one) => !prefixes.some((other) => other !== one && one.startsWith(other)));
}
