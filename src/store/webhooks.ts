/** Webhooks and their deliveries over a database. */
import { sql } from 'kysely';
import { deliverySchema, type Webhook, type WebhookDelivery, webhookSchema } from '../domain/agent-record.ts';
import type { WebhookStore } from '../ports/management.ts';
import type { Database } from './database.ts';
import { expireDeliveries } from './settled-deliveries.ts';

/** When a pending delivery is to be tried: one without a time at once. Null for all others. */
export const dueAt = (delivery: WebhookDelivery): number | null =>
  delivery.status === 'pending' ? Date.parse(delivery.next_attempt_at ?? delivery.created_at) : null;

/** When a settled delivery was settled, as far as it says so itself; `nowMs` for a dead one. Null while it is pending. */
export function settledAt({ status, delivered_at }: WebhookDelivery, nowMs: number): number | null {
  if (status === 'pending') return null;
  return delivered_at === null ? nowMs : Date.parse(delivered_at);
}

/**
 * Makes the store; `database` stays the caller's to close. Lists come oldest first. `now`: when deliveries are kept,
 * in ms.
 */
export function createWebhookStore(database: Database, now: () => number = Date.now): WebhookStore {
  return {
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
    deliveries: (tenantId, webhookId, { page, pageSize }) =>
      database.read(tenantId, async (db) => {
        const found = db
          .selectFrom('deliveries')
          .where('tenant_id', '=', tenantId)
          .where('webhook_id', '=', webhookId);
        const rows = await found
          .select('body')
          .orderBy('created_at', 'desc')
          .orderBy('delivery_id')
          .limit(pageSize)
          .offset((page - 1) * pageSize)
          .execute();
        const { total } = await found
          .select(({ fn }) => fn.countAll<number>().as('total'))
          .executeTakeFirstOrThrow();
        return { items: rows.map(({ body }) => deliveryOf(body)), total };
      }),
    delivery: (tenantId, deliveryId) =>
      database.read(tenantId, async (db) => {
        const row = await db
          .selectFrom('deliveries')
          .select('body')
          .where('tenant_id', '=', tenantId)
          .where('delivery_id', '=', deliveryId)
          .executeTakeFirst();
        return row ? deliveryOf(row.body) : null;
      }),
    keep: (delivery) => keep(database, delivery, now()),
    expire: (limits) => expireDeliveries(database, limits),
    due: (nowMs, limit) =>
      database.read('node', async (db) => {
        const rows = await db
          .selectFrom('deliveries as d')
          .innerJoin('webhooks as w', (join) =>
            join.onRef('w.tenant_id', '=', 'd.tenant_id').onRef('w.webhook_id', '=', 'd.webhook_id'),
          )
          .select(['d.body as delivery', 'w.body as webhook'])
          .where('d.status', '=', sql.lit('pending'))
          .where('d.due_at', '<=', nowMs)
          .orderBy('d.due_at')
          .orderBy('d.delivery_id')
          .limit(limit)
          .execute();
        return rows.map((row) => ({ delivery: deliveryOf(row.delivery), webhook: webhookOf(row.webhook) }));
      }),
  };
}

/** A delivery whose webhook was removed meanwhile has nowhere to go and is dropped. */
function keep(database: Database, delivery: WebhookDelivery, nowMs: number): Promise<void> {
  const row = {
    status: delivery.status,
    due_at: dueAt(delivery),
    created_at: Date.parse(delivery.created_at),
    settled_at: settledAt(delivery, nowMs),
    body: JSON.stringify(delivery),
  };
  return database.write(delivery.tenant_id, async (db) => {
    const webhook = await db
      .selectFrom('webhooks')
      .select('webhook_id')
      .where('tenant_id', '=', delivery.tenant_id)
      .where('webhook_id', '=', delivery.webhook_id)
      .$if(database.kind === 'postgres', (query) => query.forKeyShare())
      .executeTakeFirst();
    if (!webhook) return;
    await db
      .insertInto('deliveries')
      .values({
        tenant_id: delivery.tenant_id,
        delivery_id: delivery.id,
        webhook_id: delivery.webhook_id,
        ...row,
      })
      .onConflict((conflict) => conflict.columns(['tenant_id', 'delivery_id']).doUpdateSet(row))
      .execute();
  });
}

const webhookOf = (body: string): Webhook => webhookSchema.parse(JSON.parse(body));
const deliveryOf = (body: string): WebhookDelivery => deliverySchema.parse(JSON.parse(body));
