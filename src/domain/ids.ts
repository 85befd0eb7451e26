/** The identifiers that cross a wire: one alphabet, branded, refused rather than cleaned up. */
import { z } from 'zod';

/** 1 to 128 characters out of `A-Z a-z 0-9 . _ : @ -` (PROTOCOL, head); `.` and `..` are no ids: no URL can name them. */
export const ID_PATTERN = /^(?!\.{1,2}$)[A-Za-z0-9._:@-]{1,128}$/;
export const ID_RULE = 'must be 1 to 128 characters out of A-Z a-z 0-9 . _ : @ -, and not . or ..';

const id = () => z.string().regex(ID_PATTERN, ID_RULE);

export const tenantIdSchema = id().brand<'TenantId'>();
export const sessionIdSchema = id().brand<'SessionId'>();
export const taskIdSchema = id().brand<'TaskId'>();
export const agentIdSchema = id().brand<'AgentId'>();

/** A user as a client names itself in open mode: an id like the others. */
export const claimedUserIdSchema = id().brand<'UserId'>();

/** Whoever issues tokens names their subjects: `auth0|5f7c`, an e-mail address, a distinguished name. */
export const userIdSchema = z
  .string()
  .min(1, 'must have 1 to 255 characters')
  .max(255, 'must have 1 to 255 characters')
  // What no database stores as it is, and no line of a log shows.
  .regex(/^[^\p{Cc}\p{Cs}]+$/u, 'must be text without control characters')
  .brand<'UserId'>();

export type TenantId = z.infer<typeof tenantIdSchema>;
export type SessionId = z.infer<typeof sessionIdSchema>;
export type TaskId = z.infer<typeof taskIdSchema>;
export type AgentId = z.infer<typeof agentIdSchema>;
export type UserId = z.infer<typeof userIdSchema>;

/** The agent that every tenant has without making one. */
export const DEFAULT_AGENT_ID: AgentId = agentIdSchema.parse('default');
