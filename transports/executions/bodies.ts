/** How executions and their batches are told: the bodies of routes and callbacks, and their names in the OpenAPI document. */
import { z } from '@hono/zod-openapi';
import type { TurnRecord } from '../../src/domain/conversation.ts';
import { errorDataSchema } from '../../src/domain/errors.ts';
import { ID_PATTERN, sessionIdSchema, taskIdSchema } from '../../src/domain/ids.ts';
import { turnBody, turnSchema } from '../http/schemas.ts';

export const executionSchema = turnSchema.extend({ execution_id: taskIdSchema }).openapi('Execution');

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
    batch_id: z.string().regex(ID_PATTERN),
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
