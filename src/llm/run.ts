/** One supervised run of an agent: its clock, its abort, its usage, and the promise that it settles once, promptly. */
import { estimateTokens } from '../domain/conversation.ts';
import { type ErrorData, RefusalError, refusal } from '../domain/errors.ts';
import type { ExecutionInfo } from '../domain/frames.ts';
import type { ExecutionContext, ExecutionEvent, ExecutionOutcome, ExecutionPlan } from '../ports/runner.ts';
import type { Log } from '../ports/telemetry.ts';

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

/** One list for all runs without tools: every turn in memory refers to one. Never written to. */
const NO_TOOLS: string[] = [];

/** A model call in progress, as the watchdog and the bookkeeping see it. */
interface ModelCall {
  /** Chunks received; the watchdog compares it, so that no token needs a clock or a timer. */
  chunks: number;
  text: string;
}

/** What an agent's loop sees of its run. */
export interface Run {
  readonly plan: ExecutionPlan;
  /** Aborted when the run is cancelled, out of time, or failed: for the model's request and for tools. */
  readonly signal: AbortSignal;
  readonly accepted: Promise<unknown>;
  /** As in ExecutionContext: to be awaited before anything that must not happen twice. */
  readonly effects: () => Promise<void>;
  /** True once the run has settled: what the model still sends is dropped. */
  readonly over: boolean;
  readonly maxIterations: number;
  /** Tokens the model may answer with in one call. */
  readonly answerTokens: number;
  emit(event: ExecutionEvent): void;
  /** Opens an iteration; time to the first chunk counts from here. */
  callStarted(): ModelCall;
  /** Between attempts the stream is not expected to bring anything. */
  callPaused(paused: boolean): void;
  firstToken(): void;
  /** Closes the iteration and adds its tokens. Throws a RefusalError (TIER_LIMIT) past the run's budget. */
  callEnded(tokens: number): void;
  toolUsed(name: string): void;
  iterations(): number;
  remainingMs(): number;
}

export interface RunDependencies {
  readonly watchdog: Watchdog;
  readonly log: Log;
  readonly timeouts: { readonly firstTokenTimeoutMs: number; readonly idleTimeoutMs: number };
}

/**
 * Runs `body` under a plan's limits. Resolves as soon as the body ends, the signal aborts or a deadline passes,
 * without waiting for a model or tool that does not let go; never rejects.
 */
export function supervise(
  plan: ExecutionPlan,
  context: ExecutionContext,
  { watchdog, log, timeouts }: RunDependencies,
  body: (run: Run) => Promise<string>,
): Promise<ExecutionOutcome> {
  return new Promise((resolve) => {
    const startedAt = performance.now();
    const endsAt = startedAt + plan.limits.timeoutMs;
    const controller = new AbortController();
    const usage = createUsage(plan, startedAt);
    const silence = createSilenceWatch(timeouts);
    let over = false;

    const settle = (outcome: ExecutionOutcome): void => {
      if (over) return; // what a cancelled stream throws is no news
      over = true;
      watchdog.remove(watched);
      context.signal.removeEventListener('abort', onAbort);
      resolve(outcome);
      if (outcome.type !== 'answered') controller.abort();
    };
    const fail = (error: ErrorData): void => settle({ type: 'failed', error, info: usage.info() });
    const onAbort = (): void => settle({ type: 'aborted', info: usage.info() });
    const watched: Watched = {
      check(now) {
        const error =
          now >= endsAt ? outOfTime(plan.limits.timeoutMs, now - startedAt) : silence.problem(now);
        if (error) fail(error);
      },
    };

    if (context.signal.aborted) return onAbort();
    context.signal.addEventListener('abort', onAbort);
    watchdog.add(watched);
    body(
      runOf(plan, context, { usage, silence, endsAt, signal: controller.signal, isOver: () => over }),
    ).then(
      (content) => settle({ type: 'answered', content, info: usage.info() }),
      (error: unknown) => {
        if (!over && !(error instanceof RefusalError))
          log.error({ err: error, task_id: plan.taskId }, 'agent run broke');
        fail(error instanceof RefusalError ? error.data : refusal('INTERNAL'));
      },
    );
  });
}

interface RunParts {
  readonly usage: ReturnType<typeof createUsage>;
  readonly silence: ReturnType<typeof createSilenceWatch>;
  readonly endsAt: number;
  readonly signal: AbortSignal;
  readonly isOver: () => boolean;
}

