/** How late the event loop is: p50, p99 and the worst delay since the last reset. */
import { monitorEventLoopDelay } from 'node:perf_hooks';

/** The monitor's own timer; what it reports includes this, so it is taken off again. */
const RESOLUTION_MS = 10;

export interface LoopDelay {
  /** Milliseconds past the moment at which the loop should have been free. */
  now(): { readonly p50: number; readonly p99: number; readonly max: number };
  /** Starts a new window. */
  reset(): void;
  close(): void;
}

/** Starts a monitor, which keeps no process alive; `close` stops it. */
export function createLoopDelay(): LoopDelay {
  const monitor = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  monitor.enable();
  const ms = (nanoseconds: number): number =>
    Math.max(0, Math.round(nanoseconds / 1_000 - RESOLUTION_MS * 1_000) / 1_000);
  return {
    now: () =>
      monitor.count === 0
        ? { p50: 0, p99: 0, max: 0 }
        : { p50: ms(monitor.percentile(50)), p99: ms(monitor.percentile(99)), max: ms(monitor.max) },
    reset: () => monitor.reset(),
    close: () => {
      monitor.disable();
    },
  };
}
