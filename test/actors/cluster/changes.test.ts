/** Changes of other nodes: each is applied once, and who could not read for long relies on nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createChangeReader } from '../../../actors/cluster/changes.ts';
import { agentIdSchema } from '../../../src/domain/ids.ts';
import type { Tier } from '../../../src/domain/tiers.ts';
import { CHANGES_MS, type StoredChange } from '../../../src/ports/cluster.ts';
import { quiet } from '../../support/quiet.ts';
import { tenantId } from '../fixtures.ts';

const ACME = tenantId('acme');
const agent = (seq: number, version = seq): StoredChange => ({
  ...{ seq, type: 'agent' },
  news: { tenantId: ACME, agentId: agentIdSchema.parse('helper'), version },
});
const tier = (seq: number): StoredChange => ({ seq, type: 'tier', tenantId: ACME, id: 'free' });

function open() {
  const done: unknown[] = [];
  const feed = { rows: [] as readonly StoredChange[], isOut: false, nowMs: 0, stored: 'free' as Tier };
  const reader = createChangeReader({
    feed: {
      recent: async () => {
        if (feed.isOut) throw new Error('out');
        return feed.rows;
      },
      forget: async () => void done.push('forget'),
    },
    everyMs: 1_000,
    agents: {
      outdated: ({ version }) => void done.push(version),
      invalidateAll: () => void done.push('all'),
    },
    tiers: {
      tenants: () => [ACME, tenantId('other')],
      stored: async () => feed.stored,
      set: (tenant, set) => void done.push(`${tenant} ${set}`),
    },
    log: quiet,
    now: () => feed.nowMs,
  });
  return { reader, feed, done };
}

test('a change is applied once, also one whose number comes late', async () => {
  const { reader, feed, done } = open();
  feed.rows = [agent(1), agent(3)];
  await reader.read();
  feed.rows = [agent(1), agent(2), agent(3), agent(4)];
  await reader.read();
  feed.rows = [agent(4)];
  await reader.read();

  assert.deepEqual(done, [1, 3, 2, 4]);
});

test('a tier is read as it is stored, once for all changes of it', async () => {
  const { reader, feed, done } = open();
  feed.rows = [tier(1), tier(2)];
  feed.stored = 'enterprise';
  await reader.read();
  await reader.read();

  assert.deepEqual(done, ['acme enterprise']);
});

test('a short outage is made up for by the rows, after a long one nothing is relied on', async () => {
  const { reader, feed, done } = open();
  await reader.read();
  feed.isOut = true;
  feed.nowMs = CHANGES_MS - 1_000;
  await reader.read();
  feed.isOut = false;
  feed.rows = [agent(1)];
  feed.nowMs = CHANGES_MS;
  await reader.read();
  assert.deepEqual(done, [1]);

  feed.nowMs += CHANGES_MS + 1;
  await reader.read();
  assert.deepEqual(done, [1, 'all', 'acme free', 'other free']);
});

test('a change whose tier could not be read comes again', async () => {
  const { reader, feed, done } = open();
  const changes = createChangeReader({
    ...{ everyMs: 1_000, log: quiet, now: () => feed.nowMs },
    feed: { recent: async () => [tier(1), agent(2)], forget: async () => {} },
    agents: { outdated: () => void done.push('agent'), invalidateAll: () => void done.push('all') },
    tiers: {
      tenants: () => [ACME],
      async stored() {
        if (feed.isOut) throw new Error('out');
        return 'free';
      },
      set: () => void done.push('tier'),
    },
  });
  feed.isOut = true;
  await changes.read();
  feed.isOut = false;
  await changes.read();
  await reader.read();

  assert.deepEqual(done, ['agent', 'agent', 'tier']);
});

test('old changes are deleted now and then', async () => {
  const { reader, feed, done } = open();
  await reader.read();
  for (let minute = 0; minute < 21; minute += 1)
    for (let second = 0; second < 60; second += 5) {
      feed.nowMs += 5_000;
      await reader.read();
    }
  assert.deepEqual(done, ['forget', 'forget']);
});
