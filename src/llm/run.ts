/** One run beside its execution's mailbox: its abort, and the clock that notices a model's silence. */
import { estimateTokens } from '../domain/conversation.ts';
import { type ErrorData, RefusalError, refusal } from '../domain/errors.ts';
import type {
  CallCounts,
  ExecutionContext,
  ExecutionEvent,
  ExecutionPlan,
  RunOutcome,
} from '../ports/runner.ts';
import type { Log } from '../ports/telemetry.ts';
import { silentModel } from './model-errors.ts';

/** Something with deadlines. `check` is called every tick with performance.now(). */
interface Watched {
  check(nowMs: number): void;
}

interface Watchdog {
  add(watched: Watched): void;
  remove(watched: Watched): void;
  /** Stops the timer, also with runs that are still watched. */
  close(): void;
}

/** How late a deadline may be noticed. 1,000 runs cost about 20 µs a tick. */
const TICK_MS = 20;

/** The timer runs while there is something to watch, and at most one tick longer. */
export function createWatchdog(): Watchdog {
  const all = new Set<Watched>();
  let timer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    clearInterval(timer);
    timer = undefined;
  };
  const tick = (): void => {
    if (all.size === 0) stop();
    const now = performance.now();
    for (const watched of all) watched.check(now);
  };
  return {
    add(watched) {
      all.add(watched);
      timer ??= setInterval(tick, TICK_MS);
    },
    remove: (watched) => all.delete(watched),
    close: stop,
  };
}

/** A model call in progress, as the watchdog and the bookkeeping see it. */
export interface ModelCall {
  /** Chunks received; the watchdog compares it, so that no token needs a clock or a timer. */
  chunks: number;
  text: string;
  /** UTF-16 units that the attempt under way has thought. */
  thoughtUnits: number;
  /** Between attempts the stream is not expected to bring anything. */
  paused: boolean;
  /** Whom the attempt under way asks; undefined before the first. */
  asked: { readonly provider: string; readonly model: string; readonly host: string | undefined } | undefined;
  /** Set where another model can be asked: gives up one that does not begin to answer. */
  giveUp: (() => void) | undefined;
}

/** What an agent's loop sees of its run. */
export interface Run {
  readonly plan: ExecutionPlan;
  /** Aborted when the run is cancelled, out of time, or failed: for the model's request and for tools. */
  readonly signal: AbortSignal;
  readonly accepted: Promise<unknown>;
  /** As in ExecutionContext: to be awaited before anything that must not happen twice. */
  readonly effects: () => Promise<void>;
  /** True once nobody waits for the run: what the model still sends is dropped. */
  readonly over: boolean;
  /** Tokens the model may answer with in one call. */
  readonly answerTokens: number;
  emit(event: ExecutionEvent): void;
  /** Opens an iteration, which is watched until `callRead`; time to the first chunk counts from here. */
  callStarted(): ModelCall;
  callRead(): void;
  /** As in ExecutionContext: counts a call that asked for tools, and resolves to the calls that are left. */
  callEnded(counts: CallCounts): Promise<number>;
  remainingMs(): number;
}

/** The one line about a call that failed: what an operator needs to mend it, and nothing that people or models say. */
export function modelCallFailed(log: Log, plan: ExecutionPlan, fields: object): void {
  const { tenantId, sessionId, taskId, agent } = plan;
  const ids = { tenant_id: tenantId, session_id: sessionId, task_id: taskId, agent_id: agent.id };
  log.warn({ ...ids, ...fields }, 'model call failed');
}

export interface RunDependencies {
  readonly watchdog: Watchdog;
  readonly log: Log;
  readonly timeouts: { readonly firstTokenTimeoutMs: number; readonly idleTimeoutMs: number };
}

/**
 * Runs `body`. Resolves as soon as it ends, the model falls silent or the execution is over, without waiting for a
 * model or tool that does not let go; never rejects.
 */
