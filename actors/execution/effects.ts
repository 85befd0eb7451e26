/** Performs what executions decide: a run is started beside the mailbox, timed, aborted, and its end reported. */
import { defined } from '../../src/domain/defined.ts';
import { RefusalError, type Reply, refusal, refusalError } from '../../src/domain/errors.ts';
import type { ExecutionInfo } from '../../src/domain/frames.ts';
import type {
  AgentRunner,
  CallCounts,
  ExecutionEvent,
  ExecutionOutcome,
  ExecutionPlan,
} from '../../src/ports/runner.ts';
import type { Store } from '../../src/ports/store.ts';
import { type Clock, pause, systemTimers } from '../../src/ports/telemetry.ts';
import type { ExecutionRef, Registry, SessionRef } from '../registry.ts';
import { type ActorKind, type ActorSystem, RESTARTS, unreachable } from '../runtime/actor.ts';
import type { TurnSink } from '../session/event-stream.ts';
import type { SessionEffect } from '../session/protocol.ts';
import {
  type ExecutionEffect,
  type ExecutionEnd,
  type ExecutionMessage,
  type ExecutionState,
  execution,
  newExecution,
  type Used,
} from './execution.ts';

/** How long a run waits for its execution's word: memory answers, unless the execution is gone. */
const WORD_MS = 10_000;
/** Between two looks whether a deed may be done. */
const LOOK_MS = 100;

interface ExecutionDeps {
  readonly actors: ActorSystem;
  readonly runner: AgentRunner;
  readonly store: Pick<Store, 'commit'>;
  readonly clock: Clock;
  readonly registry: Pick<Registry, 'session'>;
  /** False while another node may have taken its sessions over: deeds wait. Absent: none can. */
  readonly mayAct?: (() => boolean) | undefined;
}

type Execute = Extract<SessionEffect, { type: 'execute' }>;

/** Returns what starts an execution for a turn of a session. */
export function createExecutionEffects(deps: ExecutionDeps): (ref: SessionRef, effect: Execute) => void {
  const { actors, runner, store, clock } = deps;
  const kind = executionKind(deps);

  function perform(ref: SessionRef, run: ExecutionRef, sink: TurnSink, effect: ExecutionEffect): void {
    switch (effect.type) {
      case 'run':
        return start(ref, run, sink, effect.plan);
      case 'abortRun':
        return run.abort.abort();
      case 'replyTools':
        return actors.reply(effect.replyTo, effect.tools);
      case 'replyCallsLeft':
        return actors.reply(effect.replyTo, effect.reply);
      case 'report': {
        const { taskId, end, used } = effect;
        if (ref.execution === run) ref.execution = null;
        const outcome = outcomeOf(end, used, run);
        const written = ref.stream.seal(taskId);
        const atMs = clock.now();
        return void actors.tell(ref.address, { type: 'ended', taskId, outcome, ...written, atMs });
      }
      case 'stopExecution':
        return actors.stop(run.address);
      default:
        return unreachable(effect);
    }
  }

  /** An execution is its session's child: it stops with it, and its end is reported whatever ends it. */
  function execute(ref: SessionRef, { plan, options, epoch }: Execute): void {
    // Opened now: the turn may be accepted before the execution has handled its first message.
    const sink = ref.stream.turn(plan.taskId, options);
    const address = actors.spawn(ref.address, kind, {
      name: plan.taskId,
      initial: newExecution(plan),
      interpret: (effect: ExecutionEffect) => perform(ref, run, sink, effect),
    });
    const { taskId, tier, agent } = plan;
    const abort = new AbortController();
    const run: ExecutionRef = {
      ...{ taskId, tier, address, abort, epoch, model: agent.model },
      startedAt: performance.now(),
      firstTokenAt: null,
      openCall: null,
    };
    ref.execution = run;
    actors.tell(address, { type: 'start' });
  }

  /** What the run writes goes past the mailbox; what it has used, and its tools, come as messages. */
  function start(ref: SessionRef, run: ExecutionRef, sink: TurnSink, plan: ExecutionPlan): void {
    const { address, startedAt } = run;
    const { signal } = run.abort;
    const { accepted } = sink;
    const { timeoutMs } = plan.limits;
    const timer = setTimeout(() => {
      actors.tell(address, { type: 'deadline', tookMs: performance.now() - startedAt });
    }, timeoutMs);
    signal.addEventListener('abort', () => clearTimeout(timer), { once: true });

    const emit = (event: ExecutionEvent): void => {
      sink.emit(event);
      if (event.type === 'chat.delta') run.firstTokenAt ??= performance.now();
      if (event.type === 'tool.started')
        actors.tell(address, { type: 'toolStarted', callId: event.data.call_id, tool: event.data.tool });
      if (event.type === 'tool.finished')
        actors.tell(address, { type: 'toolFinished', callId: event.data.call_id });
    };
    const callStarted = (spent: () => number): void => {
      run.openCall = spent;
    };
    const callEnded = async (counts: CallCounts): Promise<number> => {
      run.openCall = null;
      const reply = await actors.ask<ExecutionMessage, Reply<number>>(address, WORD_MS, (replyTo) => ({
        type: 'callEnded',
        counts,
        replyTo,
      }));
      if (!reply.ok) throw new RefusalError(reply.error);
      return reply.value;
    };
    let noted: Promise<void> | undefined;
    /** Stored once for all operations of a run; each of them waits while the node may have been given up. */
    const effects = async (): Promise<void> => {
      noted ??= noteEffects(ref, run, plan, accepted);
      await noted;
      while (deps.mayAct?.() === false) {
        await pause(systemTimers, LOOK_MS, signal);
        signal.throwIfAborted();
      }
    };
    const endsAt = startedAt + timeoutMs;
    runner
      .run(plan, { signal, emit, accepted, effects, endsAt, callStarted, callEnded })
      .then(
        (outcome): ExecutionMessage => ({ type: 'finished', outcome }),
        (error: unknown): ExecutionMessage => ({ type: 'broke', error: asError(error) }),
      )
      .then((message) => {
        clearTimeout(timer);
        // A run that was aborted says nothing any more: that it was is what counts.
        if (signal.aborted) return actors.tell(address, { type: 'cancel' });
        if (message.type === 'finished' && message.outcome.type === 'answered') run.openCall = null;
        return actors.tell(address, message);
      });
  }

  /** Stored after the turn itself: a turn that was never accepted has nothing to note it at. */
  async function noteEffects(
    { address }: SessionRef,
    { epoch, abort }: ExecutionRef,
    { tenantId, taskId }: ExecutionPlan,
    accepted: Promise<void>,
  ): Promise<void> {
    await accepted;
    abort.signal.throwIfAborted();
    const outcome = await store.commit({ type: 'turn-effects', tenantId, taskId, epoch });
    if (outcome !== 'fenced') return;
    actors.tell(address, { type: 'fenced' });
    throw refusalError('INTERRUPTED');
  }

  return execute;
}

