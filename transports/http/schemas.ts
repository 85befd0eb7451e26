/** The shapes of the HTTP routes (PROTOCOL 3): what they take, what they answer, and their names in the OpenAPI document. */
import { z } from '@hono/zod-openapi';
import type { Message, TurnRecord } from '../../src/domain/conversation.ts';
import { errorDataSchema } from '../../src/domain/errors.ts';
import {
  type EventType,
  eventData,
  executionInfoSchema,
  roleSchema,
  sayFields,
} from '../../src/domain/frames.ts';
import { agentIdSchema, sessionIdSchema, taskIdSchema } from '../../src/domain/ids.ts';

const DEFAULT_PAGE = 50;
const MAX_PAGE = 100;

const turnStatusSchema = z.enum(['queued', 'processing', 'completed', 'failed', 'cancelled', 'timeout']);
const time = z.iso.datetime();
const count = z.number().int().nonnegative();

export const sendBodySchema = z
  .object({ ...sayFields, session_id: sessionIdSchema.optional() })
  .openapi('ChatSend');

/** Ids may travel as headers; the body's win. */
export const sendHeadersSchema = z.object({
  'x-session-id': sessionIdSchema.optional(),
  'x-agent-id': agentIdSchema.optional(),
});

export const acceptedSchema = z
  .object({
    task_id: taskIdSchema,
    session_id: sessionIdSchema,
    status: z.enum(['processing', 'queued']),
    deduplicated: z.literal(true).optional(),
  })
  .openapi('ChatAccepted');

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
    frameOf('tool.started'),
    frameOf('tool.finished'),
    frameOf('chat.response'),
    frameOf('chat.cancelled'),
    frameOf('error'),
  ])
  .openapi('TurnFrame');

export const taskBodySchema = z.object({ task_id: taskIdSchema }).openapi('TaskReference');
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
    execution_info: executionInfoSchema.optional(),
    error: errorDataSchema.optional(),
  })
  .openapi('Turn');

export const cancelledSchema = z
  .object({ task_id: taskIdSchema, status: turnStatusSchema, abort_ms: count })
  .openapi('TurnCancelled');

const messageSchema = z
  .object({ role: roleSchema, content: z.string(), task_id: taskIdSchema, created_at: time })
  .openapi('Message');

export const messagesSchema = z
  .object({ messages: z.array(messageSchema), has_more: z.boolean() })
  .openapi('MessagePage');

export const healthSchema = z.object({ status: z.literal('ok') }).openapi('Health');

export const readinessSchema = z
  .object({
    status: z.enum(['ready', 'not_ready', 'draining']),
    checks: z.record(
      z.string(),
      z.object({ status: z.enum(['ok', 'failed']), latency_ms: z.number(), error: z.string().optional() }),
    ),
  })
  .openapi('Readiness');

/** Figures for people and dashboards; their names are no promise. */
export const figuresSchema = z.record(z.string(), z.unknown()).openapi('Figures');

const iso = (atMs: number): string => new Date(atMs).toISOString();

/** A turn as the status routes answer it. A cancelled turn's result is the text there was. */
export function turnBody(turn: TurnRecord): z.infer<typeof turnSchema> {
  return {
    task_id: turn.taskId,
    session_id: turn.sessionId,
    agent_id: turn.agentId,
    ...(turn.agentVersion === undefined ? {} : { agent_version: turn.agentVersion }),
    status: turn.status,
    created_at: iso(turn.createdAtMs),
    ...(turn.finishedAtMs === undefined ? {} : { finished_at: iso(turn.finishedAtMs) }),
    ...(turn.content === undefined ? {} : { result: { content: turn.content, role: 'assistant' as const } }),
    ...(turn.info === undefined ? {} : { execution_info: turn.info }),
    ...(turn.error === undefined ? {} : { error: turn.error }),
  };
}

/** A message as the history route answers it. */
export const messageBody = (message: Message): z.infer<typeof messageSchema> => ({
  role: message.role,
  content: message.content,
  task_id: message.taskId,
  created_at: iso(message.atMs),
});
