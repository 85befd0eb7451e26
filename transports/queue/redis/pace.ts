/** How a consumer changes between waiting on one queue and taking batches by script. */
import type { QueueName } from '../../../src/domain/queues.ts';

/** Actions that come one by one before a script looks whether more are there; doubled each time that none are. */
const MAX_PATIENCE = 32;
/** Batches in a row from other queues than the one that is waited on, after which to wait on theirs. */
const MAX_ELSEWHERE = 3;

/** Where to wait, and when a script is to look whether more is there than comes one by one. */
export interface Pace {
  /** The queue to wait on next. */
  hot(): QueueName | undefined;
  /** An action came by itself. */
  arrived(): void;
  /** A script took that many, the last of that queue. */
  took(count: number, last: QueueName | undefined): void;
  /** Nothing is known to wait, and the script need not look yet. */
  mayGoOn(): boolean;
  /** Others than the queue that is waited on are busy. */
  isElsewhere(): boolean;
  /** The waiting begins anew. */
  waits(): void;
  failed(): void;
}

export function createPace(): Pace {
  let hot: QueueName | undefined;
  /** Batches in a row from other queues than the one that is waited on. */
  let elsewhere = 0;
  /** Actions that came by themselves since a script looked last, and how many may. */
  let inARow = 0;
  let patience = 1;
  return {
    hot: () => hot,
    arrived() {
      elsewhere = 0;
      inARow += 1;
    },
    took(count, last) {
      hot = last ?? hot;
      if (count > 0) elsewhere += 1;
      inARow = 0;
      patience = count > 1 ? 1 : Math.min(2 * patience, MAX_PATIENCE);
    },
    mayGoOn: () => inARow < patience && elsewhere < MAX_ELSEWHERE,
    isElsewhere: () => elsewhere >= MAX_ELSEWHERE,
    waits() {
      elsewhere = 0;
    },
    failed() {
      hot = undefined;
    },
  };
}
