/** The shapes of the execution routes (PROTOCOL 3): what they take, what they accept, and their names in the OpenAPI document. */
import { z } from '@hono/zod-openapi';
import {
  DEFAULT_BATCH_CONCURRENCY,
  executionParamsSchema,
  MAX_BATCH_CONCURRENCY,
  MAX_BATCH_ITEMS,
  toolsConfigSchema,
} from '../../src/domain/execution-params.ts';
import { sayFields } from '../../src/domain/frames.ts';
import { agentIdSchema, ID_PATTERN, sessionIdSchema, taskIdSchema } from '../../src/domain/ids.ts';
import { acceptedSchema, cancelledSchema } from '../../src/domain/turn-schemas.ts';

const MAX_URL = 2_048;

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
  tools_config: toolsConfigSchema.optional(),
  execution_params: executionParamsSchema.optional(),
  callback_url: z.string().min(1).max(MAX_URL).optional(),
};

type Ids = { readonly task_id?: string | undefined; readonly execution_id?: string | undefined };
const oneId = ({ task_id, execution_id }: Ids): boolean =>
  task_id === undefined || execution_id === undefined || task_id === execution_id;
const ONE_ID = { message: 'must be the task_id where both are given', path: ['execution_id'] };

const executionItemSchema = z.object(executionFields).refine(oneId, ONE_ID).openapi('ExecutionItem');
export type ExecutionItem = z.infer<typeof executionItemSchema>;

export const executionRequestSchema = z
  .object({ ...executionFields, wait: z.boolean().default(false) })
  .refine(oneId, ONE_ID)
  .openapi('ExecutionRequest');

/** Of the ids that clients chose, none stands twice. */
function distinct(items: readonly ExecutionItem[]): boolean {
  const ids = items.flatMap(({ task_id, execution_id }) => task_id ?? execution_id ?? []);
  return new Set(ids).size === ids.length;
}

export const batchRequestSchema = z
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
export const executionCancelledSchema = cancelledSchema
  .extend({ execution_id: taskIdSchema })
  .openapi('ExecutionCancelled');

export const batchAcceptedSchema = z
  .object({ batch_id: idPath, items: z.number().int().positive() })
  .openapi('ExecutionBatchAccepted');
