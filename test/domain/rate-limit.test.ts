/** The arithmetic of quotas: what a bucket and a day let through, whatever the clock does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type Bucket,
  countDay,
  dayOf,
  fullBucket,
  msToMidnight,
  type Rate,
  rateOf,
  take,
} from '../../src/domain/rate-limit.ts';

const MINUTE = 60_000;
const tenAMinute: Rate = { perMs: 10 / MINUTE, burst: 10 };
const rates = fc.record({
  limit: fc.integer({ min: 1, max: 500 }),
  periodMs: fc.constantFrom(MINUTE, 3_600_000),
});

/** Takes until refused, at one moment. */
function drain(bucket: Bucket, nowMs: number, rate: Rate): { bucket: Bucket; taken: number } {
  let left = bucket;
  for (let taken = 0; ; taken += 1) {
    const reply = take(left, nowMs, rate);
    if (!reply.ok) return { bucket: left, taken };
    left = reply.bucket;
  }
}

test('a full bucket gives its whole burst at once and then refuses', () => {
  const { bucket, taken } = drain(fullBucket(tenAMinute, 0), 0, tenAMinute);

  assert.equal(taken, 10);
  assert.deepEqual(take(bucket, 0, tenAMinute), { ok: false, retryAfterMs: 6_000 });
});

test('whoever waits as long as told is let in, at every rate', () => {
  fc.assert(
    fc.property(rates, fc.integer({ min: 0, max: 10_000_000 }), ({ limit, periodMs }, startMs) => {
      const rate = { perMs: limit / periodMs, burst: limit };
      let { bucket } = drain(fullBucket(rate, startMs), startMs, rate);
      let nowMs = startMs;
      for (let round = 0; round < 20; round += 1) {
        const refused = take(bucket, nowMs, rate);
        if (refused.ok) return false;
        nowMs += refused.retryAfterMs;
        const taken = take(bucket, nowMs, rate);
        if (!taken.ok) return false;
        bucket = taken.bucket;
      }
      return true;
    }),
  );
});

test('no series of requests gets more than the burst and what flowed back, also when the clock jitters', () => {
  fc.assert(
    fc.property(
      rates,
      fc.array(fc.integer({ min: -50, max: 2_000 }), { maxLength: 300 }),
      ({ limit, periodMs }, steps) => {
        const rate = { perMs: limit / periodMs, burst: limit };
        let bucket = fullBucket(rate, 0);
        let nowMs = 0;
        let latestMs = 0;
        let taken = 0;
        for (const step of steps) {
          nowMs += step;
          latestMs = Math.max(latestMs, nowMs);
          const reply = take(bucket, nowMs, rate);
          if (!reply.ok) continue;
          bucket = reply.bucket;
          taken += 1;
        }
        /** A step back by more than a fill starts anew; steps of 50 ms never are that much at these rates. */
        return taken <= limit + latestMs * rate.perMs + 1e-3;
      },
    ),
  );
});

test('a clock that goes back a little refills nothing, and the wait it names includes the way back', () => {
  const { bucket } = drain(fullBucket(tenAMinute, 100_000), 100_000, tenAMinute);

  assert.deepEqual(take(bucket, 99_000, tenAMinute), { ok: false, retryAfterMs: 7_000 });
  assert.equal(take(bucket, 99_000 + 7_000, tenAMinute).ok, true);
});

test('a clock that was set back does not shut anybody out until the old time returns', () => {
  const year = 365 * 86_400_000;
  const { bucket } = drain(fullBucket(tenAMinute, 70 * year), 70 * year, tenAMinute);

  assert.equal(take(bucket, 50 * year, tenAMinute).ok, true);
});

test('a limit of nothing refuses for a day, and no limit has no rate', () => {
  const none = rateOf(0, MINUTE);
  assert.ok(none);
  assert.deepEqual(take(fullBucket(none, 5), 5, none), { ok: false, retryAfterMs: 86_400_000 });
  assert.equal(rateOf(null, MINUTE), null);
});

test('a bucket filled under a higher rate is cut to the burst of the present one', () => {
  assert.equal(drain({ tokens: 500, atMs: 0 }, 0, tenAMinute).taken, 10);
});

test('a refused request leaves the bucket as it was', () => {
  const bucket = Object.freeze({ tokens: 0.5, atMs: 0 });
  take(bucket, 0, tenAMinute);
  assert.deepEqual(bucket, { tokens: 0.5, atMs: 0 });
});

test('a day lets its limit through, refuses until midnight UTC, and then starts again', () => {
  const noon = Date.UTC(2024, 1, 29, 12);
  let count = { day: dayOf(noon), used: 0 };
  for (let request = 0; request < 3; request += 1) {
    const counted = countDay(count, noon, 3);
    assert.ok(counted.ok);
    count = { ...counted.count };
  }

  assert.deepEqual(countDay(count, noon, 3), { ok: false, retryAfterMs: 12 * 3_600_000 });
  assert.deepEqual(countDay(count, noon + 12 * 3_600_000, 3), {
    ok: true,
    count: { day: '2024-03-01', used: 1 },
  });
});

test('without a daily limit requests are counted all the same', () => {
  assert.deepEqual(countDay({ day: '2024-01-01', used: 41 }, Date.UTC(2024, 0, 1), null), {
    ok: true,
    count: { day: '2024-01-01', used: 42 },
  });
});

test('midnight is always ahead, by at most a day, and is where the date changes', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 4_000_000_000_000 }), (nowMs) => {
      const wait = msToMidnight(nowMs);
      return wait > 0 && wait <= 86_400_000 && dayOf(nowMs + wait) > dayOf(nowMs + wait - 1);
    }),
  );
});
