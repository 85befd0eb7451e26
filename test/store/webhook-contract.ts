/** What every webhook store must do, whatever is behind it. */
import assert from 'node:assert/strict';
import type { Webhook, WebhookDelivery } from '../../src/domain/agent-record.ts';
import { type TenantId, tenantIdSchema } from '../../src/domain/ids.ts';
import type { PageMark, SettledLimits, WebhookStore } from '../../src/ports/management.ts';
import { type Over, overEach } from './records.ts';

const acme = tenantIdSchema.parse('acme');
const umbrella = tenantIdSchema.parse('umbrella');
const START_MS = 1_700_000_000_000;
const at = (second: number): string => new Date(START_MS + second * 1_000).toISOString();

const webhook = (id: string, more: Partial<Webhook> = {}): Webhook => ({
  id,
  tenant_id: acme,
  url: `https://example.com/${id}`,
  events: null,
  secret: 'whsec_c2VjcmV0',
  created_at: at(1),
  ...more,
});

const delivery = (
  id: string,
  more: Partial<WebhookDelivery> = {},
  tenantId: TenantId = acme,
): WebhookDelivery => ({
  id,
  webhook_id: 'w1',
  tenant_id: tenantId,
  event: 'agent_created',
  payload: {
    event: 'agent_created',
    service: 'agent-management',
    task_id: 't1',
    tenant_id: tenantId,
    timestamp: at(1),
    data: { agent_name: '\u0000 \ud800', deep: [1, null, { a: true }] },
  },
  status: 'pending',
  attempts: 0,
  next_attempt_at: at(10),
  last_error: null,
  created_at: at(1),
  delivered_at: null,
  ...more,
});

const listed = async (store: WebhookStore, tenantId = acme): Promise<readonly string[]> =>
  (await store.deliveries(tenantId, 'w1', { page: 1, pageSize: 20 })).items.map((each) => each.id);

/** Claims for ten seconds what is due at that second. */
const claim = (store: WebhookStore, second: number, limit = 20) =>
  store.claimDue(START_MS + second * 1_000, START_MS + (second + 10) * 1_000, limit);

const due = async (store: WebhookStore, second: number, limit = 20): Promise<readonly string[]> =>
  (await claim(store, second, limit)).claimed.map((each) => `${each.webhook.id} ${each.delivery.id}`);

const FUTURE = Date.parse('2100-01-01T00:00:00Z');
/** More than a chunk of deliveries, and than a page of webhooks. */
const MANY_DELIVERIES = 1_050;

/** Many writes, but no more at once than a busy machine's database answers within the store's patience. */
async function inParts(count: number, write: (n: number) => Promise<unknown>): Promise<void> {
  const PART = 50;
  for (let from = 0; from < count; from += PART)
    await Promise.all(Array.from({ length: Math.min(PART, count - from) }, (_, n) => write(from + n)));
}
const MANY_WEBHOOKS = 510;

/** Forgets nothing but what the test names. */
const limits = (more: Partial<SettledLimits>): SettledLimits => ({
  deliveredBeforeMs: 0,
  deadBeforeMs: 0,
  perWebhook: 10_000,
  ...more,
});

export interface OpenWebhooks {
  readonly webhooks: WebhookStore;
  close(): Promise<void>;
}