export function supervise(
  plan: ExecutionPlan,
  context: ExecutionContext,
  { watchdog, log, timeouts }: RunDependencies,
  body: (run: Run) => Promise<RunOutcome>,
): Promise<RunOutcome> {
  return new Promise((resolve) => {
    const controller = new AbortController();
    const silence = createSilenceWatch(timeouts);
    let over = false;

    /** `reason` is what the model's request is aborted with. */
    const settle = (outcome: RunOutcome, reason?: Error): void => {
      if (over) return; // what a cancelled stream throws is no news
      over = true;
      watchdog.remove(watched);
      context.signal.removeEventListener('abort', onAbort);
      resolve(outcome);
      if (outcome.type !== 'answered') controller.abort(reason);
    };
    const fail = (error: ErrorData, reason?: Error): void => settle({ type: 'failed', error }, reason);
    const onAbort = (): void => fail(refusal('INTERNAL', { message: 'The run was aborted.' }));
    const watched: Watched = {
      check(now) {
        const error = silence.problem(now);
        if (!error) return;
        const { provider, model, host } = { host: undefined, ...plan.agent, ...silence.asked() };
        const isSilent = error.code === 'MODEL_UNAVAILABLE';
        const reason = isSilent ? 'silent' : 'stalled';
        modelCallFailed(log, plan, { provider, model, host, reason, code: error.code });
        // A failure of the model: its circuit breaker counts it.
        fail(error, isSilent ? silentModel() : undefined);
      },
    };

    if (context.signal.aborted) return onAbort();
    context.signal.addEventListener('abort', onAbort);
    watchdog.add(watched);
    body({
      plan,
      signal: controller.signal,
      accepted: context.accepted,
      effects: context.effects,
      get over() {
        return over;
      },
      answerTokens: Math.min(plan.limits.maxTokens, plan.agent.maxTokens ?? Number.POSITIVE_INFINITY),
      emit(event) {
        if (!over) context.emit(event);
      },
      callStarted() {
        const call: ModelCall = {
          chunks: 0,
          text: '',
          thoughtUnits: 0,
          paused: false,
          asked: undefined,
          giveUp: undefined,
        };
        context.callStarted(() => (call.chunks > 0 ? estimatePlan(plan) + estimateTokens(call.text) : 0));
        return silence.begin(call);
      },
      callRead: silence.end,
      callEnded: context.callEnded,
      remainingMs: () => context.endsAt - performance.now(),
    }).then(
      (outcome) => settle(outcome),
      (error: unknown) => {
        if (!over && !(error instanceof RefusalError))
          log.error({ err: error, task_id: plan.taskId }, 'agent run broke');
        fail(error instanceof RefusalError ? error.data : refusal('INTERNAL'));
      },
    );
  });
}

/** Notices by the count of chunks that a stream does not begin, or has fallen silent. */
function createSilenceWatch({ firstTokenTimeoutMs, idleTimeoutMs }: RunDependencies['timeouts']) {
  let call: ModelCall | undefined;
  let seenChunks = 0;
  let seenAt = 0;
  return {
    begin(started: ModelCall): ModelCall {
      seenChunks = 0;
      seenAt = performance.now();
      call = started;
      return started;
    },
    end(): void {
      call = undefined;
    },
    asked: () => call?.asked,
    /** Why the call is to be given up now, if it is. */
    problem(now: number): ErrorData | undefined {
      if (!call) return undefined;
      if (call.paused || call.chunks !== seenChunks) {
        seenChunks = call.chunks;
        seenAt = now;
        return undefined;
      }
      const limitMs = seenChunks === 0 ? firstTokenTimeoutMs : idleTimeoutMs;
      if (now - seenAt < limitMs) return undefined;
      if (seenChunks === 0 && call.giveUp) {
        call.giveUp();
        seenAt = now;
        return undefined;
      }
      return seenChunks === 0 ? silent(limitMs) : stalled(limitMs);
    },
  };
}

/** Tokens of what the model is given, where no provider counts. */
function estimatePlan(plan: ExecutionPlan): number {
  let units = plan.agent.systemPrompt.length;
  for (const message of plan.history) units += message.content.length;
  return Math.max(1, Math.ceil(units / 4));
}

const inSeconds = (ms: number): number => Math.round(ms) / 1000;

const silent = (ms: number): ErrorData =>
  refusal('MODEL_UNAVAILABLE', { message: `The model did not begin to answer within ${inSeconds(ms)} s.` });

const stalled = (ms: number): ErrorData => ({
  ...refusal('MODEL_ERROR', {
    message: `The model fell silent for ${inSeconds(ms)} s in the middle of its answer.`,
  }),
  retryable: true,
});
