/** What a bench tells an asking process over IPC, and what it hears back. */
import { z } from 'zod';

export const commandSchema = z.discriminatedUnion('do', [
  /** One request: what its reply says. */
  z.object({ do: z.literal('ask') }),
  /** A closed loop with so many in flight; figures are taken after the warm-up. */
  z.object({
    do: z.literal('run'),
    inFlight: z.number(),
    warmupMs: z.number(),
    durationMs: z.number(),
    /** Whose CPU time is read at the window's ends. */
    answererPid: z.number(),
    redisPid: z.number(),
  }),
]);
export type Command = z.infer<typeof commandSchema>;
export type RunCommand = Extract<Command, { do: 'run' }>;

export const askedSchema = z.object({ answer: z.string() });

export const ranSchema = z.object({
  /** Answered in the window. */
  count: z.number(),
  errors: z.number(),
  lastError: z.string().optional(),
  /** Still without an answer long after the window. */
  unanswered: z.number(),
  elapsedMs: z.number(),
  p50Ms: z.number().nullable(),
  p99Ms: z.number().nullable(),
  askerCpuUs: z.number(),
  /** NaN, which JSON has not, where there is no /proc. */
  answererCpuUs: z.number().nullable(),
  redisCpuUs: z.number().nullable(),
});
export type Ran = z.infer<typeof ranSchema>;
