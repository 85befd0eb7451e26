/** What operators may ask of any tenant: what is kept of it, and which tier it is of. */
import { refusal } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import { dayOf } from '../../src/domain/rate-limit.ts';
import type { Tier } from '../../src/domain/tiers.ts';
import type { TenantAdmin } from '../../src/management-ports.ts';
import type { Clock, Log, Store } from '../../src/ports.ts';
import { guarded, no, ok } from './deed.ts';

export interface TenantAdminOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  /** Tells the tenant's actor, where it lives. */
  readonly tierSet: (tenantId: TenantId, tier: Tier) => void;
}

/** A tier is kept before it holds: a node that stops in between has lost nothing. */
export function createTenantAdmin({ store, clock, log, tierSet }: TenantAdminOptions): TenantAdmin {
  return {
    tenant: (tenantId) =>
      guarded(log, async () => {
        const record = await store.tenant(tenantId, dayOf(clock.now()));
        return record ? ok(record) : no(refusal('NOT_FOUND', { message: 'Nothing is kept of this tenant.' }));
      }),
    setTier: (tenantId, tier) =>
      guarded(log, async () => {
        await store.commit({ type: 'tenant-tier', tenantId, tier });
        tierSet(tenantId, tier);
        return ok(null);
      }),
  };
}
