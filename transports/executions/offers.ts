/** Offers an execution again while a limit of the moment refuses it: the patience that items of batches have, on every wire. */
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import type { Log, SayRequest } from '../../src/ports.ts';
import { systemTimers, type Timers } from '../webhooks/dispatcher.ts';
import type { RunOptions, Runs } from './runs.ts';

/** Times that one execution is offered while limits refuse it. */
const MAX_TRIES = 20;
/** Where a limit asks for more patience than this, it has failed at once. */
const MAX_WAIT_MS = 120_000;
const DEFAULT_WAIT_MS = 1_000;
/** Those that wait for the same limit come back up to this far apart. */
const SPREAD_MS = 250;

export interface OfferDeps {
  readonly runs: Runs;
  readonly log: Log;
  readonly timers?: Timers;
  readonly random?: () => number;
}

/** close(): nothing begins any more; what waits to begin is refused as INTERRUPTED. */
export interface Offers {
  /**
   * Begins an execution as soon as the tenant's limits let it: refused with OVERLOADED or RATE_LIMITED it is offered
   * again after `retry_after_ms`. Resolves to the last refusal where that takes too long, or `signal` is aborted.
   */
  begin(request: SayRequest, options: RunOptions, signal?: AbortSignal): ReturnType<Runs['begin']>;
  close(): void;
}

export function createOffers({ runs, log, timers = systemTimers, random = Math.random }: OfferDeps): Offers {
  const pauses = new Set<() => void>();
  let closed = false;

  /** Ends early where the node closes, or nobody wants it any more. */
  const pause = (ms: number, signal: AbortSignal | undefined): Promise<void> =>
    new Promise((resolve) => {
      const end = (): void => {
        cancel();
        pauses.delete(end);
        signal?.removeEventListener('abort', end);
        resolve();
      };
      const cancel = timers.after(ms, end);
      pauses.add(end);
      signal?.addEventListener('abort', end);
    });

  return {
    async begin(first, options, signal) {
      let request = first;
      for (let tries = 1; ; tries += 1) {
        if (closed) return { ok: false, error: refusal('INTERRUPTED') };
        const begun = await runs.begin(request, options).catch((error: unknown) => {
          log.error({ err: error, task_id: request.taskId }, 'an item of a batch could not be begun');
          return { ok: false as const, error: refusal('INTERNAL') };
        });
        if (begun.ok) return begun;
        const waitMs = patience(begun.error);
        if (waitMs === null || tries === MAX_TRIES || signal?.aborted) return begun;
        await pause(waitMs + random() * SPREAD_MS, signal);
        if (signal?.aborted) return begun;
        // An offer that got no answer in time may have been taken all the same: the next one finds it.
        request = { ...request, taskIdGiven: true };
      }
    },
    close() {
      closed = true;
      for (const end of [...pauses]) end();
    },
  };
}

/** How long to wait before it is offered again; null: it has failed. */
function patience({ code, retry_after_ms: waitMs = DEFAULT_WAIT_MS }: ErrorData): number | null {
  const passing = code === 'OVERLOADED' || code === 'RATE_LIMITED';
  return passing && waitMs <= MAX_WAIT_MS ? waitMs : null;
}
