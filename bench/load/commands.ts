/** What a bench tells its load process over IPC, and what it hears back. */
import { z } from 'zod';
import { DIALECTS } from './session.ts';

export const commandSchema = z.discriminatedUnion('do', [
  /** Opens sessions `/ws/{tenant}/{prefix}{i}{query}`, and keeps them. */
  z.object({
    do: z.literal('open'),
    port: z.number(),
    dialect: z.enum(DIALECTS),
    tenant: z.string(),
    prefix: z.string(),
    query: z.string(),
    count: z.number(),
  }),
  /** One turn on a session of its own, parsed in full: what it was made of. */
  z.object({ do: z.literal('verify') }),
  /** Closed loop on all open sessions; figures are taken after the warm-up. */
  z.object({
    do: z.literal('run'),
    warmupMs: z.number(),
    durationMs: z.number(),
    /** Between a turn's end and the session's next one. */
    pauseMs: z.number(),
    /** The same after an error. */
    errorPauseMs: z.number(),
    /** Sessions send their first turn one after another over this long, so that they do not march in step. */
    spreadMs: z.number(),
    /** Turns a session has sent at once; the server queues them. */
    depth: z.number(),
    /** Whose CPU time is read at the window's ends. */
    serverPid: z.number(),
  }),
  /** So many turns on each open session, at most `concurrency` at once. */
  z.object({ do: z.literal('turns'), each: z.number(), concurrency: z.number() }),
  /** Connects to sessions `/ws/{tenant}/{prefix}{i}`, one after another; the first `warm` of them are not counted. */
  z.object({
    do: z.literal('activate'),
    port: z.number(),
    tenant: z.string(),
    prefix: z.string(),
    count: z.number(),
    warm: z.number(),
    /** What each session's snapshot must hold. */
    messages: z.number(),
  }),
  /** Gives an agent one new version after another, while a session has turns with it without a pause. */
  z.object({
    do: z.literal('update'),
    port: z.number(),
    tenant: z.string(),
    session: z.string(),
    agentId: z.string(),
    count: z.number(),
    warm: z.number(),
  }),
  z.object({ do: z.literal('close') }),
]);
export type Command = z.infer<typeof commandSchema>;
export type CommandOf<D extends Command['do']> = Extract<Command, { do: D }>;

const quantilesSchema = z.object({
  count: z.number(),
  mean: z.number().nullable(),
  p50: z.number().nullable(),
  p90: z.number().nullable(),
  p99: z.number().nullable(),
  max: z.number().nullable(),
});

export const reportSchemas = {
  open: z.object({ opened: z.number() }),
  verify: z.object({ frames: z.number(), deltas: z.number(), bytes: z.number(), content: z.string() }),
  run: z.object({
    turns: z.number(),
    errors: z.number(),
    /** The last error frame, if any. */
    lastError: z.string().optional(),
    /** Sockets that closed while they were in use. */
    lost: z.number(),
    elapsedMs: z.number(),
    serverCpuUs: z.number().nullable(),
    /** CPU time of the load process over wall time: near 1 it is the bottleneck. */
    loadShare: z.number(),
    /** Empty where a server sends no `chat.accepted`. */
    acceptedMs: quantilesSchema,
    ttftMs: quantilesSchema,
    turnMs: quantilesSchema,
    /** Of an endpoint that stamps its tokens, and empty otherwise: from its write of a token to the frame. */
    tokenMs: quantilesSchema,
    /** The same endpoint's: time to the first token less what the endpoint itself took for it. */
    addedMs: quantilesSchema,
  }),
  turns: z.object({ turns: z.number(), errors: z.number(), lastError: z.string().optional() }),
  activate: z.object({
    /** From the connect: TCP, the upgrade, `session.ready`; and the snapshot behind it. */
    readyMs: quantilesSchema,
    snapshotMs: quantilesSchema,
    snapshotBytes: z.number(),
  }),
  update: z.object({
    /** From the written PATCH: its answer; and the first `execution.started` with the new version. */
    answeredMs: quantilesSchema,
    inForceMs: quantilesSchema,
    turns: z.number(),
    /** Turns that ran an older version although they were sent after the answer. */
    stale: z.number(),
  }),
  close: z.object({ closed: z.number() }),
} as const;

export type Reports = { [D in Command['do']]: z.infer<(typeof reportSchemas)[D]> };
export type RunReport = Reports['run'];
