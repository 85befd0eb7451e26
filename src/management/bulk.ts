/** Many updates as one task: done in the background, a few at a time, told as it goes on, whatever single ones do. */
import type { Agent } from '../domain/agent-record.ts';
import { type Reply, refusal } from '../domain/errors.ts';
import { type TaskId, type TenantId, taskIdSchema } from '../domain/ids.ts';
import type { Actor, BulkItem } from '../ports/management.ts';
import type { AgentWriter } from './agent-writer.ts';
import { type ManagementOptions, no, notify, type Operation, ok } from './context.ts';

/**
 * A task that was taken lives as long as this process. close(): items that were not begun are told as failed;
 * resolves when those under way have ended.
 */
export interface Bulk {
  start(actor: Actor, items: readonly BulkItem[]): Reply<{ readonly taskId: TaskId }>;
  close(): Promise<void>;
}

export const MAX_BULK_ITEMS = 1_000;
/** Tasks of one tenant that run at once. */
const MAX_TASKS = 4;
/** Items of one task that are done at once. */
const AT_ONCE = 4;
/** Progress is told this often in the course of a task. */
const STEPS = 20;

export function createBulk(options: ManagementOptions, writer: AgentWriter): Bulk {
  const running = new Map<TenantId, number>();
  const tasks = new Set<Promise<void>>();
  let closing = false;

  async function one(operation: Operation, { id, changes, version }: BulkItem): Promise<Reply<Agent>> {
    if (closing) return no(refusal('DRAINING', { retryAfterMs: 1_000 }));
    return writer.update(operation, id, changes, { version, replace: false });
  }

  async function run(operation: Operation, items: readonly BulkItem[]): Promise<void> {
    const total = items.length;
    const every = Math.max(1, Math.ceil(total / STEPS));
    const results: object[] = new Array(total);
    let next = 0;
    let done = 0;
    let failed = 0;
    const progress = () => ({ progress: { done, failed, total } });
    notify(options, operation, 'task_status_update', { status: 'processing', ...progress() });

    async function work(): Promise<void> {
      for (let index = next++; index < total; index = next++) {
        const item = items[index];
        if (!item) return;
        const reply = await one(operation, item);
        done += 1;
        if (!reply.ok) failed += 1;
        results[index] = resultOf(item, reply);
        if (done % every === 0 && done < total)
          notify(options, operation, 'task_status_update', { status: 'processing', ...progress() });
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    const all = { ...progress(), results };
    if (failed < total) notify(options, operation, 'task_completed', { status: 'completed', ...all });
    else
      notify(options, operation, 'task_failed', {
        status: 'failed',
        error: 'None of the updates could be made.',
        error_type: 'INVALID_REQUEST',
        ...all,
      });
  }

  return {
    start(actor, items) {
      const { tenantId } = actor;
      if (items.length === 0 || items.length > MAX_BULK_ITEMS)
        return no(
          refusal('INVALID_REQUEST', {
            message: `A task has 1 to ${MAX_BULK_ITEMS} items, not ${items.length}.`,
          }),
        );
      const others = running.get(tenantId) ?? 0;
      if (closing) return no(refusal('DRAINING', { retryAfterMs: 1_000 }));
      if (others >= MAX_TASKS)
        return no(
          refusal('OVERLOADED', {
            message: `${others} bulk tasks of this tenant run already.`,
            retryAfterMs: 1_000,
          }),
        );
      const taskId = taskIdSchema.parse(options.newId());
      running.set(tenantId, others + 1);
      const task = run({ actor, taskId }, items)
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

function resultOf({ id }: BulkItem, reply: Reply<Agent>): object {
  if (reply.ok) return { id, ok: true, version: reply.value.version };
  const { code, message } = reply.error;
  return { id, ok: false, error: { code, message } };
}
