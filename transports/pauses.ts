/** Queues that a consumer leaves alone for a moment: what it took from them it could not work on, through no fault of theirs. */
import type { ErrorData } from '../src/domain/errors.ts';
import type { QueueName } from '../src/domain/queues.ts';

/** Where the refusal does not say when to try again, and the longest that it is believed. */
const PAUSE_MS = 250;
const MAX_PAUSE_MS = 10_000;

export interface Pauses {
  /** From now on for the refusal's `retry_after_ms`, or PAUSE_MS; one that lasts longer already stays as it is. */
  pause(queue: QueueName, error: ErrorData): void;
  has(queue: QueueName): boolean;
  /** No more of them, and no more word of those that there are. */
  close(): void;
}

/** `ended` hears of each that is over. */
export function createPauses(ended: (queue: QueueName) => void): Pauses {
  const pauses = new Map<QueueName, { readonly untilMs: number; readonly timer: NodeJS.Timeout }>();
  let isClosed = false;
  return {
    pause(queue, error) {
      const forMs = Math.min(error.retry_after_ms ?? PAUSE_MS, MAX_PAUSE_MS);
      const untilMs = performance.now() + forMs;
      const running = pauses.get(queue);
      if (isClosed || (running && running.untilMs >= untilMs)) return;
      clearTimeout(running?.timer);
      const timer = setTimeout(() => {
        pauses.delete(queue);
        ended(queue);
      }, forMs);
      pauses.set(queue, { untilMs, timer });
    },
    has: (queue) => pauses.has(queue),
    close() {
      isClosed = true;
      for (const { timer } of pauses.values()) clearTimeout(timer);
      pauses.clear();
    },
  };
}
