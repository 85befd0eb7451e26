/** Decides when held-back deltas go out: the first of a turn with this loop turn, the rest once a window; tenants in turn. */
import type { TenantId } from '../../src/domain/ids.ts';
import { LoopShare } from '../../src/domain/loop-share.ts';

export interface Pacer {
  /** Runs `flush` after what this loop turn still brings. */
  soon(tenantId: TenantId, flush: () => void): void;
  /** Runs `flush` at the end of the running window of that length, at most `windowMs` from now. */
  later(tenantId: TenantId, flush: () => void, windowMs: number): void;
  close(): void;
}

/** Flushes in one loop turn: a write costs tens of microseconds. What waits gathers, and goes out in one frame. */
const AT_ONCE = 32;

/** One timer for each window length, however many sessions stream. */
export function createPacer(): Pacer {
  const share = new LoopShare(AT_ONCE);
  const windows = new Map<number, { flushes: [TenantId, () => void][]; timer: NodeJS.Timeout }>();
  return {
    soon: (tenantId, flush) => share.soon(tenantId, flush),
    later(tenantId, flush, windowMs) {
      const open = windows.get(windowMs);
      if (open) {
        open.flushes.push([tenantId, flush]);
        return;
      }
      const flushes: [TenantId, () => void][] = [[tenantId, flush]];
      const timer = setTimeout(() => {
        windows.delete(windowMs);
        for (const [whose, one] of flushes) share.soon(whose, one);
      }, windowMs);
      windows.set(windowMs, { flushes, timer });
    },
    close() {
      for (const { timer } of windows.values()) clearTimeout(timer);
      windows.clear();
    },
  };
}
