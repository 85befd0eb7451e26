/** Finds the session a request is for, or makes it: what left goes on with what is kept of it. */
import { randomUUID } from 'node:crypto';
import type { SessionId, TenantId } from '../src/domain/ids.ts';
import type { Tier } from '../src/domain/tiers.ts';
import type { ActorSystem } from './address.ts';
import type { Effects } from './effects.ts';
import { createOutbox } from './outbox.ts';
import type { Pacer } from './pacer.ts';
import { keyOf, type Registry, type SessionRef, type TenantRef } from './registry.ts';
import { newSession } from './session.ts';
import type { SessionConfig } from './session-state.ts';
import type { Kinds } from './supervision.ts';
import type { SystemOptions } from './system-options.ts';
import { newTenant } from './tenant-state.ts';

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
    const outbox = createOutbox({
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
      outbox,
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
