/** Agent management's queues: takes the tasks that tenants' services put there, and sends them notices (PROTOCOL 5). */
import { setTimeout as wait } from 'node:timers/promises';
import { agentTaskSchema } from '../../src/domain/agent-task.ts';
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { type ErrorCode, RefusalError, refusal } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import { problemsOf } from '../../src/domain/problems.ts';
import { managementPattern, managementQueue, managementTenant } from '../../src/domain/queues.ts';
import { createKeyedQueue } from '../../src/management/keyed-queue.ts';
import type { Notices, TaskTaker } from '../../src/ports/management.ts';
import type { Log, Refusals } from '../../src/ports/telemetry.ts';
import {
  type ConsumeOptions,
  type Consumption,
  type Listener,
  NOT_ITS_FAULT,
  type ReadMessage,
  type Transport,
} from '../../src/ports/transport.ts';

/** Tasks taken at once, those included that wait for others of their tenant. */
const CREDITS = 64;
/** A task that may go better next time is requeued after the time that its refusal names, but no later than this. */
const MAX_WAIT_MS = 1_000;

interface AgentTasksDeps {
  readonly transport: Transport;
  readonly takeTask: TaskTaker;
  readonly notices: Notices;
  readonly log: Log;
  readonly refusals: Refusals;
}

interface AgentTasks {
  /** Begins to take tasks of all tenants: which have some, the transport finds out by itself. */
  start(): Promise<void>;
  /** Takes no more, waits for what was taken, and resolves when every notice is sent. Not safe during `start`. */
  close(): Promise<void>;
}

/**
 * Order: a tenant's tasks are performed one after the other, in the order in which they came, so that an update may
 * follow its create; one that is requeued comes behind those taken meanwhile. Notices are sent from the beginning, in
 * the order in which they were published, at most once: who must not miss any has a webhook.
 */
export function createAgentTasks({
  transport,
  takeTask,
  notices,
  log,
  refusals,
}: AgentTasksDeps): AgentTasks {
  const inOrder = createKeyedQueue();
  const closing = new AbortController();
  const sender = startNoticeSender({ transport, notices, log });
  let consumption: Consumption | undefined;

  /** Takes a task. One that may go better next time holds up those behind it for as long as its refusal says. */
  async function take(data: DomainAction['data'], tenantId: TenantId): ReturnType<TaskTaker> {
    const reply = await takeTask(data, { tenantId, source: undefined });
    if (reply.ok || !reply.error.retryable || NOT_ITS_FAULT.has(reply.error.code)) return reply;
    const waitMs = Math.min(reply.error.retry_after_ms ?? MAX_WAIT_MS, MAX_WAIT_MS);
    await wait(waitMs, undefined, { signal: closing.signal }).catch(() => {});
    return reply;
  }

  /**
   * A refusal for good is an answer, and its notice is `task_failed`. A refusal that may pass requeues the task: at
   * once and uncounted where the transport itself waits before it delivers again.
   */
  const listener: Listener = async ({ action: { tenant_id: tenantId, data } }) => {
    const reply = await inOrder(tenantId, () => take(data, tenantId));
    if (!reply.ok && reply.error.retryable) throw new RefusalError(reply.error);
  };

  /** Only here is it known that there is no next time. */
  const onDead: ConsumeOptions['onDead'] = ({ action: { tenant_id: tenantId, data, task_id } }, givenUp) => {
    takeTask(data, { tenantId, source: undefined, givenUp }).catch((error: unknown) =>
      log.error({ err: error, tenant_id: tenantId, task_id }, 'nobody was notified of a failed task'),
    );
  };

  return {
    async start() {
      const options: ConsumeOptions = {
        credits: CREDITS,
        read: readTask,
        patterns: [managementPattern],
        onDead,
        // Nobody can be told: whoever runs the node finds it here.
        onUnread: (queue, error) =>
          refusals.refused('redis', error, { queue, tenant_id: managementTenant(queue) ?? undefined }),
      };
      consumption = await transport.consume([], listener, options);
    },
    async close() {
      closing.abort();
      await consumption?.stop();
      await sender.close();
    },
  };
}

/** Sends every notice to its tenant's queue. close(): listens no more, and resolves when what was published is sent. */
function startNoticeSender({
  transport,
  notices,
  log,
}: Pick<AgentTasksDeps, 'transport' | 'notices' | 'log'>) {
  const sending = new Set<Promise<void>>();
  const stop = notices.listen('once', (notice) => {
    const queue = managementQueue('notifications', notice.tenant_id);
    const sent = transport
      .send(queue, notice, 'json')
      .catch((error: unknown) =>
        log.warn({ err: error, queue, event: notice.event }, 'a notice was not sent'),
      )
      .finally(() => sending.delete(sent));
    sending.add(sent);
  });
  return {
    async close(): Promise<void> {
      stop();
      await Promise.all(sending);
    },
  };
}

/** A task message has no envelope: it is checked here, and travels on as the data of an action. */
const readTask: ReadMessage = (raw, queue, nowMs) => {
  const parsed = agentTaskSchema.safeParse(raw);
  if (!parsed.success) {
    const problems = problemsOf(parsed.error).map(
      ({ field, message }) => `${field || 'message'}: ${message}`,
    );
    return refused('INVALID_REQUEST', `The task message is malformed: ${problems.join('; ')}.`);
  }
  const { task_id, tenant_id, type } = parsed.data;
  if (tenant_id !== managementTenant(queue))
    return refused('FORBIDDEN', 'The task names another tenant than its queue.');
  return {
    ok: true,
    idGiven: true,
    action: {
      action_id: task_id,
      action_type: `agent-management.${type}`,
      task_id,
      tenant_id,
      data: { ...parsed.data },
      metadata: {},
      timestamp: new Date(nowMs).toISOString(),
    },
  };
};

const refused = (code: ErrorCode, message: string): ReturnType<ReadMessage> => ({
  ok: false,
  error: refusal(code, { message }),
});
