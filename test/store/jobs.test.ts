/** The nightly job runs once over all nodes of a database, and takes along what is left of nodes long dead. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { TIER_TABLE } from '../../src/domain/tiers.ts';
import { openStores } from '../../src/store/open.ts';
import { createRetention } from '../../src/store/retention.ts';
import { type PostgresServer, startPostgres } from '../support/postgres.ts';
import { quiet } from '../support/quiet.ts';
import { until } from '../support/until.ts';

let server: PostgresServer;
before(async () => {
  server = await startPostgres();
});
after(() => server.close());

async function scene() {
  const url = await server.database();
  const nodes = await Promise.all([1, 2, 3].map(() => openStores({ url, log: quiet })));
  const name = new URL(url).pathname.slice(1);
  const admin = new pg.Client({ connectionString: server.adminUrl.replace(/[^/]*$/, name) });
  await admin.connect();
  return {
    nodes,
    rows: async (text: string) => (await admin.query(text)).rows,
    close: () => Promise.all([admin.end(), ...nodes.map((stores) => stores.close())]),
  };
}

test('of three nodes whose night it is one runs the job, and the next day another may', async (t) => {
  const { nodes, rows, close } = await scene();
  let ran = 0;
  let asked = 0;
  const jobs = nodes.map(({ conversations, webhooks, batches, jobs: runs }) => {
    assert.ok(runs);
    const job = createRetention({
      ...{ store: conversations, webhooks, tiers: TIER_TABLE, defaultTier: 'free', log: quiet },
      batches: {
        expire: async (beforeMs) => {
          ran += 1;
          return batches.expire(beforeMs);
        },
      },
      jobs: {
        ...runs,
        begin: (name) => runs.begin(name).finally(() => (asked += 1)),
      },
      clock: { now: Date.now },
      schedule: '* * * * * *',
    });
    t.after(() => job.close());
    return job;
  });
  await until('all have asked', () => asked >= 6);
  assert.equal(ran, 1);
  await rows("update job_runs set day = day - 1, at = at - interval '1 day'");
  await until('it runs on the next day', () => ran === 2);
  for (const job of jobs) job.close();
  assert.equal((await rows('select * from job_runs')).length, 2);
  await close();
});

test('days long gone are forgotten', async () => {
  const { nodes, rows, close } = await scene();
  const [first] = nodes;
  assert.ok(first?.jobs);
  await rows("insert into job_runs (job, day, at) values ('old', '2020-01-01', now() - interval '31 days')");
  assert.equal(await first.jobs.begin('new'), true);
  assert.deepEqual(await rows('select job from job_runs'), [{ job: 'new' }]);
  await close();
});
