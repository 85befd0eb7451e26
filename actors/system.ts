/**
 * The actors of a node from outside: the directory that edges speak to. It finds or makes the tenant and the
 * session a request is for, offers it the message, and answers with what the session decides.
 */
import { randomUUID } from 'node:crypto';
import type { TurnRecord } from '../src/domain/conversation.ts';
import { CLOSE, type ErrorData, RefusalError, refusal } from '../src/domain/errors.ts';
import { DEFAULT_AGENT_ID, type SessionId, type TenantId } from '../src/domain/ids.ts';
import type { Tier } from '../src/domain/tiers.ts';
import type { CancelReply, Reply, SayReply } from '../src/ports.ts';
import { createActorSystem } from './actor.ts';
import { AskError, type AskFailure } from './asks.ts';
import { createEffects } from './effects.ts';
import { newNode } from './node.ts';
import { createOutbox } from './outbox.ts';
import { createPacer } from './pacer.ts';
import { createRegistry, notifyTenant, type SessionRef, type TenantRef } from './registry.ts';
import { newSession } from './session.ts';
import { taskTaken } from './session-endings.ts';
import type { SessionMessage } from './session-state.ts';
import { createKinds } from './supervision.ts';
import type { System, SystemOptions } from './system-options.ts';
import { newTenant } from './tenant-state.ts';
import { logSaid } from './turn-log.ts';

export type { System, SystemOptions } from './system-options.ts';

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
  let tenancies = 0;

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
    initial: newNode(options.maxExecutions),
    interpret: effects.node,
  });

  function tenantOf(tenantId: TenantId): TenantRef {
    const found = registry.tenants.get(tenantId);
    if (found) return found;
    const address = actors.spawn(null, kinds.tenant, {
      name: tenantId,
      initial: newTenant(tenantId, options.defaultTier, options.tiers),
      interpret: (effect) => effects.tenant(ref, effect),
    });
    tenancies += 1;
    const ref: TenantRef = { tenantId, tenancy: tenancies, address, sessions: new Set() };
    registry.tenants.set(tenantId, ref);
    return ref;
  }

  /** Spawned from outside, under its tenant's nursery: the tenant is not asked, so it stays quick. */
  function sessionOf(tenantId: TenantId, sessionId: SessionId, tier: Tier | undefined): SessionRef {
    const found = registry.session(tenantId, sessionId);
    if (found) return found;
    const owner = tenantOf(tenantId);
    const address = actors.spawn(owner.address, kinds.session, {
      name: sessionId,
      initial: newSession(tenantId, sessionId, options),
      interpret: (effect) => effects.session(ref, effect),
    });
    const outbox = createOutbox({
      epoch: randomUUID(),
      clock,
      pacer,
      deltaWindowMs: options.deltaWindowMs,
      onFault: (error) =>
        log.error({ err: error, session_id: sessionId }, 'a client could not be written to'),
    });
    const ref: SessionRef = {
      tenant: owner,
      sessionId,
      address,
      outbox,
      arriving: new Map(),
      execution: null,
    };
    registry.addSession(ref);
    effects.session(ref, { type: 'load' });
    effects.session(ref, { type: 'enter', tier });
    return ref;
  }

  /** Asks a session, and turns a lost question into a refusal. */
  async function ask<R>(
    ref: SessionRef,
    make: (replyTo: number) => SessionMessage,
    lost: (error: ErrorData, reason: AskFailure) => R,
  ): Promise<R> {
    try {
      return await actors.ask<SessionMessage, R>(ref.address, ANSWER_MS, make);
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
      ref.outbox.detach(clientId);
      actors.tell(ref.address, { type: 'detach', clientId });
    },
    async say(request, observer) {
      const { caller, taskId, sessionId } = request;
      const no = (error: ErrorData): SayReply => ({ ok: false, taskId, error });
      if (draining) return no(refusal('DRAINING', { retryAfterMs: 1_000 }));
      const ref = sessionOf(caller.tenantId, sessionId, caller.tier);
      const live = request.taskIdGiven ? registry.turn(caller.tenantId, taskId) : undefined;
      if (live && live.session !== ref) return no(taskTaken());
      // From here on a cancel finds it, and a drain waits for it; the session takes it off again.
      if (!live) registry.track(ref, taskId, caller.tier ?? options.defaultTier);
      if (observer) ref.outbox.watch(observer);
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
      if (observer && !reply.ok) ref.outbox.detach(observer.id);
      logSaid(log, request, reply);
      return reply;
    },
    async cancel(tenantId, taskId) {
      const no = (error: ErrorData): CancelReply => ({ ok: false, taskId, error });
      const live = registry.turn(tenantId, taskId);
      if (live) {
        const make = (replyTo: number) => ({ type: 'cancel', taskId, replyTo, atMs: clock.now() }) as const;
        const asked = ask<CancelReply>(live.session, make, no);
        // The session has its message first; the run need not wait for the two mailboxes between.
        const { execution } = live.session;
        if (execution?.taskId === taskId) execution.abort.abort();
        const reply = await asked;
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
