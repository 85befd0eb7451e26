/** How many sockets each tenant has open, where the node has its tenants to itself. */
import type { TenantId } from '../../src/domain/ids.ts';
import type { SocketSlots } from '../../src/ports/limits.ts';

export function createSocketCounts(): SocketSlots {
  const counts = new Map<TenantId, number>();
  const count = (tenantId: TenantId): number => counts.get(tenantId) ?? 0;
  return {
    take(tenantId, most) {
      if (count(tenantId) >= most) return undefined;
      counts.set(tenantId, count(tenantId) + 1);
      return () => {
        const rest = count(tenantId) - 1;
        if (rest > 0) counts.set(tenantId, rest);
        else counts.delete(tenantId);
      };
    },
    tenants: () => counts.size,
    close() {},
  };
}
