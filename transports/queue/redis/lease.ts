/** Says that a consumer lives, and requeues what those that no longer do had taken. */
import { MAX_DELIVERIES, type QueueName, queueNameSchema } from '../../../src/domain/queues.ts';
import type { Log } from '../../../src/ports/telemetry.ts';
import type { TransportMeter } from '../../../src/ports/transport.ts';
import { textOf } from './connection.ts';
import type { KeyTracking } from './key-tracking.ts';
import { HOLDERS, itemsOf, leaseKey, reclaimScript, takenKey } from './scripts.ts';
import { FAILURES_TTL_S } from './settlements.ts';

export interface LeaseTimes {
  readonly ttlMs: number;
  readonly renewMs: number;
}

export const LEASE_TIMES: LeaseTimes = { ttlMs: 6_000, renewMs: 2_000 };

/** Renewals of others' leases that must be missed in a row: after a pause of the server all leases look dead at once. */
const MISSES = 2;

/** Poison that a dead holder left; it lies in our hash under that id and must become a dead letter. */
interface Poison {
  readonly id: string;
  readonly queue: QueueName;
  readonly body: Buffer;
}

interface Lease {
  /** Gives the lease up; `empty`: nothing is left that another would have to requeue. */
  release(empty: boolean): Promise<void>;
}

/** Resolves once the lease is held; rejects where Redis is away. */
export async function holdLease(
  tracking: KeyTracking,
  holder: string,
  times: LeaseTimes,
  deps: {
    readonly log: Log;
    readonly meter: TransportMeter;
    readonly nextId: (count: number) => number;
    readonly returned: () => void;
    readonly poisoned: (poison: Poison) => void;
  },
): Promise<Lease> {
  const { reader } = tracking;
  const missed = new Map<string, number>();
  let timer: NodeJS.Timeout | undefined;
  let isReleased = false;

  const renew = async (): Promise<void> => {
    // The lease stands before the name does, or another's inspection could find us without one.
    await Promise.all([
      reader.set(leaseKey(holder), '1', 'PX', times.ttlMs),
      reader.call('SADD', HOLDERS, holder),
    ]);
  };

  const reclaim = async (dead: string): Promise<void> => {
    const keys = [leaseKey(dead), takenKey(dead), HOLDERS, takenKey(holder)];
    const args = [dead, deps.nextId(100_000), MAX_DELIVERIES, FAILURES_TTL_S];
    const [count, poison] = itemsOf(await reclaimScript(reader, keys, args));
    const returned = Number(count ?? 0);
    const bad = itemsOf(poison);
    for (let at = 0; at < bad.length; at += 3) {
      const queue = queueNameSchema.safeParse(String(bad[at + 1])).data;
      const body = bad[at + 2];
      if (queue && Buffer.isBuffer(body)) deps.poisoned({ id: String(bad[at]), queue, body });
    }
    if (returned === 0) return;
    deps.meter.counted('action.returned', returned);
    deps.log.warn({ holder: dead, count: returned }, 'actions of a dead node went back to their queues');
    deps.returned();
  };

  const inspect = async (): Promise<void> => {
    const others = (await reader.smembers(HOLDERS)).filter((name) => name !== holder);
    const alive = await Promise.all(others.map((name) => reader.exists(leaseKey(name))));
    for (const name of missed.keys()) if (!others.includes(name)) missed.delete(name);
    for (const [at, name] of others.entries()) {
      if (alive[at]) missed.delete(name);
      else missed.set(name, (missed.get(name) ?? 0) + 1);
      if ((missed.get(name) ?? 0) < MISSES) continue;
      missed.delete(name);
      await reclaim(name);
    }
  };

  const tick = async (): Promise<void> => {
    try {
      await renew();
      await inspect();
    } catch (error) {
      missed.clear();
      deps.log.debug({ error: textOf(error) }, 'the lease could not be renewed');
    }
    if (!isReleased) timer = setTimeout(tick, times.renewMs);
  };

  await renew();
  timer = setTimeout(tick, times.renewMs);

  return {
    async release(empty) {
      isReleased = true;
      clearTimeout(timer);
      try {
        await reader.del(leaseKey(holder));
        if (!empty) return;
        await Promise.all([reader.del(takenKey(holder)), reader.srem(HOLDERS, holder)]);
      } catch (error) {
        // It ends by itself, a little later.
        deps.log.debug({ error: textOf(error) }, 'the lease could not be given up');
      }
    },
  };
}
