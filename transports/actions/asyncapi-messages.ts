/** Every message of queues and sockets as AsyncAPI has it: its name, its payload's schema, and what answers it. */
import { z } from 'zod';
import { NOTICE_EVENTS, tenantNoticeSchema } from '../../src/domain/agent-record.ts';
import { agentTaskSchema } from '../../src/domain/agent-task.ts';
import { domainActionSchema } from '../../src/domain/domain-action.ts';
import { errorDataSchema } from '../../src/domain/errors.ts';
import {
  clientFrameSchema,
  eventData,
  executionInfoSchema,
  noticeData,
  wireFrameSchema,
} from '../../src/domain/frames.ts';
import {
  agentIdSchema,
  sessionIdSchema,
  taskIdSchema,
  tenantIdSchema,
  userIdSchema,
} from '../../src/domain/ids.ts';
import { tierSchema } from '../../src/domain/tiers.ts';
import { type PeerRequestType, SERVICE_OF } from '../../src/peer-ports.ts';
import { turnSchema } from '../http/schemas.ts';
import {
  answerSchemas,
  batchCompletedSchema,
  callbackSchema,
  failureSchema,
  peerSchemas,
  refusedSchema,
  saveMessageSchema,
  socketQuerySchema,
} from './asyncapi-schemas.ts';
import {
  agentSchema,
  batchSchema,
  broadcastSchema,
  chatSchema,
  historySchema,
  runSchema,
  sendSchema,
  taskSchema,
} from './orders.ts';

export type Json = Readonly<Record<string, unknown>>;

export const ref = (path: string): Json => ({ $ref: `#/${path}` });
const schemaRef = (name: string): Json => ref(`components/schemas/${name}`);

const JSON_TYPE = 'application/json';
const BOTH = [JSON_TYPE, 'application/msgpack'];

