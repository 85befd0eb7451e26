/** When a delivery is tried again, and when it is given up: pure arithmetic over what an attempt found. */
import type { WebhookDelivery } from '../../src/domain/agent-record.ts';
import type { Sent } from './send.ts';

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** Upper bounds of the waits after the first, second, … attempt; the wait itself is drawn between 1 s and the bound. */
export const RETRY_WAITS_MS: readonly number[] = [
  5 * SECOND,
  30 * SECOND,
  2 * MINUTE,
  10 * MINUTE,
  HOUR,
  4 * HOUR,
  12 * HOUR,
];
export const MAX_ATTEMPTS = RETRY_WAITS_MS.length + 1;
const MIN_WAIT_MS = SECOND;
/** A receiver may ask for more patience than ours, up to this. */
const MAX_RETRY_AFTER_MS = HOUR;
const GONE = 410;

/** Whether a status means that the receiver has it. */
const isDelivered = (sent: Sent): boolean =>
  sent.type === 'answered' && sent.status >= 200 && sent.status < 300;

/** What follows from an attempt. `waitMs`: how long until the next one. */
export type RetryVerdict =
  | { readonly type: 'delivered' }
  | { readonly type: 'dead'; readonly reason: string }
  | { readonly type: 'retrying'; readonly reason: string; readonly waitMs: number };

/**
 * Judges the `attempts`th attempt; `waits` are the upper bounds of the waits, one fewer than attempts. `random` is
 * from 0 to 1 (full jitter: a thousand deliveries that failed together do not come back together).
 */
export function judge(
  sent: Sent,
  attempts: number,
  waits: readonly number[],
  nowMs: number,
  random: number,
): RetryVerdict {
  if (isDelivered(sent)) return { type: 'delivered' };
  const reason = reasonOf(sent);
  const bound = waits[attempts - 1];
  if (isFinal(sent) || bound === undefined) return { type: 'dead', reason };
  const drawn = MIN_WAIT_MS + random * (bound - MIN_WAIT_MS);
  const asked = sent.type === 'answered' ? retryAfterMs(sent.retryAfter, nowMs) : 0;
  return { type: 'retrying', reason, waitMs: Math.max(drawn, Math.min(asked, MAX_RETRY_AFTER_MS)) };
}

/** The delivery after an attempt that its `attempts` counts already. `random` is from 0 to 1. */
export function afterAttempt(
  delivery: WebhookDelivery,
  sent: Sent,
  nowMs: number,
  random: number,
): WebhookDelivery {
  const verdict = judge(sent, delivery.attempts, RETRY_WAITS_MS, nowMs, random);
  if (verdict.type === 'delivered') {
    const delivered_at = new Date(nowMs).toISOString();
    return { ...delivery, status: 'delivered', next_attempt_at: null, last_error: null, delivered_at };
  }
  const last_error = verdict.reason;
  if (verdict.type === 'dead') return { ...delivery, status: 'dead', next_attempt_at: null, last_error };
  return { ...delivery, next_attempt_at: new Date(nowMs + verdict.waitMs).toISOString(), last_error };
}

const isFinal = (sent: Sent): boolean => (sent.type === 'failed' ? sent.final : sent.status === GONE);

function reasonOf(sent: Sent): string {
  if (sent.type === 'failed') return sent.reason;
  const redirect = sent.status >= 300 && sent.status < 400;
  return redirect ? `answered ${sent.status}; redirects are not followed` : `answered ${sent.status}`;
}

/** Retry-After, in seconds or as a date; 0 where it is absent or neither. */
function retryAfterMs(header: string | undefined, nowMs: number): number {
  if (header === undefined) return 0;
  if (/^\d{1,9}$/.test(header)) return Number(header) * SECOND;
  const at = Date.parse(header);
  return Number.isNaN(at) ? 0 : Math.max(0, at - nowMs);
}