/** Runs the contract over stores that `open` makes; each test opens its own and closes it. */
export function webhookContract(name: string, open: () => Promise<OpenWebhooks>): void {
  const each = overEach(name, open);
  const over: Over<WebhookStore> = (sentence, body) => each(sentence, ({ webhooks }) => body(webhooks));

  over('webhooks are listed oldest first; saving one again changes it', async (store) => {
    await store.save(acme, webhook('w2', { created_at: at(2), events: ['agent_created'] }));
    await store.save(acme, webhook('w1'));
    await store.save(acme, webhook('w1', { url: 'https://example.com/new' }));

    assert.deepEqual(await store.list(acme), [
      webhook('w1', { url: 'https://example.com/new' }),
      webhook('w2', { created_at: at(2), events: ['agent_created'] }),
    ]);
  });

  over(
    'behind the last delivery of a page comes what was behind it, whatever was stored or forgotten since',
    async (store) => {
      await store.save(acme, webhook('w1'));
      for (const id of ['d1', 'd2', 'd3', 'd4']) await store.saveDelivery(delivery(id));
      await store.saveDelivery(
        delivery('d0', { status: 'delivered', created_at: at(3), delivered_at: at(3) }),
      );
      const page = (after?: PageMark) => store.deliveries(acme, 'w1', { page: 1, pageSize: 2, after });
      const first = await page();
      assert.deepEqual([first.items.map(({ id }) => id), first.next?.id], [['d0', 'd1'], 'd1']);
      await store.saveDelivery(delivery('d9', { created_at: at(9) }));
      await store.expire(limits({ deliveredBeforeMs: FUTURE }));
      const second = await page(first.next);
      assert.deepEqual(
        second.items.map(({ id }) => id),
        ['d2', 'd3'],
      );
      assert.deepEqual(
        (await page(second.next)).items.map(({ id }) => id),
        ['d4'],
      );
      assert.equal((await page(second.next)).next, undefined);
    },
  );

  over('deliveries are stored, changed, and listed newest first in pages', async (store) => {
    await store.save(acme, webhook('w1'));
    await store.saveDelivery(delivery('d1'));
    await store.saveDelivery(delivery('d2', { created_at: at(2) }));
    const done = delivery('d1', {
      status: 'delivered',
      attempts: 1,
      next_attempt_at: null,
      delivered_at: at(3),
    });
    await store.saveDelivery(done);

    assert.deepEqual(await listed(store), ['d2', 'd1']);
    assert.deepEqual(await store.deliveries(acme, 'w1', { page: 2, pageSize: 1 }), {
      items: [done],
      total: 2,
    });
    assert.deepEqual(await store.delivery(acme, 'd1'), done);
    assert.equal(await store.delivery(acme, 'd9'), null);
  });

  over('pending deliveries are due when their time has come, of all tenants, oldest first', async (store) => {
    await store.save(acme, webhook('w1'));
    await store.save(umbrella, webhook('w1', { tenant_id: umbrella }));
    await store.saveDelivery(delivery('late', { next_attempt_at: at(30) }));
    await store.saveDelivery(delivery('soon', { next_attempt_at: at(10) }));
    await store.saveDelivery(delivery('theirs', { next_attempt_at: at(5) }, umbrella));
    await store.saveDelivery(delivery('done', { status: 'delivered', next_attempt_at: at(1) }));
    await store.saveDelivery(delivery('dead', { status: 'dead', next_attempt_at: null }));
    await store.saveDelivery(delivery('at once', { next_attempt_at: null, created_at: at(4) }));

    assert.deepEqual(await due(store, 9), ['w1 at once', 'w1 theirs']);
    const first = await claim(store, 18, 1);
    assert.deepEqual(
      first.claimed.map((each) => each.delivery),
      [delivery('soon', { next_attempt_at: at(10) })],
    );
    assert.equal(first.nextAtMs, START_MS + 19_000, 'the end of the first claim');
    assert.deepEqual(await due(store, 30), ['w1 at once', 'w1 theirs', 'w1 soon', 'w1 late']);
    const last = await claim(store, 40);
    assert.deepEqual(last.claimed.map((each) => each.webhook.tenant_id).sort(), [
      ...[acme, acme, acme],
      umbrella,
    ]);
    assert.equal((await claim(store, 41)).nextAtMs, START_MS + 50_000);
  });

  over(
    "a claim is its claimer's until it ends, and what is written under an older one is refused",
    async (store) => {
      await store.save(acme, webhook('w1'));
      await store.saveDelivery(delivery('d1'), START_MS + 20_000);
      assert.deepEqual(await due(store, 19), []);
      const [second] = (await claim(store, 20)).claimed;
      assert.equal(second?.untilMs, START_MS + 30_000);
      const begun = delivery('d1', { attempts: 1, next_attempt_at: at(60) });
      assert.equal(await store.saveClaimed(begun, START_MS + 20_000), false, 'the first claim is over');
      assert.deepEqual(await store.delivery(acme, 'd1'), delivery('d1'));
      assert.equal(await store.saveClaimed(begun, START_MS + 30_000), true);
      assert.deepEqual(await due(store, 59), []);
      const done = delivery('d1', { status: 'delivered', attempts: 1, delivered_at: at(31) });
      assert.equal(await store.saveClaimed(done, START_MS + 60_000), true);
      assert.equal(await store.saveClaimed(begun, START_MS + 60_000), false, 'it is settled');
      assert.deepEqual(await due(store, 99), []);
    },
  );

  over('several that claim at once share what is due, and nothing is given twice', async (store) => {
    await store.save(acme, webhook('w1'));
    await inParts(40, (n) => store.saveDelivery(delivery(`d${n}`)));
    const found: string[] = [];
    while (found.length < 40) {
      const claims = await Promise.all(Array.from({ length: 4 }, () => due(store, 10, 5)));
      assert.ok(claims.flat().length > 0);
      found.push(...claims.flat());
    }
    assert.equal(new Set(found).size, 40);
    assert.deepEqual(await due(store, 19), []);
  });

  over('a removed webhook takes its deliveries with it, and late ones are dropped', async (store) => {
    await store.save(acme, webhook('w1'));
    await store.saveDelivery(delivery('d1'));

    assert.equal(await store.remove(acme, 'w1'), true);
    assert.equal(await store.remove(acme, 'w1'), false);
    await store.saveDelivery(delivery('d1', { attempts: 2 }));
    await store.save(acme, webhook('w1'));
    assert.deepEqual(await listed(store), []);
    assert.deepEqual(await due(store, 99), []);
    assert.equal(await store.delivery(acme, 'd1'), null);
  });

  over('settled deliveries are forgotten when they are old, pending ones never', async (store) => {
    await store.save(acme, webhook('w1'));
    await store.save(umbrella, webhook('w1', { tenant_id: umbrella }));
    const delivered = (second: number) => ({ status: 'delivered', delivered_at: at(second) }) as const;
    for (const second of [10, 19, 20, 30])
      await store.saveDelivery(delivery(`d${second}`, delivered(second)));
    await store.saveDelivery(delivery('pending', { created_at: at(0) }));
    await store.saveDelivery(delivery('dead', { status: 'dead', next_attempt_at: null }));
    await store.saveDelivery(delivery('theirs', delivered(19), umbrella));

    assert.equal(await store.expire(limits({ deliveredBeforeMs: Date.parse(at(20)) })), 3);
    assert.deepEqual((await listed(store)).toSorted(), ['d20', 'd30', 'dead', 'pending']);
    assert.deepEqual(await listed(store, umbrella), []);
    // A dead one counts from the moment at which it was stored as dead, however old it is.
    assert.equal(await store.expire(limits({ deadBeforeMs: Date.now() - 60_000 })), 0);
    assert.equal(await store.expire(limits({ deadBeforeMs: Date.now() + 60_000 })), 1);
    assert.deepEqual((await listed(store)).toSorted(), ['d20', 'd30', 'pending']);
  });

  over('a dead delivery that is replayed is not forgotten', async (store) => {
    await store.save(acme, webhook('w1'));
    await store.saveDelivery(delivery('d1', { status: 'dead', next_attempt_at: null }));
    await store.saveDelivery(delivery('d1'));

    assert.equal(await store.expire({ deliveredBeforeMs: FUTURE, deadBeforeMs: FUTURE, perWebhook: 0 }), 0);
    assert.deepEqual(await due(store, 99), ['w1 d1']);
  });

  over('a webhook keeps so many deliveries, of which those settled longest ago go', async (store) => {
    for (const id of ['w1', 'w2']) await store.save(acme, webhook(id));
    const delivered = (second: number) => ({ status: 'delivered', delivered_at: at(second) }) as const;
    await store.saveDelivery(delivery('old', { ...delivered(1), created_at: at(9) }));
    await store.saveDelivery(delivery('new', { ...delivered(3), created_at: at(1) }));
    await store.saveDelivery(delivery('newer', { ...delivered(4), created_at: at(2) }));
    await store.saveDelivery(delivery('p1'));
    await store.saveDelivery(delivery('p2'));
    await store.saveDelivery(delivery('other', { ...delivered(1), webhook_id: 'w2' }));

    assert.equal(await store.expire(limits({ perWebhook: 3 })), 2);
    assert.deepEqual((await listed(store)).toSorted(), ['newer', 'p1', 'p2']);
    assert.equal(await store.expire(limits({ perWebhook: 1 })), 1);
    assert.deepEqual((await listed(store)).toSorted(), ['p1', 'p2']);
    assert.equal((await store.delivery(acme, 'other'))?.webhook_id, 'w2');
  });

  over('more than one chunk, and more than one page of webhooks, are forgotten at once', async (store) => {
    await inParts(MANY_WEBHOOKS, (n) => store.save(acme, webhook(`w${n}`)));
    const last = `w${MANY_WEBHOOKS - 1}`;
    const old = { status: 'delivered', delivered_at: at(1) } as const;
    await inParts(MANY_DELIVERIES, (n) =>
      store.saveDelivery(delivery(`d${n}`, { ...old, webhook_id: last })),
    );
    await store.saveDelivery(delivery('first', { ...old, webhook_id: 'w0' }));

    assert.equal(await store.expire(limits({ perWebhook: 0 })), MANY_DELIVERIES + 1);
    assert.equal((await store.deliveries(acme, last, { page: 1, pageSize: 1 })).total, 0);
  });

  over('another tenant with the same ids sees nothing and disturbs nothing', async (store) => {
    await store.save(acme, webhook('w1'));
    await store.saveDelivery(delivery('d1'));
    assert.deepEqual(await store.list(umbrella), []);
    assert.deepEqual(await listed(store, umbrella), []);
    assert.equal(await store.delivery(umbrella, 'd1'), null);
    assert.equal(await store.remove(umbrella, 'w1'), false);
    await store.saveDelivery(delivery('d1', { attempts: 9 }, umbrella));

    assert.equal((await store.delivery(acme, 'd1'))?.attempts, 0);
  });
}
