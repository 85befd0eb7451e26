/** Brings the results of executions to the addresses that their requests named, and takes up what other processes left. */
import { urlProblem } from '../../src/domain/public-url.ts';
import type { TurnRecord } from '../../src/domain/turn.ts';
import { executionBody } from '../../src/domain/turn-schemas.ts';
import type { CallbackStore, StoredCallback } from '../../src/ports/batches.ts';
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
  readonly store: CallbackStore;
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

/** So long a callback is its node's without a word; then whoever looks first has it. */
const TERM_MS = 15_000;
/** The same for one that waits for its attempt, beside the wait between two. */
const LEASE_MS = 60_000;
/** Between two looks for what was left, and how many one look takes. */
const LOOK_MS = 5_000;
const LOOK_COUNT = 100;

/** One attempt to come. */
interface CallbackJob {
  /** Of this attempt. */
  readonly id: string;
  readonly callback: StoredCallback;
  readonly body: string;
}

type CallbackKey = Omit<StoredCallback, 'attempts'>;

const keysOf = ({ id, callback: { tenantId } }: CallbackJob) => ({ id, receiver: tenantId, tenantId });
const placeOf = ({ tenantId, taskId, url }: CallbackKey) => ({
  id: JSON.stringify([tenantId, taskId, url]),
  tenantId,
});

export function createCallbacks(deps: CallbackDeps): Callbacks {
  const { store, clock, log, meter, allowInsecure, blockPrivate } = deps;
  const { timers = systemTimers, random = Math.random, resolve = systemResolve } = deps;
  const send = createSender({ resolve, blockPrivate, timeoutMs: ATTEMPT_TIMEOUT_MS });
  const places = createHeld(HELD);
  const closing = new AbortController();
  /** Those whose result is there, by their places. */
  const toSend = new Map<string, StoredCallback>();
  /** Callbacks that wait for another attempt. */
  let retrying = 0;
  const queue = createDeliveryQueue(QUEUE, keysOf, attempt);
  const left = createLeftReader({ ...deps, timers, take: takeLeft });
  let enqueued = 0;

  /** What is stored of a callback may lag behind what was done: it is done again, then. */
  const noted = (callback: CallbackKey, work: Promise<void>): Promise<void> =>
    work.catch((error: unknown) =>
      log.warn({ err: error, task_id: callback.taskId }, 'the state of a callback could not be stored'),
    );

  function enqueue(callback: StoredCallback, body: string): void {
    enqueued += 1;
    toSend.set(placeOf(callback).id, callback);
    queue.add({ id: String(enqueued), callback, body });
  }

  async function attempt({ callback, body }: CallbackJob, signal: AbortSignal): Promise<void> {
    const { taskId, tenantId, url } = callback;
    const attempts = callback.attempts + 1;
    const sent = await send({ url, id: taskId, atMs: clock.now(), body }, signal);
    if (signal.aborted) return;
    const verdict = judge(sent, attempts, CALLBACK_WAITS_MS, clock.now(), random());
    meter.deliveryAttempted('callback', verdict.type);
    logAttempt(log, verdict, { task_id: taskId, tenant_id: tenantId, attempts });
    if (verdict.type === 'retrying') return retryLater({ ...callback, attempts }, body, verdict.waitMs);
    toSend.delete(placeOf(callback).id);
    await noted(callback, store.remove(callback));
    places.release(placeOf(callback));
  }

  function retryLater(callback: StoredCallback, body: string, waitMs: number): Promise<void> {
    toSend.set(placeOf(callback).id, callback);
    retrying += 1;
    const storing = noted(callback, store.put(callback, waitMs + LEASE_MS));
    pause(timers, waitMs, closing.signal).then(() => {
      retrying -= 1;
      if (!closing.signal.aborted) enqueue(callback, body);
    });
    return storing;
  }

  /** Sends it first, in this node's name. */
  function begin(callback: StoredCallback, body: string): void {
    void noted(callback, store.put(callback, LEASE_MS));
    enqueue(callback, body);
  }

  /** One that this node has in hand, or has no room for, is left alone. */
  function takeLeft(callback: StoredCallback, turn: TurnRecord): void {
    if (!closing.signal.aborted && places.take(placeOf(callback)))
      begin(callback, JSON.stringify(executionBody(turn)));
  }

  async function close(): Promise<void> {
    closing.abort();
    await left.close();
    await queue.close();
    // Due at once for whoever comes next; the others when their terms end.
    const rest = [...toSend.values()].slice(0, HELD.heldPerTenant);
    if (rest.length > 0) log.info({ callbacks: toSend.size }, 'callbacks are left to the next node');
    await Promise.all(rest.map((callback) => noted(callback, store.put(callback, 0))));
  }

  return {
    problem: (url) => urlProblem(url, { allowInsecure, blockPrivate }),
    async reserve(callback) {
      const place = placeOf(callback);
      if (places.has(place.id)) return 'same';
      if (!places.take(place)) return 'full';
      try {
        await store.add(callback, TERM_MS);
      } catch (error) {
        places.release(place);
        throw error;
      }
      return createPlace({
        send: (body) => begin({ ...callback, attempts: 0 }, body),
        release() {
          places.release(place);
          void noted(callback, store.remove(callback));
        },
        leave: () => places.release(place),
      });
    },
    start: left.start,
    sending: () => places.size() - retrying,
    stats() {
      const { running, waiting } = queue.stats();
      return { running, waiting: waiting + retrying };
    },
    close,
  };
}

interface LeftReaderDeps extends Pick<CallbackDeps, 'store' | 'log'> {
  readonly timers: Timers;
  readonly take: (callback: StoredCallback, turn: TurnRecord) => void;
}

/** Looks for callbacks that nobody has in hand and whose turns have ended. */
function createLeftReader({ store, log, timers, take }: LeftReaderDeps) {
  let cancel = (): void => {};
  let looking: Promise<void> = Promise.resolve();
  let closed = false;
  let freed = false;

  async function look(): Promise<void> {
    let waitMs = LOOK_MS;
    try {
      if (!freed) await store.free();
      freed = true;
      const found = await store.claim(LOOK_COUNT, TERM_MS);
      for (const { callback, turn } of found) take(callback, turn);
      if (found.length === LOOK_COUNT) waitMs = 0;
    } catch (error) {
      if (!closed) log.warn({ err: error }, 'callbacks that were left could not be read');
    }
    again(waitMs);
  }

  function again(waitMs: number): void {
    if (closed) return;
    cancel = timers.after(waitMs, () => {
      looking = look();
    });
  }

  return {
    start: () => again(0),
    async close(): Promise<void> {
      closed = true;
      cancel();
      await looking;
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
function createPlace(ends: CallbackPlace): CallbackPlace {
  let over = false;
  const once = (end: () => void): void => {
    if (!over) end();
    over = true;
  };
  return {
    send: (body) => once(() => ends.send(body)),
    release: () => once(ends.release),
    leave: () => once(ends.leave),
  };
}
