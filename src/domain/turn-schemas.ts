/** The shapes of the HTTP routes (PROTOCOL 3): what they take, what they answer, and their names in the OpenAPI document. */

import { z } from 'zod';
import type { Message } from './conversation.ts';
import { defined } from './defined.ts';
import { errorDataSchema } from './errors.ts';
import {
  acceptedStatusSchema,
  type EventData,
  type EventType,
  eventData,
  executionInfoSchema,
  noticeData,
  roleSchema,
  sayFields,
} from './frames.ts';
import {
  agentIdSchema,
  ID_PATTERN,
  type SessionId,
  sessionIdSchema,
  type TaskId,
  taskIdSchema,
} from './ids.ts';
import { imageUrls } from './images.ts';
import { requestObject } from './request-object.ts';
import {
  type CancelReply,
  type TurnRecord,
  type TurnRequest,
  type TurnStanding,
  turnStatusSchema,
} from './turn.ts';

const DEFAULT_PAGE = 50;
const MAX_PAGE = 100;
const time = z.iso.datetime();
const count = z.number().int().nonnegative();

export const sendBodySchema = requestObject({
  ...sayFields,
  session_id: sessionIdSchema.optional(),
  /** With `Accept: text/event-stream`: the stream has `chat.reasoning` too. */
  reasoning: z.boolean().default(false),
}).meta({ id: 'ChatSend' });

type Said = Omit<z.infer<typeof sendBodySchema>, 'session_id' | 'reasoning'>;

/** What was said in a chat, as a request to the directory. `agentId` is for what names none. */
export const requestOf = (
  said: Said,
  { agentId, ...from }: Pick<TurnRequest, 'caller' | 'sessionId' | 'agentId' | 'requestId'>,
  newTaskId: () => TaskId,
): TurnRequest => ({
  ...from,
  taskId: said.task_id ?? newTaskId(),
  taskIdGiven: said.task_id !== undefined,
  agentId: said.agent_id ?? agentId,
  ...defined({
    agentVersion: said.agent_version,
    responseFormat: said.response_format,
    images: imageUrls(said.images),
  }),
  message: said.message,
  context: said.context,
  stream: said.stream,
  onBusy: said.on_busy,
});

/** Ids may travel as headers; the body's win. */
export const sendHeadersSchema = z.object({
  'x-session-id': sessionIdSchema.optional(),
  'x-agent-id': agentIdSchema.optional(),
  /** The `id:` of the last event that a client has of this turn; as browsers send it, empty for none. */
  'last-event-id': z
    .string()
    .regex(/^\d{0,15}$/, 'must be the number of an event')
    .transform((text) => (text === '' ? undefined : Number(text)))
    .optional(),
});

export const acceptedSchema = z
  .object({
    task_id: taskIdSchema,
    session_id: sessionIdSchema,
    status: acceptedStatusSchema,
    deduplicated: z.literal(true).optional(),
  })
  .meta({ id: 'ChatAccepted' });

/** A yes or no, as a query says it. */
export const flagSchema = z
  .enum(['0', '1', 'false', 'true'])
  .transform((said) => said === '1' || said === 'true');

export const sendQuerySchema = z.object({ reasoning: flagSchema.optional() });

const frameOf = <T extends EventType>(type: T) =>
  z.object({
    type: z.literal(type),
    seq: z.number().int().positive().optional(),
    ts: time,
    task_id: taskIdSchema,
    data: eventData[type],
  });

/** One event of a turn's stream: `data:` is this frame, `event:` its type, `id:` its seq. */
export const turnFrameSchema = z
  .discriminatedUnion('type', [
    frameOf('chat.accepted'),
    frameOf('chat.queued'),
    frameOf('execution.started'),
    frameOf('chat.delta'),
    z.object({
      type: z.literal('chat.reasoning'),
      ts: time,
      task_id: taskIdSchema,
      data: noticeData['chat.reasoning'],
    }),
    frameOf('tool.started'),
    frameOf('tool.finished'),
    frameOf('chat.response'),
    frameOf('chat.cancelled'),
    frameOf('error'),
  ])
  .meta({ id: 'TurnFrame' });

export const taskBodySchema = requestObject({ task_id: taskIdSchema }).meta({ id: 'TaskReference' });
export const taskPathSchema = z.object({ task_id: taskIdSchema });
export const sessionPathSchema = z.object({ session_id: sessionIdSchema });

export const pageQuerySchema = z.object({
  limit: z.coerce.number().int().min(1).max(MAX_PAGE).default(DEFAULT_PAGE),
  before: taskIdSchema.optional(),
});

