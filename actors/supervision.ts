/** The kinds of actors: their bounds and restart intensity, and what is set right when one of them is gone. */
import { CLOSE, type ErrorData, refusal } from '../src/domain/errors.ts';
import type { Clock, Log, Store } from '../src/ports.ts';
import type { ActorKind, ActorSystem, StopReason } from './actor.ts';
import { type ExecutionEffect, type ExecutionMessage, type ExecutionState, execution } from './execution.ts';
import { type NodeEffect, type NodeMessage, type NodeState, node } from './node.ts';
import type { Registry, SessionRef } from './registry.ts';
import { answerUnhandled, recoverSession, session } from './session.ts';
import {
  recordOf,
  type SessionEffect,
  type SessionMessage,
  type SessionState,
  type Turn,
} from './session-state.ts';
import { recoverTenant, type TenantEffect, type TenantMessage, type TenantState, tenant } from './tenant.ts';

export interface Kinds {
  readonly node: ActorKind<NodeState, NodeMessage, NodeEffect>;
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
    const error = refusal('INTERNAL');
    for (const message of state.stash ?? []) answer(message, error);
    for (const turn of state.turns) abandon(ref, state, turn, error);
    for (const replyTo of state.forgetting?.replyTo ?? []) actors.reply(replyTo, { ok: false, error });
    const close = reason === 'crashed' ? CLOSE.restart : CLOSE.goingAway;
    for (const client of ref.arriving.values()) ref.outbox.watch(client);
    if (reason === 'crashed') ref.outbox.notice({ type: 'error', data: error }, clock.now());
    ref.outbox.close(close);
  }

  function abandon(ref: SessionRef, state: SessionState, turn: Turn, error: ErrorData): void {
    const refused = { ok: false, taskId: turn.taskId, error };
    for (const { replyTo } of [...turn.callers, ...turn.cancellers]) actors.reply(replyTo, refused);
    registry.untrack(ref, turn.taskId);
    if (turn.claimed && !turn.ended && actors.isAlive(ref.tenant.address))
      actors.tell(ref.tenant.address, {
        type: 'release',
        taskId: turn.taskId,
        slot: turn.slot,
        refund: false,
      });
    if (turn.kept !== 'yes' || turn.dropped) return;
    const atMs = clock.now();
    ref.outbox.event(turn.taskId, { type: 'error', data: error }, atMs);
    if (turn.ended?.writing) return;
    const record = { ...recordOf(state, turn), status: 'failed', finishedAtMs: atMs, error } as const;
    store
      .commit({ type: 'turn-ended', turn: record, message: undefined })
      .catch((cause: unknown) =>
        log.warn({ err: cause, task_id: turn.taskId }, 'end of a crashed turn was not kept'),
      );
  }

  function answer(message: SessionMessage, error: ErrorData): void {
    for (const effect of answerUnhandled(message, error))
      if (effect.type === 'reply') actors.reply(effect.replyTo, effect.value);
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
        text: ref.outbox.seal(taskId),
        atMs: clock.now(),
      });
  }

  function tenantLetterDied(message: TenantMessage, { tenantId }: TenantState): void {
    if (message.type !== 'claim') return;
    const ref = registry.session(tenantId, message.sessionId);
    const error = refusal('OVERLOADED', { retryAfterMs: 1_000 });
    if (ref && actors.isAlive(ref.address))
      actors.tell(ref.address, { type: 'claimRefused', taskId: message.taskId, error });
  }

  return {
    node: {
      kind: 'node',
      behaviour: node,
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
      onStopped: (state) => registry.tenants.delete(state.tenantId),
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
      onDeadLetter: (message) => answer(message, refusal('INTERNAL')),
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
