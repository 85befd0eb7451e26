/** What queues and sockets carry besides actions and replies, by name and with its schema: for the AsyncAPI document. */
import { z } from 'zod';
import { sendSchema } from '../../src/domain/action-types.ts';
import { agentSchema, NOTICE_EVENTS } from '../../src/domain/agent-record.ts';
import { clientFrames, eventData, noticeData, roleSchema, wireFrameSchema } from '../../src/domain/frames.ts';
import { agentIdSchema, sessionIdSchema, taskIdSchema, userIdSchema } from '../../src/domain/ids.ts';
import { tierSchema } from '../../src/domain/tiers.ts';
import { messageSchema } from '../../src/domain/turn-schemas.ts';
import { type PeerRequestType, SERVICE_OF } from '../../src/ports/peers.ts';

const count = z.number().int().nonnegative();

// --- What the node asks of services, and what it expects of them -------------------------------------------------

/** A service may answer more, and in other spellings (peer-replies.ts, peer-agents.ts); this much is enough. */
const answered = <T extends z.core.$ZodLooseShape>(shape: T) =>
  z.union([
    z.object({ success: z.literal(true).optional(), ...shape }),
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

const isAsked = (type: string): type is PeerRequestType => Object.hasOwn(peerSchemas, type);
/** The types of the node's requests. */
export const ASKED = Object.keys(SERVICE_OF).filter(isAsked);

/** How services name their reply; on the tier's queue of callbacks the type says what it answers. */
export const peerReply = (type: PeerRequestType): string => `${type}.response`;
export const CALLED_BACK: Readonly<Record<string, PeerRequestType>> = {
  'embedding.callback': 'embedding.request',
  'query.callback': 'query.request',
};

/** One message of a turn that ended, for the conversation service; it answers nothing. */
export const SAVE = 'conversation.save_message';
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

/** The query of its address (websocket/upgrade.ts). */
export const socketQuerySchema = z.object({
  agent_id: agentIdSchema.optional(),
  user_id: userIdSchema.optional(),
  tier: tierSchema.optional(),
  /** Where a resuming client stopped: both or none. */
  last_seq: count.optional(),
  epoch: z.string().max(128).optional(),
  delta_window_ms: count.optional(),
});

const frameOf = (type: z.ZodType, data: z.ZodType) => wireFrameSchema.extend({ type, data });
const unnumbered = (type: z.ZodType, data: z.ZodType) => frameOf(type, data).omit({ seq: true });
const noticeSchema = z.object({
  channel: z.string(),
  event: z.enum(NOTICE_EVENTS),
  data: z.record(z.string(), z.unknown()),
});

/** Frames of the chat socket, by the names of their messages. An `error` is numbered where it ends a turn. */
export const CLIENT_FRAMES: Readonly<Record<string, z.ZodType>> = Object.fromEntries(
  clientFrames.options.map((option) => [`client.${option.shape.type.value}`, option]),
);
export const NODE_FRAMES: Readonly<Record<string, z.ZodType>> = {
  ...named(noticeData, (type, data) => unnumbered(z.literal(type), data)),
  ...named(eventData, (type, data) => frameOf(z.literal(type), data)),
  'node.notice': unnumbered(z.enum(NOTICE_EVENTS), noticeSchema),
  'node.pushed': unnumbered(sendSchema.shape.message_type, sendSchema.shape.message_data.unwrap()),
};

function named(
  data: Readonly<Record<string, z.ZodType>>,
  frame: (type: string, data: z.ZodType) => z.ZodType,
) {
  return Object.fromEntries(
    Object.entries(data).map(([type, schema]) => [`node.${type}`, frame(type, schema)]),
  );
}