export const turnSchema = z
  .object({
    task_id: taskIdSchema,
    session_id: sessionIdSchema,
    agent_id: agentIdSchema,
    /** The version that ran; absent before it ran. */
    agent_version: count.optional(),
    status: turnStatusSchema,
    created_at: time,
    finished_at: time.optional(),
    result: z.object({ content: z.string(), role: z.literal('assistant') }).optional(),
    /** The text so far of a turn that failed; absent where there was none. */
    partial: z.string().optional(),
    /** What the model thought, up to 65,536 UTF-16 units; absent where it told nothing of that. */
    reasoning: z.string().optional(),
    execution_info: executionInfoSchema.optional(),
    error: errorDataSchema.optional(),
    /** While it runs: the tool calls that run for it now. */
    running_tools: z.array(z.object({ call_id: z.string(), tool: z.string() })).optional(),
  })
  .meta({ id: 'Turn' });

export const cancelledSchema = z
  .object({ task_id: taskIdSchema, status: turnStatusSchema, abort_ms: count })
  .meta({ id: 'TurnCancelled' });

export const messageSchema = z
  .object({
    role: roleSchema,
    content: z.string(),
    task_id: taskIdSchema,
    created_at: time,
    /** The text so far of a turn that failed: models are not given it. */
    partial: z.literal(true).optional(),
  })
  .meta({ id: 'Message' });

export const messagesSchema = z
  .object({ messages: z.array(messageSchema), has_more: z.boolean() })
  .meta({ id: 'MessagePage' });

const iso = (atMs: number): string => new Date(atMs).toISOString();

/** A turn as the status routes answer it. A cancelled turn's result is the text there was. */
export const turnBody = (turn: TurnStanding): z.infer<typeof turnSchema> => {
  const { content, error } = turn;
  return defined({
    task_id: turn.taskId,
    session_id: turn.sessionId,
    agent_id: turn.agentId,
    agent_version: turn.agentVersion,
    status: turn.status,
    created_at: iso(turn.createdAtMs),
    finished_at: turn.finishedAtMs === undefined ? undefined : iso(turn.finishedAtMs),
    result: content === undefined || error ? undefined : { content, role: 'assistant' as const },
    partial: error && content,
    reasoning: turn.reasoning,
    execution_info: turn.info,
    error,
    running_tools: turn.tools?.map(({ callId, tool }) => ({ call_id: callId, tool })),
  });
};

/** The acceptance of a turn, and the session that it is in. */
export const acceptedBody = (turn: {
  readonly taskId: TaskId;
  readonly sessionId: SessionId;
  readonly accepted: EventData['chat.accepted'];
}): z.infer<typeof acceptedSchema> => {
  const { status, deduplicated } = turn.accepted;
  return defined({ task_id: turn.taskId, session_id: turn.sessionId, status, deduplicated });
};

/** What a cancel answers: how the turn ended, and how long the abort took. */
export const cancelledBody = (turn: Extract<CancelReply, { ok: true }>): z.infer<typeof cancelledSchema> => ({
  task_id: turn.taskId,
  status: turn.status,
  abort_ms: Math.ceil(turn.abortMs),
});

/** A message as the history route answers it. */
export const messageBody = (message: Message): z.infer<typeof messageSchema> =>
  defined({
    role: message.role,
    content: message.content,
    task_id: message.taskId,
    created_at: iso(message.atMs),
    partial: message.partial,
  });

export const executionSchema = turnSchema.extend({ execution_id: taskIdSchema }).meta({ id: 'Execution' });

const batchItemSchema = z.object({
  execution_id: taskIdSchema,
  session_id: sessionIdSchema,
  status: turnSchema.shape.status,
  result: turnSchema.shape.result,
  error: errorDataSchema.optional(),
});

export type BatchItem = z.infer<typeof batchItemSchema>;

export const batchSchema = z
  .object({
    batch_id: z.string().regex(ID_PATTERN),
    status: z.enum(['processing', 'completed']),
    total: count,
    completed: count,
    /** Failed, timed out or cancelled. */
    failed: count,
    items: z.array(batchItemSchema),
  })
  .meta({ id: 'ExecutionBatch' });

export type BatchBody = z.infer<typeof batchSchema>;

/** An execution as the routes and callbacks tell it: its turn, and its id under both names. */
export function executionBody(turn: TurnRecord): z.infer<typeof executionSchema> {
  return { execution_id: turn.taskId, ...turnBody(turn) };
}
