/**
 * The actors of a node from outside: the directory that edges speak to. It finds or makes the tenant and the
 * session a request is for, offers it the message, and answers with what the session decides.
 */

import { randomUUID } from 'node:crypto';
import type { TenantNotice } from '../src/domain/agent-record.ts';
import { CLOSE, type ErrorData, RefusalError, type Reply, refusal } from '../src/domain/errors.ts';
import { DEFAULT_AGENT_ID, type SessionId, type TenantId } from '../src/domain/ids.ts';
import type { Tier } from '../src/domain/tiers.ts';
import type { CancelReply, SayReply, TurnRecord } from '../src/domain/turn.ts';
import type { AgentRunner, AgentSource } from '../src/ports/runner.ts';
import type { Directory } from '../src/ports/sessions.ts';
import type { Store } from '../src/ports/store.ts';
import type { Clock, Log, Metrics } from '../src/ports/telemetry.ts';
import {
  createRegistry,
  keyOf,
  notifyTenant,
  pushFrame,
  type Registry,
  type SessionRef,
  type TenantRef,
} from './registry.ts';
import type { ActorSystem } from './runtime/actor.ts';
import { createActorSystem } from './runtime/actor-system.ts';
import { AskError, type AskFailure } from './runtime/asks.ts';
import { createPacer, type Pacer } from './session/delta-pacer.ts';
import { createEffects, type Effects, logSaid } from './session/effects.ts';
import { createEventStream } from './session/event-stream.ts';
import type { SessionConfig, SessionMessage } from './session/protocol.ts';
import { newSession } from './session/session.ts';
import { taskTaken } from './session/turn.ts';
import { createKinds, type Kinds } from './supervision.ts';
import { newTenant } from './tenant/protocol.ts';
import { newScheduler } from './tenant/scheduler.ts';

/** An answer that takes longer than this is given up; the turn itself may still be accepted. */
const ANSWER_MS = 30_000;
/** Cancelled turns get this long to end when the node drains. */
const CANCEL_GRACE_MS = 5_000;
/** Clients of a draining node come back after a random part of this. */
const RECONNECT_SPREAD_MS = 5_000;

