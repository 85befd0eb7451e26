/** Executions of a node: their runs, their retries, their batches, and the callbacks with their results. */
import { randomUUID } from 'node:crypto';
import { sessionIdSchema } from '../../src/domain/ids.ts';
import type { BatchStore } from '../../src/ports/batches.ts';
import type { Executions } from '../../src/ports/executions.ts';
import { systemTimers, type Timers } from '../../src/ports/telemetry.ts';
import { BATCH_BOUNDS, type BatchBounds } from './batch-memory.ts';
import { createBatches } from './batches.ts';
import { createRetry, createStart, type RunDeps } from './runs.ts';

/** `observer` and `callbacks` are closed with the executions. */
export interface ExecutionDeps extends RunDeps {
  readonly batchStore: BatchStore;
  readonly timers?: Timers;
  readonly random?: () => number;
  readonly atOnce: Executions['atOnce'];
  readonly batchBounds?: Partial<BatchBounds>;
}

export function createExecutions(deps: ExecutionDeps): Executions {
  const { observer, callbacks, directory, batchStore: store, timers = systemTimers, log } = deps;
  const start = createStart(deps);
  const retry = createRetry({ ...deps, start });
  const { startWithRetry } = retry;
  const newBatchId = () => `batch_${randomUUID()}`;
  const bounds = { ...BATCH_BOUNDS, ...deps.batchBounds };
  const batches = createBatches({ store, directory, startWithRetry, log, timers, newBatchId, bounds });
  return {
    start,
    startWithRetry,
    batches,
    atOnce: deps.atOnce,
    callbackProblem: (url) => callbacks.problem(url),
    newSessionId: () => sessionIdSchema.parse(`execution-${randomUUID()}`),
    sending: () => callbacks.sending(),
    takeUp() {
      batches.takeUp();
      callbacks.start();
    },
    async close() {
      const handedOn = batches.close();
      retry.close();
      observer.close();
      await handedOn;
      await callbacks.close();
    },
  };
}
