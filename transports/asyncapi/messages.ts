/** The messages of the AsyncAPI document, and their schemas as JSON Schema, made from the zod schemas that the node parses with. */
import { z } from 'zod';
import { refusedSchema, replySchemas } from '../../src/domain/action-replies.ts';
import {
  ACTION_TYPES,
  agentSchema,
  batchSchema,
  broadcastSchema,
  chatSchema,
  historySchema,
  runSchema,
  sendSchema,
  taskSchema,
} from '../../src/domain/action-types.ts';
import { tenantNoticeSchema } from '../../src/domain/agent-record.ts';
import { agentTaskSchema } from '../../src/domain/agent-task.ts';
import { domainActionSchema } from '../../src/domain/domain-action.ts';
import { errorDataSchema } from '../../src/domain/errors.ts';
import { executionInfoSchema } from '../../src/domain/frames.ts';
import {
  agentIdSchema,
  sessionIdSchema,
  taskIdSchema,
  tenantIdSchema,
  userIdSchema,
} from '../../src/domain/ids.ts';
import { tierSchema } from '../../src/domain/tiers.ts';
import { turnSchema } from '../../src/domain/turn-schemas.ts';
import { SERVICE_OF } from '../../src/ports/peers.ts';
import {
  ASKED,
  CALLED_BACK,
  CLIENT_FRAMES,
  NODE_FRAMES,
  peerReply,
  peerSchemas,
  SAVE,
  saveMessageSchema,
  socketQuerySchema,
} from './catalogue.ts';

export type Json = Readonly<Record<string, unknown>>;

/** A reference inside the document. */
export const ref = (path: string): Json => ({ $ref: `#/${path}` });
export const schemaRef = (name: string): Json => ref(`components/schemas/${name}`);

// --- Their schemas ---------------------------------------------------------------------------------------------

/** What parseDomainAction asks of a sender: the rest it fills in. */
const receivedSchema = domainActionSchema
  .partial({ action_id: true, data: true, metadata: true })
  .extend({ timestamp: z.string().describe('ISO 8601; without a zone it is read as UTC.').optional() });

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
  ...replySchemas,
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

/** The name of a schema that is in the list. */
const nameOf = (schema: z.ZodType | undefined): string =>
  Object.keys(SCHEMAS).find((name) => SCHEMAS[name] === schema) ?? 'undescribed';

const COMMAND_DATA: ReadonlySet<string> = new Set([...ACTION_TYPES.values()].map(({ data }) => nameOf(data)));

/** The data of what is received, as readCommand takes it: with other names, and without ids that stand in the envelope. */
function readAs(id: string, schema: JsonSchema): JsonSchema {
  if (!COMMAND_DATA.has(id)) return schema;
  // A sender may repeat its envelope in the data.
  const { additionalProperties: _, ...open } = schema;
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
    ...open,
    properties,
    required: required.filter((name) => !(name in ALIASES)),
    ...(either.length === 0 ? {} : { allOf: either }),
  };
}

// --- The messages ----------------------------------------------------------------------------------------------

const JSON_TYPE = 'application/json';
const BOTH = [JSON_TYPE, 'application/msgpack'];

/** Messages by name; those of actions are named by their type. `made`: all schemas. */
export function messages(made: Readonly<Record<string, JsonSchema>>): Readonly<Record<string, Json>> {
  const all: Record<string, Json> = {};
  const add = (name: string, summary: string, payload: Json, types: readonly string[] = BOTH): void => {
    all[name] = { name, summary, contentType: JSON_TYPE, 'x-content-types': types, payload };
  };
  const addAction = (name: string, summary: string, payload: Json): void => {
    add(name, summary, payload);
    all[name] = { ...all[name], correlationId: { location: '$message.payload#/correlation_id' } };
  };
  for (const [type, { summary, data }] of ACTION_TYPES) {
    const asked = CALLED_BACK[type];
    const name = asked ? peerReply(asked) : nameOf(data);
    const more = asked ? [CORRELATED] : placesOf(data, made[name]);
    addAction(type, summary, action('ReceivedAction', type, name, more));
  }
  for (const type of Object.keys(replySchemas))
    addAction(type, 'A reply of the node.', action('Action', type, type));
  for (const type of ASKED) {
    const service = `${SERVICE_OF[type]}_service`;
    const reply = peerReply(type);
    addAction(type, `Asked of ${service}.`, action('Action', type, type, [AWAITED]));
    addAction(reply, `What ${service} answers.`, action('ReceivedAction', undefined, reply, [CORRELATED]));
  }
  addAction(SAVE, 'One message of a turn that ended. Not answered.', action('Action', SAVE, SAVE));
  add('agent-management.task', 'Work on an agent.', schemaRef('AgentTask'));
  add('agent-management.notice', 'What has become of an agent.', schemaRef('TenantNotice'), [JSON_TYPE]);
  for (const name of Object.keys(CLIENT_FRAMES)) add(name, 'A frame of a client.', schemaRef(name));
  for (const name of Object.keys(NODE_FRAMES)) add(name, 'A frame of the node.', schemaRef(name));
  return all;
}

const CORRELATED: Json = { required: ['correlation_id', 'data'] };
const AWAITED: Json = { required: ['correlation_id', 'callback_queue'] };

/** An action of that type (undefined: of any) with that data. */
const action = (
  envelope: 'Action' | 'ReceivedAction',
  type: string | undefined,
  data: string,
  more: readonly Json[] = [],
): Json => {
  const named = type === undefined ? {} : { action_type: { const: type } };
  return { allOf: [schemaRef(envelope), { properties: { ...named, data: schemaRef(data) } }, ...more] };
};

/** Where a received action must say what: ids in its envelope or in its data, the rest in its data. */
function placesOf(data: z.ZodObject | undefined, read: JsonSchema | undefined): readonly Json[] {
  const ids = SHARED.filter((id) => data?.shape[id] && !z.safeParse(data.shape[id], undefined).success);
  const needsData = (read?.required ?? []).length > 0 || read?.allOf !== undefined;
  return [
    ...(needsData ? [{ required: ['data'] }] : []),
    ...ids.map((id) => ({
      anyOf: [{ required: [id] }, { required: ['data'], properties: { data: { required: [id] } } }],
    })),
  ];
}
