/** What an action asks for as the directory is told it: who speaks, in which session, under which limits. Pure. */
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { type TaskId, taskIdSchema, type UserId, userIdSchema } from '../../src/domain/ids.ts';
import type { Overrides, SayRequest } from '../../src/ports.ts';
import { derivedId, itemTask, ownSession } from '../derived-ids.ts';
import { overridesOf } from '../executions/orders.ts';
import type { RunJob } from './desk-runs.ts';
import type { Order, RunFields } from './orders.ts';
import type { Request } from './replies.ts';

/** The run that an action asks for. */
export function runJob(request: Request, { fields }: Extract<Order, { type: 'run' }>): RunJob {
  const { stream = false, on_busy: onBusy = 'enqueue' } = fields;
  const job = jobOf(request, fields, fields.task_id ?? taskOf(request.action));
  const say: SayRequest = {
    ...job.say,
    taskIdGiven: fields.task_id !== undefined || request.answers !== undefined,
    stream,
    onBusy,
  };
  return { ...job, say };
}

/** The runs of a batch's items, each with an answer of its own to be remembered by. */
export function itemJobs(request: Request, items: readonly RunFields[]): readonly RunJob[] {
  const { action } = request;
  const taskId = taskOf(action);
  return items.map((fields, index) => {
    const own: Request = {
      ...request,
      answers: request.answers === undefined ? undefined : derivedId(action.action_id, String(index)),
    };
    const itemId = fields.task_id ?? itemTask(taskId, index);
    const job = jobOf(own, fields, itemId);
    return { ...job, request: { ...own, taskId: itemId }, index, name: `reply.${index}` };
  });
}

export const taskOf = ({ task_id, action_id }: DomainAction): TaskId =>
  task_id ?? taskIdSchema.parse(action_id);

function jobOf(request: Request, fields: RunFields, taskId: TaskId): RunJob {
  const { action } = request;
  const sessionGiven = fields.session_id ?? fields.conversation_id;
  const overrides = within(overridesOf(fields), action.timeout);
  const say: SayRequest = {
    caller: { tenantId: action.tenant_id, tier: action.tenant_tier, userId: userOf(action, fields) },
    sessionId: sessionGiven ?? ownSession(taskId),
    taskId,
    taskIdGiven: true,
    agentId: fields.agent_id,
    ...(fields.agent_version === undefined ? {} : { agentVersion: fields.agent_version }),
    message: fields.input,
    context: fields.user_info ? { ...fields.context, user_info: fields.user_info } : fields.context,
    // Nobody reads along; the end has the whole text.
    stream: false,
    onBusy: 'enqueue',
    requestId: action.trace_id,
    ...(overrides === undefined ? {} : { overrides }),
    again: true,
    ...(sessionGiven === undefined ? { ownSession: true } : {}),
  };
  return {
    request,
    say,
    sessionGiven: sessionGiven !== undefined,
    conversationId: fields.conversation_id,
    name: 'reply',
  };
}

/** Who waits at most that long, in seconds, has nothing of a run that takes longer. */
function within(overrides: Overrides | undefined, timeoutS: number | undefined): Overrides | undefined {
  if (timeoutS === undefined) return overrides;
  const ms = Math.ceil(timeoutS * 1000);
  return { ...overrides, maxTimeMs: Math.min(ms, overrides?.maxTimeMs ?? ms) };
}

/** The envelope's user, or the one that the sender tells of, where that is an id. */
const userOf = ({ user_id }: DomainAction, { user_info: info }: RunFields): UserId | undefined =>
  user_id ?? userIdSchema.safeParse(info?.user_id ?? info?.id).data;
