/** Forgets settled deliveries of webhooks, over a database: webhook by webhook, a chunk at a time. */
import type { Kysely } from 'kysely';
import { type TenantId, tenantIdSchema } from '../domain/ids.ts';
import type { SettledLimits } from '../ports/management.ts';
import { lockTenant } from './agents.ts';
import type { Database } from './database.ts';
import type { Schema } from './schema.ts';

/** Deliveries that one transaction deletes: some milliseconds, for which other writes wait. */
const DELETE_AT_ONCE = 200;
/** Webhooks that one query reads. */
const WEBHOOKS_AT_ONCE = 500;

interface WebhookName {
  readonly tenantId: TenantId;
  readonly webhookId: string;
}

/** As WebhookStore.expire. Safe to run from several nodes at once. */
export async function expireDeliveries(database: Database, limits: SettledLimits): Promise<number> {
  let deleted = 0;
  for (let after: WebhookName | undefined; ; ) {
    const page = await webhooksAfter(database, after);
    for (const webhook of page) {
      deleted += await inChunks(() => deleteOld(database, webhook, limits));
      deleted += await inChunks(() => deleteExcess(database, webhook, limits.perWebhook));
    }
    after = page.at(-1);
    if (page.length < WEBHOOKS_AT_ONCE) return deleted;
  }
}

async function inChunks(deleteOne: () => Promise<number>): Promise<number> {
  for (let total = 0; ; ) {
    const deleted = await deleteOne();
    total += deleted;
    if (deleted < DELETE_AT_ONCE) return total;
  }
}

function webhooksAfter(database: Database, after: WebhookName | undefined): Promise<readonly WebhookName[]> {
  return database.read('node', async (db) => {
    const rows = await db
      .selectFrom('webhooks')
      .select(['tenant_id', 'webhook_id'])
      .$if(after !== undefined, (query) =>
        query.where(({ eb, refTuple, tuple }) =>
          eb(refTuple('tenant_id', 'webhook_id'), '>', tuple(after?.tenantId ?? '', after?.webhookId ?? '')),
        ),
      )
      .orderBy('tenant_id')
      .orderBy('webhook_id')
      .limit(WEBHOOKS_AT_ONCE)
      .execute();
    return rows.map((row) => ({
      tenantId: tenantIdSchema.parse(row.tenant_id),
      webhookId: row.webhook_id,
    }));
  });
}

function deleteOld(
  database: Database,
  { tenantId, webhookId }: WebhookName,
  { deliveredBeforeMs, deadBeforeMs }: SettledLimits,
): Promise<number> {
  return database.write(tenantId, async (db) => {
    const old = await settledFirst(db, tenantId, webhookId)
      .where('settled_at', '<', Math.max(deliveredBeforeMs, deadBeforeMs))
      .where((either) =>
        either.or([
          either.and([either('status', '=', 'delivered'), either('settled_at', '<', deliveredBeforeMs)]),
          either.and([either('status', '=', 'dead'), either('settled_at', '<', deadBeforeMs)]),
        ]),
      )
      .limit(DELETE_AT_ONCE)
      .execute();
    return deleteSettled(db, tenantId, old);
  });
}

/** Counted and deleted under one lock: two nodes that both find ten too many must not delete twenty. */
function deleteExcess(
  database: Database,
  { tenantId, webhookId }: WebhookName,
  most: number,
): Promise<number> {
  return database.write(tenantId, async (db) => {
    await lockTenant(db, database.kind, tenantId);
    const { kept } = await db
      .selectFrom('deliveries')
      .select(({ fn }) => fn.countAll<number>().as('kept'))
      .where('tenant_id', '=', tenantId)
      .where('webhook_id', '=', webhookId)
      .executeTakeFirstOrThrow();
    if (kept <= most) return 0;
    const oldest = await settledFirst(db, tenantId, webhookId)
      .limit(Math.min(kept - most, DELETE_AT_ONCE))
      .execute();
    return deleteSettled(db, tenantId, oldest);
  });
}

/** The settled ones of a webhook, those settled longest ago first. */
const settledFirst = (db: Kysely<Schema>, tenantId: TenantId, webhookId: string) =>
  db
    .selectFrom('deliveries')
    .select('delivery_id')
    .where('tenant_id', '=', tenantId)
    .where('webhook_id', '=', webhookId)
    .where('settled_at', 'is not', null)
    .orderBy('settled_at')
    .orderBy('delivery_id');

/** One that is replayed meanwhile is pending again, and stays. */
async function deleteSettled(
  db: Kysely<Schema>,
  tenantId: TenantId,
  found: readonly { readonly delivery_id: string }[],
): Promise<number> {
  if (found.length === 0) return 0;
  const { numDeletedRows } = await db
    .deleteFrom('deliveries')
    .where('tenant_id', '=', tenantId)
    .where(
      'delivery_id',
      'in',
      found.map((row) => row.delivery_id),
    )
    .where('settled_at', 'is not', null)
    .executeTakeFirst();
  return Number(numDeletedRows);
}
