/**
 * A few worker threads behind a bounded queue, tenants in turn: each job has a deadline that ends its thread.
 * Not tinypool: its deadlines begin with the call, so that a job would pay for those before it and for the loading of
 * the thread; an aborted job leaves those that wait without a thread; a thread that exits leaves its job without an end.
 */
import { type ResourceLimits, Worker } from 'node:worker_threads';
import type { z } from 'zod';
import type { TenantId } from '../domain/ids.ts';

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
  /** Of several, one tenant has never all. */
  readonly threads: number;
  /** Jobs that may wait, of all tenants and of one. */
  readonly maxWaiting: number;
  readonly maxWaitingOfOne: number;
  /** What a reply must be. One that is not counts as a crash. */
  readonly reply: z.ZodType<R>;
  /** For the thread, as `workerData`. */
  readonly data?: unknown;
}

/** Rejections are WorkerPoolErrors. Threads start when there are jobs for them, and again after one that hung or crashed. */
export interface WorkerPool<J, R> {
  /** A job that is cancelled while it runs stays in its thread until it is done; its reply is dropped. */
  run(job: J, tenantId: TenantId, signal?: AbortSignal): Promise<R>;
  /** Ends the threads. Whoever waits is refused. */
  close(): Promise<void>;
}

/** What settles a promise from outside. */
interface Settle<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: unknown) => void;
}

type PendingJob<J, R> = Settle<R> & { readonly job: J };

/** A tenant's share of the pool. */
interface Share<J, R> {
  readonly waiting: PendingJob<J, R>[];
  running: number;
}

/** Makes a pool; nothing is started yet. */
export function createWorkerPool<J, R>(options: WorkerPoolOptions<R>): WorkerPool<J, R> {
  const { maxWaiting, maxWaitingOfOne } = options;
  const slots: { thread: Thread<J, R> | undefined; busy: boolean }[] = Array.from(
    { length: options.threads },
    () => ({ thread: undefined, busy: false }),
  );
  const mostOfOne = Math.max(1, options.threads - 1);
  /** Tenants with jobs, the one whose turn it is first. */
  const shares = new Map<TenantId, Share<J, R>>();
  let waiting = 0;
  let closed = false;

  /** The next job, and whose it is. */
  function taken(): { readonly pending: PendingJob<J, R>; readonly share: Share<J, R> } | undefined {
    for (const [tenantId, share] of shares) {
      const pending = share.running < mostOfOne ? share.waiting.shift() : undefined;
      if (!pending) continue;
      waiting -= 1;
      share.running += 1;
      shares.delete(tenantId);
      shares.set(tenantId, share);
      return { pending, share };
    }
    return undefined;
  }

  async function next(): Promise<void> {
    // A thread that has loaded is taken first.
    const slot = slots.find(({ thread, busy }) => !busy && thread) ?? slots.find(({ busy }) => !busy);
    const job = slot && taken();
    if (!job) return;
    slot.busy = true;
    try {
      slot.thread = slot.thread && !slot.thread.hasEnded() ? slot.thread : startThread(options);
      job.pending.resolve(await slot.thread.run(job.pending.job));
    } catch (error) {
      job.pending.reject(error);
    }
    slot.busy = false;
    job.share.running -= 1;
    next();
  }

  return {
    run(job, tenantId, signal) {
      if (signal?.aborted) return Promise.reject(new WorkerPoolError('cancelled'));
      if (closed) return Promise.reject(new WorkerPoolError('closed'));
      const share = shares.get(tenantId) ?? { waiting: [], running: 0 };
      if (waiting >= maxWaiting || share.waiting.length >= maxWaitingOfOne)
        return Promise.reject(new WorkerPoolError('busy'));
      shares.set(tenantId, share);
      let cancel = (): void => {};
      const reply = new Promise<R>((resolve, reject) => {
        const pending = { job, resolve, reject };
        cancel = () => {
          const place = share.waiting.indexOf(pending);
          if (place >= 0) {
            share.waiting.splice(place, 1);
            waiting -= 1;
          }
          reject(new WorkerPoolError('cancelled'));
        };
        share.waiting.push(pending);
        waiting += 1;
      });
      signal?.addEventListener('abort', cancel, { once: true });
      next();
      return reply.finally(() => {
        signal?.removeEventListener('abort', cancel);
        if (share.running === 0 && share.waiting.length === 0 && shares.get(tenantId) === share)
          shares.delete(tenantId);
      });
    },
    async close() {
      closed = true;
      for (const share of shares.values())
        for (const { reject } of share.waiting.splice(0)) reject(new WorkerPoolError('closed'));
      waiting = 0;
      await Promise.all(slots.map(({ thread }) => thread?.end('closed')));
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
