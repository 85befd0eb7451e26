/** Brings the results of executions to the addresses that their requests named: from memory, for as long as this process lives. */
import type { TaskId, TenantId } from '../../src/domain/ids.ts';
import type { Callbacks } from '../../src/ports/executions.ts';
import { type Clock, type Log, systemTimers, type Timers } from '../../src/ports/telemetry.ts';
import { type Resolve, systemResolve, urlProblem } from './addresses.ts';
import { DISPATCH_TIMING } from './dispatcher.ts';
import { judge } from './retry.ts';
import { createSender } from './send.ts';

const SECOND = 1_000;
/** Upper bounds of the waits between the five attempts. */
export const CALLBACK_WAITS_MS: readonly number[] = [SECOND, 5 * SECOND, 30 * SECOND, 120 * SECOND];

export interface CallbackBounds {
  /** Places taken, from the request until the callback is over. */
  readonly heldPerTenant: number;
  readonly held: number;
  /** Attempts that run at once. */
  readonly runningPerTenant: number;
  readonly running: number;
}

export const CALLBACK_BOUNDS: CallbackBounds = {
  heldPerTenant: 500,
  held: 5_000,
  runningPerTenant: 8,
  running: 64,
};

export interface CallbackDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Takes http: URLs too. */
  readonly allowInsecure: boolean;
  /** False lets callbacks reach this machine and its network. */
  readonly blockPrivate: boolean;
  readonly resolve?: Resolve;
  readonly timers?: Timers;
  /** From 0 to 1, for the jitter of retries. */
  readonly random?: () => number;
  readonly bounds?: Partial<CallbackBounds>;
}

interface CallbackJob {
  readonly key: string;
  readonly tenantId: TenantId;
  readonly taskId: TaskId;
  readonly url: string;
  readonly body: string;
  readonly attempts: number;
}

export function createCallbacks(deps: CallbackDeps): Callbacks {
  const { clock, log, allowInsecure, blockPrivate } = deps;
  const { timers = systemTimers, random = Math.random } = deps;
  const bounds = { ...CALLBACK_BOUNDS, ...deps.bounds };
  const send = createSender({
    resolve: deps.resolve ?? systemResolve,
    blockPrivate,
    timeoutMs: DISPATCH_TIMING.timeoutMs,
  });
  const held = new Map<string, TenantId>();
  const heldBy = createCounter<TenantId>();
  const runningBy = createCounter<TenantId>();
  const waiting: CallbackJob[] = [];
  const retries = new Set<() => void>();
  const running = new Set<Promise<void>>();
  const aborter = new AbortController();

  function release(key: string): void {
    const tenantId = held.get(key);
    if (tenantId !== undefined && held.delete(key)) heldBy.add(tenantId, -1);
  }

  function place(job: CallbackJob): void {
    if (aborter.signal.aborted) return;
    waiting.push(job);
    next();
  }

  /** Starts what may run, in order; a tenant that has its share running is passed over. */
  function next(): void {
    while (running.size < bounds.running && !aborter.signal.aborted) {
      const at = waiting.findIndex(({ tenantId }) => runningBy.of(tenantId) < bounds.runningPerTenant);
      const [job] = at < 0 ? [] : waiting.splice(at, 1);
      if (!job) return;
      runningBy.add(job.tenantId, 1);
      const work = attempt(job).finally(() => {
        running.delete(work);
        runningBy.add(job.tenantId, -1);
        next();
      });
      running.add(work);
    }
  }

  async function attempt(job: CallbackJob): Promise<void> {
    const { key, taskId, url, body } = job;
    const attempts = job.attempts + 1;
    const sent = await send({ url, id: taskId, atMs: clock.now(), body }, aborter.signal);
    if (aborter.signal.aborted) return;
    const verdict = judge(sent, attempts, CALLBACK_WAITS_MS, clock.now(), random());
    const fields = { task_id: taskId, tenant_id: job.tenantId, attempts };
    if (verdict.type === 'retry') {
      const cancel = timers.after(verdict.waitMs, () => {
        retries.delete(cancel);
        place({ ...job, attempts });
      });
      retries.add(cancel);
      log.debug({ ...fields, last_error: verdict.reason }, 'a callback will be tried again');
      return;
    }
    release(key);
    if (verdict.type === 'dead')
      log.warn({ ...fields, last_error: verdict.reason }, 'a callback was given up');
    else log.debug(fields, 'a callback was delivered');
  }

  return {
    problem: (url) => urlProblem(url, { allowInsecure, blockPrivate }),
    reserve(tenantId, taskId, url) {
      const key = JSON.stringify([tenantId, taskId, url]);
      if (held.has(key)) return 'same';
      if (held.size >= bounds.held || heldBy.of(tenantId) >= bounds.heldPerTenant) return 'full';
      held.set(key, tenantId);
      heldBy.add(tenantId, 1);
      let over = false;
      const once = (then: () => void) => (): void => {
        if (!over) then();
        over = true;
      };
      return {
        send: (body) => once(() => place({ key, tenantId, taskId, url, body, attempts: 0 }))(),
        release: () => once(() => release(key))(),
      };
    },
    sending: () => held.size - retries.size,
    async close() {
      aborter.abort();
      for (const cancel of retries) cancel();
      if (held.size > 0) log.warn({ callbacks: held.size }, 'callbacks were given up: the node closes');
      retries.clear();
      held.clear();
      waiting.length = 0;
      await Promise.all(running);
    },
  };
}

/** Counts that forget what is back at zero. */
function createCounter<K>() {
  const counts = new Map<K, number>();
  const of = (key: K): number => counts.get(key) ?? 0;
  return {
    of,
    add(key: K, by: number): void {
      const count = of(key) + by;
      if (count > 0) counts.set(key, count);
      else counts.delete(key);
    },
  };
}
