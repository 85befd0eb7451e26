/** Many updates as one task: run in the background, a few at a time, with notices of progress, whatever single ones do. */
import PQueue from 'p-queue';
import type { Agent } from '../domain/agent-record.ts';
import { type ErrorData, type Reply, refusal } from '../domain/errors.ts';
import { type TaskId, type TenantId, taskIdSchema } from '../domain/ids.ts';
import type { Actor, BulkItem } from '../ports/management.ts';
import type { AgentWriter } from './agent-writer.ts';
import { type ManagementOptions, no, notify, type Operation, ok } from './context.ts';

/**
 * A task that was taken lives as long as this process. close(): items that were not begun count as failed; resolves
 * when those under way have ended.
 */
export interface Bulk {
  start(actor: Actor, items: readonly BulkItem[]): Reply<{ readonly taskId: TaskId }>;
  close(): Promise<void>;
}

export const MAX_BULK_ITEMS = 1_000;
/** Tasks of one tenant that run at once. */
const MAX_TASKS = 4;
/** Items of one task that run at once. */
const AT_ONCE = 4;
/** Notices of progress in the course of a task. */
const STEPS = 20;

export function createBulk(options: ManagementOptions, writer: AgentWriter): Bulk {
  const running = new Map<TenantId, number>();
  const tasks = new Set<Promise<void>>();
  let closing = false;

  const update = async (operation: Operation, { id, changes, version }: BulkItem): Promise<Reply<Agent>> =>
    closing
      ? no(refusal('DRAINING', { retryAfterMs: 1_000 }))
      : writer.update(operation, id, changes, { version, replace: false });

  return {
    start(actor, items) {
      const { tenantId } = actor;
      const others = running.get(tenantId) ?? 0;
      const refused = problemOf(items.length, others, closing);
      if (refused) return no(refused);
      const taskId = taskIdSchema.parse(options.newId());
      const operation = { actor, taskId };
      running.set(tenantId, others + 1);
      const task = runAll(options, operation, items, (item) => update(operation, item))
        .catch((error: unknown) => options.log.error({ err: error, task_id: taskId }, 'bulk task broke'))
        .finally(() => {
          tasks.delete(task);
          const left = (running.get(tenantId) ?? 1) - 1;
          if (left > 0) running.set(tenantId, left);
          else running.delete(tenantId);
        });
      tasks.add(task);
      return ok({ taskId });
    },
    async close() {
      closing = true;
      await Promise.all(tasks);
    },
  };
}

/** Why a task may not start now; undefined where it may. */
function problemOf(items: number, others: number, closing: boolean): ErrorData | undefined {
  if (items === 0 || items > MAX_BULK_ITEMS)
    return refusal('INVALID_REQUEST', { message: `A task has 1 to ${MAX_BULK_ITEMS} items, not ${items}.` });
  if (closing) return refusal('DRAINING', { retryAfterMs: 1_000 });
  if (others < MAX_TASKS) return undefined;
  const message = `${others} bulk tasks of this tenant run already.`;
  return refusal('OVERLOADED', { message, retryAfterMs: 1_000 });
}

async function runAll(
  options: ManagementOptions,
  operation: Operation,
  items: readonly BulkItem[],
  update: (item: BulkItem) => Promise<Reply<Agent>>,
): Promise<void> {
  const total = items.length;
  const every = Math.max(1, Math.ceil(total / STEPS));
  let done = 0;
  let failed = 0;
  const progress = () => ({ progress: { done, failed, total } });
  const notifyProgress = (): void =>
    notify(options, operation, 'task_status_update', { status: 'processing', ...progress() });

  notifyProgress();
  const results = await new PQueue({ concurrency: AT_ONCE }).addAll(
    items.map((item) => async () => {
      const reply = await update(item);
      done += 1;
      if (!reply.ok) failed += 1;
      if (done % every === 0 && done < total) notifyProgress();
      return resultOf(item, reply);
    }),
  );
  const event = failed < total ? 'task_completed' : 'task_failed';
  notify(options, operation, event, {
    status: failed < total ? 'completed' : 'failed',
    succeeded: total - failed,
    failed,
    total,
    ...whatFailed(failed, total),
    ...progress(),
    results,
  });
}

/** A task of which a part failed has completed, and says so. */
function whatFailed(failed: number, total: number): object {
  if (failed === 0) return {};
  const error =
    failed < total
      ? `${failed} of ${total} updates could not be made.`
      : 'None of the updates could be made.';
  return { error, error_type: 'INVALID_REQUEST' };
}

function resultOf({ id }: BulkItem, reply: Reply<Agent>): object {
  if (reply.ok) return { id, ok: true, version: reply.value.version };
  const { code, message } = reply.error;
  return { id, ok: false, error: { code, message } };
}
