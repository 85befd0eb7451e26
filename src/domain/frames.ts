/** The frames of the chat WebSocket and of a turn's SSE stream (PROTOCOL 2), as schemas. */
import { z } from 'zod';
import { withoutNulls } from './defined.ts';
import { errorDataSchema } from './errors.ts';
import { agentIdSchema, sessionIdSchema, taskIdSchema, tenantIdSchema } from './ids.ts';
import { imagesSchema } from './images.ts';
import { strictObject } from './request-object.ts';
import { responseFormatSchema } from './response-format.ts';
import { tierSchema } from './tiers.ts';

/** UTF-16 units. */
export const MAX_MESSAGE_UNITS = 32_000;
/** Bytes of one frame from a client. */
export const MAX_FRAME_BYTES = 256 * 1024;
/** Nesting of objects and arrays in anything a client sends. */
export const MAX_DEPTH = 32;
/** UTF-16 units of a turn's reasoning that are stored. */
export const MAX_REASONING_UNITS = 64 * 1024;
/** UTF-16 units of a tool's result that a client is shown. */
export const MAX_TOOL_RESULT_UNITS = 2_000;

const onBusySchema = z.enum(['enqueue', 'reject', 'interrupt']);
export type OnBusy = z.infer<typeof onBusySchema>;

/** What a client may say, on the socket and in `POST /api/chat/send`. */
export const sayFields = {
  /** zod's own `max` counts code points; it stays for the generated descriptions. */
  message: z
    .string()
    .min(1)
    .max(MAX_MESSAGE_UNITS)
    .refine((text) => text.length <= MAX_MESSAGE_UNITS, 'must have at most 32,000 UTF-16 units'),
  agent_id: agentIdSchema.optional(),
  /** Pins a version of the agent for this turn. */
  agent_version: z.number().int().positive().optional(),
  task_id: taskIdSchema.optional(),
  context: z.record(z.string(), z.unknown()).optional(),
  stream: z.boolean().default(true),
  on_busy: onBusySchema.default('enqueue'),
  /** Over the agent's own, for this turn. */
  response_format: responseFormatSchema.optional(),
  /** For the model to see with the message. */
  images: imagesSchema.optional(),
};

export const clientFrames = z.discriminatedUnion('type', [
  strictObject({ type: z.literal('chat.send'), ...sayFields }),
  strictObject({ type: z.literal('chat.cancel'), task_id: taskIdSchema }),
  strictObject({ type: z.literal('ping') }),
]);
/** A frame as it comes: null is absence. */
export const clientFrameSchema = z.preprocess(withoutNulls, clientFrames);
export type ClientFrame = z.infer<typeof clientFrameSchema>;

const count = z.number().int().nonnegative();

/** How the last call of a run ended: whole, cut at a limit of length, or asking for tools. */
export const finishReasonSchema = z.enum(['stop', 'length', 'tool_calls']);
export type FinishReason = z.infer<typeof finishReasonSchema>;

export const executionInfoSchema = z.object({
  execution_time_ms: count,
  time_to_first_token_ms: count.nullable(),
  iterations: count,
  tools_used: z.array(z.string()),
  tokens_used: count,
  /** Sums over the calls of the run; absent where the provider did not count every one of them. */
  input_tokens: count.exactOptional(),
  output_tokens: count.exactOptional(),
  /** Absent where the last call has no end. */
  finish_reason: finishReasonSchema.exactOptional(),
  model: z.string(),
});
export type ExecutionInfo = z.infer<typeof executionInfoSchema>;

export const roleSchema = z.enum(['user', 'assistant']);

const snapshotMessageSchema = z.object({
  role: roleSchema,
  content: z.string(),
  task_id: taskIdSchema,
  /** True for the text so far of a turn that still runs, or that failed. */
  partial: z.literal(true).optional(),
});

/** How a turn stands as it is accepted: a resend of one that is over is told how it ended. */
export const acceptedStatusSchema = z.enum([
  'processing',
  'queued',
  'completed',
  'failed',
  'cancelled',
  'timeout',
]);

/** Data of each frame that is numbered and kept for replay. */
export const eventData = {
  'chat.accepted': z.object({
    status: acceptedStatusSchema,
    position: count,
    deduplicated: z.literal(true).optional(),
  }),
  /** Sent while a turn waits and the number of turns ahead of it changes. */
  'chat.queued': z.object({ position: count }),
  'execution.started': z.object({ agent_id: agentIdSchema, agent_version: count, model: z.string() }),
  'chat.delta': z.object({ content: z.string() }),
  'tool.started': z.object({ call_id: z.string(), tool: z.string(), args: z.unknown() }),
  'tool.finished': z.object({
    call_id: z.string(),
    tool: z.string(),
    ok: z.boolean(),
    result: z.string(),
    duration_ms: count,
  }),
  'chat.response': z.object({
    content: z.string(),
    role: z.literal('assistant'),
    execution_info: executionInfoSchema,
  }),
  'chat.cancelled': z.object({ content: z.string(), abort_ms: count }),
  error: errorDataSchema,
} as const;

export type EventType = keyof typeof eventData;
export type EventData = { [T in EventType]: z.infer<(typeof eventData)[T]> };

/** One fact about a turn, before the outbox numbers it. */
export type TurnEvent = { [T in EventType]: { readonly type: T; readonly data: EventData[T] } }[EventType];

/** Data of each frame that is not numbered: it concerns one socket, or a moment. */
export const noticeData = {
  'session.ready': z.object({
    tenant_id: tenantIdSchema,
    session_id: sessionIdSchema,
    tier: tierSchema,
    epoch: z.string(),
    seq: count,
    recovered: z.boolean().optional(),
    running: z.array(taskIdSchema),
  }),
  'session.snapshot': z.object({ messages: z.array(snapshotMessageSchema) }),
  /**
   * The next piece of what the model thinks: sent live, and only to clients that asked. `replace`: the content stands
   * for all that came before in the turn, since an attempt of the model failed and another one answers.
   */
  'chat.reasoning': z.object({ content: z.string(), replace: z.literal(true).exactOptional() }),
  'server.draining': z.object({ reconnect_after_ms: count }),
  pong: z.object({}),
  error: errorDataSchema,
} as const;

type NoticeType = keyof typeof noticeData;
type NoticeData = { [T in NoticeType]: z.infer<(typeof noticeData)[T]> };
export type Notice = { [T in NoticeType]: { readonly type: T; readonly data: NoticeData[T] } }[NoticeType];

/**
 * A frame on its way to clients. `seq` is absent on unnumbered frames, `taskId` where no turn is meant.
 * `atMs` becomes `ts` on the wire. Kept flat and small: a session holds hundreds for replay.
 */
export interface Frame {
  readonly type: string;
  readonly seq: number | undefined;
  readonly atMs: number;
  readonly taskId: string | undefined;
  readonly data: unknown;
}

/** The three events of which a turn ends in exactly one. */
export const isTerminal = (type: string): boolean =>
  type === 'chat.response' || type === 'chat.cancelled' || type === 'error';

/** What stands on the wire for one frame, as a schema: for OpenAPI and clients. */
export const wireFrameSchema = z.object({
  type: z.string(),
  seq: z.number().int().positive().optional(),
  ts: z.iso.datetime(),
  task_id: taskIdSchema.optional(),
  data: z.unknown(),
});

/** A frame that belongs to no turn's events. */
export interface PushedFrame {
  readonly type: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly taskId?: string;
}
