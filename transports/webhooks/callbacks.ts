/** Brings the results of executions to the addresses that their requests named: from memory, for as long as this process lives. */
import type { TaskId, TenantId } from '../../src/domain/ids.ts';
import { urlProblem } from '../../src/domain/public-url.ts';
import type { CallbackPlace, Callbacks } from '../../src/ports/executions.ts';
import {
  type Clock,
  type DeliveryMeter,
  type Log,
  pause,
  systemTimers,
  type Timers,
} from '../../src/ports/telemetry.ts';
import type { Resolve } from './addresses.ts';
import { ATTEMPT_TIMEOUT_MS } from './dispatcher.ts';
import { systemResolve } from './names.ts';
import { createDeliveryQueue, createHeld } from './queue.ts';
import { judge, type RetryVerdict } from './retry.ts';
import { createSender } from './send.ts';

const SECOND = 1_000;
/** Upper bounds of the waits between the five attempts. */
const CALLBACK_WAITS_MS: readonly number[] = [SECOND, 5 * SECOND, 30 * SECOND, 120 * SECOND];

/** Places, each taken from the request until its callback is over. */
const HELD = { heldPerTenant: 500, held: 5_000 };

/** A tenant's callbacks are one queue; how many wait is bounded by their places. */
const QUEUE = {
  runningPerReceiver: 8,
  runningPerTenant: 8,
  running: 64,
  heldPerReceiver: Number.POSITIVE_INFINITY,
  heldPerTenant: Number.POSITIVE_INFINITY,
  held: Number.POSITIVE_INFINITY,
};

export interface CallbackDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly meter: DeliveryMeter;
  /** Takes http: URLs too. */
  readonly allowInsecure: boolean;
  /** False lets callbacks reach this machine and its network. */
  readonly blockPrivate: boolean;
  readonly resolve?: Resolve;
  readonly timers?: Timers;
  /** From 0 to 1, for the jitter of retries. */
  readonly random?: () => number;
}

/** One attempt to come. */
interface CallbackJob {
  readonly id: string;
  readonly placeId: string;
  readonly tenantId: TenantId;
  readonly taskId: TaskId;
  readonly url: string;
  readonly body: string;
  readonly attempts: number;
}

const keysOf = ({ id, tenantId }: CallbackJob) => ({ id, receiver: tenantId, tenantId });

export function createCallbacks(deps: CallbackDeps): Callbacks {
  const { clock, log, meter, allowInsecure, blockPrivate } = deps;
  const { timers = systemTimers, random = Math.random, resolve = systemResolve } = deps;
  const send = createSender({ resolve, blockPrivate, timeoutMs: ATTEMPT_TIMEOUT_MS });
  const places = createHeld(HELD);
  const closing = new AbortController();
  /** Callbacks that wait for another attempt. */
  let retrying = 0;
  const queue = createDeliveryQueue(QUEUE, keysOf, attempt);
  let enqueued = 0;

  function enqueue(job: Omit<CallbackJob, 'id'>): void {
    enqueued += 1;
    queue.add({ ...job, id: String(enqueued) });
  }

  async function attempt(job: CallbackJob, signal: AbortSignal): Promise<void> {
    const { placeId, taskId, tenantId, url, body } = job;
    const attempts = job.attempts + 1;
    const sent = await send({ url, id: taskId, atMs: clock.now(), body }, signal);
    if (signal.aborted) return;
    const verdict = judge(sent, attempts, CALLBACK_WAITS_MS, clock.now(), random());
    meter.deliveryAttempted('callback', verdict.type);
    logAttempt(log, verdict, { task_id: taskId, tenant_id: tenantId, attempts });
    if (verdict.type === 'retrying') retryLater({ ...job, attempts }, verdict.waitMs);
    else places.release({ id: placeId, tenantId });
  }

  function retryLater(job: CallbackJob, waitMs: number): void {
    retrying += 1;
    pause(timers, waitMs, closing.signal).then(() => {
      retrying -= 1;
      enqueue(job);
    });
  }

  return {
    problem: (url) => urlProblem(url, { allowInsecure, blockPrivate }),
    reserve(tenantId, taskId, url) {
      const id = JSON.stringify([tenantId, taskId, url]);
      if (places.has(id)) return 'same';
      if (!places.take({ id, tenantId })) return 'full';
      return createPlace(
        (body) => enqueue({ placeId: id, tenantId, taskId, url, body, attempts: 0 }),
        () => places.release({ id, tenantId }),
      );
    },
    sending: () => places.size() - retrying,
    stats() {
      const { running, waiting } = queue.stats();
      return { running, waiting: waiting + retrying };
    },
    async close() {
      closing.abort();
      if (places.size() > 0)
        log.warn({ callbacks: places.size() }, 'callbacks were given up: the node closes');
      await queue.close();
    },
  };
}

function logAttempt(log: Log, verdict: RetryVerdict, fields: object): void {
  if (verdict.type === 'delivered') return log.debug(fields, 'a callback was delivered');
  const failed = { ...fields, last_error: verdict.reason };
  if (verdict.type === 'retrying') log.debug(failed, 'a callback will be tried again');
  else log.warn(failed, 'a callback was given up');
}

/** A place that ends with the first call. */
function createPlace(send: (body: string) => void, release: () => void): CallbackPlace {
  let over = false;
  const once = (end: () => void): void => {
    if (!over) end();
    over = true;
  };
  return { send: (body) => once(() => send(body)), release: () => once(release) };
}
