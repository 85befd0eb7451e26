/** The one table of action types (PROTOCOL 4): what their data must be, what they ask for, and how they are answered. */
import { z } from 'zod';
import { isReplyType, type ReplyType } from './action-replies.ts';
import { defined, withoutNulls } from './defined.ts';
import { type DomainAction, isEnvelopeName } from './domain-action.ts';
import { type ErrorData, refusal } from './errors.ts';
import {
  DEFAULT_BATCH_CONCURRENCY,
  executionParamsSchema,
  MAX_BATCH_CONCURRENCY,
  MAX_BATCH_ITEMS,
  MAX_NAMED_TOOLS,
  toolsConfigSchema,
} from './execution-params.ts';
import { type PushedFrame, sayFields } from './frames.ts';
import {
  type AgentId,
  agentIdSchema,
  type SessionId,
  sessionIdSchema,
  type TaskId,
  taskIdSchema,
} from './ids.ts';
import { hasJsonUnits } from './json-size.ts';
import { problemsOf, problemText } from './problems.ts';
import { boundedArray, strictObject } from './request-object.ts';

// --- Their data ------------------------------------------------------------------------------------------------

const MAX_TARGETS = 1_000;
const MAX_HISTORY = 500;
const DEFAULT_HISTORY = 50;
const CONTEXT_HISTORY = 20;

/** UTF-16 units, as JSON, of what a sender may attach: it is held for as long as its run waits. */
const MAX_ATTACHED_UNITS = 256 * 1024;

const recordSchema = z
  .record(z.string(), z.unknown())
  .refine((fields) => hasJsonUnits(fields, MAX_ATTACHED_UNITS), 'must have at most 256 KiB');

export const runSchema = strictObject({
  input: sayFields.message,
  agent_id: agentIdSchema.optional(),
  agent_version: sayFields.agent_version,
  session_id: sessionIdSchema.optional(),
  conversation_id: sessionIdSchema.optional(),
  task_id: taskIdSchema.optional(),
  context: recordSchema.optional(),
  user_info: recordSchema.optional(),
  tools_config: toolsConfigSchema.optional(),
  execution_params: executionParamsSchema.optional(),
  response_format: sayFields.response_format,
  images: sayFields.images,
  /** The reply has what the model thought, too. */
  reasoning: z.boolean().optional(),
});
export type RunFields = z.infer<typeof runSchema>;

export const chatSchema = strictObject({
  ...runSchema.shape,
  stream: sayFields.stream,
  on_busy: sayFields.on_busy,
});
type ChatFields = z.infer<typeof chatSchema>;

export const batchSchema = strictObject({
  items: boundedArray(runSchema, MAX_BATCH_ITEMS, 1).refine(haveOwnIds, 'must have ids of their own'),
  concurrency: z.number().int().min(1).max(MAX_BATCH_CONCURRENCY).default(DEFAULT_BATCH_CONCURRENCY),
});

function haveOwnIds(items: readonly RunFields[]): boolean {
  const ids = items.flatMap(({ task_id }) => task_id ?? []);
  return new Set(ids).size === ids.length;
}

export const taskSchema = strictObject({ task_id: taskIdSchema });
export const agentSchema = strictObject({ agent_id: agentIdSchema });
export const historySchema = strictObject({
  session_id: sessionIdSchema,
  limit: z.number().int().min(1).max(MAX_HISTORY).optional(),
});

const frameFields = {
  message_type: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,64}$/, 'must be 1 to 64 characters out of A-Z a-z 0-9 . _ -'),
  message_data: recordSchema.default({}),
};
export const sendSchema = strictObject({ ...frameFields, session_id: sessionIdSchema });
export const broadcastSchema = strictObject({
  ...frameFields,
  target_sessions: boundedArray(sessionIdSchema, MAX_TARGETS).optional(),
});

// --- What they ask for -----------------------------------------------------------------------------------------

type Of<T extends string, Fields> = { readonly type: T } & Readonly<Fields>;

/** What an action asks for, ready to be performed. A push without `sessions` is for all of the tenant's. */
export type Command =
  | Of<'run', { fields: RunFields & Partial<ChatFields> }>
  | Of<'batch', { items: readonly RunFields[]; concurrency: number }>
  | Of<'cancel', { taskId: TaskId }>
  | Of<'status', { taskId: TaskId }>
  | Of<'invalidate', { agentId: AgentId }>
  | Of<'agent-config', { agentId: AgentId }>
  | Of<'history', { sessionId: SessionId; limit: number }>
  | Of<'context', { sessionId: SessionId; limit: number }>
  | Of<'push', { sessions: readonly SessionId[] | undefined; frame: PushedFrame }>
  /** A service's reply to a request of this node. */
  | Of<'replied', unknown>;

