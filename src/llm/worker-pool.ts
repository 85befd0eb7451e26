/** A line in front of one worker thread: jobs wait for it in order, each with a deadline that ends the thread. */
import { type ResourceLimits, Worker } from 'node:worker_threads';
import type { z } from 'zod';

/** Why a job has no result; `late` and `memory` are the job's own fault. */
export type WorkerPoolFault =
  | 'cancelled'
  | 'closed'
  | 'busy'
  | 'late'
  | 'memory'
  | 'crashed'
  | 'stopped'
  | 'start';

export class WorkerPoolError extends Error {
  readonly fault: WorkerPoolFault;
  constructor(fault: WorkerPoolFault) {
    super(`The worker gave no result: ${fault}.`);
    this.name = 'LineError';
    this.fault = fault;
  }
}

interface WorkerPoolOptions<R> {
  /** A module that posts `'ready'` when it has loaded, and then one reply for each job. */
  readonly url: URL;
  readonly limits: ResourceLimits;
  readonly deadlineMs: number;
  readonly startDeadlineMs: number;
  /** Jobs that may wait. */
  readonly maxWaiting: number;
  /** What a reply must be. One that is not counts as a crash. */
  readonly reply: z.ZodType<R>;
  /** For the thread, as `workerData`. */
  readonly data?: unknown;
}

/** Rejections are LineErrors. The thread starts with the first job, and again after one that hung or crashed it. */
interface WorkerPool<J, R> {
  /** One that is cancelled while it runs goes on in the thread until it is done; nobody hears of it. */
  run(job: J, signal?: AbortSignal): Promise<R>;
  /** Ends the thread. Whoever waits is refused. */
  close(): Promise<void>;
}

interface PendingJob<J, R> {
  readonly job: J;
  readonly resolve: (reply: R) => void;
  readonly reject: (error: Error) => void;
}

export function createWorkerPool<J, R>(options: WorkerPoolOptions<R>): WorkerPool<J, R> {
  const waiting: PendingJob<J, R>[] = [];
  let running: PendingJob<J, R> | undefined;
  let worker: Worker | undefined;
  let ready = false;
  let closed = false;
  let deadline: NodeJS.Timeout | undefined;

  /** Ends the running job and the worker under it; `next` starts another when there is need. */
  function fail(from: Worker, fault: WorkerPoolFault): void {
    if (from !== worker) return;
    const failed = running;
    clearTimeout(deadline);
    running = undefined;
    worker = undefined;
    ready = false;
    from.terminate().catch(() => {});
    failed?.reject(new WorkerPoolError(fault));
    next();
  }

  function start(): Worker {
    // Type stripping is Node's own, whatever loader the node itself runs under; no environment, so no keys.
    const started = new Worker(options.url, {
      resourceLimits: options.limits,
      execArgv: ['--disable-warning=ExperimentalWarning'],
      env: {},
      workerData: options.data,
    });
    started.on('message', (message: unknown) => heard(started, message));
    started.on('error', (error: NodeJS.ErrnoException) =>
      fail(started, error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? 'memory' : 'crashed'),
    );
    started.on('exit', () => fail(started, 'stopped'));
    deadline = setTimeout(() => fail(started, 'start'), options.startDeadlineMs);
    return started;
  }

  function heard(from: Worker, message: unknown): void {
    if (from !== worker) return;
    if (message === 'ready') {
      ready = true;
      return send(from);
    }
    const reply = options.reply.safeParse(message);
    if (!reply.success) return fail(from, 'crashed');
    clearTimeout(deadline);
    const done = running;
    running = undefined;
    done?.resolve(reply.data);
    next();
  }

  function send(to: Worker): void {
    if (!running) return;
    clearTimeout(deadline);
    deadline = setTimeout(() => fail(to, 'late'), options.deadlineMs);
    to.postMessage(running.job);
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

  return {
    run(job, signal) {
      if (signal?.aborted) return Promise.reject(new WorkerPoolError('cancelled'));
      if (closed) return Promise.reject(new WorkerPoolError('closed'));
      if (waiting.length >= options.maxWaiting) return Promise.reject(new WorkerPoolError('busy'));
      return new Promise((resolve, reject) => {
        const giveUp = (): void => {
          const place = waiting.indexOf(mine);
          if (place >= 0) waiting.splice(place, 1);
          reject(new WorkerPoolError('cancelled'));
        };
        const settled = (): void => signal?.removeEventListener('abort', giveUp);
        const mine: PendingJob<J, R> = {
          job,
          resolve: (reply) => {
            settled();
            resolve(reply);
          },
          reject: (error) => {
            settled();
            reject(error);
          },
        };
        signal?.addEventListener('abort', giveUp, { once: true });
        waiting.push(mine);
        next();
      });
    },
    async close() {
      closed = true;
      for (const one of waiting.splice(0)) one.reject(new WorkerPoolError('closed'));
      const ending = worker;
      worker = undefined;
      clearTimeout(deadline);
      running?.reject(new WorkerPoolError('closed'));
      running = undefined;
      await ending?.terminate();
    },
  };
}
