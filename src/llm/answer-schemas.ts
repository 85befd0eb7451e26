/** Schemas of answers, read and matched in worker threads with a deadline: both may take for ever. */
import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { z } from 'zod';
import type { TenantId } from '../domain/ids.ts';
import { jsonMisfit, misfitSchema } from '../domain/response-format.ts';
import type { AnswerSchemas, SchemaReading } from '../ports/answer-schemas.ts';
import { createWorkerPool, WorkerPoolError } from './worker-pool.ts';

/** The second starts where one tenant's schemas keep another's waiting. */
const THREADS = 2;
/** Jobs that may wait for a thread, of all tenants and of one. */
const MAX_WAITING = 2_000;
const MAX_WAITING_OF_ONE = 500;
/** A large schema compiles in a tenth of it on a quiet machine. */
const DEADLINE_MS = 2_000;
const START_DEADLINE_MS = 20_000;
const WORKER_LIMITS = { maxOldGenerationSizeMb: 128, maxYoungGenerationSizeMb: 16, stackSizeMb: 4 };
/** Schemas whose reading is remembered; what hung or burst a thread is not tried again. */
const MAX_READINGS = 5_000;

/** What a thread is asked: to read a schema (JSON text) and, where there is one, to match an answer. */
export interface SchemaJob {
  readonly schema: string;
  readonly answer?: string;
}

const replySchema = z.object({
  problem: z.string().exactOptional(),
  unchecked: z.array(z.string()),
  misfit: misfitSchema.exactOptional(),
});
export type SchemaReply = z.infer<typeof replySchema>;

const GOOD: SchemaReading = { unchecked: [] };

/** A thread starts with the first schema, and again after one that hung or crashed it. */
export function createAnswerSchemas(options: { readonly deadlineMs?: number } = {}): AnswerSchemas {
  const pool = createWorkerPool<SchemaJob, SchemaReply>({
    url: new URL('./answer-schemas-worker.ts', import.meta.url),
    limits: WORKER_LIMITS,
    deadlineMs: options.deadlineMs ?? DEADLINE_MS,
    startDeadlineMs: START_DEADLINE_MS,
    threads: THREADS,
    maxWaiting: MAX_WAITING,
    maxWaitingOfOne: MAX_WAITING_OF_ONE,
    reply: replySchema,
  });
  const readings = new LRUCache<string, SchemaReading>({ max: MAX_READINGS });

  async function readingOf(text: string, tenantId: TenantId): Promise<SchemaReading> {
    const key = createHash('sha256').update(text).digest('base64');
    const known = readings.get(key);
    if (known) return known;
    try {
      const { problem, unchecked } = await pool.run({ schema: text }, tenantId);
      const reading = problem === undefined ? { unchecked } : { problem, unchecked };
      readings.set(key, reading);
      return reading;
    } catch (error) {
      if (!isOwnFault(error)) return GOOD;
      const reading = { problem: 'takes too long, or too much memory, to be read', unchecked: [] };
      readings.set(key, reading);
      return reading;
    }
  }

  return {
    read: (schema, tenantId) => readingOf(JSON.stringify(schema), tenantId),
    async match(schema, answer, tenantId, signal) {
      const text = JSON.stringify(schema);
      if ((await readingOf(text, tenantId)).problem !== undefined) return jsonMisfit(answer);
      try {
        const { misfit } = await pool.run({ schema: text, answer }, tenantId, signal);
        return misfit;
      } catch {
        return { type: 'unchecked' };
      }
    },
    close: () => pool.close(),
  };
}

/** Faults of the schema, and not of the node. */
const isOwnFault = (error: unknown): boolean =>
  error instanceof WorkerPoolError && (error.fault === 'late' || error.fault === 'memory');