export function createSystem(options: SystemOptions): System {
  const { store, clock, metrics, log } = options;
  const registry = createRegistry();
  const pacer = createPacer();
  const actors =
    options.actors ??
    createActorSystem({
      clock,
      log,
      onCrash: (kind) => metrics.actorCrashed(kind),
      onDeadLetter: (kind) => metrics.deadLetter(kind),
    });
  let draining = false;

  const kinds = createKinds({
    actors,
    registry,
    store,
    clock,
    log,
    idleMs: options.idleMs,
    node: () => nodeAddress,
  });
  const effects = createEffects({
    ...options,
    actors,
    registry,
    node: () => nodeAddress,
    execution: kinds.execution,
  });
  const nodeAddress = actors.spawn(null, kinds.node, {
    name: 'node',
    initial: newScheduler(options.maxExecutions),
    interpret: effects.node,
  });

  const sessionOf = createActivation({ ...options, actors, registry, pacer, kinds, effects });

  /** Asks a session, and turns a lost question into a refusal. */
  async function ask<R>(
    ref: SessionRef,
    make: (replyTo: number) => SessionMessage,
    lost: (error: ErrorData, reason: AskFailure) => R,
    taken?: () => void,
  ): Promise<R> {
    try {
      return await actors.ask<SessionMessage, R>(ref.address, ANSWER_MS, make, taken);
    } catch (error) {
      if (!(error instanceof AskError)) throw error;
      return lost(refusal('OVERLOADED', { retryAfterMs: 1_000 }), error.reason);
    }
  }

  const storeDown = (error: unknown): ErrorData => {
    log.warn({ err: error }, 'store did not answer');
    return error instanceof RefusalError ? error.data : refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 });
  };

  const system: System = {
    attach(caller, sessionId, client, resume) {
      const ref = sessionOf(caller.tenantId, sessionId, caller.tier);
      ref.arriving.set(client.id, client);
      const atMs = clock.now();
      const told = actors.offer(ref.address, {
        type: 'attach',
        clientId: client.id,
        tier: caller.tier,
        resume,
        atMs,
      });
      if (told === 'delivered') return;
      ref.arriving.delete(client.id);
      const data = refusal('OVERLOADED', { retryAfterMs: 1_000 });
      client.send({ type: 'error', seq: undefined, atMs, taskId: undefined, data });
      client.close(CLOSE.overloaded);
    },
    detach(tenantId, sessionId, clientId) {
      const ref = registry.session(tenantId, sessionId);
      if (!ref) return;
      ref.arriving.delete(clientId);
      ref.stream.detach(clientId);
      actors.tell(ref.address, { type: 'detach', clientId });
    },
    async say(request, observer) {
      const { caller, taskId, sessionId } = request;
      const no = (error: ErrorData): SayReply => ({ ok: false, taskId, error });
      if (draining) return no(refusal('DRAINING', { retryAfterMs: 1_000 }));
      const ref = sessionOf(caller.tenantId, sessionId, caller.tier, request.ephemeral);
      const live = request.taskIdGiven ? registry.turn(caller.tenantId, taskId) : undefined;
      if (live && live.session !== ref) return no(taskTaken());
      // From here on a cancel finds it, and a drain waits for it; the session takes it off again.
      if (!live) registry.track(ref, taskId, caller.tier ?? options.defaultTier);
      if (observer) ref.stream.watch(observer);
      const reply = await ask<SayReply>(
        ref,
        (replyTo) => ({
          type: 'said',
          taskId,
          agentId: request.agentId ?? DEFAULT_AGENT_ID,
          ...(request.agentVersion === undefined ? {} : { agentVersion: request.agentVersion }),
          message: request.message,
          context: { ...request.context, ...(caller.userId ? { user_id: caller.userId } : {}) },
          ...(request.overrides === undefined ? {} : { overrides: request.overrides }),
          stream: request.stream,
          ...(request.resumable ? { resumable: true } : {}),
          onBusy: request.onBusy,
          tier: caller.tier,
          replyTo,
          atMs: clock.now(),
        }),
        (error, reason) => {
          if (!live && reason === 'full') registry.untrack(ref, taskId);
          return no(error);
        },
      );
      if (observer && !reply.ok) ref.stream.detach(observer.id);
      logSaid(log, request, reply);
      return reply;
    },
    async cancel(tenantId, taskId) {
      const no = (error: ErrorData): CancelReply => ({ ok: false, taskId, error });
      const live = registry.turn(tenantId, taskId);
      if (live) {
        const make = (replyTo: number) => ({ type: 'cancel', taskId, replyTo, atMs: clock.now() }) as const;
        /** Once the session has its message the run need not wait for the two mailboxes between. */
        const abort = (): void => {
          const { execution } = live.session;
          if (execution?.taskId === taskId) execution.abort.abort();
        };
        const reply = await ask<CancelReply>(live.session, make, no, abort);
        if (reply.ok || reply.error.code !== 'NOT_FOUND') return reply;
      }
      const kept = await system.turn(tenantId, taskId);
      return kept.ok ? { ok: true, taskId, status: kept.value.status, abortMs: 0 } : no(kept.error);
    },
    async turn(tenantId, taskId) {
      const live = registry.turn(tenantId, taskId);
      if (live) {
        const found = await ask<TurnRecord | null>(
          live.session,
          (replyTo) => ({ type: 'inquire', taskId, replyTo }),
          () => null,
        );
        if (found) return { ok: true, value: found };
      }
      try {
        const kept = await store.turn(tenantId, taskId);
        if (kept) return { ok: true, value: kept };
        return { ok: false, error: refusal('NOT_FOUND', { message: 'There is no such task.' }) };
      } catch (error) {
        return { ok: false, error: storeDown(error) };
      }
    },
    async messages(tenantId, sessionId, page) {
      try {
        const kept = await store.session(tenantId, sessionId, page);
        if (kept) return { ok: true, value: kept };
      } catch (error) {
        return { ok: false, error: storeDown(error) };
      }
      if (registry.session(tenantId, sessionId)) return { ok: true, value: { messages: [], hasMore: false } };
      return { ok: false, error: noSession() };
    },
    push: (tenantId, sessions, frame) => pushFrame(registry, tenantId, sessions, frame, clock.now()),
    async forget(tenantId, sessionId) {
      const known = await system.messages(tenantId, sessionId, { limit: 1, before: undefined });
      if (!known.ok) return known;
      const ref = sessionOf(tenantId, sessionId, undefined);
      const make = (replyTo: number) => ({ type: 'forget', replyTo, atMs: clock.now() }) as const;
      return ask<Reply<null>>(ref, make, (error) => ({ ok: false, error }));
    },
    stats() {
      const agents = options.agents.stats?.();
      return { ...registry.counts(), draining, actors: actors.stats(), ...(agents ? { agents } : {}) };
    },
    notify: (notice) => notifyTenant(registry, notice, clock.now()),
    tierSet(tenantId, tier) {
      const live = registry.tenants.get(tenantId);
      if (live) actors.tell(live.address, { type: 'tierSet', tier });
    },
    async drain(graceMs) {
      draining = true;
      for (const ref of registry.sessions())
        actors.tell(ref.address, {
          type: 'drain',
          reconnectAfterMs: Math.floor(Math.random() * RECONNECT_SPREAD_MS),
          atMs: clock.now(),
        });
      if (!(await registry.quiet(graceMs))) {
        for (const ref of registry.sessions())
          actors.tell(ref.address, { type: 'drainExpired', atMs: clock.now() });
        await registry.quiet(CANCEL_GRACE_MS);
      }
      const told = [...registry.sessions()].map((ref) =>
        ask<null>(
          ref,
          (replyTo) => ({ type: 'drained', replyTo }),
          () => null,
        ),
      );
      await Promise.all(told);
    },
    async close() {
      await actors.close();
      pacer.close();
    },
  };

  return system;
}

