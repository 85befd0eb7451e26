/** Stores a notice with what it tells of: a delivery for each of the tenant's webhooks that wants it, in the same transaction. */
import { randomUUID } from 'node:crypto';
import type { Kysely } from 'kysely';
import { deliveryTo, type TenantNotice, webhookSchema } from '../domain/agent-record.ts';
import { databaseNow } from './due.ts';
import type { DatabaseKind } from './migrations.ts';
import type { Schema } from './schema.ts';

/** `db` is the transaction of the write that the notice tells of. */
export async function storeNotice(
  db: Kysely<Schema>,
  kind: DatabaseKind,
  notice: TenantNotice | undefined,
): Promise<void> {
  if (!notice) return;
  const rows = await db
    .selectFrom('webhooks')
    .select('body')
    .where('tenant_id', '=', notice.tenant_id)
    .orderBy('webhook_id')
    // One that is removed meanwhile must not fail the write.
    .$if(kind === 'postgres', (query) => query.forKeyShare())
    .execute();
  const deliveries = rows
    .map(({ body }) => webhookSchema.parse(JSON.parse(body)))
    .filter(({ events }) => events === null || events.includes(notice.event))
    .map((webhook) => deliveryTo(webhook, notice, `msg_${randomUUID()}`));
  if (deliveries.length === 0) return;
  const atMs = Date.parse(notice.timestamp);
  await db
    .insertInto('deliveries')
    .values(
      deliveries.map((delivery) => ({
        tenant_id: delivery.tenant_id,
        delivery_id: delivery.id,
        webhook_id: delivery.webhook_id,
        status: delivery.status,
        due_at: databaseNow(kind, () => atMs),
        created_at: atMs,
        settled_at: null,
        body: JSON.stringify(delivery),
      })),
    )
    .execute();
}