/** The agent's own limits hold within those of the plan. */
const runOf = (
  plan: ExecutionPlan,
  context: ExecutionContext,
  { usage, silence, endsAt, signal, isOver }: RunParts,
): Run => ({
  plan,
  signal,
  accepted: context.accepted,
  effects: context.effects,
  get over() {
    return isOver();
  },
  maxIterations: Math.min(plan.limits.maxIterations, plan.agent.maxIterations ?? Number.POSITIVE_INFINITY),
  answerTokens: Math.min(plan.limits.maxTokens, plan.agent.maxTokens ?? Number.POSITIVE_INFINITY),
  emit(event) {
    if (!isOver()) context.emit(event);
  },
  callStarted: () => silence.begin(usage.callStarted()),
  callPaused: silence.pause,
  firstToken: usage.firstToken,
  callEnded(tokens) {
    silence.end();
    usage.callEnded(tokens);
  },
  toolUsed(name) {
    if (!isOver()) usage.toolUsed(name);
  },
  iterations: usage.iterations,
  remainingMs: () => endsAt - performance.now(),
});

/** What a run has used so far. */
function createUsage(plan: ExecutionPlan, startedAt: number) {
  const toolsUsed: string[] = [];
  let tokens = 0;
  let iterations = 0;
  let firstTokenAt: number | undefined;
  let call: ModelCall | undefined;
  return {
    callStarted(): ModelCall {
      iterations += 1;
      call = { chunks: 0, text: '' };
      return call;
    },
    callEnded(spent: number): void {
      call = undefined;
      tokens += spent;
      if (tokens > plan.limits.maxTokens)
        throw new RefusalError(tooManyTokens(plan.limits.maxTokens, tokens));
    },
    firstToken(): void {
      firstTokenAt ??= performance.now();
    },
    toolUsed(name: string): void {
      if (!toolsUsed.includes(name)) toolsUsed.push(name);
    },
    iterations: (): number => iterations,
    /** A call that is still open counts by estimate. */
    info: (): ExecutionInfo => ({
      execution_time_ms: Math.round(performance.now() - startedAt),
      time_to_first_token_ms: firstTokenAt === undefined ? null : Math.round(firstTokenAt - startedAt),
      iterations,
      tools_used: toolsUsed.length === 0 ? NO_TOOLS : toolsUsed,
      tokens_used: tokens + (call && call.chunks > 0 ? estimatePlan(plan) + estimateTokens(call.text) : 0),
      model: plan.agent.model,
    }),
  };
}

/** Notices by the count of chunks that a stream does not begin, or has fallen silent. */
function createSilenceWatch({ firstTokenTimeoutMs, idleTimeoutMs }: RunDependencies['timeouts']) {
  let call: ModelCall | undefined;
  let seenChunks = 0;
  let seenAt = 0;
  let paused = false;
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
    pause(isPaused: boolean): void {
      paused = isPaused;
      seenAt = performance.now();
    },
    /** Why the call is to be given up now, if it is. */
    problem(now: number): ErrorData | undefined {
      if (!call || paused) return undefined;
      if (call.chunks !== seenChunks) {
        seenChunks = call.chunks;
        seenAt = now;
        return undefined;
      }
      const limitMs = seenChunks === 0 ? firstTokenTimeoutMs : idleTimeoutMs;
      if (now - seenAt < limitMs) return undefined;
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

const outOfTime = (limitMs: number, actualMs: number): ErrorData =>
  refusal('EXECUTION_TIMEOUT', {
    message: `The execution ran into its time limit of ${inSeconds(limitMs)} s.`,
    details: { max_execution_time: inSeconds(limitMs), actual_execution_time: inSeconds(actualMs) },
  });

const silent = (ms: number): ErrorData =>
  refusal('MODEL_UNAVAILABLE', { message: `The model did not begin to answer within ${inSeconds(ms)} s.` });

const stalled = (ms: number): ErrorData =>
  refusal('MODEL_ERROR', {
    message: `The model fell silent for ${inSeconds(ms)} s in the middle of its answer.`,
  });

const tooManyTokens = (limit: number, used: number): ErrorData =>
  refusal('TIER_LIMIT', {
    message: `The run used ${used} tokens; the tenant's tier allows ${limit} a run.`,
    details: { limit: 'tokens_per_run', max: limit, used },
  });
