/** Webhooks and their deliveries in plain Maps, for nodes without a database and for tests. */
import type { Delivery, Webhook } from '../domain/agent-record.ts';
import type { TenantId } from '../domain/ids.ts';
import type { WebhookStore } from '../management-ports.ts';
import { pageOf } from './memory-agents.ts';
import { byAge } from './memory-templates.ts';
import { dueAt } from './webhooks.ts';

interface StoredWebhook {
  webhook: Webhook;
  readonly deliveries: Map<string, Delivery>;
}

/** Makes an empty store. Lists come oldest first. */
export function createMemoryWebhooks(): WebhookStore {
  const tenants = new Map<TenantId, Map<string, StoredWebhook>>();
  const webhooksOf = (tenantId: TenantId): Map<string, StoredWebhook> => tenants.get(tenantId) ?? new Map();
  return {
    list: async (tenantId) => [...webhooksOf(tenantId).values()].map((stored) => stored.webhook).sort(byAge),
    async save(tenantId, webhook) {
      const webhooks = webhooksOf(tenantId);
      const deliveries = webhooks.get(webhook.id)?.deliveries ?? new Map<string, Delivery>();
      tenants.set(tenantId, webhooks.set(webhook.id, { webhook, deliveries }));
    },
    remove: async (tenantId, webhookId) => webhooksOf(tenantId).delete(webhookId),
    async deliveries(tenantId, webhookId, page) {
      const all = [...(webhooksOf(tenantId).get(webhookId)?.deliveries.values() ?? [])];
      return pageOf(
        all.sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at) || (a.id < b.id ? -1 : 1)),
        page,
      );
    },
    async delivery(tenantId, deliveryId) {
      for (const { deliveries } of webhooksOf(tenantId).values()) {
        const found = deliveries.get(deliveryId);
        if (found) return found;
      }
      return null;
    },
    /** A delivery whose webhook was removed meanwhile has nowhere to go and is dropped. */
    async keep(delivery) {
      webhooksOf(delivery.tenant_id).get(delivery.webhook_id)?.deliveries.set(delivery.id, delivery);
    },
    async due(nowMs, limit) {
      const all = [...tenants.values()].flatMap((webhooks) => [...webhooks.values()]);
      return all
        .flatMap(({ webhook, deliveries }) =>
          [...deliveries.values()].map((delivery) => ({
            delivery,
            webhook,
            atMs: dueAt(delivery) ?? Infinity,
          })),
        )
        .filter(({ atMs }) => atMs <= nowMs)
        .sort((a, b) => a.atMs - b.atMs || (a.delivery.id < b.delivery.id ? -1 : 1))
        .slice(0, limit)
        .map(({ delivery, webhook }) => ({ delivery, webhook }));
    },
  };
}