/** A run that broke is not repeated: its turn ends with INTERNAL. */
function executionKind({
  actors,
  registry,
  clock,
}: ExecutionDeps): ActorKind<ExecutionState, ExecutionMessage, ExecutionEffect> {
  return {
    kind: 'execution',
    behaviour: execution,
    mailboxLimit: 1_000,
    restarts: { ...RESTARTS, max: 0 },
    onDeadLetter(message) {
      if (message.type === 'inquire') actors.reply(message.replyTo, []);
      if (message.type === 'callEnded')
        actors.reply(message.replyTo, { ok: false, error: refusal('INTERNAL') });
    },
    /** Reported ends have cleared `ref.execution`; whatever still stands there is lost. */
    onStopped(state) {
      const { taskId } = state.plan;
      const ref = registry.session(state.tenantId, state.sessionId);
      if (ref?.execution?.taskId !== taskId) return;
      ref.execution.abort.abort();
      ref.execution = null;
      if (!actors.isAlive(ref.address)) return;
      const written = ref.stream.seal(taskId);
      actors.tell(ref.address, { type: 'executionLost', taskId, ...written, atMs: clock.now() });
    },
  };
}

/** An end with its times; a call that is open counts by the estimate of whoever reads it. */
function outcomeOf(end: ExecutionEnd, used: Used, run: ExecutionRef): ExecutionOutcome {
  const { startedAt, firstTokenAt, openCall, model } = run;
  const counted = openCall === null && used.finish !== null;
  const info: ExecutionInfo = defined({
    execution_time_ms: Math.round(performance.now() - startedAt),
    time_to_first_token_ms: firstTokenAt === null ? null : Math.round(firstTokenAt - startedAt),
    iterations: used.iterations + (openCall ? 1 : 0),
    tools_used: used.toolsUsed,
    tokens_used: used.tokens + (openCall?.() ?? 0),
    input_tokens: counted ? (used.inputTokens ?? undefined) : undefined,
    output_tokens: counted ? (used.outputTokens ?? undefined) : undefined,
    finish_reason: counted ? (used.finish ?? undefined) : undefined,
    model,
  });
  return { ...end, info };
}

const asError = (thrown: unknown): Error => (thrown instanceof Error ? thrown : new Error(String(thrown)));
