/** The nightly job forgets old answers and deliveries, and what fails stops nothing else. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { TIER_TABLE } from '../../src/domain/tiers.ts';
import type { SettledLimits } from '../../src/ports/management.ts';
import type { Store, Write } from '../../src/ports/store.ts';
import {
  ANSWER_RETENTION_MS,
  createRetention,
  DEAD_RETENTION_MS,
  DELIVERED_RETENTION_MS,
  MAX_DELIVERIES,
} from '../../src/store/retention.ts';
import { quiet } from '../support/quiet.ts';
import { memoryStore, memoryStores } from '../support/stores.ts';
import { outgoing, storeOutgoing, unsentIds } from './outgoing-contract.ts';
import { named, tenantOf } from './records.ts';

const STORED_AT_MS = 1_700_000_000_000;
const acme = tenantOf(named('t1'));

type Expire = (limits: SettledLimits) => Promise<number>;

const jobOver = (
  t: TestContext,
  store: Store,
  nowMs: number,
  expire: Expire = memoryStores().webhooks.expire,
) => {
  const job = createRetention({
    ...{
      store,
      webhooks: { expire },
      batches: { expire: async () => 0 },
      tiers: TIER_TABLE,
      defaultTier: 'free',
    },
    ...{ clock: { now: () => nowMs }, log: quiet },
  });
  t.after(() => job.close());
  return job;
};

test('answers are forgotten after a week, and what is still to be sent never', async (t) => {
  const store = memoryStore(() => STORED_AT_MS);
  await storeOutgoing(
    store,
    outgoing('a', { answers: 'r1', queue: undefined }),
    outgoing('b', { answers: 'r2' }),
  );
  await jobOver(t, store, STORED_AT_MS + ANSWER_RETENTION_MS).run();
  assert.equal((await store.answered(acme, 'r1'))?.id, 'a');

  await jobOver(t, store, STORED_AT_MS + ANSWER_RETENTION_MS + 1).run();
  assert.equal(await store.answered(acme, 'r1'), null);
  assert.deepEqual(await unsentIds(store), ['b']);
});

test('a store that refuses one of its writes is asked for the others', async (t) => {
  const asked: Write['type'][] = [];
  const store: Store = {
    ...memoryStore(),
    commit: async ({ type }) => {
      asked.push(type);
      throw new Error('out of order');
    },
  };
  let webhooksAsked = false;
  await jobOver(t, store, STORED_AT_MS, async () => {
    webhooksAsked = true;
    throw new Error('out of order');
  }).run();

  assert.equal(asked.at(-1), 'outgoing-expired');
  assert.ok(webhooksAsked);
  assert.ok(asked.filter((type) => type === 'history-expired').length > 1);
});

test('deliveries stay a week, dead ones a month, and ten thousand of a webhook at most', async (t) => {
  const asked: SettledLimits[] = [];
  const job = jobOver(t, memoryStore(), STORED_AT_MS, async (limits) => asked.push(limits));
  await job.run();

  const [week, month] = [7 * 86_400_000, 30 * 86_400_000];
  assert.deepEqual([DELIVERED_RETENTION_MS, DEAD_RETENTION_MS, MAX_DELIVERIES], [week, month, 10_000]);
  assert.deepEqual(asked, [
    { deliveredBeforeMs: STORED_AT_MS - week, deadBeforeMs: STORED_AT_MS - month, perWebhook: 10_000 },
  ]);
});
