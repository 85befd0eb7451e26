/** Finds queues that nobody could list beforehand: those of tenants, which begin alike. */
import type { Redis } from 'ioredis';
import { type Family, familyLane, type Lane, queueNameSchema } from '../../src/domain/queues.ts';
import { itemsOf } from './scripts.ts';

/** Keys that Redis looks at before it answers others. */
const SCAN_COUNT = 1_000;
/** Queues found at once; the others are found when these are empty. */
const MAX_FOUND = 1_000;

/**
 * The lanes of families' queues that hold something: a list that is empty is no key. SCAN, since queues come from
 * strangers' plain LPUSHes. Rejected: tracking by prefix (another connection, which hears of every push).
 */
export async function findLanes(redis: Redis, families: readonly Family[]): Promise<readonly Lane[]> {
  const lanes: Lane[] = [];
  for (const { prefix } of families) {
    let cursor = '0';
    do {
      const more = ['MATCH', `${prefix}*`, 'COUNT', SCAN_COUNT, 'TYPE', 'list'];
      const [next, keys] = itemsOf(await redis.call('SCAN', cursor, ...more));
      cursor = String(next);
      for (const key of itemsOf(keys)) {
        const queue = queueNameSchema.safeParse(key).data;
        const lane = queue ? familyLane(families, queue) : null;
        if (lane) lanes.push(lane);
      }
    } while (cursor !== '0' && lanes.length < MAX_FOUND);
  }
  return lanes;
}
