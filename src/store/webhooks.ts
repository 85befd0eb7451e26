/** Webhooks over a database. */
import { type Webhook, webhookSchema } from '../domain/agent-record.ts';
import type { WebhookStore } from '../ports/management.ts';
import type { Database } from './database.ts';
import { createDeliveryStore } from './deliveries.ts';

/**
 * Makes the store; `database` stays the caller's to close. Lists come oldest first. `now`: when deliveries are stored,
 * in ms.
 */
export function createWebhookStore(database: Database, now: () => number = Date.now): WebhookStore {
  return {
    ...createDeliveryStore(database, now),
    list: (tenantId) =>
      database.read(tenantId, async (db) => {
        const rows = await db
          .selectFrom('webhooks')
          .select('body')
          .where('tenant_id', '=', tenantId)
          .orderBy('created_at')
          .orderBy('webhook_id')
          .execute();
        return rows.map(({ body }) => webhookOf(body));
      }),
    save: (tenantId, webhook) =>
      database.write(tenantId, async (db) => {
        const row = { created_at: Date.parse(webhook.created_at), body: JSON.stringify(webhook) };
        await db
          .insertInto('webhooks')
          .values({ tenant_id: tenantId, webhook_id: webhook.id, ...row })
          .onConflict((conflict) => conflict.columns(['tenant_id', 'webhook_id']).doUpdateSet(row))
          .execute();
      }),
    remove: (tenantId, webhookId) =>
      database.write(tenantId, async (db) => {
        const { numDeletedRows } = await db
          .deleteFrom('webhooks')
          .where('tenant_id', '=', tenantId)
          .where('webhook_id', '=', webhookId)
          .executeTakeFirst();
        return numDeletedRows > 0n;
      }),
  };
}

const webhookOf = (body: string): Webhook => webhookSchema.parse(JSON.parse(body));
