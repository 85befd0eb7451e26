/** A turn request as it is stored: written by a node, and read by the one that takes its work over. */
import { z } from 'zod';
import { defined } from './defined.ts';
import { agentIdSchema, sessionIdSchema, taskIdSchema, tenantIdSchema, userIdSchema } from './ids.ts';
import { replySpecSchema } from './reply-spec.ts';
import { responseFormatSchema } from './response-format.ts';
import { tierSchema } from './tiers.ts';
import { held, type TurnRequest } from './turn.ts';

const flag = z.literal(true).optional();

const schema = z.object({
  caller: z.object({
    tenantId: tenantIdSchema,
    tier: tierSchema.optional(),
    userId: userIdSchema.optional(),
  }),
  sessionId: sessionIdSchema,
  taskId: taskIdSchema,
  taskIdGiven: z.boolean(),
  agentId: agentIdSchema.optional(),
  agentVersion: z.number().optional(),
  message: z.string(),
  contextText: z.string().optional(),
  stream: z.boolean(),
  onBusy: z.enum(['enqueue', 'reject', 'interrupt']),
  requestId: z.string().optional(),
  overrides: z
    .object({
      tools: z.record(z.string(), z.boolean()).exactOptional(),
      maxIterations: z.number().exactOptional(),
      maxTimeMs: z.number().exactOptional(),
    })
    .optional(),
  responseFormat: responseFormatSchema.optional(),
  images: z.array(z.string()).optional(),
  replies: z.array(replySpecSchema).optional(),
  resumable: flag,
  ephemeral: flag,
});

/** The request as JSON can hold it; its place among the turns of a node means nothing to others. */
export const storableRequest = (request: TurnRequest): object => ({
  ...held(request),
  context: undefined,
  arrival: undefined,
});

/** A stored request. Throws where that is none. */
export function readRequest(stored: unknown): TurnRequest {
  const { caller, agentId, requestId, ...rest } = schema.parse(stored);
  const { tenantId, tier, userId } = caller;
  return { ...defined(rest), caller: { tenantId, tier, userId }, agentId, requestId, context: undefined };
}
