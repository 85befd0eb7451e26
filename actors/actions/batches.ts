/** Batches that actions ask for: every item is a run with a reply of its own, and one more reply tells of them all. */
import type { ReplyBody, RunStatus } from '../../src/domain/action-replies.ts';
import type { CommandOf } from '../../src/domain/action-types.ts';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import type { Executions } from '../../src/ports/executions.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import { type Abortable, onceStoreAnswers } from './abortable.ts';
import type { ActionRequest, Replies } from './replies.ts';
import { itemRequests, type PerformRun, type RunRequest, type StartRun, taskOf } from './runs.ts';

interface ActionBatchDeps {
  readonly executions: Pick<Executions, 'startWithRetry' | 'atOnce'>;
  readonly performRun: PerformRun;
  readonly replies: Replies;
  readonly pauses: Abortable;
  readonly log: Log;
}

/** The name of the reply that ends a batch. */
const COMPLETED = 'completed';

/**
 * Performs a batch: resolves once all its replies are stored or sent. Items start in the order given. A batch that is
 * delivered again goes on where it was: its items are found by their task ids.
 */
export function createActionBatches(deps: ActionBatchDeps) {
  const { executions, performRun, replies, pauses, log } = deps;

  const start: StartRun = async (turn, options) => {
    const started = await executions.startWithRetry(turn, options, pauses.signal);
    // A limit that would have passed is no answer of a node that goes.
    return started.ok || !pauses.signal.aborted ? started : { ok: false, error: refusal('DRAINING') };
  };

  /** Never more at a time than the tier runs at once. */
  async function atOnce({ action }: ActionRequest, concurrency: number): Promise<number> {
    const most = await executions.atOnce(action.tenant_id, action.tenant_tier).catch((error: unknown) => {
      log.warn({ err: error, tenant_id: action.tenant_id }, "the tenant's tier could not be read");
      throw new RefusalError(refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 }));
    });
    return Math.max(1, Math.min(concurrency, most));
  }

  /** Sends the stored answers of the items. False where nobody waited for one then, and somebody does now. */
  async function repeatItems(items: readonly RunRequest[]): Promise<boolean> {
    for (const item of items) {
      const reply = await onceStoreAnswers(pauses, () => replies.stored(item.request));
      if (reply && !(await replies.repeat(item.request, reply))) return false;
    }
    return true;
  }

  return async function performBatch(
    request: ActionRequest,
    { items: fields, concurrency }: CommandOf<'batch'>,
  ): Promise<void> {
    const items = itemRequests(request, fields);
    const before = await onceStoreAnswers(pauses, () => replies.stored(request, COMPLETED));
    if (before && (await repeatItems(items)) && (await replies.repeat(request, before))) return;
    // Items that have run are not run again: their ends are answered.
    const workers = await onceStoreAnswers(pauses, () => atOnce(request, concurrency));
    const statuses = await inOrder(items, workers, (item) => performRun(item, start));
    const taskId = taskOf(request.action);
    const body = completed(taskId, items, statuses);
    if (!before) await replies.store(replies.make(request, COMPLETED, body, { taskId }));
    else if (!(await replies.repeat(request, before))) await replies.send(request, body, { taskId });
  };
}

/** What each item comes to, by its place; `workers` at a time. Once one has failed, no other begins. */
async function inOrder<T, R>(
  items: readonly T[],
  workers: number,
  perform: (item: T) => Promise<R>,
): Promise<readonly R[]> {
  const results: R[] = [];
  const left = items.entries();
  let failed = false;
  const work = async (): Promise<void> => {
    for (const [at, item] of left) {
      if (failed) return;
      results[at] = await perform(item);
    }
  };
  const working = Array.from({ length: workers }, () =>
    work().catch((error: unknown) => {
      failed = true;
      throw error;
    }),
  );
  const settled = await Promise.allSettled(working);
  const failure = settled.find((each) => each.status === 'rejected');
  if (failure) throw failure.reason;
  return results;
}

function completed(
  taskId: RunRequest['turn']['taskId'],
  requests: readonly RunRequest[],
  statuses: readonly RunStatus[],
): ReplyBody {
  const items = requests.map(({ turn }, at) => ({ task_id: turn.taskId, status: statuses[at] ?? 'failed' }));
  const succeeded = items.filter(({ status }) => status === 'success').length;
  const counts = { total: items.length, completed: succeeded, failed: items.length - succeeded };
  return { type: 'execution.batch_completed', data: { task_id: taskId, ...counts, items } };
}
