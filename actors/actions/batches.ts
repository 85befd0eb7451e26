/** Batches that actions ask for: every item is a run with a reply of its own, and then all of them are told together. */
import type { EndStatus, ReplyBody } from '../../src/domain/action-replies.ts';
import type { Command } from '../../src/domain/action-types.ts';
import { replyId } from '../../src/domain/derived-ids.ts';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import type { Executions } from '../../src/ports/executions.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import type { Abortable } from './abortable.ts';
import type { Replies, Request } from './replies.ts';
import { type ActionRuns, type Begin, itemRequests, type RunRequest, taskOf } from './runs.ts';

export interface ActionBatchDeps {
  readonly executions: Pick<Executions, 'startWithRetry' | 'atOnce'>;
  readonly runs: ActionRuns;
  readonly replies: Replies;
  readonly pauses: Abortable;
  readonly log: Log;
}

/** The name of the reply that ends a batch. */
const COMPLETED = 'completed';

/**
 * Works on a batch: resolves once all its replies are kept or sent. Items begin in the order given. What is delivered
 * again goes on where it was: its items are found by their task ids.
 */
export function createActionBatches({ executions, runs, replies, pauses, log }: ActionBatchDeps) {
  const begin: Begin = async (say, options) => {
    const begun = await executions.startWithRetry(say, options, pauses.signal);
    // A limit that would have passed is no answer of a node that goes.
    return begun.ok || !pauses.signal.aborted ? begun : { ok: false, error: refusal('DRAINING') };
  };

  /** Never more at a time than the tier runs at once. */
  async function atOnce({ action }: Request, concurrency: number): Promise<number> {
    const most = await executions.atOnce(action.tenant_id, action.tenant_tier).catch((error: unknown) => {
      log.warn({ err: error, tenant_id: action.tenant_id }, "the tenant's tier could not be read");
      throw new RefusalError(refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 }));
    });
    return Math.max(1, Math.min(concurrency, most));
  }

  /** How each item ended, by its place. Once one is to be given back, no other begins. */
  async function ends(jobs: readonly RunRequest[], workers: number): Promise<readonly EndStatus[]> {
    const statuses: EndStatus[] = [];
    let next = 0;
    let broken = false;
    const work = async (): Promise<void> => {
      for (let at = next; at < jobs.length && !broken; at = next) {
        next = at + 1;
        const job = jobs[at];
        if (job) statuses[at] = await runs.answer(job, begin);
      }
    };
    const working = Array.from({ length: workers }, () =>
      work().catch((error: unknown) => {
        broken = true;
        throw error;
      }),
    );
    const settled = await Promise.allSettled(working);
    const failed = settled.find((each) => each.status === 'rejected');
    if (failed) throw failed.reason;
    return statuses;
  }

  /** The answers of a batch that was worked on before, all of them. */
  async function again(request: Request, jobs: readonly RunRequest[]): Promise<boolean> {
    const before = await runs.insistently(() => replies.answered(request));
    const { tenant_id: tenantId, action_id: actionId } = request.action;
    if (before?.id !== replyId(tenantId, actionId, COMPLETED)) return false;
    for (const job of jobs) {
      const item = await runs.insistently(() => replies.answered(job.request));
      if (item) await replies.again(job.request, item);
    }
    await replies.again(request, before);
    return true;
  }

  return async function answerBatch(
    request: Request,
    { items, concurrency }: Extract<Command, { type: 'batch' }>,
  ): Promise<void> {
    const jobs = itemRequests(request, items);
    if (await again(request, jobs)) return;
    const workers = await runs.insistently(() => atOnce(request, concurrency));
    const statuses = await ends(jobs, workers);
    const taskId = taskOf(request.action);
    await replies.keep(replies.made(request, COMPLETED, completed(taskId, jobs, statuses), { taskId }));
  };
}

function completed(taskId: string, jobs: readonly RunRequest[], statuses: readonly EndStatus[]): ReplyBody {
  const items = jobs.map(({ say }, index) => ({ task_id: say.taskId, status: statuses[index] ?? 'failed' }));
  const succeeded = items.filter(({ status }) => status === 'success').length;
  const counts = { total: items.length, completed: succeeded, failed: items.length - succeeded };
  return { type: 'execution.batch_completed', data: { task_id: taskId, ...counts, items } };
}
