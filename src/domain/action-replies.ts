/** What is replied to actions (PROTOCOL 4): the data of each reply, how a turn's end becomes one, and where replies go. */
import { z } from 'zod';
import { defined } from './defined.ts';
import type { DomainAction } from './domain-action.ts';
import { type ErrorData, errorCodeSchema, errorDataSchema } from './errors.ts';
import { executionInfoSchema } from './frames.ts';
import {
  type AgentId,
  agentIdSchema,
  type SessionId,
  sessionIdSchema,
  type TaskId,
  taskIdSchema,
} from './ids.ts';
import {
  deadQueue,
  managementTenant,
  nodeSubscriptions,
  orchestratorQueue,
  type QueueName,
  queueNameSchema,
} from './queues.ts';
import type { ReplySpec } from './reply-spec.ts';
import { isEndStatus, type TurnRecord, type TurnStatus } from './turn.ts';
import { messageSchema, turnSchema } from './turn-schemas.ts';

// --- Their data ------------------------------------------------------------------------------------------------

const count = z.number().int().nonnegative();
const success = z.literal(true);
const runStatusSchema = z.enum(['success', 'failed', 'cancelled', 'timeout']);

/** How a run ended, as replies name it. */
export type RunStatus = z.infer<typeof runStatusSchema>;

/** What both kinds of reply to a run say of it. */
const runIds = {
  agent_id: agentIdSchema,
  conversation_id: sessionIdSchema,
  session_id: sessionIdSchema,
  /** Place in the batch. */
  index: count.optional(),
};
type RunIds = z.infer<z.ZodObject<typeof runIds>>;

/** What the model thought, where the action asked for it and there was any. */
const reasoningSchema = z.string().optional();

/** A copy, without the name that the schema has in the OpenAPI document. */
const replyMessageSchema = z.object(messageSchema.shape);

/** A refused query's reply, and that of an answer too large to be sent. */
export const refusedSchema = z.object({ success: z.literal(false), error: errorDataSchema });

/**
 * The data of each reply, by its type. A callback tells how a run ended, or how a turn stands that was to be cancelled,
 * or that the answer is too large to be sent.
 */
export const replySchemas = {
  'execution.callback': z.union([
    z.object({
      ...runIds,
      response: z.string(),
      reasoning: reasoningSchema,
      status: runStatusSchema,
      execution_info: executionInfoSchema.optional(),
    }),
    z.object({
      task_id: taskIdSchema,
      status: z.enum([...runStatusSchema.options, 'queued', 'processing']),
      abort_ms: count,
    }),
    refusedSchema,
  ]),
  'execution.error': z.object({
    ...z.object(runIds).partial().shape,
    task_id: taskIdSchema.optional(),
    /** The text so far of a run that failed; absent where there was none. */
    partial: z.string().optional(),
    reasoning: reasoningSchema,
    error: z.string(),
    error_code: errorCodeSchema,
    error_details: z.object({
      retryable: z.boolean(),
      retry_after_ms: count.optional(),
      details: z.unknown().optional(),
    }),
  }),
  'execution.batch_completed': z.object({
    task_id: taskIdSchema,
    total: count,
    completed: count,
    failed: count,
    items: z.array(z.object({ task_id: taskIdSchema, status: runStatusSchema })),
  }),
  'chat.status.response': z.union([turnSchema, refusedSchema]),
  'execution.management.get_agent_config.response': z.union([
    z.object({ success, agent_config: z.unknown() }),
    refusedSchema,
  ]),
  'execution.conversation.get_history.response': z.union([
    z.object({ success, messages: z.array(replyMessageSchema) }),
    refusedSchema,
  ]),
  'execution.conversation.get_context.response': z.union([
    z.object({
      success,
      context: z.object({
        session_id: sessionIdSchema,
        tenant_id: z.string(),
        messages: z.array(replyMessageSchema),
        message_count: count,
      }),
    }),
    refusedSchema,
  ]),
} as const;

export type ReplyType = keyof typeof replySchemas;

/** A reply before it has an envelope. */
export type ReplyBody = {
  [T in ReplyType]: { readonly type: T; readonly data: z.infer<(typeof replySchemas)[T]> };
}[ReplyType];

/** Types that answer something: they are never answered themselves. */
export const isReplyType = (type: string): boolean =>
  /\.(response|callback|error|batch_completed)$/.test(type);

/** What a turn's status is called in replies. */
export function replyStatus(status: TurnStatus): RunStatus | 'queued' | 'processing' {
  return status === 'completed' ? 'success' : status;
}

/** How the run of a turn ended. One that has no end, although nobody works on it any more, has failed. */
export function runStatus({ status }: TurnRecord): RunStatus {
  if (!isEndStatus(status)) return 'failed';
  return status === 'completed' ? 'success' : status;
}

/** What a run's sender asked for, or called it. */
interface ReplyWishes {
  readonly conversation_id?: SessionId | undefined;
  readonly index?: number | undefined;
  readonly reasoning?: boolean | undefined;
}

