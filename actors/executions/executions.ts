/** Executions of a node: their runs, their retries, their batches, and the callbacks with their results. */
import { randomUUID } from 'node:crypto';
import { defined } from '../../src/domain/defined.ts';
import { sessionIdSchema } from '../../src/domain/ids.ts';
import type { Executions } from '../../src/ports/executions.ts';
import type { Timers } from '../../src/ports/telemetry.ts';
import { type BatchBounds, createBatches } from './batches.ts';
import { createRetry, createStart, type RunDeps } from './runs.ts';

/** `observer` and `callbacks` are closed with the executions. */
export interface ExecutionDeps extends RunDeps {
  readonly timers?: Timers;
  readonly random?: () => number;
  readonly atOnce: Executions['atOnce'];
  readonly batchBounds?: Partial<BatchBounds>;
}

export function createExecutions(deps: ExecutionDeps): Executions {
  const { observer, callbacks, batchBounds: bounds, log } = deps;
  const start = createStart(deps);
  const retry = createRetry({ ...deps, start });
  const { startWithRetry } = retry;
  const newBatchId = () => `batch_${randomUUID()}`;
  const batches = createBatches({ startWithRetry, log, newBatchId, ...defined({ bounds }) });
  return {
    start,
    startWithRetry,
    batches,
    atOnce: deps.atOnce,
    callbackProblem: (url) => callbacks.problem(url),
    newSessionId: () => sessionIdSchema.parse(`execution-${randomUUID()}`),
    sending: () => callbacks.sending(),
    async close() {
      batches.close();
      retry.close();
      observer.close();
      await callbacks.close();
    },
  };
}
