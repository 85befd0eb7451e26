/** Performs what tenants and the scheduler decide. */
import { dayOf } from '../../src/domain/rate-limit.ts';
import type { Store } from '../../src/ports/store.ts';
import type { Clock, Log } from '../../src/ports/telemetry.ts';
import type { Registry, TenantRef } from '../registry.ts';
import { type ActorSystem, type Address, unreachable } from '../runtime/actor.ts';
import type { SharedLimits } from './lease-keeper.ts';
import { isGrant, releaseOf, type TenantEffect, type TenantMessage } from './protocol.ts';
import type { SchedulerEffect, SchedulerMessage } from './scheduler.ts';

interface TenantEffectDeps {
  readonly actors: ActorSystem;
  readonly registry: Registry;
  readonly store: Pick<Store, 'tenant'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly scheduler: Address<SchedulerMessage>;
  /** Absent: the node has its tenants to itself. */
  readonly limits?: SharedLimits | undefined;
}

type AskLease = Extract<TenantEffect, { type: 'askLease' }>;

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

  /** What it answers comes to the tenant that asked, or to nobody: another life of it says what it holds itself. */
  function askLease({ tenantId, address }: TenantRef, { kind, question }: AskLease): void {
    deps.limits?.keeper.ask(tenantId, kind, question).then((answer) => {
      if (actors.isAlive(address)) actors.tell(address, { type: 'leased', kind, answer, atMs: clock.now() });
    });
  }

  const later = (address: TenantRef['address'], afterMs: number, make: () => TenantMessage): void => {
    setTimeout(() => {
      if (actors.isAlive(address)) actors.tell(address, make());
    }, afterMs).unref();
  };

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
        return later(address, effect.afterMs, () => ({ type: 'announce', atMs: clock.now() }));
      case 'askLease':
        return askLease(ref, effect);
      case 'leaseLater':
        return later(address, effect.afterMs, () => ({ type: 'leaseDue', what: effect.what }));
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
