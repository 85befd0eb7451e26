/** What operators may ask of any tenant: its record, and its tier. */
import { refusal } from '../domain/errors.ts';
import type { TenantId } from '../domain/ids.ts';
import { dayOf } from '../domain/rate-limit.ts';
import type { Tier } from '../domain/tiers.ts';
import type { TenantAdmin } from '../ports/management.ts';
import type { Store } from '../ports/store.ts';
import type { Clock, Log } from '../ports/telemetry.ts';
import { guarded, no, ok } from './context.ts';

interface TenantAdminOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  /** Sets the tier of the tenant's actor, where there is one. */
  readonly tierSet: (tenantId: TenantId, tier: Tier) => void;
}

/** A tier is stored before it holds: a node that stops in between has lost nothing. */
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