/** The reply that an ended turn becomes; of a cancelled one with the text there was, and of a failed one, too. */
export function turnReply(
  turn: TurnRecord,
  { conversation_id, index, reasoning: isWanted }: ReplyWishes,
): ReplyBody {
  const ids = defined({
    agent_id: turn.agentId,
    conversation_id: conversation_id ?? turn.sessionId,
    session_id: turn.sessionId,
    index,
  });
  const { content, info: execution_info, error } = turn;
  const reasoning = isWanted ? turn.reasoning : undefined;
  if (error) return errorReply(error, { ...ids, ...defined({ partial: content, reasoning }) });
  const data = { ...ids, response: content ?? '', status: runStatus(turn) };
  return { type: 'execution.callback', data: { ...data, ...defined({ reasoning, execution_info }) } };
}

/** What there is of a run that failed. */
interface RunLeft {
  readonly partial?: string;
  readonly reasoning?: string;
}

/** The reply to what was refused; `about`: the run, or the task that could not be cancelled. */
export const errorReply = (
  error: ErrorData,
  about: (RunIds & RunLeft) | { task_id?: TaskId } = {},
): ReplyBody => {
  const { message, code, retryable, retry_after_ms, details } = error;
  const error_details = defined({ retryable, retry_after_ms, details });
  return { type: 'execution.error', data: { ...about, error: message, error_code: code, error_details } };
};

// --- Their envelope ----------------------------------------------------------------------------------------------

/** What a reply is about, for its envelope. */
export interface ReplySubject {
  readonly taskId?: TaskId | undefined;
  readonly sessionId?: SessionId | undefined;
  readonly agentId?: AgentId | undefined;
}

/** What a reply has of its request. */
type AnsweredRequest = Pick<DomainAction, keyof ReplySpec['request'] | 'task_id'>;

/** Gives a reply its envelope: what ties it to its request is copied. */
export const replyAction = (
  request: AnsweredRequest,
  body: ReplyBody,
  made: { readonly id: string; readonly nowMs: number } & ReplySubject,
): DomainAction =>
  defined({
    action_id: made.id,
    action_type: body.type,
    task_id: made.taskId ?? request.task_id,
    tenant_id: request.tenant_id,
    tenant_tier: request.tenant_tier,
    session_id: made.sessionId ?? request.session_id,
    user_id: request.user_id,
    agent_id: made.agentId ?? request.agent_id,
    correlation_id: request.correlation_id,
    trace_id: request.trace_id,
    data: { ...body.data },
    metadata: {},
    timestamp: new Date(made.nowMs).toISOString(),
  });

/** The reply that a request asked for, once its turn has ended. */
export const replyTo = (spec: ReplySpec, turn: TurnRecord, nowMs: number): DomainAction => {
  const { conversationId: conversation_id, index, reasoning } = spec;
  const { taskId, sessionId, agentId } = turn;
  const made = { id: spec.id, nowMs, taskId, sessionId, agentId };
  return replyAction(spec.request, turnReply(turn, { conversation_id, index, reasoning }), made);
};

// --- Where they go -----------------------------------------------------------------------------------------------

/** Queues that are a tenant's: replies of others must not reach them. */
const TENANT_QUEUE = /^(?:orchestrator:(.+):callback|agent-management\.[^.]+\.(.+))$/;

/** What every node takes actions from. */
const WORK_QUEUES: ReadonlySet<string> = new Set(nodeSubscriptions().map(({ queue }) => queue));

/** Keys of the transport. Under `nooble:replies:` nodes await replies of each other. */
const TRANSPORT_KEY = /^nooble:(?!replies:)/;

/** A reply queue whose correlation id happens to be `dead`: it only looks like a dead list. */
const REPLY_NAMED_DEAD = /^[^:]+:responses:[^:]+:dead$/;

/** Whether something else than replies is read off a queue; `taken`: what this node takes from besides WORK_QUEUES. */
const isTaken = (queue: string, taken: ReadonlySet<string>): boolean =>
  WORK_QUEUES.has(queue) ||
  taken.has(queue) ||
  managementTenant(queue) !== null ||
  TRANSPORT_KEY.test(queue) ||
  (queue.endsWith(deadQueue('')) && !REPLY_NAMED_DEAD.test(queue));

/**
 * Why nobody may be answered on the queue that an action names, or null. Names are compared as Redis does, to the
 * letter: `{service}:responses:{action}:{correlation_id}` is its requester's, whatever service or id that is.
 */
export function callbackProblem(
  { callback_queue: queue, tenant_id: tenantId }: DomainAction,
  taken: ReadonlySet<string>,
): string | null {
  if (queue === undefined) return null;
  const [, orchestrated, managed] = TENANT_QUEUE.exec(queue) ?? [];
  const owner = orchestrated ?? managed;
  if (owner !== undefined && owner !== tenantId) return 'The callback_queue is another tenant’s.';
  return isTaken(queue, taken) ? 'The callback_queue is none for replies.' : null;
}

/** Where the reply is awaited; undefined: nowhere, or by this node, which needs none. */
export function replyQueue(action: DomainAction, taken: ReadonlySet<string>): QueueName | undefined {
  if (callbackProblem(action, taken) !== null) return undefined;
  // The session's sockets have seen the turn: that is what its reader would have to bring about.
  if (action.action_type === 'chat.process' && action.callback_queue === orchestratorQueue(action.tenant_id))
    return undefined;
  return queueNameSchema.safeParse(action.callback_queue).data;
}
