/** The lines of an exported tenant: newline-delimited JSON, one agent or one turn a line (format `nooble-export` 1). */
import { z } from 'zod';
import { type Agent, agentSchema } from '../domain/agent-record.ts';
import { roleSchema } from '../domain/frames.ts';
import { taskIdSchema, tenantIdSchema } from '../domain/ids.ts';
import { turnRecordSchema } from '../domain/turn.ts';

const atMs = z.number().int();

const messageSchema = z.object({
  role: roleSchema,
  content: z.string(),
  taskId: taskIdSchema,
  atMs,
  partial: z.literal(true).exactOptional(),
});

/** Whether they are versions of one agent, in their order. */
function areOfOne(versions: readonly Agent[]): boolean {
  return versions.every(({ id, version }, at) => {
    const before = versions[at - 1];
    return before === undefined || (before.id === id && before.version < version);
  });
}

export const archiveLineSchema = z.discriminatedUnion('type', [
  z.object({
    type: z.literal('nooble-export'),
    format: z.literal(1),
    tenant_id: tenantIdSchema,
    at: z.iso.datetime(),
  }),
  /** Every version, oldest first. The last one of a deleted agent has a `deleted_at`. */
  z.object({ type: z.literal('agent'), versions: z.array(agentSchema).min(1).refine(areOfOne) }),
  /** The turns of a session follow each other, in the order in which they were accepted. */
  z.object({
    type: z.literal('turn'),
    turn: turnRecordSchema,
    messages: z.array(messageSchema),
    unrun: z.literal(true).exactOptional(),
  }),
  /** The last line: without it the file is not whole. */
  z.object({ type: z.literal('end'), agents: z.number().int(), turns: z.number().int() }),
]);
export type ArchiveLine = z.infer<typeof archiveLineSchema>;
