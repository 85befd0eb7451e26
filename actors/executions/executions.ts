/** Executions of a node: their runs, their retries, their batches, and the callbacks with their results. */
import { randomUUID } from 'node:crypto';
import { sessionIdSchema } from '../../src/domain/ids.ts';
import type { Executions } from '../../src/ports/executions.ts';
import type { Timers } from '../../src/ports/telemetry.ts';
import { type BatchBounds, createBatches, createOffers } from './batches.ts';
import { createRuns, type RunDeps } from './runs.ts';

/** `callbacks` are closed with the executions. */
export interface ExecutionDeps extends RunDeps {
  readonly timers?: Timers;
  readonly random?: () => number;
  readonly atOnce: Executions['atOnce'];
  readonly batchBounds?: Partial<BatchBounds>;
}

export function createExecutions(deps: ExecutionDeps): Executions {
  const { callbacks, batchBounds: bounds } = deps;
  const runs = createRuns(deps);
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
