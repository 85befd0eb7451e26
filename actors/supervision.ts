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
import {
  recordOf,
  type SessionEffect,
  type SessionMessage,
  type SessionState,
  type Turn,
} from './session/protocol.ts';
import { answerUnhandled, recoverSession, returned } from './session/recovery.ts';
import { session } from './session/session.ts';
import { endWrite } from './session/turn.ts';
import type { TenantEffect, TenantMessage, TenantState } from './tenant/protocol.ts';
import {
  type SchedulerEffect,
  type SchedulerMessage,
  type SchedulerState,
  scheduler,
} from './tenant/scheduler.ts';
import { minuteRate, recoverTenant, tenant } from './tenant/tenant.ts';

export interface Kinds {
  readonly node: ActorKind<SchedulerState, SchedulerMessage, SchedulerEffect>;
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
  readonly node: () => Address<SchedulerMessage>;
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
    // Without a tier it has handled nothing, and what is kept of it holds.
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
    const refused = { ok: false, taskId: turn.taskId, error };
    for (const { replyTo } of [...turn.callers, ...turn.cancellers]) actors.reply(replyTo, refused);
    registry.untrack(ref, turn.taskId);
    if (turn.claim === 'held' && actors.isAlive(ref.tenant.address))
      actors.tell(ref.tenant.address, {
        type: 'release',
        taskId: turn.taskId,
        attempt: turn.attempt,
        slot: turn.slot,
        refund: false,
      });
    // One whose beginning is being written was not told to anybody, but the store must not show it as waiting for ever.
    if (turn.kept === 'no' || turn.dropped) return;
    const atMs = clock.now();
    if (turn.kept === 'yes') ref.stream.event(turn.taskId, { type: 'error', data: error }, atMs);
    if (turn.ended?.writing) return;
    const record = { ...recordOf(state, turn), status: 'failed', finishedAtMs: atMs, error } as const;
    store
      .commit(endWrite(state, turn, record, undefined))
      .catch((cause: unknown) =>
        log.warn({ err: cause, task_id: turn.taskId }, 'end of a crashed turn was not kept'),
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
    const release = returned(message);
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
    if (running > 0 && actors.isAlive(deps.node()))
      actors.tell(deps.node(), { type: 'tenantGone', tenantId, held: running });
  }

  function tenantLetterDied(message: TenantMessage, { tenantId }: TenantState): void {
    if (message.type !== 'claim' && message.type !== 'enter') return;
    const ref = registry.session(tenantId, message.sessionId);
    if (!ref || !actors.isAlive(ref.address)) return;
    const atMs = clock.now();
    const error = refusal('OVERLOADED', { retryAfterMs: 1_000 });
    if (message.type === 'enter') actors.tell(ref.address, { type: 'loadFailed', atMs });
    else
      actors.tell(ref.address, {
        type: 'claimRefused',
        taskId: message.taskId,
        attempt: message.attempt,
        error,
        atMs,
      });
  }

  return {
    node: {
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