const noSession = (): ErrorData => refusal('NOT_FOUND', { message: 'There is no such session.' });

export interface ActivationDeps extends SystemOptions {
  readonly actors: ActorSystem;
  readonly registry: Registry;
  readonly pacer: Pacer;
  readonly kinds: Kinds;
  readonly effects: Effects;
}

/** Returns what answers at once with a session that lives; `tier` is what the request named, `own` as in SayRequest. */
export function createActivation(
  deps: ActivationDeps,
): (tenantId: TenantId, sessionId: SessionId, tier: Tier | undefined, own?: boolean) => SessionRef {
  const { actors, registry, pacer, kinds, effects, clock, log, tiers } = deps;
  const { requestsPerHour, maxIterations, maxTimeMs } = deps;
  const config: SessionConfig = { tiers, requestsPerHour, maxIterations, maxTimeMs };
  let tenancies = 0;

  function tenantOf(tenantId: TenantId): TenantRef {
    const found = registry.tenants.get(tenantId);
    if (found) return found;
    const minute = registry.tenantRates.find(tenantId, clock.now());
    const address = actors.spawn(null, kinds.tenant, {
      name: tenantId,
      initial: newTenant(tenantId, deps.defaultTier, tiers, minute),
      interpret: (effect) => effects.tenant(ref, effect),
    });
    tenancies += 1;
    const ref: TenantRef = { tenantId, tenancy: tenancies, address, sessions: new Set() };
    registry.tenants.set(tenantId, ref);
    return ref;
  }

  /** Spawned from outside, under its tenant's nursery: the tenant is not asked, so it stays quick. */
  return function sessionOf(tenantId, sessionId, tier, own = false) {
    const found = registry.session(tenantId, sessionId);
    if (found) return found;
    const owner = tenantOf(tenantId);
    const bucket = own ? null : registry.sessionRates.find(keyOf(tenantId, sessionId), clock.now());
    const address = actors.spawn(owner.address, kinds.session, {
      name: sessionId,
      initial: newSession(tenantId, sessionId, config, { bucket, own }),
      interpret: (effect) => effects.session(ref, effect),
    });
    const outbox = createEventStream({
      epoch: randomUUID(),
      clock,
      pacer,
      deltaWindowMs: deps.deltaWindowMs,
      onFault: (error) =>
        log.error({ err: error, session_id: sessionId }, 'a client could not be written to'),
    });
    const ref: SessionRef = {
      tenant: owner,
      sessionId,
      address,
      stream: outbox,
      arriving: new Map(),
      execution: null,
    };
    registry.addSession(ref);
    if (own) actors.tell(address, { type: 'loaded', history: [], interrupted: [] });
    else effects.session(ref, { type: 'load' });
    effects.session(ref, { type: 'enter', tier });
    return ref;
  };
}

export interface SystemOptions extends SessionConfig {
  /** Where other actors of the node live too; made here where it is absent. Closed with the system. */
  readonly actors?: ActorSystem;
  readonly store: Store;
  readonly agents: AgentSource;
  readonly runner: AgentRunner;
  readonly clock: Clock;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly defaultTier: Tier;
  readonly maxExecutions: number;
  readonly deltaWindowMs: number;
  readonly idleMs: number;
}

/**
 * drain(): from now on no new turns; clients are told; resolves when all turns have ended, those cancelled that
 * still ran after `graceMs`; then clients are closed with 1012. close(): stops every actor at once.
 */
export interface System extends Directory {
  /** Sends a notice to every client of its tenant that is attached on this node, at most once. */
  notify(notice: TenantNotice): void;
  /** An operator set a tenant's tier: it holds from the next message on, over what requests name. */
  tierSet(tenantId: TenantId, tier: Tier): void;
  drain(graceMs: number): Promise<void>;
  close(): Promise<void>;
}
