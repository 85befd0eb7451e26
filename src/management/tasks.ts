/** Takes messages of the queue `agent-management.tasks.{tenant}` and performs them, as an edge of its own. */
import { LRUCache } from 'lru-cache';
import type { Agent } from '../domain/agent-record.ts';
import { type AgentTask, agentTaskSchema, taskFields } from '../domain/agent-task.ts';
import { derivedUuid } from '../domain/derived-ids.ts';
import { type ErrorData, type Reply, refusal } from '../domain/errors.ts';
import { type AgentId, agentIdSchema } from '../domain/ids.ts';
import { problemsOf } from '../domain/problems.ts';
import type { TaskOrigin, TaskTaker } from '../ports/management.ts';
import { NOT_ITS_FAULT } from '../ports/transport.ts';
import type { AgentWriter } from './agent-writer.ts';
import type { Validate } from './agents.ts';
import { guarded, type ManagementOptions, no, noAgent, notify, type Operation, ok } from './context.ts';

type Result = Readonly<Record<string, unknown>>;

/** The status of a task that has not ended, or was given up (`failed`). */
type OpenStatus = 'processing' | 'pending' | 'failed';

/** Tasks whose answers, and whose last notices, are remembered: messages may come twice. */
const REMEMBERED = 1_000;

interface TaskParts {
  readonly writer: AgentWriter;
  readonly validate: Validate;
}

export function createTaskTaker(options: ManagementOptions, parts: TaskParts): TaskTaker {
  const answers = new LRUCache<string, Promise<Reply<Result>>>({ max: REMEMBERED });
  const run = createTaskRun(options, parts);

  function remember(key: string, answer: Promise<Reply<Result>>): void {
    answers.set(key, answer);
    // What may go better next time may be tried again.
    answer.then(
      (reply) => !reply.ok && reply.error.retryable && answers.delete(key),
      () => answers.delete(key),
    );
  }

  return async (message, origin) => {
    const parsed = agentTaskSchema.safeParse(message);
    if (!parsed.success) {
      const issues = problemsOf(parsed.error);
      options.log.warn({ tenant_id: origin.tenantId, issues }, 'a task message is malformed');
      return no(
        refusal('INVALID_REQUEST', { message: 'The task message is malformed.', details: { issues } }),
      );
    }
    const task = parsed.data;
    if (origin.tenantId !== undefined && origin.tenantId !== task.tenant_id)
      return no(refusal('FORBIDDEN', { message: 'The task names another tenant than its queue.' }));
    const key = keyOf(task.tenant_id, task.task_id);
    const known = answers.get(key);
    if (known) return known;
    const operation = operationOf(task, origin);
    if (origin.givenUp) return run.giveUp(operation, task, origin.givenUp);
    const answer = run.perform(operation, task);
    remember(key, answer);
    return answer;
  };
}

/** Performs tasks, and publishes what becomes of them. */
function createTaskRun(options: ManagementOptions, parts: TaskParts) {
  /** The last notice of tasks that have not ended. */
  const lastStatus = new LRUCache<string, OpenStatus>({ max: REMEMBERED });

  /** The same status is not published twice in a row: a task may be tried for as long as the store is away. */
  function notifyStatus(operation: Operation, status: OpenStatus, data: Result): void {
    const key = keyOf(operation.actor.tenantId, operation.taskId);
    if (lastStatus.get(key) === status) return;
    lastStatus.set(key, status);
    const event = status === 'failed' ? 'task_failed' : 'task_status_update';
    notify(options, operation, event, { status, ...data });
  }

  return {
    /** A task that comes again is pending, not failed; where the store or the node is at fault, it stays `processing`. */
    async perform(operation: Operation, task: AgentTask): Promise<Reply<Result>> {
      const { type } = task;
      notifyStatus(operation, 'processing', { type, details: {} });
      const reply = await perform(options, parts, operation, task);
      if (!reply.ok && NOT_ITS_FAULT.has(reply.error.code)) return reply;
      if (!reply.ok && reply.error.retryable) {
        notifyStatus(operation, 'pending', { type, ...whatFailed(reply.error) });
        return reply;
      }
      lastStatus.delete(keyOf(task.tenant_id, task.task_id));
      if (reply.ok)
        notify(options, operation, 'task_completed', { status: 'completed', type, ...reply.value });
      else notify(options, operation, 'task_failed', { status: 'failed', type, ...whatFailed(reply.error) });
      return reply;
    },
    giveUp(operation: Operation, { type }: AgentTask, error: ErrorData): Reply<Result> {
      notifyStatus(operation, 'failed', { type, ...whatFailed(error) });
      return no(error);
    },
  };
}

async function perform(
  options: ManagementOptions,
  { writer, validate }: TaskParts,
  operation: Operation,
  { type, payload }: AgentTask,
): Promise<Reply<Result>> {
  const id = payload.agent_id ?? undefined;
  const fields = taskFields(payload);
  switch (type) {
    case 'agent_create':
      return resultOf(await createOnce(options, writer, operation, fields, id));
    case 'agent_update': {
      if (id === undefined) return no(nameless());
      const version = payload.version ?? undefined;
      return resultOf(await writer.update(operation, id, fields, { version, replace: false }));
    }
    case 'agent_validate': {
      const found = await validate(operation, fields, id);
      return found.ok ? ok({ ...found.value }) : found;
    }
    case 'agent_notify':
      return guarded(options.log, async () => {
        if (id === undefined) return no(nameless());
        const { tenantId } = operation.actor;
        const agent = await options.agents.get(tenantId, id);
        if (!agent || agent.deleted_at !== null) return no(noAgent());
        options.liveAgents.invalidate(tenantId, id);
        notify(options, operation, 'agent_updated', { ...factsOf(agent), changes: [] });
        return ok(factsOf(agent));
      });
  }
}

/** The agent of a task that names none has the task's own id: brought again after a lost answer, it makes no second one. */
async function createOnce(
  options: ManagementOptions,
  writer: AgentWriter,
  operation: Operation,
  fields: unknown,
  named: AgentId | undefined,
): Promise<Reply<Agent>> {
  if (named !== undefined) return writer.create(operation, fields, { id: named });
  const { tenantId } = operation.actor;
  const id = agentIdSchema.parse(derivedUuid('agent', tenantId, operation.taskId));
  const before = await guarded(options.log, async () => ok(await options.agents.get(tenantId, id, 1)));
  if (!before.ok) return before;
  return before.value ? ok(before.value) : writer.create(operation, fields, { id });
}

/** No id may hold a slash. */
const keyOf = (tenantId: string, taskId: string): string => `${tenantId}/${taskId}`;

const operationOf = (task: AgentTask, origin: TaskOrigin): Operation => ({
  actor: {
    tenantId: task.tenant_id,
    tier: undefined,
    actor: task.metadata.user_id ?? 'service',
    source: origin.source ?? task.metadata.source,
  },
  taskId: task.task_id,
  globalTaskId: task.global_task_id,
});

const whatFailed = ({ code, message, details }: ErrorData): Result => ({
  error: message,
  error_type: code,
  details,
});

const factsOf = (agent: Agent): Result => ({
  agent_id: agent.id,
  agent_name: agent.name,
  version: agent.version,
});

const resultOf = (reply: Reply<Agent>): Reply<Result> => (reply.ok ? ok(factsOf(reply.value)) : reply);

const nameless = (): ErrorData =>
  refusal('INVALID_REQUEST', { message: 'The task is malformed: payload.agent_id: is required.' });
