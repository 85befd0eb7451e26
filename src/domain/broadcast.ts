/** What one node tells all others that share its database: the form in which it crosses between them. */
import { z } from 'zod';
import { tenantNoticeSchema } from './agent-record.ts';
import { agentIdSchema, sessionIdSchema, tenantIdSchema } from './ids.ts';
import { tierSchema } from './tiers.ts';

/** A version of an agent that is stored; without a version: what is known of it may be out of date. */
export const agentNewsSchema = z.object({
  tenantId: tenantIdSchema,
  agentId: agentIdSchema,
  version: z.number().int().positive().optional(),
  /** The slug that it has now. */
  slug: z.string().optional(),
});
export type AgentNews = z.infer<typeof agentNewsSchema>;

export const broadcastItemSchema = z.discriminatedUnion('type', [
  /** `audience`: all that listen everywhere, or the sockets of the tenant alone. */
  z.object({
    type: z.literal('notice'),
    notice: tenantNoticeSchema,
    audience: z.enum(['listeners', 'clients']),
  }),
  /** For the clients of some of a tenant's sessions, or of all that live. */
  z.object({
    type: z.literal('push'),
    tenantId: tenantIdSchema,
    sessions: z.array(sessionIdSchema).optional(),
    frame: z.object({
      type: z.string(),
      data: z.record(z.string(), z.unknown()),
      taskId: z.string().optional(),
    }),
  }),
  z.object({ type: z.literal('agent'), news: agentNewsSchema }),
  z.object({ type: z.literal('tier'), tenantId: tenantIdSchema, tier: tierSchema }),
]);
export type BroadcastItem = z.infer<typeof broadcastItemSchema>;
