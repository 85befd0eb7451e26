/** What a bench asks of a cancelling process over IPC, and what it hears back. */
import { z } from 'zod';

/** From the bench; answered with `Cancelled`. */
export const cancelPlanSchema = z.object({
  port: z.number(),
  streams: z.number(),
  warmupMs: z.number(),
  durationMs: z.number(),
  /** Between two cancels. */
  gapMs: z.number(),
  prefix: z.string(),
});
export type CancelPlan = z.infer<typeof cancelPlanSchema>;

export const cancelledSchema = z.object({
  cancels: z.array(
    z.object({
      turn: z.string(),
      /** CLOCK_MONOTONIC, which all processes of a machine share. */
      atNs: z.string(),
      /** From the cancel to `chat.cancelled`; null for fetch, which has no such answer. */
      answeredMs: z.number().nullable(),
    }),
  ),
});
export type Cancelled = z.infer<typeof cancelledSchema>;
