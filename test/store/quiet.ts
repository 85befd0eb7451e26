/** A log that nobody reads. */
import type { Log } from '../../src/ports.ts';

const nothing = (): void => {};

export const quiet: Log = {
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  child: () => quiet,
};
