/** Finds queues that nobody could list beforehand: those of tenants, which begin alike. */
import type { Redis } from 'ioredis';
import { type Family, familyLane, type Lane, queueNameSchema } from '../../src/domain/queues.ts';
import { closeLink, connected, type Endpoint, openLink, textOf } from './link.ts';
import { itemsOf } from './scripts.ts';
import { INVALIDATIONS } from './watch.ts';

/** Keys that Redis looks at before it answers others. */
const SCAN_COUNT = 1_000;
/** Queues found at once; the others are found when these are empty. */
export const MAX_FOUND = 1_000;

/** The lanes of families' queues that hold something: a list that is empty is no key. */
export async function findLanes(redis: Redis, families: readonly Family[]): Promise<readonly Lane[]> {
  const lanes: Lane[] = [];
  for (const { prefix } of families) {
    let cursor = '0';
    do {
      const more = ['MATCH', `${prefix}*`, 'COUNT', SCAN_COUNT, 'TYPE', 'list'];
      const [next, keys] = itemsOf(await redis.call('SCAN', cursor, ...more));
      cursor = String(next);
      for (const key of itemsOf(keys)) {
        const lane = laneOf(families, key);
        if (lane) lanes.push(lane);
      }
    } while (cursor !== '0' && lanes.length < MAX_FOUND);
  }
  return lanes;
}

function laneOf(families: readonly Family[], key: unknown): Lane | null {
  const queue = queueNameSchema.safeParse(String(key)).data;
  return queue ? familyLane(families, queue) : null;
}

export interface Scout {
  /** False while queues may appear unheard. */
  armed(): boolean;
  close(): void;
}

export interface ScoutEvents {
  /** Somebody wrote to this queue: pushed to it, or took from it. */
  touched(lane: Lane): void;
  /** Queues may have appeared unheard; from now on they are heard. */
  reset(): void;
}

/**
 * Hears of every write to families' queues, also by strangers' plain LPUSHes, on a connection of its own: Redis's
 * client-side caching in its broadcasting mode, which costs the server nothing a key. Without it a tenant's first
 * message waits for the next SCAN. A user who may not do this is left with that; the reason is in the log.
 * Rejects where Redis is away.
 */
export async function openScout(
  endpoint: Endpoint,
  families: readonly Family[],
  events: ScoutEvents,
): Promise<Scout> {
  const link = openLink(endpoint, 'scout', 0);
  let isArmed = false;
  const arm = async (): Promise<void> => {
    // To itself: what the old protocol allows on a connection that listens, it must be told before it does.
    const id = await link.client('ID');
    const prefixes = distinct(families).flatMap((prefix) => ['PREFIX', prefix]);
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
      const lane = laneOf(families, name);
      if (lane) events.touched(lane);
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
      closeLink(link);
    },
  };
}

/** Redis refuses prefixes of which one begins with another. */
function distinct(families: readonly Family[]): readonly string[] {
  const prefixes = [...new Set(families.map(({ prefix }) => prefix))];
  return prefixes.filter((one) => !prefixes.some((other) => other !== one && one.startsWith(other)));
}
