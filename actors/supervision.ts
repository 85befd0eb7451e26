/** The kinds of actors: their bounds and restart intensity, and what is set right when one of them is gone. */
import { CLOSE, type ErrorData, refusal } from '../src/domain/errors.ts';
import type { Store } from '../src/ports/store.ts';
import type { Clock, Log } from '../src/ports/telemetry.ts';
import {
  type ExecutionEffect,
  type ExecutionMessage,
  type ExecutionState,
  execution,
} from './execution/execution.ts';
import { closeClients, keyOf, type Registry, type SessionRef } from './registry.ts';
import type { ActorKind, ActorSystem, Address, StopReason } from './runtime/actor.ts';
import { hourRate } from './session/admission.ts';
import { abandonedWrite, released } from './session/ending.ts';
import { answerUnhandled, releaseUnheard } from './session/lifecycle.ts';
import type { SessionEffect, SessionMessage, SessionState } from './session/protocol.ts';
import { recoverSession } from './session/recovery.ts';
import { session } from './session/session.ts';
import type { Turn } from './session/turn.ts';
import type { TenantEffect, TenantMessage, TenantState } from './tenant/protocol.ts';
import {
  type SchedulerEffect,
  type SchedulerMessage,
  type SchedulerState,
  scheduler,
} from './tenant/scheduler.ts';
import { minuteRate, recoverTenant, tenant } from './tenant/tenant.ts';

export interface Kinds {
  readonly scheduler: ActorKind<SchedulerState, SchedulerMessage, SchedulerEffect>;
  readonly tenant: ActorKind<TenantState, TenantMessage, TenantEffect>;
  readonly session: ActorKind<SessionState, SessionMessage, SessionEffect>;
  readonly execution: ActorKind<ExecutionState, ExecutionMessage, ExecutionEffect>;
}

export interface SupervisionDeps {
  readonly actors: ActorSystem;
  readonly registry: Registry;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly idleMs: number;
  readonly scheduler: () => Address<SchedulerMessage>;
}

const MINUTE_MS = 60_000;
/** More crashes within a minute than this stop a session, or a tenant with all its sessions. */
const RESTARTS = { max: 3, withinMs: MINUTE_MS };

