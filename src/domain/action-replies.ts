/** What is replied to actions (PROTOCOL 4): how a turn's end is told, and where a reply goes. Pure. */
import type { DomainAction } from './domain-action.ts';
import type { ErrorData } from './errors.ts';
import type { AgentId, SessionId, TaskId } from './ids.ts';
import { deadQueue, managementTenant, orchestratorQueue, type QueueName, queueNameSchema } from './queues.ts';
import { TIERS } from './tiers.ts';
import type { TurnRecord } from './turn.ts';

/** A reply before it has an envelope. */
export interface ReplyBody {
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
}

/** Whom a reply is about: in its envelope, and in its data. */
export interface ReplySubject {
  readonly taskId?: TaskId | undefined;
  readonly sessionId?: SessionId | undefined;
  readonly agentId?: AgentId | undefined;
}

/** What replies call the ends of turns. */
export type EndStatus = 'success' | 'failed' | 'cancelled' | 'timeout';

export const endStatus = (status: TurnRecord['status']): EndStatus | 'queued' | 'processing' =>
  status === 'completed' ? 'success' : status;

/** Ids that both kinds of reply to an execution carry. */
export interface ExecutionIds {
  readonly agentId: AgentId;
  readonly sessionId: SessionId;
  readonly conversationId: string;
  /** Place in the batch. */
  readonly index?: number | undefined;
}

const idsIn = ({ agentId, conversationId, sessionId, index }: ExecutionIds) => ({
  agent_id: agentId,
  conversation_id: conversationId,
  session_id: sessionId,
  ...(index === undefined ? {} : { index }),
});

/** How an ended turn is told to whoever asked for it; a cancelled one with the text there was. */
export function turnReply(turn: TurnRecord, ids: Omit<ExecutionIds, 'agentId' | 'sessionId'>): ReplyBody {
  const all = { ...ids, agentId: turn.agentId, sessionId: turn.sessionId };
  if (turn.error) return errorReply(turn.error, all);
  const data = {
    ...idsIn(all),
    response: turn.content ?? '',
    status: endStatus(turn.status),
    ...(turn.info === undefined ? {} : { execution_info: turn.info }),
  };
  return { type: 'execution.callback', data };
}

export const errorReply = (error: ErrorData, ids?: ExecutionIds): ReplyBody => ({
  type: 'execution.error',
  data: {
    ...(ids ? idsIn(ids) : {}),
    error: error.message,
    error_code: error.code,
    error_details: {
      retryable: error.retryable,
      ...(error.retry_after_ms === undefined ? {} : { retry_after_ms: error.retry_after_ms }),
      ...(error.details === undefined ? {} : { details: error.details }),
    },
  },
});

/** The refusal of a question that is answered by `{action_type}.response`. */
export const refusedResponse = (actionType: string, error: ErrorData): ReplyBody => ({
  type: `${actionType}.response`,
  data: { success: false, error },
});

/** Gives a reply its envelope: what ties it to its request is copied. */
export const replyAction = (
  request: DomainAction,
  body: ReplyBody,
  made: { readonly id: string; readonly nowMs: number } & ReplySubject,
): DomainAction => ({
  action_id: made.id,
  action_type: body.type,
  ...given('task_id', made.taskId ?? request.task_id),
  tenant_id: request.tenant_id,
  ...given('tenant_tier', request.tenant_tier),
  ...given('session_id', made.sessionId ?? request.session_id),
  ...given('user_id', request.user_id),
  ...given('agent_id', made.agentId ?? request.agent_id),
  ...given('correlation_id', request.correlation_id),
  ...given('trace_id', request.trace_id),
  data: { ...body.data },
  metadata: {},
  timestamp: new Date(made.nowMs).toISOString(),
});

const given = <K extends string, V>(name: K, value: V | undefined): { [P in K]?: V } => {
  const fields: { [P in K]?: V } = {};
  if (value !== undefined) fields[name] = value;
  return fields;
};

// --- Where it goes -------------------------------------------------------------------------------------------

/** Types that answer something: they are never answered themselves. */
export const isReplyType = (type: string): boolean =>
  /\.(response|callback|error|batch_completed)$/.test(type);

const TENANT_QUEUE = /^(?:orchestrator:(.+):callback|agent-management\.[a-z]+\.(.+))$/;

/** What nodes take work from, and the keys of the transport itself. */
const NODE_QUEUES: readonly RegExp[] = [
  new RegExp(`^execution_service:(${TIERS.join('|')}):(high_priority|default)$`),
  new RegExp(`^agent_execution_service:(${TIERS.join('|')}):callbacks$`),
  /^agent-management\.(tasks|validation|templates)\./,
  /^nooble:(?!replies:)/,
];

/** `{service}:responses:{action}:{correlation_id}`: a requester's own list, whatever its correlation id looks like. */
const RESPONSE_QUEUE = /^[^:]+:responses:[^:]+:./;

/** Why nobody may be answered on the queue that an action names, or null. */
export function callbackProblem({ callback_queue: queue, tenant_id: tenantId }: DomainAction): string | null {
  if (queue === undefined) return null;
  const [, orchestrated, managed] = TENANT_QUEUE.exec(queue) ?? [];
  const owner = managementTenant(queue) ?? orchestrated ?? managed;
  if (owner !== undefined && owner !== tenantId) return 'The callback_queue is another tenant’s.';
  if (owner === undefined && RESPONSE_QUEUE.test(queue)) return null;
  const isNodes = queue.endsWith(deadQueue('')) || NODE_QUEUES.some((pattern) => pattern.test(queue));
  return isNodes ? 'The callback_queue is none for replies.' : null;
}

/** Where the reply is awaited; undefined: nowhere, or by this node, which needs none. */
export function replyQueue(action: DomainAction): QueueName | undefined {
  if (callbackProblem(action) !== null) return undefined;
  // The session's sockets have seen the turn: that is what its reader would have to bring about.
  if (action.action_type === 'chat.process' && action.callback_queue === orchestratorQueue(action.tenant_id))
    return undefined;
  return queueNameSchema.safeParse(action.callback_queue).data;
}
