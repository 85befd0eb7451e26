/** Deliveries of webhooks over a database, and which of the settled ones are forgotten. */
import { type Kysely, sql } from 'kysely';
import { deliverySchema, type WebhookDelivery, webhookSchema } from '../domain/agent-record.ts';
import { type TenantId, tenantIdSchema } from '../domain/ids.ts';
import type { DeliveryStore, DueDeliveries, SettledLimits } from '../ports/management.ts';
import { lockTenant } from './agents.ts';
import type { Database } from './database.ts';
import { pageOf, pageWith } from './pages.ts';
import type { Schema } from './schema.ts';

/** Deliveries that one transaction deletes: some milliseconds, for which other writes wait. */
const DELETE_AT_ONCE = 200;
/** Webhooks that one query reads. */
const WEBHOOKS_AT_ONCE = 500;

/** Makes the store; `now`: when deliveries are stored, in ms. */
export function createDeliveryStore(database: Database, now: () => number): DeliveryStore {
  return {
    deliveries: (tenantId, webhookId, page) =>
      database.read(tenantId, async (db) => {
        const found = db
          .selectFrom('deliveries')
          .where('tenant_id', '=', tenantId)
          .where('webhook_id', '=', webhookId);
        const order = { at: 'created_at', id: 'delivery_id', newestFirst: true } as const;
        return pageWith(await pageOf(found, page, order), deliveryOf);
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
    saveDelivery: (delivery, claimedUntilMs) => saveDelivery(database, delivery, now(), claimedUntilMs),
    saveClaimed: (delivery, claimedUntilMs) => saveClaimed(database, delivery, now(), claimedUntilMs),
    claimDue: (nowMs, untilMs, limit) => claimDue(database, nowMs, untilMs, limit),
    expire: (limits) => expireDeliveries(database, limits),
  };
}

const deliveryOf = (body: string): WebhookDelivery => deliverySchema.parse(JSON.parse(body));

/** When a pending delivery is to be tried: one without a time at once. Null for all others. */
const dueAt = (delivery: WebhookDelivery): number | null =>
  delivery.status === 'pending' ? Date.parse(delivery.next_attempt_at ?? delivery.created_at) : null;

/** When a settled delivery was settled, as far as it says so itself; `nowMs` for a dead one. Null while it is pending. */
function settledAt({ status, delivered_at }: WebhookDelivery, nowMs: number): number | null {
  if (status === 'pending') return null;
  return delivered_at === null ? nowMs : Date.parse(delivered_at);
}

/** Columns that change while a delivery is tried. */
const changing = (delivery: WebhookDelivery, nowMs: number) => ({
  status: delivery.status,
  due_at: dueAt(delivery),
  settled_at: settledAt(delivery, nowMs),
  body: JSON.stringify(delivery),
});

/** A claim is nothing but a later time to be due; that time names it, since each claim of a row ends later than the last. */
async function claimDue(
  database: Database,
  nowMs: number,
  untilMs: number,
  limit: number,
): Promise<DueDeliveries> {
  return database.write('node', async (db) => {
    const rows = await db
      .selectFrom('deliveries as d')
      .innerJoin('webhooks as w', (join) =>
        join.onRef('w.tenant_id', '=', 'd.tenant_id').onRef('w.webhook_id', '=', 'd.webhook_id'),
      )
      .select(['d.tenant_id', 'd.delivery_id', 'd.body as delivery', 'w.body as webhook'])
      .where('d.status', '=', sql.lit('pending'))
      .where('d.due_at', '<=', nowMs)
      .orderBy('d.due_at')
      .orderBy('d.delivery_id')
      .limit(limit)
      .$if(database.kind === 'postgres', (query) => query.forUpdate('d').skipLocked())
      .execute();
    if (rows.length > 0)
      await db
        .updateTable('deliveries')
        .set({ due_at: untilMs })
        .where(({ eb, refTuple, tuple }) =>
          eb(
            refTuple('tenant_id', 'delivery_id'),
            'in',
            rows.map((row) => tuple(row.tenant_id, row.delivery_id)),
          ),
        )
        .execute();
    const next = await db
      .selectFrom('deliveries')
      .select('due_at')
      .where('status', '=', sql.lit('pending'))
      .orderBy('due_at')
      .limit(1)
      .executeTakeFirst();
    const claimed = rows.map((row) => ({
      delivery: deliveryOf(row.delivery),
      webhook: webhookSchema.parse(JSON.parse(row.webhook)),
      untilMs,
    }));
    return { claimed, nextAtMs: next?.due_at ?? null };
  });
}

function saveClaimed(
  database: Database,
  delivery: WebhookDelivery,
  nowMs: number,
  claimedUntilMs: number,
): Promise<boolean> {
  return database.write(delivery.tenant_id, async (db) => {
    const { numUpdatedRows } = await db
      .updateTable('deliveries')
      .set(changing(delivery, nowMs))
      .where('tenant_id', '=', delivery.tenant_id)
      .where('delivery_id', '=', delivery.id)
      .where('status', '=', 'pending')
      .where('due_at', '=', claimedUntilMs)
      .executeTakeFirst();
    return numUpdatedRows > 0n;
  });
}

/** A delivery whose webhook was removed meanwhile has nowhere to go and is dropped. */
function saveDelivery(
  database: Database,
  delivery: WebhookDelivery,
  nowMs: number,
  claimedUntilMs: number | undefined,
): Promise<void> {
  const changed = changing(delivery, nowMs);
  const row = {
    ...changed,
    due_at: claimedUntilMs ?? changed.due_at,
    created_at: Date.parse(delivery.created_at),
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

interface WebhookName {
  readonly tenantId: TenantId;
  readonly webhookId: string;
}

/** As DeliveryStore.expire. Safe to run from several nodes at once. */
async function expireDeliveries(database: Database, limits: SettledLimits): Promise<number> {
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
    const { count } = await db
      .selectFrom('deliveries')
      .select(({ fn }) => fn.countAll<number>().as('count'))
      .where('tenant_id', '=', tenantId)
      .where('webhook_id', '=', webhookId)
      .executeTakeFirstOrThrow();
    if (count <= most) return 0;
    const oldest = await settledFirst(db, tenantId, webhookId)
      .limit(Math.min(count - most, DELETE_AT_ONCE))
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