export function createKinds(deps: SupervisionDeps): Kinds {
  const { actors, registry, store, clock, log, idleMs } = deps;

  /** Clients are told and closed, those who wait are answered, slots are given back, turns end as INTERNAL. */
  function sessionStopped(state: SessionState, reason: StopReason): void {
    const ref = registry.session(state.tenantId, state.sessionId);
    if (!ref) return;
    registry.removeSession(ref);
    const key = keyOf(state.tenantId, state.sessionId);
    // Without a tier it has handled nothing, and what is remembered of it holds.
    if (state.tier && !state.ephemeral)
      registry.sessionRates.keep(key, state.bucket, hourRate(state), clock.now());
    const error = refusal(reason === 'crashed' ? 'INTERNAL' : 'INTERRUPTED');
    const told = reason === 'crashed' ? { error, atMs: clock.now() } : null;
    for (const message of state.stash ?? []) answer(ref, message, error);
    for (const turn of state.turns) abandon(ref, state, turn, error);
    for (const replyTo of state.forgetting?.replyTo ?? []) actors.reply(replyTo, { ok: false, error });
    closeClients(ref, reason === 'crashed' ? CLOSE.restart : CLOSE.goingAway, told);
  }

  function abandon(ref: SessionRef, state: SessionState, turn: Turn, error: ErrorData): void {
    const { taskId } = turn;
    const refused = { ok: false, taskId, error } as const;
    for (const { replyTo } of turn.callers) actors.reply(replyTo, refused);
    for (const { replyTo } of turn.cancellers) actors.reply(replyTo, refused);
    registry.untrack(ref, taskId);
    if (actors.isAlive(ref.tenant.address))
      for (const release of released(turn, false)) actors.tell(ref.tenant.address, release);
    if (turn.phase === 'admitting' || turn.phase === 'withdrawn') return;
    const atMs = clock.now();
    if (turn.stored) ref.stream.event(taskId, { type: 'error', data: error }, atMs);
    if (turn.phase === 'ending' && turn.writing) return;
    // One whose beginning is being stored was told to nobody, but must not look as if it waited for ever.
    store
      .commit(abandonedWrite(state, turn, error, atMs))
      .catch((cause: unknown) =>
        log.warn({ err: cause, task_id: taskId }, 'end of a crashed turn was not stored'),
      );
  }

  function answer(ref: SessionRef | undefined, message: SessionMessage, error: ErrorData): void {
    for (const effect of answerUnhandled(message, error)) {
      if (effect.type === 'reply') actors.reply(effect.replyTo, effect.value);
      if (effect.type === 'untrack' && ref) registry.untrack(ref, effect.taskId);
    }
  }

  function sessionLetterDied(message: SessionMessage, { tenantId, sessionId }: SessionState): void {
    answer(registry.session(tenantId, sessionId), message, refusal('INTERNAL'));
    const release = releaseUnheard(message);
    const owner = registry.tenants.get(tenantId);
    if (release && owner && actors.isAlive(owner.address)) actors.tell(owner.address, release);
  }

  /** Reported ends have cleared `ref.execution`; whatever still stands there is lost. */
  function executionStopped(state: ExecutionState): void {
    const { taskId } = state.plan;
    const ref = registry.session(state.tenantId, state.sessionId);
    if (ref?.execution?.taskId !== taskId) return;
    ref.execution.abort.abort();
    ref.execution = null;
    if (actors.isAlive(ref.address))
      actors.tell(ref.address, {
        type: 'executionLost',
        taskId,
        text: ref.stream.seal(taskId),
        atMs: clock.now(),
      });
  }

  /** What a tenant had of the node goes back with it. */
  function tenantStopped(state: TenantState): void {
    const { tenantId, running } = state;
    registry.tenants.delete(tenantId);
    if (!state.stash) registry.tenantRates.keep(tenantId, state.minute, minuteRate(state), clock.now());
    if (running > 0 && actors.isAlive(deps.scheduler()))
      actors.tell(deps.scheduler(), { type: 'tenantGone', tenantId, held: running });
  }

  function tenantLetterDied(message: TenantMessage, { tenantId }: TenantState): void {
    if (message.type !== 'requestAdmission' && message.type !== 'join') return;
    const ref = registry.session(tenantId, message.sessionId);
    if (!ref || !actors.isAlive(ref.address)) return;
    const atMs = clock.now();
    const error = refusal('OVERLOADED', { retryAfterMs: 1_000 });
    if (message.type === 'join') actors.tell(ref.address, { type: 'loadFailed', atMs });
    else
      actors.tell(ref.address, {
        type: 'notAdmitted',
        taskId: message.taskId,
        attempt: message.attempt,
        error,
        atMs,
      });
  }

  return {
    scheduler: {
      kind: 'node',
      behaviour: scheduler,
      mailboxLimit: 50_000,
      restarts: { max: 1_000, withinMs: MINUTE_MS },
    },
    tenant: {
      kind: 'tenant',
      behaviour: tenant,
      recover: recoverTenant,
      mailboxLimit: 20_000,
      restarts: RESTARTS,
      manyChildren: true,
      onStopped: tenantStopped,
      onDeadLetter: tenantLetterDied,
      idle: { afterMs: idleMs, message: { type: 'idle' } },
    },
    session: {
      kind: 'session',
      behaviour: session,
      recover: recoverSession,
      mailboxLimit: 1_000,
      restarts: RESTARTS,
      onStopped: sessionStopped,
      onDeadLetter: sessionLetterDied,
      idle: { afterMs: idleMs, message: { type: 'idle' } },
    },
    execution: {
      kind: 'execution',
      behaviour: execution,
      mailboxLimit: 1_000,
      // A run that broke is not repeated: its turn ends with INTERNAL.
      restarts: { max: 0, withinMs: MINUTE_MS },
      onStopped: executionStopped,
    },
  };
}
