/** What the data of each action type must be (PROTOCOL 4), and what is asked for by it. */
import { z } from 'zod';
import { isReplyType } from './action-replies.ts';
import type { DomainAction } from './domain-action.ts';
import { type ErrorData, refusal } from './errors.ts';
import {
  DEFAULT_BATCH_CONCURRENCY,
  executionParamsSchema,
  MAX_BATCH_CONCURRENCY,
  MAX_BATCH_ITEMS,
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

const MAX_TARGETS = 1_000;
const MAX_HISTORY = 500;
const DEFAULT_HISTORY = 50;
const CONTEXT_HISTORY = 20;
/** Problems named in one refusal. */
const MAX_PROBLEMS = 5;

/** UTF-16 units, as JSON, of what a sender may attach: it is held for as long as its run waits. */
const MAX_ATTACHED_UNITS = 256 * 1024;

const recordSchema = z
  .record(z.string(), z.unknown())
  .refine((fields) => JSON.stringify(fields).length <= MAX_ATTACHED_UNITS, 'must have at most 256 KiB');

export const runSchema = z.object({
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
});
export type RunFields = z.infer<typeof runSchema>;

export const chatSchema = runSchema.extend({ stream: sayFields.stream, on_busy: sayFields.on_busy });

export const batchSchema = z.object({
  items: z.array(runSchema).min(1).max(MAX_BATCH_ITEMS).refine(distinct, 'must have ids of their own'),
  concurrency: z.number().int().min(1).max(MAX_BATCH_CONCURRENCY).default(DEFAULT_BATCH_CONCURRENCY),
});

function distinct(items: readonly RunFields[]): boolean {
  const ids = items.flatMap(({ task_id }) => task_id ?? []);
  return new Set(ids).size === ids.length;
}

export const taskSchema = z.object({ task_id: taskIdSchema });
export const agentSchema = z.object({ agent_id: agentIdSchema });
export const historySchema = z.object({
  session_id: sessionIdSchema,
  limit: z.number().int().min(1).max(MAX_HISTORY).optional(),
});

const frameFields = {
  message_type: z
    .string()
    .regex(/^[A-Za-z0-9._-]{1,64}$/, 'must be 1 to 64 characters out of A-Z a-z 0-9 . _ -'),
  message_data: recordSchema.default({}),
};
export const sendSchema = z.object({ ...frameFields, session_id: sessionIdSchema });
export const broadcastSchema = z.object({
  ...frameFields,
  target_sessions: z.array(sessionIdSchema).max(MAX_TARGETS).optional(),
});

interface AboutTask<T extends string> {
  readonly type: T;
  readonly taskId: TaskId;
}
interface AboutAgent<T extends string> {
  readonly type: T;
  readonly agentId: AgentId;
}
interface AboutSession<T extends string> {
  readonly type: T;
  readonly sessionId: SessionId;
  readonly limit: number;
}

/** What an action asks for. */
export type Command =
  | {
      readonly type: 'run';
      readonly fields: RunFields & Partial<Pick<z.infer<typeof chatSchema>, 'stream' | 'on_busy'>>;
    }
  | { readonly type: 'batch'; readonly items: readonly RunFields[]; readonly concurrency: number }
  | AboutTask<'cancel'>
  | AboutTask<'status'>
  | AboutAgent<'invalidate'>
  | AboutAgent<'agent-config'>
  | AboutSession<'history'>
  | AboutSession<'context'>
  | { readonly type: 'replied' }
  | {
      readonly type: 'push';
      /** Undefined: all of the tenant's. */
      readonly sessions: readonly SessionId[] | undefined;
      readonly frame: PushedFrame;
    };

export type ReadCommand =
  | { readonly ok: true; readonly order: Command }
  | { readonly ok: false; readonly error: ErrorData };

type Reader = (action: DomainAction) => ReadCommand;

/** Reads `fields` by a schema. Refuses with INVALID_REQUEST, naming the fields. */
function fitting<T>(schema: z.ZodType<T>, fields: unknown, order: (value: T) => Command): ReadCommand {
  const parsed = schema.safeParse(fields);
  if (parsed.success) return { ok: true, order: order(parsed.data) };
  const details = parsed.error.issues
    .slice(0, MAX_PROBLEMS)
    .map(({ path, message }) => ({ field: path.join('.'), message }));
  const text = details.map(({ field, message }) => (field === '' ? message : `${field}: ${message}`));
  const message = `The action's data is malformed: ${text.join('; ')}.`;
  return { ok: false, error: refusal('INVALID_REQUEST', { message, details }) };
}

type Fields = Record<string, unknown>;

const isRecord = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** A copy without nulls, which mean "absent" here too. */
const withoutNulls = (fields: Readonly<Fields>): Fields =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));

