/** Takes messages of the queue `agent-management.tasks.{tenant}` and does what they ask, as an edge of its own. */
import type { Agent } from '../domain/agent-record.ts';
import { type AgentTask, agentTaskSchema, taskFields } from '../domain/agent-task.ts';
import { type ErrorData, type Reply, refusal } from '../domain/errors.ts';
import type { TaskOrigin, TaskTaker } from '../ports/management.ts';
import { NOT_ITS_FAULT } from '../ports/transport.ts';
import type { AgentWriter } from './agent-writer.ts';
import type { Validate } from './agents.ts';
import { guarded, type ManagementOptions, no, noAgent, notify, type Operation, ok } from './context.ts';

type Result = Readonly<Record<string, unknown>>;

/** `failed`: it was given up. */
type Standing = 'processing' | 'pending' | 'failed';

/** Tasks whose answers are remembered, for messages that come twice; and those of which it is known what was told. */
const REMEMBERED = 1_000;

export function createTaskTaker(
  options: ManagementOptions,
  { writer, validate }: { readonly writer: AgentWriter; readonly validate: Validate },
): TaskTaker {
  const { agents, liveAgents, log } = options;
  const recent = new Map<string, Promise<Reply<Result>>>();
  /** What was told last of tasks that have not come to their end. */
  const standing = new Map<string, Standing>();

  /** The same is not told twice in a row: a task may be tried for as long as the store is away. */
  function tellStanding(operation: Operation, status: Standing, data: Result): void {
    const key = keyOf(operation.actor.tenantId, operation.taskId);
    if (standing.get(key) === status) return;
    standing.delete(key);
    standing.set(key, status);
    forgetOldest(standing);
    notify(options, operation, status === 'failed' ? 'task_failed' : 'task_status_update', {
      status,
      ...data,
    });
  }

  function perform(operation: Operation, { type, payload }: AgentTask): Promise<Reply<Result>> {
    const id = payload.agent_id ?? undefined;
    const fields = taskFields(payload);
    switch (type) {
      case 'agent_create':
        return writer.create(operation, fields, id === undefined ? {} : { id }).then(resultOf);
      case 'agent_update':
        if (id === undefined) return Promise.resolve(no(nameless()));
        return writer
          .update(operation, id, fields, { version: payload.version ?? undefined, replace: false })
          .then(resultOf);
      case 'agent_validate':
        return validate(operation, fields, id).then((found) => (found.ok ? ok({ ...found.value }) : found));
      case 'agent_notify':
        return guarded(log, async () => {
          if (id === undefined) return no(nameless());
          const { tenantId } = operation.actor;
          const agent = await agents.get(tenantId, id);
          if (!agent || agent.deleted_at !== null) return no(noAgent());
          liveAgents.invalidate(tenantId, id);
          notify(options, operation, 'agent_updated', { ...factsOf(agent), changes: [] });
          return ok(factsOf(agent));
        });
    }
  }

  /** What comes again has not failed: it waits, unless the store or the node does and it is brought again uncounted. */
  async function run(operation: Operation, task: AgentTask): Promise<Reply<Result>> {
    const { type } = task;
    tellStanding(operation, 'processing', { type, details: {} });
    const reply = await perform(operation, task);
    if (!reply.ok && NOT_ITS_FAULT.has(reply.error.code)) return reply;
    if (!reply.ok && reply.error.retryable) {
      tellStanding(operation, 'pending', { type, ...whatFailed(reply.error) });
      return reply;
    }
    standing.delete(keyOf(task.tenant_id, task.task_id));
    if (reply.ok) notify(options, operation, 'task_completed', { status: 'completed', type, ...reply.value });
    else notify(options, operation, 'task_failed', { status: 'failed', type, ...whatFailed(reply.error) });
    return reply;
  }

  function remember(key: string, answer: Promise<Reply<Result>>): void {
    recent.set(key, answer);
    forgetOldest(recent);
    // What may go better next time may be tried again.
    answer.then(
      (reply) => !reply.ok && reply.error.retryable && recent.delete(key),
      () => recent.delete(key),
    );
  }

  return async (message, origin) => {
    const parsed = agentTaskSchema.safeParse(message);
    if (!parsed.success) {
      const issues = parsed.error.issues.map((one) => ({
        field: one.path.join('.'),
        rule: one.code,
        message: one.message,
      }));
      log.warn({ tenant_id: origin.tenantId, issues }, 'a task message is malformed');
      return no(
        refusal('INVALID_REQUEST', { message: 'The task message is malformed.', details: { issues } }),
      );
    }
    const task = parsed.data;
    if (origin.tenantId !== undefined && origin.tenantId !== task.tenant_id)
      return no(refusal('FORBIDDEN', { message: 'The task names another tenant than its queue.' }));
    const key = keyOf(task.tenant_id, task.task_id);
    const known = recent.get(key);
    if (known) return known;
    const operation = deedOf(task, origin);
    if (origin.givenUp) {
      tellStanding(operation, 'failed', { type: task.type, ...whatFailed(origin.givenUp) });
      return no(origin.givenUp);
    }
    const answer = run(operation, task);
    remember(key, answer);
    return answer;
  };
}

/** No id may hold a slash. */
const keyOf = (tenantId: string, taskId: string): string => `${tenantId}/${taskId}`;

function forgetOldest(tasks: Map<string, unknown>): void {
  const oldest = tasks.keys().next();
  if (tasks.size > REMEMBERED && !oldest.done) tasks.delete(oldest.value);
}

const deedOf = (task: AgentTask, origin: TaskOrigin): Operation => ({
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
