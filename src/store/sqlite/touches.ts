/** Remembers when sessions were touched last, so that most accepted turns need not look at their session's row. */
import { LRUCache } from 'lru-cache';
import { SESSION_TOUCH_MS } from '../schema.ts';

/** Sessions remembered: some 200 bytes each. Those touched longest ago are forgotten first. */
const MAX_SESSIONS = 20_000;

/** What it holds of a session is never later than the row's `last_at`, which only grows while the row is there. */
export interface Touches {
  /** Whether a message of then would leave the session's row as it is. */
  fresh(tenantId: string, sessionId: string, atMs: number): boolean;
  note(tenantId: string, sessionId: string, lastAtMs: number): void;
  drop(tenantId: string, sessionId: string): void;
  clear(): void;
}

export function createTouches(maxSessions = MAX_SESSIONS): Touches {
  const touchedAt = new LRUCache<string, number>({ max: maxSessions });
  return {
    fresh: (tenantId, sessionId, atMs) =>
      (touchedAt.peek(keyOf(tenantId, sessionId)) ?? Number.NEGATIVE_INFINITY) >= atMs - SESSION_TOUCH_MS,
    note: (tenantId, sessionId, lastAtMs) => void touchedAt.set(keyOf(tenantId, sessionId), lastAtMs),
    drop: (tenantId, sessionId) => void touchedAt.delete(keyOf(tenantId, sessionId)),
    clear: () => touchedAt.clear(),
  };
}

/** Ids hold no spaces. */
const keyOf = (tenantId: string, sessionId: string): string => `${tenantId} ${sessionId}`;
