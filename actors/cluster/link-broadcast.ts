/** Broadcasts over links: an item for each of the other nodes, and what they tell heard here. */
import { type BroadcastItem, broadcastItemSchema } from '../../src/domain/broadcast.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import type { Broadcast } from '../../src/ports/broadcast.ts';
import type { LinkItem } from '../../src/ports/links.ts';

export interface LinkBroadcast extends Broadcast {
  /** What another node told. One that is not known here is dropped. */
  received(item: Extract<LinkItem, { kind: 'broadcast' }>): void;
}

/** `toAll`: puts an item on the way to each of the other nodes. */
export function createLinkBroadcast(toAll: (item: LinkItem) => void): LinkBroadcast {
  const listeners: ((item: BroadcastItem) => void)[] = [];
  return {
    tell: (item) => toAll({ kind: 'broadcast', of: item.type, tenantId: tenantOf(item), body: item }),
    listen: (listener) => void listeners.push(listener),
    received({ body }) {
      const { data: item } = broadcastItemSchema.safeParse(body);
      if (item) for (const listener of listeners) listener(item);
    },
  };
}

function tenantOf(item: BroadcastItem): TenantId {
  switch (item.type) {
    case 'notice':
      return item.notice.tenant_id;
    case 'agent':
      return item.news.tenantId;
    default:
      return item.tenantId;
  }
}
