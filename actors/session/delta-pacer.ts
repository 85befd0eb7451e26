/** Decides when held-back deltas go out: the first of a turn with this loop turn, the rest once a window; tenants in turn. */
import type { TenantId } from '../../src/domain/ids.ts';

export interface Pacer {
  /** Runs `flush` after what this loop turn still brings. */
  soon(tenantId: TenantId, flush: () => void): void;
  /** Runs `flush` at the end of the running window of that length, at most `windowMs` from now. */
  later(tenantId: TenantId, flush: () => void, windowMs: number): void;
  close(): void;
}

/**
 * Flushes in one loop turn. A write costs tens of microseconds, and whoever sends a message waits for several loop
 * turns: hundreds of streams must not make each of them long. What waits meanwhile gathers, and goes out in one frame.
 */
const AT_ONCE = 32;

/** One immediate and one timer for each window length, however many sessions stream. */
export function createPacer(): Pacer {
  /** Flushes that are due, by tenant, the tenant whose turn it is first. */
  const due = new Map<TenantId, (() => void)[]>();
  const windows = new Map<number, { flushes: [TenantId, () => void][]; timer: NodeJS.Timeout }>();
  let immediate: NodeJS.Immediate | undefined;

  const flushSome = (): void => {
    immediate = undefined;
    for (let flushed = 0; flushed < AT_ONCE; flushed += 1) {
      const [next] = due;
      if (!next) return;
      const [tenantId, flushes] = next;
      const flush = flushes.shift();
      due.delete(tenantId);
      if (flushes.length > 0) due.set(tenantId, flushes);
      flush?.();
    }
    if (due.size > 0) immediate ??= setImmediate(flushSome);
  };
  const soon: Pacer['soon'] = (tenantId, flush) => {
    const flushes = due.get(tenantId);
    if (flushes) flushes.push(flush);
    else due.set(tenantId, [flush]);
    immediate ??= setImmediate(flushSome);
  };
  return {
    soon,
    later(tenantId, flush, windowMs) {
      const open = windows.get(windowMs);
      if (open) {
        open.flushes.push([tenantId, flush]);
        return;
      }
      const flushes: [TenantId, () => void][] = [[tenantId, flush]];
      const timer = setTimeout(() => {
        windows.delete(windowMs);
        for (const [whose, one] of flushes) soon(whose, one);
      }, windowMs);
      windows.set(windowMs, { flushes, timer });
    },
    close() {
      for (const { timer } of windows.values()) clearTimeout(timer);
      windows.clear();
    },
  };
}
