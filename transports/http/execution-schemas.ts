/** The shapes of the execution routes (PROTOCOL 3): what they take, what they answer, and their names in the OpenAPI document. */
import { z } from '@hono/zod-openapi';
import type { TurnRecord } from '../../src/domain/conversation.ts';
import { errorDataSchema } from '../../src/domain/errors.ts';
import { sayFields } from '../../src/domain/frames.ts';
import { agentIdSchema, ID_PATTERN, sessionIdSchema, taskIdSchema } from '../../src/domain/ids.ts';
import type { Overrides } from '../../src/ports.ts';
import { acceptedSchema, cancelledSchema, turnBody, turnSchema } from './schemas.ts';

const MAX_NAMED_TOOLS = 64;
const MAX_TOOL_NAME = 128;
const MAX_URL = 2_048;
export const MAX_BATCH_ITEMS = 100;
export const MAX_BATCH_CONCURRENCY = 20;
export const DEFAULT_BATCH_CONCURRENCY = 5;

const toolsConfigSchema = z
  .record(z.string().min(1).max(MAX_TOOL_NAME), z.boolean())
  .refine(
    (tools) => Object.keys(tools).length <= MAX_NAMED_TOOLS,
    `must name at most ${MAX_NAMED_TOOLS} tools`,
  );

const executionFields = {
  agent_id: agentIdSchema,
  /** Pins a version of the agent. */
  agent_version: sayFields.agent_version,
  input: sayFields.message,
  /** Runs in this conversation, after what runs there; absent: in a session of its own. */
  session_id: sessionIdSchema.optional(),
  /** The client's choice makes a repeated request idempotent; `execution_id` is another name for it. */
  task_id: taskIdSchema.optional(),
  execution_id: taskIdSchema.optional(),
  context: sayFields.context,
  /** `false` takes one of the agent's tools away for this run; `true` leaves it, and adds none. */
  tools_config: toolsConfigSchema.optional(),
  /** Lower limits than the tier's for this run; `max_execution_time` in seconds. */
  execution_params: z
    .object({
      max_iterations: z.number().int().positive().optional(),
      max_execution_time: z.number().positive().optional(),
    })
    .optional(),
  callback_url: z.string().min(1).max(MAX_URL).optional(),
};

type Ids = { readonly task_id?: string | undefined; readonly execution_id?: string | undefined };
const oneId = ({ task_id, execution_id }: Ids): boolean =>
  task_id === undefined || execution_id === undefined || task_id === execution_id;
const ONE_ID = { message: 'must be the task_id where both are given', path: ['execution_id'] };

export const executionItemSchema = z.object(executionFields).refine(oneId, ONE_ID).openapi('ExecutionItem');
export type ExecutionItem = z.infer<typeof executionItemSchema>;

export const executionOrderSchema = z
  .object({ ...executionFields, wait: z.boolean().default(false) })
  .refine(oneId, ONE_ID)
  .openapi('ExecutionRequest');

/** Of the ids that clients chose, none stands twice. */
function distinct(items: readonly ExecutionItem[]): boolean {
  const ids = items.flatMap(({ task_id, execution_id }) => task_id ?? execution_id ?? []);
  return new Set(ids).size === ids.length;
}

export const batchOrderSchema = z
  .object({
    items: z
      .array(executionItemSchema)
      .min(1)
      .max(MAX_BATCH_ITEMS)
      .refine(distinct, 'must have ids of their own'),
    concurrency: z.number().int().min(1).max(MAX_BATCH_CONCURRENCY).default(DEFAULT_BATCH_CONCURRENCY),
  })
  .openapi('ExecutionBatchRequest');

const idPath = z.string().regex(ID_PATTERN);
export const executionPathSchema = z.object({ execution_id: taskIdSchema });
export const batchPathSchema = z.object({ batch_id: idPath });

export const executionAcceptedSchema = acceptedSchema
  .extend({ execution_id: taskIdSchema })
  .openapi('ExecutionAccepted');
export const executionSchema = turnSchema.extend({ execution_id: taskIdSchema }).openapi('Execution');
export const executionCancelledSchema = cancelledSchema
  .extend({ execution_id: taskIdSchema })
  .openapi('ExecutionCancelled');

export const batchAcceptedSchema = z
  .object({ batch_id: idPath, items: z.number().int().positive() })
  .openapi('ExecutionBatchAccepted');

const count = z.number().int().nonnegative();
export const batchItemSchema = z.object({
  execution_id: taskIdSchema,
  session_id: sessionIdSchema,
  status: turnSchema.shape.status,
  result: turnSchema.shape.result,
  error: errorDataSchema.optional(),
});
export type BatchItem = z.infer<typeof batchItemSchema>;

export const batchSchema = z
  .object({
    batch_id: idPath,
    status: z.enum(['processing', 'completed']),
    total: count,
    completed: count,
    /** Failed, timed out or cancelled. */
    failed: count,
    items: z.array(batchItemSchema),
  })
  .openapi('ExecutionBatch');
export type BatchBody = z.infer<typeof batchSchema>;

/** An execution as the routes and callbacks tell it: its turn, and its id under both names. */
export function executionBody(turn: TurnRecord): z.infer<typeof executionSchema> {
  return { execution_id: turn.taskId, ...turnBody(turn) };
}

/** What a request asks of its own run, or undefined. */
export function overridesOf({ tools_config, execution_params }: ExecutionItem): Overrides | undefined {
  const { max_iterations, max_execution_time } = execution_params ?? {};
  const overrides: Overrides = {
    ...(tools_config === undefined ? {} : { tools: tools_config }),
    ...(max_iterations === undefined ? {} : { maxIterations: max_iterations }),
    ...(max_execution_time === undefined ? {} : { maxTimeMs: Math.ceil(max_execution_time * 1000) }),
  };
  return Object.keys(overrides).length === 0 ? undefined : overrides;
}
