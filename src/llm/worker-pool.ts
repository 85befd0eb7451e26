/**
 * One worker thread behind a bounded queue: its jobs run in order, each with a deadline that ends the thread.
 * Not tinypool: its deadlines begin with the call, so that a job would pay for those before it and for the loading of
 * the thread; an aborted job leaves those that wait without a thread; a thread that exits leaves its job without an end.
 */
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
    this.name = 'WorkerPoolError';
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

/** Rejections are WorkerPoolErrors. The thread starts with the first job, and again after one that hung or crashed it. */
export interface WorkerPool<J, R> {
  /** A job that is cancelled while it runs stays in the thread until it is done; its reply is dropped. */
  run(job: J, signal?: AbortSignal): Promise<R>;
  /** Ends the thread. Whoever waits is refused. */
  close(): Promise<void>;
}

/** What settles a promise from outside. */
interface Settle<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
}

type PendingJob<J, R> = Settle<R> & { readonly job: J };

/** Makes a pool of one thread; nothing is started yet. */
export function createWorkerPool<J, R>(options: WorkerPoolOptions<R>): WorkerPool<J, R> {
  const waiting: PendingJob<J, R>[] = [];
  let thread: Thread<J, R> | undefined;
  let running = false;
  let closed = false;

  async function next(): Promise<void> {
    const pending = running ? undefined : waiting.shift();
    if (!pending) return;
    running = true;
    try {
      thread = thread && !thread.hasEnded() ? thread : startThread(options);
      pending.resolve(await thread.run(pending.job));
    } catch (error) {
      pending.reject(error);
    }
    running = false;
    next();
  }

  return {
    run(job, signal) {
      if (signal?.aborted) return Promise.reject(new WorkerPoolError('cancelled'));
      if (closed) return Promise.reject(new WorkerPoolError('closed'));
      if (waiting.length >= options.maxWaiting) return Promise.reject(new WorkerPoolError('busy'));
      let cancel = (): void => {};
      const reply = new Promise<R>((resolve, reject) => {
        const pending = { job, resolve, reject };
        cancel = () => {
          const place = waiting.indexOf(pending);
          if (place >= 0) waiting.splice(place, 1);
          reject(new WorkerPoolError('cancelled'));
        };
        waiting.push(pending);
      });
      signal?.addEventListener('abort', cancel, { once: true });
      next();
      return reply.finally(() => signal?.removeEventListener('abort', cancel));
    },
    async close() {
      closed = true;
      for (const { reject } of waiting.splice(0)) reject(new WorkerPoolError('closed'));
      await thread?.end('closed');
    },
  };
}

/** A started thread. It takes one job at a time; after any fault it has ended. */
interface Thread<J, R> {
  run(job: J): Promise<R>;
  /** Ends the thread; the job that runs rejects with `fault`. Never rejects itself. */
  end(fault: WorkerPoolFault): Promise<void>;
  hasEnded(): boolean;
}

function startThread<J, R>(options: WorkerPoolOptions<R>): Thread<J, R> {
  // Type stripping is Node's own, whatever loader the node itself runs under; no environment, so no keys.
  const worker = new Worker(options.url, {
    resourceLimits: options.limits,
    execArgv: ['--disable-warning=ExperimentalWarning'],
    env: {},
    workerData: options.data,
  });
  let ended: WorkerPoolFault | undefined;
  let loading: Settle<void> | undefined;
  let running: Settle<R> | undefined;

  function end(fault: WorkerPoolFault): Promise<void> {
    ended ??= fault;
    loading?.reject(new WorkerPoolError(fault));
    running?.reject(new WorkerPoolError(fault));
    return worker.terminate().then(
      () => {},
      () => {},
    );
  }

  const load = (settle: Settle<void>): void => {
    loading = settle;
  };
  const loaded = within(options.startDeadlineMs, () => end('start'), load);
  worker.on('message', (message: unknown) => {
    if (message === 'ready') return loading?.resolve();
    const reply = options.reply.safeParse(message);
    if (reply.success) running?.resolve(reply.data);
    else end('crashed');
  });
  worker.on('error', (error: NodeJS.ErrnoException) =>
    end(error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? 'memory' : 'crashed'),
  );
  worker.on('exit', () => end('stopped'));

  return {
    /** The worker holds the process open only while a job runs. */
    async run(job) {
      worker.ref();
      try {
        await loaded;
        if (ended) throw new WorkerPoolError(ended);
        const begin = (settle: Settle<R>): void => {
          running = settle;
          worker.postMessage(job);
        };
        return await within(options.deadlineMs, () => end('late'), begin);
      } finally {
        // Its end is waited for, too.
        if (!ended) worker.unref();
      }
    },
    end,
    hasEnded: () => ended !== undefined,
  };
}

/** A promise that is settled from outside; `late` is called where that has not happened in time. */
async function within<T>(ms: number, late: () => void, begin: (settle: Settle<T>) => void): Promise<T> {
  const deadline = setTimeout(late, ms);
  try {
    return await new Promise<T>((resolve, reject) => begin({ resolve, reject }));
  } finally {
    clearTimeout(deadline);
  }
}
