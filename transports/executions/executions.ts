/** Executions of a node, as its composition root makes them: their runs, their batches, and the callbacks with their results. */
import { randomUUID } from 'node:crypto';
import { type SessionId, sessionIdSchema, type TenantId } from '../../src/domain/ids.ts';
import type { Tier } from '../../src/domain/tiers.ts';
import { type CallbackDeps, createCallbacks } from '../webhooks/callbacks.ts';
import { type BatchBounds, type Batches, createBatches } from './batches.ts';
import { createOffers, type Offers } from './offers.ts';
import { createRuns, type RunDeps, type Runs } from './runs.ts';

export interface ExecutionDeps extends Omit<RunDeps, 'callbacks'>, Omit<CallbackDeps, 'bounds'> {
  /** How many executions the tenant may have at once. Rejects where the store does not answer. */
  readonly atOnce: (tenantId: TenantId, named: Tier | undefined) => Promise<number>;
  readonly batchBounds?: Partial<BatchBounds>;
}

/** close(): callbacks that have not arrived are given up, batches begin nothing more; the turns are the directory's. */
export interface Executions {
  readonly runs: Runs;
  /** Begins runs with the patience that items of batches have. */
  readonly offers: Offers;
  readonly batches: Batches;
  readonly atOnce: ExecutionDeps['atOnce'];
  /** Why results can not be sent to this address, or null. */
  readonly callbackProblem: (url: string) => string | null;
  /** A session of its own for one execution. */
  readonly newSessionId: () => SessionId;
  /** Callbacks to come or on their way, without those that wait for another attempt. */
  readonly sending: () => number;
  close(): Promise<void>;
}

export function createExecutions(deps: ExecutionDeps): Executions {
  const callbacks = createCallbacks(deps);
  const runs = createRuns({ ...deps, callbacks });
  const { batchBounds: bounds } = deps;
  const offers = createOffers({ ...deps, runs });
  const batches = createBatches({
    offers,
    log: deps.log,
    newBatchId: () => `batch_${randomUUID()}`,
    ...(bounds ? { bounds } : {}),
  });
  return {
    runs,
    offers,
    batches,
    atOnce: deps.atOnce,
    callbackProblem: (url) => callbacks.problem(url),
    newSessionId: () => sessionIdSchema.parse(`execution-${randomUUID()}`),
    sending: () => callbacks.sending(),
    async close() {
      batches.close();
      offers.close();
      runs.close();
      await callbacks.close();
    },
  };
}
