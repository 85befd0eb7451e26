/** Performs what tenants and the scheduler decide. */
import { dayOf } from '../../src/domain/rate-limit.ts';
import type { Store } from '../../src/ports/store.ts';
import type { Clock, Log } from '../../src/ports/telemetry.ts';
import type { Registry, TenantRef } from '../registry.ts';
import { type ActorSystem, type Address, unreachable } from '../runtime/actor.ts';
import { isGrant, releaseOf, type TenantEffect } from './protocol.ts';
import type { SchedulerEffect, SchedulerMessage } from './scheduler.ts';

interface TenantEffectDeps {
  readonly actors: ActorSystem;
  readonly registry: Registry;
  readonly store: Pick<Store, 'tenant'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly scheduler: Address<SchedulerMessage>;
}

/** Returns what performs an effect of a tenant. */
export function createTenantEffects(deps: TenantEffectDeps): (ref: TenantRef, effect: TenantEffect) => void {
  const { actors, registry, store, clock, log, scheduler } = deps;

  async function load({ tenantId, address }: TenantRef): Promise<void> {
    try {
      const record = await store.tenant(tenantId, dayOf(clock.now()));
      actors.tell(address, { type: 'loaded', record });
    } catch (error) {
      log.warn({ err: error, tenant_id: tenantId }, 'tenant could not be loaded');
      actors.tell(address, { type: 'loadFailed', atMs: clock.now() });
    }
  }

  return function perform(ref, effect) {
    const { tenantId, address } = ref;
    switch (effect.type) {
      case 'loadTenant':
        return void load(ref);
      case 'tellSession': {
        const session = registry.session(tenantId, effect.sessionId);
        if (session) return void actors.tell(session.address, effect.message);
        if (isGrant(effect.message)) actors.tell(address, releaseOf(effect.message));
        return;
      }
      case 'tellAllSessions':
        for (const session of ref.sessions) actors.tell(session.address, effect.message);
        return;
      case 'requestSlot':
        actors.tell(scheduler, { ...effect, tenantId, tenancy: ref.tenancy });
        return;
      case 'slotReleased':
        actors.tell(scheduler, effect);
        return;
      case 'announceLater':
        setTimeout(() => {
          if (actors.isAlive(address)) actors.tell(address, { type: 'announce', atMs: clock.now() });
        }, effect.afterMs).unref();
        return;
      case 'leaveNode':
        if (ref.sessions.size === 0) actors.passivate(address);
        return;
      default:
        return unreachable(effect);
    }
  };
}

/** Returns what performs an effect of the scheduler. */
export function createSchedulerEffects({
  actors,
  registry,
  clock,
}: Pick<TenantEffectDeps, 'actors' | 'registry' | 'clock'>): (
  effect: SchedulerEffect,
  self: Address<SchedulerMessage>,
) => void {
  return function perform(effect, self) {
    switch (effect.type) {
      case 'slotGranted': {
        const { tenantId, tenancy, sessionId, taskId, attempt } = effect;
        const tenant = registry.tenants.get(tenantId);
        // What a tenant that has stopped held here was released with it.
        if (tenant?.tenancy !== tenancy) return;
        const granted = { type: 'slotGranted', taskId, attempt, atMs: clock.now() } as const;
        const session = registry.session(tenantId, sessionId);
        if (session) return void actors.tell(session.address, granted);
        actors.tell(tenant.address, releaseOf(granted));
        return;
      }
      case 'tickSoon':
        setImmediate(() => actors.tell(self, { type: 'tick' }));
        return;
      default:
        return unreachable(effect);
    }
  };
}
