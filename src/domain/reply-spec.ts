/** The reply that a request asks for, as data: whatever node ends its turn can make it. */
import { z } from 'zod';
import { agentIdSchema, sessionIdSchema, tenantIdSchema, userIdSchema } from './ids.ts';
import { queueNameSchema } from './queues.ts';
import { tierSchema } from './tiers.ts';

export const replySpecSchema = z.object({
  /** Equal however often it is asked for: one turn brings one reply of an id. */
  id: z.string().min(1),
  /** The `action_id` under which it is stored as an answer; absent: under none. */
  answers: z.string().optional(),
  /** Where it is awaited; absent: nowhere, it is only stored. */
  queue: queueNameSchema.optional(),
  format: z.enum(['json', 'msgpack']),
  /** What ties it to its request. */
  request: z.object({
    tenant_id: tenantIdSchema,
    tenant_tier: tierSchema.optional(),
    session_id: sessionIdSchema.optional(),
    user_id: userIdSchema.optional(),
    agent_id: agentIdSchema.optional(),
    correlation_id: z.string().optional(),
    trace_id: z.string().optional(),
  }),
  conversationId: sessionIdSchema.optional(),
  /** Place in a batch. */
  index: z.number().int().nonnegative().optional(),
  /** It has what the model thought. */
  reasoning: z.boolean().optional(),
});
export type ReplySpec = z.infer<typeof replySpecSchema>;