/** The data, with the ids of the envelope, which has gathered them from wherever they may stand. */
function fieldsOf({ data, task_id, agent_id, session_id }: DomainAction): Fields {
  const fields = withoutNulls(data);
  if (agent_id !== undefined) fields.agent_id = agent_id;
  if (session_id !== undefined) fields.session_id = session_id;
  if (task_id !== undefined) fields.task_id ??= task_id;
  return fields;
}

/** One run's fields under the names that we use. */
const runFields = (fields: Fields): Fields => ({
  ...fields,
  input: fields.input ?? fields.message,
  user_info: fields.user_info ?? fields.user,
  execution_params: isRecord(fields.execution_params)
    ? withoutNulls(fields.execution_params)
    : fields.execution_params,
});

/** The envelope names the turn; for whoever asks about another's, `data` does. */
const ofRun = (action: DomainAction): Fields => ({
  ...runFields(fieldsOf(action)),
  ...(action.task_id === undefined ? {} : { task_id: action.task_id }),
});

const run: Reader = (action) => fitting(runSchema, ofRun(action), (fields) => ({ type: 'run', fields }));

const chat: Reader = (action) => {
  const fields = ofRun(action);
  const message = action.data.message ?? fields.input;
  return fitting(chatSchema, { ...fields, input: message }, (value) => ({ type: 'run', fields: value }));
};

/** An item runs in a session of its own unless it names one; its agent may stand once, for all. */
const batch: Reader = (action) => {
  const { items, ...fields } = fieldsOf(action);
  const listed = Array.isArray(items) && items.length <= MAX_BATCH_ITEMS;
  const read = listed
    ? items.map((item) =>
        isRecord(item)
          ? runFields({ ...(action.agent_id ? { agent_id: action.agent_id } : {}), ...withoutNulls(item) })
          : item,
      )
    : Array.isArray(items)
      ? `${items.length} items`
      : items;
  return fitting(batchSchema, { ...fields, items: read }, (value) => ({ type: 'batch', ...value }));
};

const task =
  (type: 'cancel' | 'status'): Reader =>
  (action) =>
    fitting(taskSchema, fieldsOf(action), ({ task_id }) => ({ type, taskId: task_id }));

const agent =
  (type: 'invalidate' | 'agent-config'): Reader =>
  (action) =>
    fitting(agentSchema, fieldsOf(action), ({ agent_id }) => ({ type, agentId: agent_id }));

const conversation =
  (type: 'history' | 'context', most: number): Reader =>
  (action) =>
    fitting(historySchema, fieldsOf(action), ({ session_id, limit = most }) => ({
      type,
      sessionId: session_id,
      limit,
    }));

const frameOf = (
  { task_id: taskId }: DomainAction,
  fields: { readonly message_type: string; readonly message_data: Fields },
): PushedFrame => ({
  type: fields.message_type,
  data: fields.message_data,
  ...(taskId === undefined ? {} : { taskId }),
});

const send: Reader = (action) =>
  fitting(sendSchema, fieldsOf(action), (fields) => ({
    type: 'push',
    sessions: [fields.session_id],
    frame: frameOf(action, fields),
  }));

const broadcast: Reader = (action) =>
  fitting(broadcastSchema, fieldsOf(action), (fields) => ({
    type: 'push',
    sessions: fields.target_sessions,
    frame: frameOf(action, fields),
  }));

const replied: Reader = () => ({ ok: true, order: { type: 'replied' } });

const READERS: ReadonlyMap<string, Reader> = new Map([
  ['execution.agent_run', run],
  ['execution.execute', run],
  ['execution.batch', batch],
  ['execution.cancel', task('cancel')],
  ['execution.cache.invalidate', agent('invalidate')],
  ['execution.management.get_agent_config', agent('agent-config')],
  ['execution.conversation.get_history', conversation('history', DEFAULT_HISTORY)],
  ['execution.conversation.get_context', conversation('context', CONTEXT_HISTORY)],
  ['chat.process', chat],
  ['chat.status', task('status')],
  ['chat.cancel', task('cancel')],
  ['websocket.send', send],
  ['websocket.broadcast', broadcast],
  ['embedding.callback', replied],
  ['query.callback', replied],
]);

/** Reads what an action asks for; refuses with INVALID_REQUEST what nobody here does, and data that does not fit. */
export function readCommand(action: DomainAction): ReadCommand {
  const reader = READERS.get(action.action_type);
  if (reader) return reader(action);
  const why = isReplyType(action.action_type)
    ? 'It is a reply, and nobody waits for replies here.'
    : `Known are: ${[...READERS.keys()].join(', ')}.`;
  const message = `The action_type ${action.action_type} is not worked on. ${why}`;
  return { ok: false, error: refusal('INVALID_REQUEST', { message }) };
}

/** Whether somebody may wait for an answer to actions of this type. */
export const expectsReply = (type: string): boolean =>
  READERS.has(type) &&
  !type.startsWith('websocket.') &&
  !isReplyType(type) &&
  type !== 'execution.cache.invalidate';
