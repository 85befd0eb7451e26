/** What becomes of a refusal besides its answer: it is counted, and logged as far as a log bears it. */
import { ERRORS, type ErrorCode } from '../domain/errors.ts';
import type { Clock, Log, Refusals } from '../ports/telemetry.ts';

/** Who has no right, or too much of one: whoever runs the node looks for these. Other refusals are the client's own. */
const TRACED: ReadonlySet<number> = new Set([401, 403, 429]);
/** Lines of one code on one wire in a window; beyond, the next line that is written says how many were not. */
const MAX_LINES = 10;
const WINDOW_MS = 60_000;

interface Window {
  startedMs: number;
  lines: number;
  unlogged: number;
}

export function createRefusals(
  log: Log,
  clock: Clock,
  count: (wire: string, code: ErrorCode) => void,
): Refusals {
  const windows = new Map<string, Window>();

  function windowOf(key: string): Window {
    const nowMs = clock.now();
    const known = windows.get(key);
    if (known && nowMs - known.startedMs < WINDOW_MS) return known;
    const fresh = { startedMs: nowMs, lines: 0, unlogged: known?.unlogged ?? 0 };
    windows.set(key, fresh);
    return fresh;
  }

  return {
    refused(wire, { code, message }, fields) {
      if (!TRACED.has(ERRORS[code].http)) return;
      count(wire, code);
      const window = windowOf(`${wire} ${code}`);
      if (window.lines >= MAX_LINES) {
        window.unlogged += 1;
        return;
      }
      window.lines += 1;
      const { unlogged } = window;
      window.unlogged = 0;
      const more = unlogged > 0 ? { unlogged } : {};
      log.warn({ wire, code, reason: message, ...fields, ...more }, 'request refused');
    },
  };
}