// --- Which there are -------------------------------------------------------------------------------------------

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
const EMBEDDED: Received = { summary: 'A service’s reply on the tier’s queue.', data: undefined };

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
  'embedding.callback': EMBEDDED,
  'query.callback': EMBEDDED,
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
const CALLED_BACK: Readonly<Record<string, PeerRequestType>> = {
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

function named(data: Readonly<Record<string, z.ZodType>>, frame: (type: string, data: z.ZodType) => z.ZodType) {
  return Object.fromEntries(Object.entries(data).map(([type, schema]) => [`node.${type}`, frame(type, schema)]));
}

// --- Their schemas ---------------------------------------------------------------------------------------------

/** What parseDomainAction asks of a sender: the rest it fills in. */
const receivedSchema = domainActionSchema.partial({
  action_id: true,
  data: true,
  metadata: true,
  timestamp: true,
});

const SCHEMAS: Readonly<Record<string, z.ZodType>> = {
  TenantId: tenantIdSchema,
  SessionId: sessionIdSchema,
  TaskId: taskIdSchema,
  AgentId: agentIdSchema,
  UserId: userIdSchema,
  Tier: tierSchema,
  Error: errorDataSchema,
  Refused: refusedSchema,
  ExecutionInfo: executionInfoSchema,
  Turn: turnSchema,
  Action: domainActionSchema,
  ReceivedAction: receivedSchema,
  Run: runSchema,
  ChatRun: chatSchema,
  Batch: batchSchema,
  TaskReference: taskSchema,
  AgentReference: agentSchema,
  SessionReference: historySchema,
  SocketSend: sendSchema,
  SocketBroadcast: broadcastSchema,
  SocketQuery: socketQuerySchema,
  AgentTask: agentTaskSchema,
  TenantNotice: tenantNoticeSchema,
  ...REPLIES,
  ...Object.fromEntries(
    ASKED.flatMap((type) => [
      [type, peerSchemas[type].asks],
      [peerReply(type), peerSchemas[type].hears],
    ]),
  ),
  [SAVE]: saveMessageSchema,
  ...CLIENT_FRAMES,
  ...NODE_FRAMES,
};

/** Other names under which a run's fields are read. */
const ALIASES: Readonly<Record<string, string>> = { input: 'message', user_info: 'user' };
/** Ids that may stand in the envelope instead of in `data`. */
const SHARED: readonly string[] = ['task_id', 'agent_id', 'session_id'];

type JsonSchema = z.core.JSONSchema.BaseSchema;

/** All of them as JSON Schema (draft 7, as AsyncAPI's own), as they stand on the wire, before defaults. */
export function schemas(): Readonly<Record<string, JsonSchema>> {
  const registry = z.registry<{ id: string }>();
  for (const [id, schema] of Object.entries(SCHEMAS)) registry.add(schema, { id });
  const made = z.toJSONSchema(registry, {
    target: 'draft-7',
    io: 'input',
    uri: (id) => `#/components/schemas/${id}`,
    override({ jsonSchema }) {
      // zod's pattern of a time has 250 characters, and says what the format does.
      if (jsonSchema.format === 'date-time') delete jsonSchema.pattern;
    },
  });
  return Object.fromEntries(
    Object.entries(made.schemas).map(([id, { $schema: _, $id: __, ...schema }]) => [id, readAs(id, schema)]),
  );
}

const RECEIVED_DATA: ReadonlySet<z.ZodType | undefined> = new Set(
  Object.values(RECEIVED).map(({ data }) => data),
);

/** The data of what is received, as readOrder takes it: with other names, and without ids that stand in the envelope. */
function readAs(id: string, schema: JsonSchema): JsonSchema {
  if (!RECEIVED_DATA.has(SCHEMAS[id])) return schema;
  const properties = { ...schema.properties };
  const required = (schema.required ?? []).filter((name) => !SHARED.includes(name));
  const either: Json[] = [];
  for (const [name, alias] of Object.entries(ALIASES)) {
    const property = properties[name];
    if (property === undefined) continue;
    properties[alias] = property;
    if (required.includes(name)) either.push({ anyOf: [{ required: [name] }, { required: [alias] }] });
  }
  return {
    ...schema,
    properties,
    required: required.filter((name) => !(name in ALIASES)),
    ...(either.length === 0 ? {} : { allOf: either }),
  };
}

// --- The messages ----------------------------------------------------------------------------------------------

/** Messages by name; those of actions are named by their type. */
export function messages(): Readonly<Record<string, Json>> {
  const made: Record<string, Json> = {};
  const add = (name: string, summary: string, payload: Json, types: readonly string[] = BOTH): void => {
    made[name] = { name, summary, contentType: JSON_TYPE, payload, 'x-content-types': types };
  };
  for (const [type, { summary, data }] of Object.entries(RECEIVED)) {
    const asked = CALLED_BACK[type];
    if (asked) add(type, summary, action('ReceivedAction', type, peerReply(asked), ['correlation_id']));
    else if (data) add(type, summary, action('ReceivedAction', type, nameOf(data), [], idsOf(data)));
  }
  for (const type of Object.keys(REPLIES)) add(type, 'A reply of the node.', action('Action', type, type));
  for (const type of ASKED) {
    const service = `${SERVICE_OF[type]}_service`;
    add(type, `Asked of ${service}.`, action('Action', type, type, ['correlation_id', 'callback_queue']));
    const reply = peerReply(type);
    add(reply, `What ${service} answers.`, action('ReceivedAction', undefined, reply, ['correlation_id']));
  }
  add(SAVE, 'One message of a turn that ended. Not answered.', action('Action', SAVE, SAVE));
  add('agent-management.task', 'Work on an agent.', schemaRef('AgentTask'));
  add('agent-management.notice', 'What has become of an agent.', schemaRef('TenantNotice'), [JSON_TYPE]);
  for (const name of Object.keys(CLIENT_FRAMES)) add(name, 'A frame of a client.', schemaRef(name));
  for (const name of Object.keys(NODE_FRAMES)) add(name, 'A frame of the node.', schemaRef(name));
  for (const message of Object.values(made)) tied(message);
  return made;
}

const nameOf = (schema: z.ZodType): string =>
  Object.keys(SCHEMAS).find((name) => SCHEMAS[name] === schema) ?? 'undescribed';

/** Ids that an action must name, in the envelope or in its data. */
const idsOf = ({ shape }: z.ZodObject): readonly string[] =>
  SHARED.filter((name) => shape[name] !== undefined && !z.safeParse(shape[name], undefined).success);
