/** A log that nobody reads, and metrics that nobody asks for. */
import type { DeliveryMeter, Log, Metrics } from '../../src/ports/telemetry.ts';

const nothing = (): void => {};

export const quiet: Log = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
};

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
