/** How tenants and their scheduler come to life on a node, within which bounds, and what is set right when they are gone. */
import { refusal } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import type { Tier, TierTable } from '../../src/domain/tiers.ts';
import type { Store } from '../../src/ports/store.ts';
import type { Clock, Log } from '../../src/ports/telemetry.ts';
import type { Registry, TenantRef } from '../registry.ts';
import { type ActorKind, type ActorSystem, type Address, RESTARTS } from '../runtime/actor.ts';
import { createSchedulerEffects, createTenantEffects } from './effects.ts';
import type { SharedLimits } from './lease-keeper.ts';
import { lastQuestions, newLeases } from './leases.ts';
import { newTenant, type TenantEffect, type TenantMessage, type TenantState } from './protocol.ts';
import {
  newScheduler,
  type SchedulerEffect,
  type SchedulerMessage,
  type SchedulerState,
  scheduler,
} from './scheduler.ts';
import { minuteRate, recoverTenant, tenant } from './tenant.ts';

interface TenantDeps {
  readonly actors: ActorSystem;
  readonly registry: Registry;
  readonly store: Pick<Store, 'tenant'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly tiers: TierTable;
  readonly defaultTier: Tier;
  readonly maxExecutions: number;
  readonly idleMs: number;
  /** Absent: the node has its tenants to itself. */
  readonly limits?: SharedLimits | undefined;
}

const SCHEDULER: ActorKind<SchedulerState, SchedulerMessage, SchedulerEffect> = {
  kind: 'node',
  behaviour: scheduler,
  mailboxLimit: 50_000,
  restarts: { ...RESTARTS, max: 1_000 },
};

/** Spawns the scheduler, and returns what finds a tenant that lives, or makes it. */
export function createTenants(deps: TenantDeps): (tenantId: TenantId) => TenantRef {
  const { actors, registry, clock, tiers, defaultTier } = deps;
  const address: Address<SchedulerMessage> = actors.spawn(null, SCHEDULER, {
    name: 'scheduler',
    initial: newScheduler(deps.maxExecutions),
    interpret: createSchedulerEffects(deps),
  });
  const kind = tenantKind(deps, address);
  const perform = createTenantEffects({ ...deps, scheduler: address });
  let tenancies = 0;

  return function tenantOf(tenantId) {
    const found = registry.tenants.get(tenantId);
    if (found) return found;
    const minute = registry.tenantRates.find(tenantId, clock.now());
    tenancies += 1;
    const ref: TenantRef = {
      tenantId,
      tenancy: tenancies,
      address: actors.spawn(null, kind, {
        name: tenantId,
        initial: newTenant(
          tenantId,
          defaultTier,
          tiers,
          minute,
          deps.limits ? newLeases(deps.limits.tiers) : null,
        ),
        interpret: (effect) => perform(ref, effect),
      }),
      sessions: new Set(),
    };
    registry.tenants.set(tenantId, ref);
    return ref;
  };
}

function tenantKind(
  { actors, registry, clock, idleMs, limits }: TenantDeps,
  scheduler: Address<SchedulerMessage>,
): ActorKind<TenantState, TenantMessage, TenantEffect> {
  return {
    kind: 'tenant',
    behaviour: tenant,
    recover: recoverTenant,
    mailboxLimit: 20_000,
    restarts: RESTARTS,
    manyChildren: true,
    idle: { afterMs: idleMs, message: { type: 'idle' } },
    /** The slots that it held are released with it. */
    onStopped(state) {
      const { tenantId, running } = state;
      registry.tenants.delete(tenantId);
      for (const { kind, question } of lastQuestions(state))
        void limits?.keeper.ask(tenantId, kind, question);
      if (!state.stash) registry.tenantRates.keep(tenantId, state.minute, minuteRate(state), clock.now());
      if (running > 0 && actors.isAlive(scheduler))
        actors.tell(scheduler, { type: 'tenantGone', tenantId, held: running });
    },
    onDeadLetter(message, { tenantId }) {
      if (message.type !== 'requestAdmission' && message.type !== 'join') return;
      const ref = registry.session(tenantId, message.sessionId);
      if (!ref || !actors.isAlive(ref.address)) return;
      const atMs = clock.now();
      if (message.type === 'join') return void actors.tell(ref.address, { type: 'loadFailed', atMs });
      const { taskId, attempt } = message;
      const error = refusal('OVERLOADED', { retryAfterMs: 1_000 });
      actors.tell(ref.address, { type: 'notAdmitted', taskId, attempt, error, atMs });
    },
  };
}