/** The commands of these types. */
export type CommandOf<T extends Command['type']> = Extract<Command, { readonly type: T }>;

type ReadCommand =
  | { readonly ok: true; readonly command: Command }
  | { readonly ok: false; readonly error: ErrorData };

interface ActionType {
  readonly summary: string;
  /** The data under the names that the node uses. Undefined: whatever a service replied. */
  readonly data: z.ZodObject | undefined;
  /** Refuses data that does not fit with INVALID_REQUEST, naming the fields. */
  readonly command: (action: DomainAction) => ReadCommand;
  /** None: it is never answered. */
  readonly replies: readonly ReplyType[];
}

interface Definition<S extends z.ZodObject> {
  readonly summary: string;
  readonly data: S;
  readonly command: (data: z.infer<S>, action: DomainAction) => Command;
  readonly replies?: readonly ReplyType[];
  /** Brings an action's fields to the names of `data`. */
  readonly fields?: (action: DomainAction) => Fields;
}

function define<S extends z.ZodObject>(definition: Definition<S>): ActionType {
  const { summary, data, command, replies = [], fields = fieldsOf } = definition;
  const read = (action: DomainAction): ReadCommand => {
    const parsed = data.safeParse(onlyOf(data, fields(action)));
    return parsed.success ? { ok: true, command: command(parsed.data, action) } : malformed(parsed.error);
  };
  return { summary, data, command: read, replies };
}

/** Problems named in one refusal. */
const MAX_PROBLEMS = 5;

function malformed(error: z.ZodError): ReadCommand {
  const details = problemsOf(error, '', MAX_PROBLEMS).map(({ field, message }) => ({ field, message }));
  const message = `The action's data is malformed: ${problemText(error)}.`;
  return { ok: false, error: refusal('INVALID_REQUEST', { message, details }) };
}

type Fields = Record<string, unknown>;

const isRecord = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * The fields without those that an action may have and this one does not need: a sender may repeat its envelope in
 * `data`, and write the fields of another action. What no action has is left, to be refused by its name.
 */
const onlyOf = (data: z.ZodObject, fields: Fields): Fields =>
  Object.fromEntries(
    Object.entries(fields).filter(([name]) => Object.hasOwn(data.shape, name) || !isEnvelopeName(name)),
  );

/** The data, with the ids of the envelope, which has gathered them from wherever they may stand. */
function fieldsOf({ data, task_id, agent_id, session_id }: DomainAction): Fields {
  const fields = { ...withoutNulls(data) };
  if (agent_id !== undefined) fields.agent_id = agent_id;
  if (session_id !== undefined) fields.session_id = session_id;
  if (task_id !== undefined) fields.task_id ??= task_id;
  return fields;
}

/** Names that are each looked at and complained of: a text in place of too many is refused just as well, by its field. */
const notTooMany = (names: unknown): unknown => {
  const count = isRecord(names) ? Object.keys(names).length : 0;
  return count > MAX_NAMED_TOOLS ? `${count} names` : names;
};

/** The fields of one run under the names that we use. */
const withRunNames = ({ message, user, ...fields }: Fields): Fields => ({
  ...fields,
  input: fields.input ?? message,
  user_info: fields.user_info ?? user,
  tools_config: notTooMany(fields.tools_config),
});

/** The envelope names the turn of a run; `data` names one only where an action is about another's turn. */
const runFields = (action: DomainAction): Fields => ({
  ...withRunNames(fieldsOf(action)),
  ...defined({ task_id: action.task_id }),
});

const chatFields = (action: DomainAction): Fields => {
  const fields = runFields(action);
  return { ...fields, input: action.data.message ?? fields.input };
};

/** An item runs in a session of its own unless it names one; its agent may stand once, for all. */
function batchFields(action: DomainAction): Fields {
  const { items, ...fields } = fieldsOf(action);
  if (!Array.isArray(items)) return { ...fields, items };
  // No list of what is too long anyway: a text in its place is refused just as well, by its field.
  if (items.length > MAX_BATCH_ITEMS) return { ...fields, items: `${items.length} items` };
  const agent = defined({ agent_id: action.agent_id });
  const read = items.map((item: unknown) =>
    isRecord(item) ? onlyOf(runSchema, withRunNames({ ...agent, ...withoutNulls(item) })) : item,
  );
  return { ...fields, items: read };
}

