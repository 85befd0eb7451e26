/** Performs what executions decide: a run is started beside the mailbox, aborted, and its end reported. */
import type { AgentRunner, ExecutionEvent, ExecutionPlan } from '../../src/ports/runner.ts';
import type { Store } from '../../src/ports/store.ts';
import type { Clock } from '../../src/ports/telemetry.ts';
import type { ExecutionRef, Registry, SessionRef } from '../registry.ts';
import { type ActorKind, type ActorSystem, RESTARTS, unreachable } from '../runtime/actor.ts';
import type { TurnSink } from '../session/event-stream.ts';
import type { SessionEffect } from '../session/protocol.ts';
import {
  type ExecutionEffect,
  type ExecutionMessage,
  type ExecutionState,
  execution,
  newExecution,
} from './execution.ts';

interface ExecutionDeps {
  readonly actors: ActorSystem;
  readonly runner: AgentRunner;
  readonly store: Pick<Store, 'commit'>;
  readonly clock: Clock;
  readonly registry: Pick<Registry, 'session'>;
}

type Execute = Extract<SessionEffect, { type: 'execute' }>;

/** Returns what starts an execution for a turn of a session. */
export function createExecutionEffects(deps: ExecutionDeps): (ref: SessionRef, effect: Execute) => void {
  const { actors, runner, store, clock } = deps;
  const kind = executionKind(deps);

  function perform(ref: SessionRef, run: ExecutionRef, sink: TurnSink, effect: ExecutionEffect): void {
    switch (effect.type) {
      case 'run':
        return start(run, sink, effect.plan);
      case 'abortRun':
        return run.abort.abort();
      case 'reply':
        return actors.reply(effect.replyTo, effect.tools);
      case 'report': {
        const { taskId, outcome, atMs } = effect;
        if (ref.execution === run) ref.execution = null;
        return void actors.tell(ref.address, {
          type: 'ended',
          taskId,
          outcome,
          text: ref.stream.seal(taskId),
          atMs,
        });
      }
      case 'stopExecution':
        return actors.stop(run.address);
      default:
        return unreachable(effect);
    }
  }

  /** An execution is its session's child: it stops with it, and its end is reported whatever ends it. */
  function execute(ref: SessionRef, { plan, options }: Execute): void {
    const abort = new AbortController();
    // Opened now: the turn may be accepted before the execution has handled its first message.
    const sink = ref.stream.turn(plan.taskId, options);
    const address = actors.spawn(ref.address, kind, {
      name: plan.taskId,
      initial: newExecution(plan),
      interpret: (effect: ExecutionEffect) => perform(ref, run, sink, effect),
    });
    const run: ExecutionRef = { taskId: plan.taskId, tier: plan.tier, address, abort };
    ref.execution = run;
    actors.tell(address, { type: 'start' });
  }

  /** The run goes on beside the mailbox; what it writes goes past it, what it has done comes as messages. */
  function start(run: ExecutionRef, sink: TurnSink, plan: ExecutionPlan): void {
    const emit = (event: ExecutionEvent): void => {
      sink.emit(event);
      if (event.type === 'tool.started')
        actors.tell(run.address, { type: 'toolStarted', callId: event.data.call_id, tool: event.data.tool });
      if (event.type === 'tool.finished')
        actors.tell(run.address, {
          type: 'toolFinished',
          callId: event.data.call_id,
          tool: event.data.tool,
          ok: event.data.ok,
        });
    };
    const { signal } = run.abort;
    const { accepted } = sink;
    let kept: Promise<void> | undefined;
    /** Once for all of a run's deeds. */
    const effects = (): Promise<void> => {
      kept ??= keepEffects(plan, accepted, signal);
      return kept;
    };
    runner.run(plan, { signal, emit, accepted, effects }).then(
      (outcome) => actors.tell(run.address, { type: 'finished', outcome, atMs: clock.now() }),
      (error: unknown) => actors.tell(run.address, { type: 'broke', error: asError(error) }),
    );
  }

  /** Kept after the turn itself: a turn that was never accepted has nothing to note it at. */
  async function keepEffects(
    { tenantId, taskId }: ExecutionPlan,
    accepted: Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    await accepted;
    signal.throwIfAborted();
    await store.commit({ type: 'turn-effects', tenantId, taskId });
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
    },
    /** Reported ends have cleared `ref.execution`; whatever still stands there is lost. */
    onStopped(state) {
      const { taskId } = state.plan;
      const ref = registry.session(state.tenantId, state.sessionId);
      if (ref?.execution?.taskId !== taskId) return;
      ref.execution.abort.abort();
      ref.execution = null;
      if (!actors.isAlive(ref.address)) return;
      const text = ref.stream.seal(taskId);
      actors.tell(ref.address, { type: 'executionLost', taskId, text, atMs: clock.now() });
    },
  };
}

const asError = (thrown: unknown): Error => (thrown instanceof Error ? thrown : new Error(String(thrown)));
