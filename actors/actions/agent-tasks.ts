/** Agent management's queues: takes what tenants' services ask of it, and sends them what has become of it (PROTOCOL 5). */
import { setTimeout as wait } from 'node:timers/promises';
import { agentTaskSchema } from '../../src/domain/agent-task.ts';
import { type ErrorCode, RefusalError, refusal } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import { managementPattern, managementQueue, managementTenant } from '../../src/domain/queues.ts';
import type { Notices, TaskTaker } from '../../src/ports/management.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import {
  type ConsumeOptions,
  type Consumption,
  type Listener,
  NOT_ITS_FAULT,
  type ReadMessage,
  type Transport,
} from '../../src/ports/transport.ts';

/** Tasks taken at once, those included that stand in their tenant's line. */
const CREDITS = 64;
/** A task that may go better next time is given back after what its refusal says, but no later than this. */
const MAX_WAIT_MS = 1_000;
/** Problems named in one refusal. */
const MAX_PROBLEMS = 5;

export interface AgentTasksDeps {
  readonly transport: Transport;
  readonly takeTask: TaskTaker;
  readonly notices: Notices;
  readonly log: Log;
}

export interface AgentTasks {
  /** Begins to take tasks of all tenants: which have some, the transport finds out by itself. */
  start(): Promise<void>;
  /** Takes no more, waits for what was taken, and resolves when every notice is sent. Not safe during `start`. */
  close(): Promise<void>;
}

/**
 * Order: a tenant's tasks are carried out one after the other, in the order in which they came, so that an update may
 * follow its create; one that is given back comes again behind those taken meanwhile. Notices are sent from the
 * beginning, in the order in which they were published, at most once: who must not miss any has a webhook.
 */
export function createAgentTasks({ transport, takeTask, notices, log }: AgentTasksDeps): AgentTasks {
  const lines = new Map<TenantId, Promise<void>>();
  const sending = new Set<Promise<void>>();
  const closing = new AbortController();
  let consumption: Consumption | undefined;

  function inLine(tenantId: TenantId, deed: () => Promise<void>): Promise<void> {
    const mine = (lines.get(tenantId) ?? Promise.resolve()).then(deed);
    const over = mine
      .catch(() => {})
      .then(() => {
        if (lines.get(tenantId) === over) lines.delete(tenantId);
      });
    lines.set(tenantId, over);
    return mine;
  }

  /**
   * A refusal for good is an answer, told as `task_failed`; only what may go better next time is given back: at once
   * where the transport itself waits before it brings it again, uncounted.
   */
  const listener: Listener = ({ action: { tenant_id: tenantId, data } }) =>
    inLine(tenantId, async () => {
      const reply = await takeTask(data, { tenantId, source: undefined });
      if (reply.ok || !reply.error.retryable) return;
      if (NOT_ITS_FAULT.has(reply.error.code)) throw new RefusalError(reply.error);
      const waitMs = Math.min(reply.error.retry_after_ms ?? MAX_WAIT_MS, MAX_WAIT_MS);
      await wait(waitMs, undefined, { signal: closing.signal }).catch(() => {});
      throw new RefusalError(reply.error);
    });

  /** Only here is it known that there is no next time. */
  const onDead: ConsumeOptions['onDead'] = ({ action: { tenant_id: tenantId, data, task_id } }, givenUp) => {
    takeTask(data, { tenantId, source: undefined, givenUp }).catch((error: unknown) =>
      log.error({ err: error, tenant_id: tenantId, task_id }, 'that a task failed could not be told'),
    );
  };

  const stopListening = notices.listen((notice) => {
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
    async start() {
      const options = { credits: CREDITS, read: readTask, families: [managementPattern], onDead };
      consumption = await transport.consume([], listener, options);
    },
    async close() {
      closing.abort();
      await consumption?.stop();
      stopListening();
      await Promise.all(sending);
    },
  };
}

/** A task message has no envelope: it is checked here, and travels on as the data of an action. */
const readTask: ReadMessage = (raw, queue, nowMs) => {
  const parsed = agentTaskSchema.safeParse(raw);
  if (!parsed.success) {
    const problems = parsed.error.issues
      .slice(0, MAX_PROBLEMS)
      .map((issue) => `${issue.path.join('.') || 'message'}: ${issue.message}`);
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
