/**
 * What actors that left their node had used of their rates: who comes back before it has flowed back goes on with it.
 * A bucket takes some 200 bytes here and a session that stayed for it some kilobytes, so a flood of sessions that are
 * left after one message costs megabytes; past the bound the oldest is forgotten, which wins a flooder no more than
 * the full bucket that each of its new sessions has anyway.
 */
import { type Bucket, fullAtMs, type Rate } from '../../src/domain/rate-limit.ts';

export interface RateMemory {
  /** Keeps a bucket until it is full again, in place of the one before; one that is full now is not kept. */
  keep(key: string, bucket: Bucket | null, rate: Rate | null, nowMs: number): void;
  /** What is kept, or null where nothing is used of it any more. */
  find(key: string, nowMs: number): Bucket | null;
  size(): number;
}

interface Kept {
  readonly bucket: Bucket;
  readonly fullAtMs: number;
}

/** About 20 MB where every key is as long as keys may be. */
const MAX_KEPT = 50_000;

export function createRateMemory(max: number = MAX_KEPT): RateMemory {
  const kept = new Map<string, Kept>();

  /** From the oldest on: what is full by now, and what is too much. */
  function makeRoom(nowMs: number): void {
    for (const [key, one] of kept) {
      if (one.fullAtMs > nowMs && kept.size <= max) return;
      kept.delete(key);
    }
  }

  return {
    keep(key, bucket, rate, nowMs) {
      kept.delete(key);
      if (!bucket || !rate) return;
      const full = fullAtMs(bucket, rate);
      if (full > nowMs) kept.set(key, { bucket, fullAtMs: full });
      makeRoom(nowMs);
    },
    find(key, nowMs) {
      const found = kept.get(key);
      return found && found.fullAtMs > nowMs ? found.bucket : null;
    },
    size: () => kept.size,
  };
}
