/** Arithmetic for the model: one worker thread with a deadline, so that no expression can hold up the node. */
import { Worker } from 'node:worker_threads';
import { z } from 'zod';
import { defineTool, type Tool } from './tool.ts';

/** UTF-16 units of an expression. */
const MAX_EXPRESSION_UNITS = 1_000;
/** Expressions that may wait for the worker. */
const MAX_WAITING = 100;
const DEADLINE_MS = 1_000;
/** Loading mathjs takes half a second on a quiet machine. */
const START_DEADLINE_MS = 20_000;
const WORKER_LIMITS = { maxOldGenerationSizeMb: 96, maxYoungGenerationSizeMb: 16, stackSizeMb: 4 };

const replySchema = z.union([z.literal('ready'), z.object({ ok: z.boolean(), text: z.string() })]);
const schema = z.strictObject({
  expression: z
    .string()
    .min(1)
    .max(MAX_EXPRESSION_UNITS)
    .describe('One expression, e.g. "17 * 23", "sqrt(2) / 3", "5 cm to inch".'),
});

export interface Calculator {
  readonly tool: Tool;
  /** Ends the worker. Whoever waits is refused. */
  close(): Promise<void>;
}

interface Job {
  readonly expression: string;
  readonly resolve: (text: string) => void;
  readonly reject: (error: Error) => void;
}

/** `calculator {expression}`. The worker starts with the first call, and again after one that hung or crashed it. */
export function createCalculator(options: { readonly deadlineMs?: number } = {}): Calculator {
  const deadlineMs = options.deadlineMs ?? DEADLINE_MS;
  const waiting: Job[] = [];
  let running: Job | undefined;
  let worker: Worker | undefined;
  let ready = false;
  let closed = false;
  let deadline: NodeJS.Timeout | undefined;

  /** Ends the running job and the worker under it; `next` starts another when there is need. */
  function fail(from: Worker, reason: string): void {
    if (from !== worker) return;
    const job = running;
    clearTimeout(deadline);
    running = undefined;
    worker = undefined;
    ready = false;
    from.terminate().catch(() => {});
    job?.reject(new Error(reason));
    next();
  }

  function start(): Worker {
    // Type stripping is Node's own, whatever loader the node itself runs under; no environment, so no keys.
    const started = new Worker(new URL('./calculator-worker.ts', import.meta.url), {
      resourceLimits: WORKER_LIMITS,
      execArgv: ['--disable-warning=ExperimentalWarning'],
      env: {},
    });
    started.on('message', (message: unknown) => {
      if (started !== worker) return;
      const reply = replySchema.parse(message);
      if (reply === 'ready') {
        ready = true;
        send(started);
        return;
      }
      clearTimeout(deadline);
      const job = running;
      running = undefined;
      if (reply.ok) job?.resolve(reply.text);
      else job?.reject(new Error(reply.text));
      next();
    });
    started.on('error', (error: NodeJS.ErrnoException) =>
      fail(
        started,
        error.code === 'ERR_WORKER_OUT_OF_MEMORY'
          ? 'The expression needs too much memory.'
          : 'The calculator broke down.',
      ),
    );
    started.on('exit', () => fail(started, 'The calculator stopped.'));
    deadline = setTimeout(() => fail(started, 'The calculator does not start.'), START_DEADLINE_MS);
    return started;
  }

  function send(to: Worker): void {
    if (!running) return;
    clearTimeout(deadline);
    deadline = setTimeout(
      () => fail(to, `The expression takes longer than ${deadlineMs / 1000} s.`),
      deadlineMs,
    );
    to.postMessage(running.expression);
  }

  /** Takes the next job. The worker holds the process open only while one runs. */
  function next(): void {
    if (running) return;
    running = waiting.shift();
    if (!running) {
      worker?.unref();
      return;
    }
    worker ??= start();
    worker.ref();
    if (ready) send(worker);
  }

  function workOut(expression: string, signal: AbortSignal): Promise<string> {
    if (signal.aborted) return Promise.reject(new Error('Cancelled.'));
    if (closed) return Promise.reject(new Error('The calculator is closed.'));
    if (waiting.length >= MAX_WAITING)
      return Promise.reject(new Error('The calculator is busy; try again later.'));
    return new Promise((resolve, reject) => {
      const giveUp = (): void => {
        const place = waiting.indexOf(job);
        if (place >= 0) waiting.splice(place, 1);
        reject(new Error('Cancelled.'));
      };
      const settled = (): void => signal.removeEventListener('abort', giveUp);
      const job: Job = {
        expression,
        resolve: (text) => {
          settled();
          resolve(text);
        },
        reject: (error) => {
          settled();
          reject(error);
        },
      };
      signal.addEventListener('abort', giveUp, { once: true });
      waiting.push(job);
      next();
    });
  }

  return {
    tool: defineTool({
      name: 'calculator',
      description: 'Works out an arithmetic expression exactly: operators, functions, units, percentages.',
      schema,
      run: ({ expression }, { signal }) => workOut(expression, signal),
    }),
    async close() {
      closed = true;
      for (const job of waiting.splice(0)) job.reject(new Error('The calculator is closed.'));
      const ending = worker;
      worker = undefined;
      clearTimeout(deadline);
      running?.reject(new Error('The calculator is closed.'));
      running = undefined;
      await ending?.terminate();
    },
  };
}
