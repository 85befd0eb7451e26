/** Remembers when sessions were touched last, so that most accepted turns need not look at their session's row. */
import type { Param } from '../encode.ts';
import { SESSION_TOUCH_MS } from '../schema.ts';

/** Sessions remembered: some 200 bytes each. Those touched longest ago are forgotten first. */
const MAX_SESSIONS = 20_000;

/** What it holds of a session is never later than the row's `last_at`, which only grows while the row is there. */
export interface Touches {
  /** Whether a message of then would leave the session's row as it is. */
  fresh(tenantId: Param, sessionId: Param, atMs: number): boolean;
  note(tenantId: Param, sessionId: Param, lastAtMs: number): void;
  drop(tenantId: Param, sessionId: Param): void;
  clear(): void;
}

export function createTouches(maxSessions = MAX_SESSIONS): Touches {
  const touchedAt = new Map<string, number>();
  return {
    fresh: (tenantId, sessionId, atMs) =>
      (touchedAt.get(keyOf(tenantId, sessionId)) ?? Number.NEGATIVE_INFINITY) >= atMs - SESSION_TOUCH_MS,
    note(tenantId, sessionId, lastAtMs) {
      const key = keyOf(tenantId, sessionId);
      touchedAt.delete(key);
      touchedAt.set(key, lastAtMs);
      const oldest = touchedAt.size > maxSessions ? touchedAt.keys().next().value : undefined;
      if (oldest !== undefined) touchedAt.delete(oldest);
    },
    drop: (tenantId, sessionId) => void touchedAt.delete(keyOf(tenantId, sessionId)),
    clear: () => touchedAt.clear(),
  };
}

/** Ids hold no spaces. */
const keyOf = (tenantId: Param, sessionId: Param): string => `${tenantId} ${sessionId}`;
