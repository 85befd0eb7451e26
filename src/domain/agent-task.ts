/** Messages of the queue `agent-management.tasks.{tenant}` (PROTOCOL 5): work on agents for other services. */
import { z } from 'zod';
import { agentIdSchema, taskIdSchema, tenantIdSchema } from './ids.ts';

const AGENT_TASK_TYPES = ['agent_create', 'agent_update', 'agent_validate', 'agent_notify'] as const;

/** A whole number is the version that must be stored now; `1.0` and the like say nothing about ours. */
const version = z
  .union([z.number(), z.string()])
  .transform((value) => (/^[1-9]\d{0,8}$/.test(String(value)) ? Number(value) : undefined));

export const agentTaskSchema = z.object({
  task_id: taskIdSchema,
  global_task_id: z.string().max(128).nullish(),
  tenant_id: tenantIdSchema,
  created_at: z.string().optional(),
  status: z.enum(['pending', 'processing', 'completed', 'failed']).default('pending'),
  type: z.enum(AGENT_TASK_TYPES),
  priority: z.number().int().min(0).max(9).default(5),
  metadata: z
    .object({
      user_id: z.string().max(255).nullish(),
      source: z.enum(['api', 'orchestrator', 'system']).default('orchestrator'),
    })
    .default({ source: 'orchestrator' }),
  payload: z
    .object({
      agent_id: agentIdSchema.nullish(),
      agent_name: z.unknown().optional(),
      agent_type: z.unknown().optional(),
      version: version.nullish(),
      config: z.record(z.string(), z.unknown()).nullish(),
      tools: z.unknown().optional(),
    })
    .default({}),
});
export type AgentTask = z.infer<typeof agentTaskSchema>;
/** As it stands on the queue. */
export type AgentTaskMessage = z.input<typeof agentTaskSchema>;

/** The agent's fields that a task names, in any of its places; the rules look at them afterwards. */
export function taskFields({ agent_name, agent_type, tools, config }: AgentTask['payload']): object {
  const named = Object.entries({ name: agent_name, type: agent_type, tools }).filter(
    ([, value]) => value !== undefined && value !== null,
  );
  return { ...config, ...Object.fromEntries(named) };
}
