/** How long the outbox relay waits, and how much it holds. */

export interface RelayTiming {
  /** What was sent is told to the store this much later, together with what is sent meanwhile … */
  readonly ackMs: number;
  /** … or as soon as there is that much of it, which is also the most for one write. */
  readonly ackBatch: number;
  /** Between tries while the transport or the store is away: from the first, doubled up to the second, with jitter. */
  readonly backoffMs: number;
  readonly maxBackoffMs: number;
  /** Read from the store at once; also the most that is on its way to one queue. */
  readonly page: number;
  /** Messages in memory, on their way or waiting for it; what is beyond is read from the store later. */
  readonly maxHeld: number;
  /** How long close() waits for sends, and then again for the store. */
  readonly closeMs: number;
}

export const RELAY_TIMING: RelayTiming = {
  ackMs: 20,
  ackBatch: 200,
  backoffMs: 200,
  maxBackoffMs: 5_000,
  page: 256,
  maxHeld: 10_000,
  closeMs: 2_000,
};

/** The wait before the next try, after that many failures (1 or more) in a row; `random` is from 0 to 1. */
export const backoff = (
  failures: number,
  { backoffMs, maxBackoffMs }: RelayTiming,
  random: () => number,
): number => Math.min(maxBackoffMs, backoffMs * 2 ** (failures - 1)) * (0.5 + random() / 2);
