/** A log that nobody reads, one that a test reads, and metrics that nobody asks for. */
import type { DeliveryMeter, Log, Metrics, Refusals } from '../../src/ports/telemetry.ts';

const nothing = (): void => {};

export const quiet: Log = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
};

export interface LoggedLine {
  readonly level: string;
  readonly fields: object;
  readonly text: string;
}

/** Each line, as it is logged. */
export function logTo(write: (line: LoggedLine) => void): Log {
  const at = (level: string) => (fields: object, text: string) => write({ level, fields, text });
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

/** A log that keeps its lines. */
export function collectingLog(): Log & { readonly lines: LoggedLine[] } {
  const lines: LoggedLine[] = [];
  return { lines, ...logTo((line) => lines.push(line)) };
}

export const untraced: Refusals = { refused: nothing };

export const uncounted: Metrics & DeliveryMeter = {
  turnEnded: nothing,
  turnRefused: nothing,
  deadLetter: nothing,
  actorCrashed: nothing,
  toolUsed: nothing,
  modelRetried: nothing,
  socketOpened: nothing,
  socketClosed: nothing,
  deliveryAttempted: nothing,
};
