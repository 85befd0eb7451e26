/** What replies and requests of the node hold as `data`, for the AsyncAPI document: nothing here parses them, tests do. */
import { z } from 'zod';
import type { EndStatus } from '../../src/domain/action-replies.ts';
import { agentSchema } from '../../src/domain/agent-record.ts';
import { errorCodeSchema, errorDataSchema } from '../../src/domain/errors.ts';
import { executionInfoSchema, roleSchema, snapshotMessageSchema } from '../../src/domain/frames.ts';
import { agentIdSchema, sessionIdSchema, taskIdSchema, userIdSchema } from '../../src/domain/ids.ts';
import { tierSchema } from '../../src/domain/tiers.ts';
import { turnSchema } from '../../src/domain/turn-schemas.ts';
import type { PeerRequestType } from '../../src/ports/peers.ts';

const count = z.number().int().nonnegative();

// --- Replies to actions ----------------------------------------------------------------------------------------

const END_STATUSES = ['success', 'failed', 'cancelled', 'timeout'] as const satisfies readonly EndStatus[];

/** What both kinds of reply to a run say of it. */
const runIds = {
  agent_id: agentIdSchema,
  conversation_id: sessionIdSchema,
  session_id: sessionIdSchema,
  /** Place in the batch. */
  index: count.optional(),
};

/** A question's, and that of an answer too large to be sent. */
export const refusedSchema = z.object({ success: z.literal(false), error: errorDataSchema });

/** How a run ended; what became of a request to cancel one; that there is an answer, too large to be sent. */
export const callbackSchema = z.union([
  z.object({
    ...runIds,
    response: z.string(),
    status: z.enum(END_STATUSES),
    execution_info: executionInfoSchema.optional(),
  }),
  z.object({
    task_id: taskIdSchema,
    status: z.enum([...END_STATUSES, 'queued', 'processing']),
    abort_ms: count,
  }),
  refusedSchema,
]);

export const failureSchema = z.object({
  ...z.object(runIds).partial().shape,
  task_id: taskIdSchema.optional(),
  error: z.string(),
  error_code: errorCodeSchema,
  error_details: z.object({
    retryable: z.boolean(),
    retry_after_ms: count.optional(),
    details: z.unknown().optional(),
  }),
});

export const batchCompletedSchema = z.object({
  task_id: taskIdSchema,
  total: count,
  completed: count,
  failed: count,
  items: z.array(z.object({ task_id: taskIdSchema, status: z.enum(END_STATUSES) })),
});

const success = z.literal(true);
const messageSchema = snapshotMessageSchema
  .omit({ partial: true })
  .extend({ created_at: turnSchema.shape.created_at });

/** Answers to questions, by the type of the question. */
export const answerSchemas = {
  'chat.status': z.union([turnSchema, refusedSchema]),
  'execution.management.get_agent_config': z.union([
    z.object({ success, agent_config: z.unknown() }),
    refusedSchema,
  ]),
  'execution.conversation.get_history': z.union([
    z.object({ success, messages: z.array(messageSchema) }),
    refusedSchema,
  ]),
  'execution.conversation.get_context': z.union([
    z.object({
      success,
      context: z.object({
        session_id: sessionIdSchema,
        tenant_id: z.string(),
        messages: z.array(messageSchema),
        message_count: count,
      }),
    }),
    refusedSchema,
  ]),
} as const;

// --- What the node asks of services, and what it expects of them -------------------------------------------------

/** A service may answer more, and in other spellings (peer-replies.ts, peer-agents.ts); this much is enough. */
const answered = <T extends z.core.$ZodLooseShape>(shape: T) =>
  z.union([
    z.object({ success: success.optional(), ...shape }),
    z.object({
      success: z.literal(false),
      error: z.object({ code: z.string(), message: z.string(), retry_after_ms: z.number().optional() }),
    }),
  ]);

export const peerSchemas = {
  'management.get_agent_config': {
    asks: z.object({ agent_id: agentIdSchema, version: count.optional() }),
    hears: answered({ agent_config: z.object(agentSchema.shape).partial() }),
  },
  'conversation.get_history': {
    asks: z.object({ session_id: sessionIdSchema, limit: count }),
    hears: answered({ messages: z.array(messageSchema.partial({ task_id: true, created_at: true })) }),
  },
  'embedding.request': {
    asks: z.object({ texts: z.array(z.string()) }),
    hears: answered({ embeddings: z.array(z.array(z.number())), model: z.string().optional() }),
  },
  'query.request': {
    asks: z.object({ query: z.string(), collections: z.array(z.string()), limit: count, top_k: count }),
    hears: answered({
      results: z.array(
        z.object({
          text: z.string(),
          source: z.string().optional(),
          collection: z.string().optional(),
          score: z.number().optional(),
        }),
      ),
    }),
  },
  'tool.execute': {
    asks: z.object({
      tool: z.string(),
      args: z.record(z.string(), z.unknown()),
      task_id: taskIdSchema,
      session_id: sessionIdSchema,
    }),
    hears: answered({ result: z.unknown() }),
  },
} as const satisfies Record<PeerRequestType, { asks: z.ZodType; hears: z.ZodType }>;

/** One message of a turn that ended, for the conversation service; it answers nothing. */
export const saveMessageSchema = z.object({
  session_id: sessionIdSchema,
  role: roleSchema,
  content: z.string(),
  agent_id: agentIdSchema,
  model_name: z.string().optional(),
  tokens_estimate: count,
  task_id: taskIdSchema,
});

// --- The chat socket -------------------------------------------------------------------------------------------

/** The query of its address (handshake.ts). */
export const socketQuerySchema = z.object({
  agent_id: agentIdSchema.optional(),
  user_id: userIdSchema.optional(),
  tier: tierSchema.optional(),
  /** Where a resuming client stopped: both or none. */
  last_seq: count.optional(),
  epoch: z.string().max(128).optional(),
  delta_window_ms: count.optional(),
});
