/** Which messages queues and sockets carry, by name, with the schemas that read or write them: what the AsyncAPI document lists. */
import { z } from 'zod';
import {
  agentSchema,
  batchSchema,
  broadcastSchema,
  chatSchema,
  historySchema,
  runSchema,
  sendSchema,
  taskSchema,
} from '../../src/domain/action-types.ts';
import { NOTICE_EVENTS } from '../../src/domain/agent-record.ts';
import { clientFrameSchema, eventData, noticeData, wireFrameSchema } from '../../src/domain/frames.ts';
import { type PeerRequestType, SERVICE_OF } from '../../src/ports/peers.ts';
import {
  answerSchemas,
  batchCompletedSchema,
  callbackSchema,
  failureSchema,
  peerSchemas,
} from './schemas.ts';

interface Received {
  readonly summary: string;
  readonly data: z.ZodObject | undefined;
  /** Types of the replies, besides `execution.error`; undefined: it is never answered. */
  readonly replies?: readonly string[];
}

const answer = (type: keyof typeof answerSchemas): readonly string[] => [`${type}.response`];
const CALLBACK = ['execution.callback'];
const RUN: Received = { summary: 'Runs an agent.', data: runSchema, replies: CALLBACK };
const CANCEL: Received = { summary: 'Cancels a turn.', data: taskSchema, replies: CALLBACK };
const CALLED: Received = { summary: 'A service’s reply on the tier’s queue.', data: undefined };

/** What the node takes off its work queues, by type. The test holds it against orders.ts. */
export const RECEIVED: Readonly<Record<string, Received>> = {
  'execution.agent_run': RUN,
  'execution.execute': { ...RUN, summary: 'Another name of execution.agent_run.' },
  'execution.batch': {
    summary: 'Runs every item; each is answered, then all of them together.',
    data: batchSchema,
    replies: [...CALLBACK, 'execution.batch_completed'],
  },
  'execution.cancel': CANCEL,
  'execution.cache.invalidate': { summary: 'The node asks for the agent anew.', data: agentSchema },
  'execution.management.get_agent_config': {
    summary: 'An agent’s configuration.',
    data: agentSchema,
    replies: answer('execution.management.get_agent_config'),
  },
  'execution.conversation.get_history': {
    summary: 'The messages of a session, newest last.',
    data: historySchema,
    replies: answer('execution.conversation.get_history'),
  },
  'execution.conversation.get_context': {
    summary: 'A session with its messages.',
    data: historySchema,
    replies: answer('execution.conversation.get_context'),
  },
  'chat.process': {
    summary: 'A turn that the session’s sockets see, too. Not answered on orchestrator:{tenant_id}:callback.',
    data: chatSchema,
    replies: CALLBACK,
  },
  'chat.status': { summary: 'How a turn stands.', data: taskSchema, replies: answer('chat.status') },
  'chat.cancel': CANCEL,
  'websocket.send': { summary: 'A frame for the sockets of one session.', data: sendSchema },
  'websocket.broadcast': { summary: 'A frame for sockets of the tenant.', data: broadcastSchema },
  'embedding.callback': CALLED,
  'query.callback': CALLED,
};

/** The data of the node's replies, by type. */
export const REPLIES: Readonly<Record<string, z.ZodType>> = {
  'execution.callback': callbackSchema,
  'execution.error': failureSchema,
  'execution.batch_completed': batchCompletedSchema,
  ...Object.fromEntries(Object.entries(answerSchemas).map(([type, schema]) => [`${type}.response`, schema])),
};

const isAsked = (type: string): type is PeerRequestType => Object.hasOwn(peerSchemas, type);
/** What the node asks of services. */
export const ASKED = Object.keys(SERVICE_OF).filter(isAsked);
export const SAVE = 'conversation.save_message';

/** How services name their reply; on the tier's queue of callbacks the type says what it answers. */
export const peerReply = (type: PeerRequestType): string => `${type}.response`;
export const CALLED_BACK: Readonly<Record<string, PeerRequestType>> = {
  'embedding.callback': 'embedding.request',
  'query.callback': 'query.request',
};

const frameOf = (type: z.ZodType, data: z.ZodType) => wireFrameSchema.extend({ type, data });
const unnumbered = (type: z.ZodType, data: z.ZodType) => frameOf(type, data).omit({ seq: true });
const noticeSchema = z.object({
  channel: z.string(),
  event: z.enum(NOTICE_EVENTS),
  data: z.record(z.string(), z.unknown()),
});

/** Frames of the chat socket, by the names of their messages. An `error` is numbered where it ends a turn. */
export const CLIENT_FRAMES: Readonly<Record<string, z.ZodType>> = Object.fromEntries(
  clientFrameSchema.options.map((option) => [`client.${option.shape.type.value}`, option]),
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
