/** Executions as turns of their sessions: started at once or with retry, awaited to their end, their results called back. */
import { defined } from '../../src/domain/defined.ts';
import { type ErrorData, RefusalError, type Reply, refusal } from '../../src/domain/errors.ts';
import type { TurnRecord, TurnRequest } from '../../src/domain/turn.ts';
import { executionBody } from '../../src/domain/turn-schemas.ts';
import type {
  CallbackPlace,
  Callbacks,
  Executions,
  RunOptions,
  StartedRun,
  StartReply,
} from '../../src/ports/executions.ts';
import type { Directory } from '../../src/ports/sessions.ts';
import { type Clock, type Log, pause, systemTimers, type Timers } from '../../src/ports/telemetry.ts';
import type { TurnObserver } from '../../src/ports/turn-observer.ts';
import { endRecord } from './turn-observer.ts';

/** After this long a tenant with too many callbacks may try again. */
const FULL_RETRY_MS = 5_000;

export interface RunDeps {
  readonly directory: Directory;
  readonly observer: TurnObserver;
  readonly callbacks: Callbacks;
  readonly clock: Clock;
  readonly log: Log;
}

export function createStart({ directory, observer, callbacks, clock, log }: RunDeps): Executions['start'] {
  async function run(request: TurnRequest, options: RunOptions): Promise<StartReply> {
    const { awaitEnd, onStarted } = options;
    if (awaitEnd === 'none') return runUnobserved(directory, request);
    const beganAtMs = clock.now();
    const observed = await observer.say(request, () => ({
      // Wants no deltas, so it hastens none for others.
      deltaWindowMs: Number.POSITIVE_INFINITY,
      onFrame: ({ type }) => type === 'execution.started' && onStarted?.(),
    }));
    if (!observed.ok) return observed;
    const { taskId } = request;
    const { sessionId, accepted, replying } = observed;
    const ended = endRecord(directory, request, beganAtMs, observed, awaitEnd).catch(
      (error: unknown): Reply<TurnRecord> => {
        log.error({ err: error, task_id: taskId }, 'the end of an execution could not be read');
        return { ok: false, error: refusal('INTERNAL') };
      },
    );
    return { ok: true, taskId, sessionId, accepted, ended, ...defined({ replying }) };
  }

  async function deliver(place: CallbackPlace, { ended, taskId }: StartedRun): Promise<void> {
    const end = await ended;
    if (end.ok) return place.send(JSON.stringify(executionBody(end.value)));
    place.leave();
    log.info({ task_id: taskId, code: end.error.code }, 'a callback is left: the end is not known here');
  }

  return async (request, options) => {
    const { callbackUrl: url, batchId, awaitEnd } = options;
    if (url === undefined) return run(request, options);
    const { taskId, caller } = request;
    const callback = { tenantId: caller.tenantId, taskId, url, ...defined({ batchId }) };
    const place = await callbacks.reserve(callback).catch(refusedBy);
    if (typeof place === 'object' && 'code' in place) return { ok: false, error: place };
    if (place === 'full') return { ok: false, error: tooManyCallbacks() };
    if (place === 'same') return run(request, options);
    try {
      const started = await run(request, { ...options, awaitEnd: awaitEnd === 'none' ? 'record' : awaitEnd });
      if (!started.ok) place.release();
      else deliver(place, started).catch((error: unknown) => log.error({ err: error }, 'a callback broke'));
      return started;
    } catch (error) {
      place.release();
      throw error;
    }
  };
}

/** The refusal that a failure is. */
function refusedBy(error: unknown): ErrorData {
  if (error instanceof RefusalError) return error.data;
  throw error;
}

const NEVER = new Promise<never>(() => {});

async function runUnobserved(directory: Directory, request: TurnRequest): Promise<StartReply> {
  const reply = await directory.say(request);
  if (!reply.ok) return { ok: false, error: reply.error };
  const { taskId, accepted, replying } = reply;
  const first = accepted.deduplicated ? await directory.turn(request.caller.tenantId, taskId) : undefined;
  const sessionId = first?.ok ? first.value.sessionId : request.sessionId;
  return { ok: true, taskId, sessionId, accepted, ended: NEVER, ...defined({ replying }) };
}

const tooManyCallbacks = (): ErrorData =>
  refusal('OVERLOADED', { message: 'Too many callbacks are under way.', retryAfterMs: FULL_RETRY_MS });

/** Times that one execution is tried while limits refuse it. */
const MAX_TRIES = 20;

/** Where a limit asks for more patience than this, the refusal is final. */
const MAX_WAIT_MS = 120_000;

const DEFAULT_WAIT_MS = 1_000;

/** Those that wait for the same limit come back up to this far apart. */
const SPREAD_MS = 250;

interface RetryDeps {
  readonly start: Executions['start'];
  readonly log: Log;
  readonly timers?: Timers;
  readonly random?: () => number;
}

/** `close`: what waits to be tried again is refused as INTERRUPTED, and so is what comes later. */
export function createRetry({ start, log, timers = systemTimers, random = Math.random }: RetryDeps): {
  readonly startWithRetry: Executions['startWithRetry'];
  close(): void;
} {
  const closing = new AbortController();

  const attempt = (request: TurnRequest, options: RunOptions): Promise<StartReply> =>
    start(request, options).catch((error: unknown) => {
      log.error({ err: error, task_id: request.taskId }, 'an execution could not be started');
      return { ok: false, error: refusal('INTERNAL') };
    });

  return {
    async startWithRetry(first, options, signal) {
      let request = first;
      for (let tries = 1; !closing.signal.aborted; tries += 1) {
        const started = await attempt(request, options);
        if (started.ok) return started;
        const waitMs = retryAfter(started.error);
        if (waitMs === null || tries === MAX_TRIES || signal?.aborted) return started;
        const stop = signal ? AbortSignal.any([signal, closing.signal]) : closing.signal;
        await pause(timers, waitMs + random() * SPREAD_MS, stop);
        if (signal?.aborted) return started;
        // A try that got no answer in time may have been taken all the same: the next one finds it.
        request = { ...request, taskIdGiven: true };
      }
      return { ok: false, error: refusal('INTERRUPTED') };
    },
    close: () => closing.abort(),
  };
}

/** How long to wait before it is tried again, ms; null: the refusal is final. */
function retryAfter({ code, retry_after_ms: waitMs = DEFAULT_WAIT_MS }: ErrorData): number | null {
  const passes = code === 'OVERLOADED' || code === 'RATE_LIMITED';
  return passes && waitMs <= MAX_WAIT_MS ? waitMs : null;
}
