/** One turn from request to end: what is asked, what is kept of it, and the only converters between its forms. */
import { z } from 'zod';
import { type ErrorData, errorDataSchema } from './errors.ts';
import type { Overrides } from './execution-params.ts';
import { type EventData, executionInfoSchema, type OnBusy } from './frames.ts';
import {
  type AgentId,
  agentIdSchema,
  type SessionId,
  sessionIdSchema,
  type TaskId,
  type TenantId,
  taskIdSchema,
  tenantIdSchema,
  type UserId,
} from './ids.ts';
import type { Tier } from './tiers.ts';

export const turnStatusSchema = z.enum([
  'queued',
  'processing',
  'completed',
  'failed',
  'cancelled',
  'timeout',
]);

/** Where a turn stands, as every wire names it. */
export type TurnStatus = z.infer<typeof turnStatusSchema>;

/** A turn as it is stored. `content` is the answer, or the partial text of a cancelled turn. */
export const turnRecordSchema = z
  .object({
    taskId: taskIdSchema,
    tenantId: tenantIdSchema,
    sessionId: sessionIdSchema,
    agentId: agentIdSchema,
    /** Version of the agent that ran, once one did. */
    agentVersion: z.number().int().nonnegative().exactOptional(),
    status: turnStatusSchema,
    createdAtMs: z.number(),
    finishedAtMs: z.number().exactOptional(),
    content: z.string().exactOptional(),
    info: executionInfoSchema.exactOptional(),
    error: errorDataSchema.exactOptional(),
  })
  .readonly();
export type TurnRecord = z.infer<typeof turnRecordSchema>;

/** Who is asking, as the access check found out. `tier` is undefined where nothing but the tenant's record names it. */
export interface Caller {
  readonly tenantId: TenantId;
  readonly tier: Tier | undefined;
  readonly userId: UserId | undefined;
}

export interface TurnRequest {
  readonly caller: Caller;
  readonly sessionId: SessionId;
  readonly taskId: TaskId;
  /** True where the client chose `taskId`: only then can it be a resend. */
  readonly taskIdGiven: boolean;
  readonly agentId: AgentId | undefined;
  /** Pins a version of the agent; absent: the newest when the turn starts. */
  readonly agentVersion?: number | undefined;
  readonly message: string;
  readonly context: Readonly<Record<string, unknown>> | undefined;
  readonly stream: boolean;
  readonly onBusy: OnBusy;
  readonly requestId: string | undefined;
  readonly overrides?: Overrides;
  /**
   * A turn of this id that a stopped process left behind runs anew, where it may (Write `again`): the model is asked
   * only once the store has said so. A node that drains leaves such a turn behind too, when its time is up.
   */
  readonly resumable?: true;
  /** The session is for this turn alone: it begins without history, and leaves memory when the turn has ended. */
  readonly ephemeral?: true;
}

export type SayReply =
  | { readonly ok: true; readonly taskId: TaskId; readonly accepted: EventData['chat.accepted'] }
  | { readonly ok: false; readonly taskId: TaskId; readonly error: ErrorData };

export type CancelReply =
  | {
      readonly ok: true;
      readonly taskId: TaskId;
      readonly status: TurnStatus;
      readonly abortMs: number;
    }
  | { readonly ok: false; readonly taskId: TaskId; readonly error: ErrorData };