const push = (
  sessions: readonly SessionId[] | undefined,
  { message_type: type, message_data: data }: { message_type: string; message_data: Fields },
  { task_id: taskId }: DomainAction,
): Command => ({ type: 'push', sessions, frame: defined({ type, data, taskId }) });

// --- The table -------------------------------------------------------------------------------------------------

const RUN_REPLIES = ['execution.callback', 'execution.error'] as const;

const run = (summary: string): ActionType =>
  define({
    summary,
    data: runSchema,
    fields: runFields,
    command: (fields) => ({ type: 'run', fields }),
    replies: RUN_REPLIES,
  });

const cancel = define({
  summary: 'Cancels a turn.',
  data: taskSchema,
  command: ({ task_id }) => ({ type: 'cancel', taskId: task_id }),
  replies: RUN_REPLIES,
});

const callback: ActionType = {
  summary: 'A service’s reply on the tier’s queue.',
  data: undefined,
  command: () => ({ ok: true, command: { type: 'replied' } }),
  replies: [],
};

const TYPES = {
  'execution.agent_run': run('Runs an agent.'),
  'execution.execute': run('Another name of execution.agent_run.'),
  'execution.batch': define({
    summary: 'Runs every item; each is answered, then all of them together.',
    data: batchSchema,
    fields: batchFields,
    command: (fields) => ({ type: 'batch', ...fields }),
    replies: ['execution.callback', 'execution.batch_completed', 'execution.error'],
  }),
  'execution.cancel': cancel,
  'execution.cache.invalidate': define({
    summary: 'The node asks for the agent anew.',
    data: agentSchema,
    command: ({ agent_id }) => ({ type: 'invalidate', agentId: agent_id }),
  }),
  'execution.management.get_agent_config': define({
    summary: 'An agent’s configuration.',
    data: agentSchema,
    command: ({ agent_id }) => ({ type: 'agent-config', agentId: agent_id }),
    replies: ['execution.management.get_agent_config.response', 'execution.error'],
  }),
  'execution.conversation.get_history': define({
    summary: 'The messages of a session, newest last.',
    data: historySchema,
    command: ({ session_id, limit = DEFAULT_HISTORY }) => ({ type: 'history', sessionId: session_id, limit }),
    replies: ['execution.conversation.get_history.response', 'execution.error'],
  }),
  'execution.conversation.get_context': define({
    summary: 'A session with its messages.',
    data: historySchema,
    command: ({ session_id, limit = CONTEXT_HISTORY }) => ({ type: 'context', sessionId: session_id, limit }),
    replies: ['execution.conversation.get_context.response', 'execution.error'],
  }),
  'chat.process': define({
    summary: 'A turn that the session’s sockets see, too. Not answered on orchestrator:{tenant_id}:callback.',
    data: chatSchema,
    fields: chatFields,
    command: (fields) => ({ type: 'run', fields }),
    replies: RUN_REPLIES,
  }),
  'chat.status': define({
    summary: 'How a turn stands.',
    data: taskSchema,
    command: ({ task_id }) => ({ type: 'status', taskId: task_id }),
    replies: ['chat.status.response', 'execution.error'],
  }),
  'chat.cancel': cancel,
  'websocket.send': define({
    summary: 'A frame for the sockets of one session.',
    data: sendSchema,
    command: (fields, action) => push([fields.session_id], fields, action),
  }),
  'websocket.broadcast': define({
    summary: 'A frame for sockets of the tenant.',
    data: broadcastSchema,
    command: (fields, action) => push(fields.target_sessions, fields, action),
  }),
  'embedding.callback': callback,
  'query.callback': callback,
};

/** What the node takes off its work queues, by type. */
export const ACTION_TYPES: ReadonlyMap<string, ActionType> = new Map(Object.entries(TYPES));

/** Reads what an action asks for; refuses with INVALID_REQUEST what no node works on, and data that does not fit. */
export function readCommand(action: DomainAction): ReadCommand {
  const type = ACTION_TYPES.get(action.action_type);
  if (type) return type.command(action);
  const why = isReplyType(action.action_type)
    ? 'It is a reply, and nobody waits for replies here.'
    : `Known are: ${[...ACTION_TYPES.keys()].join(', ')}.`;
  const message = `The action_type ${action.action_type} is not worked on. ${why}`;
  return { ok: false, error: refusal('INVALID_REQUEST', { message }) };
}

/** Whether somebody may wait for an answer to actions of this type. */
export const expectsReply = (type: string): boolean => (ACTION_TYPES.get(type)?.replies.length ?? 0) > 0;
