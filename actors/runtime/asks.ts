/** Questions that wait for an answer, by number, with one coarse timer for all their deadlines. */
import type { Clock } from '../../src/ports/telemetry.ts';

/** Why a question got no answer: the mailbox was full, the actor is gone, or time ran out. */
export type AskFailure = 'full' | 'dead' | 'timeout';

export class AskError extends Error {
  readonly reason: AskFailure;
  constructor(reason: AskFailure) {
    super(`ask failed: ${reason}`);
    this.name = 'AskError';
    this.reason = reason;
  }
}

interface PendingAsk {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: AskError) => void;
  readonly untilMs: number;
}

interface Asks {
  /** A new number, and the promise it settles. Rejects with AskError. */
  expect(timeoutMs: number): { readonly replyTo: number; readonly promise: Promise<unknown> };
  /** Settles a number once; later calls do nothing. */
  answer(replyTo: number, value: unknown): void;
  fail(replyTo: number, reason: AskFailure): void;
  /** Fails all that wait. */
  close(): void;
}

/** Deadlines are checked this often, so a timeout comes up to this much late. */
const SWEEP_MS = 100;

export function createAsks(clock: Clock): Asks {
  const waiting = new Map<number, PendingAsk>();
  let last = 0;
  let timer: NodeJS.Timeout | undefined;

  function take(replyTo: number): PendingAsk | undefined {
    const found = waiting.get(replyTo);
    waiting.delete(replyTo);
    if (waiting.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
    return found;
  }

  function sweep(): void {
    const now = clock.now();
    for (const [replyTo, { untilMs }] of waiting) if (now >= untilMs) asks.fail(replyTo, 'timeout');
  }

  const asks: Asks = {
    expect(timeoutMs) {
      last += 1;
      const replyTo = last;
      const promise = new Promise<unknown>((resolve, reject) => {
        waiting.set(replyTo, { resolve, reject, untilMs: clock.now() + timeoutMs });
      });
      timer ??= setInterval(sweep, SWEEP_MS);
      return { replyTo, promise };
    },
    answer: (replyTo, value) => take(replyTo)?.resolve(value),
    fail: (replyTo, reason) => take(replyTo)?.reject(new AskError(reason)),
    close() {
      for (const replyTo of [...waiting.keys()]) asks.fail(replyTo, 'dead');
    },
  };
  return asks;
}
