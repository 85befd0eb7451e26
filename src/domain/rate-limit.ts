/** Token bucket and daily quota arithmetic: pure, since the result is state of a tenant or a session. */

const DAY_MS = 86_400_000;

/** Times in ms since the epoch. */
export interface Bucket {
  readonly tokens: number;
  readonly atMs: number;
}

/** `perMs` tokens flow back each millisecond, up to `burst`. */
export interface Rate {
  readonly perMs: number;
  readonly burst: number;
}

/** `limit` requests each `periodMs`, all of which may come at once. `null` stands for "no limit". */
export function rateOf(limit: number | null, periodMs: number): Rate | null {
  return limit === null ? null : { perMs: limit / periodMs, burst: limit };
}

export const fullBucket = (rate: Rate, nowMs: number): Bucket => ({ tokens: rate.burst, atMs: nowMs });

/** When the bucket is full again, ms since the epoch. */
export function fullAtMs({ tokens, atMs }: Bucket, { perMs, burst }: Rate): number {
  const used = burst - tokens;
  return used <= 0 ? atMs : atMs + used / perMs;
}

type Taken =
  | { readonly ok: true; readonly bucket: Bucket }
  | { readonly ok: false; readonly retryAfterMs: number };

/** Sums of fractions end a hair under one; without this, a request after exactly `retryAfterMs` would be refused again. */
const ROUNDING = 1e-6;

/**
 * Takes one token, or says in how many ms one will be there. A clock that goes back refills nothing; one that goes
 * back by more than a whole fill was set, and the bucket starts anew: else all requests would be refused until then.
 */
export function take(bucket: Bucket, nowMs: number, rate: Rate): Taken {
  const aheadMs = Math.max(0, bucket.atMs - nowMs);
  if (aheadMs * rate.perMs > rate.burst) return take(fullBucket(rate, nowMs), nowMs, rate);
  const elapsed = Math.max(0, nowMs - bucket.atMs);
  const tokens = Math.min(rate.burst, bucket.tokens + elapsed * rate.perMs);
  if (tokens >= 1 - ROUNDING)
    return { ok: true, bucket: { tokens: Math.max(0, tokens - 1), atMs: Math.max(nowMs, bucket.atMs) } };
  if (rate.perMs <= 0) return { ok: false, retryAfterMs: DAY_MS };
  return { ok: false, retryAfterMs: aheadMs + Math.ceil((1 - tokens) / rate.perMs) };
}

/** Requests counted since midnight UTC of `day` (`YYYY-MM-DD`). */
export interface DayCount {
  readonly day: string;
  readonly used: number;
}

/** The UTC calendar day of a time, as `YYYY-MM-DD`. */
export const dayOf = (nowMs: number): string => new Date(nowMs).toISOString().slice(0, 10);

/** Milliseconds until the next midnight UTC. */
export const msToMidnight = (nowMs: number): number => DAY_MS - (nowMs % DAY_MS);

type Counted =
  | { readonly ok: true; readonly count: DayCount }
  | { readonly ok: false; readonly retryAfterMs: number };

/** Counts one request against a daily limit (`null`: none); the count starts again at midnight UTC. */
export function countDay(count: DayCount, nowMs: number, limit: number | null): Counted {
  const day = dayOf(nowMs);
  const used = count.day === day ? count.used : 0;
  if (limit !== null && used >= limit) return { ok: false, retryAfterMs: msToMidnight(nowMs) };
  return { ok: true, count: { day, used: used + 1 } };
}
