/** Arithmetic for the model, in worker threads with a deadline, so that no expression can hold up the node. */
import { z } from 'zod';
import { createWorkerPool, WorkerPoolError, type WorkerPoolFault } from '../worker-pool.ts';
import { defineTool, type Tool, type ToolContext } from './tool.ts';

/** UTF-16 units of an expression. */
const MAX_EXPRESSION_UNITS = 1_000;
/** The second starts where one tenant's expressions keep another's waiting. */
const THREADS = 2;
/** Expressions that may wait for a thread, of all tenants and of one. */
const MAX_WAITING = 1_000;
const MAX_WAITING_OF_ONE = 100;
const DEADLINE_MS = 1_000;
/** Loading mathjs takes half a second on a quiet machine. */
const START_DEADLINE_MS = 20_000;
const WORKER_LIMITS = { maxOldGenerationSizeMb: 96, maxYoungGenerationSizeMb: 16, stackSizeMb: 4 };

const replySchema = z.object({ ok: z.boolean(), text: z.string() });
const schema = z.strictObject({
  expression: z
    .string()
    .min(1)
    .max(MAX_EXPRESSION_UNITS)
    .describe('One expression, e.g. "17 * 23", "sqrt(2) / 3", "5 cm to inch".'),
});

interface Calculator {
  readonly tool: Tool;
  /** Ends the threads. Whoever waits is refused. */
  close(): Promise<void>;
}

/** `calculator {expression}`. A thread starts with the first call, and again after one that hung or crashed it. */
export function createCalculator(options: { readonly deadlineMs?: number } = {}): Calculator {
  const deadlineMs = options.deadlineMs ?? DEADLINE_MS;
  const pool = createWorkerPool<string, z.infer<typeof replySchema>>({
    url: new URL('./calculator-worker.ts', import.meta.url),
    limits: WORKER_LIMITS,
    deadlineMs,
    startDeadlineMs: START_DEADLINE_MS,
    threads: THREADS,
    maxWaiting: MAX_WAITING,
    maxWaitingOfOne: MAX_WAITING_OF_ONE,
    reply: replySchema,
  });

  async function workOut(expression: string, { tenantId, signal }: ToolContext): Promise<string> {
    const reply = await pool.run(expression, tenantId, signal).catch((error: unknown) => {
      throw error instanceof WorkerPoolError ? new Error(textOf(error.fault, deadlineMs)) : error;
    });
    if (!reply.ok) throw new Error(reply.text);
    return reply.text;
  }

  return {
    tool: defineTool({
      name: 'calculator',
      description: 'Works out an arithmetic expression exactly: operators, functions, units, percentages.',
      schema,
      run: ({ expression }, context) => workOut(expression, context),
    }),
    close: () => pool.close(),
  };
}

/** What the model reads. */
function textOf(fault: WorkerPoolFault, deadlineMs: number): string {
  switch (fault) {
    case 'cancelled':
      return 'Cancelled.';
    case 'closed':
      return 'The calculator is closed.';
    case 'busy':
      return 'The calculator is busy; try again later.';
    case 'late':
      return `The expression takes longer than ${deadlineMs / 1000} s.`;
    case 'memory':
      return 'The expression needs too much memory.';
    case 'start':
      return 'The calculator does not start.';
    case 'crashed':
      return 'The calculator broke down.';
    case 'stopped':
      return 'The calculator stopped.';
  }
}
