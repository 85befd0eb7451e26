/** Consumers that are killed with -9 again and again while they work: no action is lost. NOOBLE_CHAOS_ACTIONS sets how many there are. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import { killed } from '../../support/processes.ts';
import { redisFor, transportFor } from '../../support/redis-node.ts';
import { startWorker } from '../../support/redis-workers.ts';
import { action, queue } from '../../support/transport.ts';
import { until } from '../../support/until.ts';

const WORK = queue('execution_service:free:default');
const ACTIONS = Number(process.env.NOOBLE_CHAOS_ACTIONS ?? 10_000);
const WORKERS = 3;
const CREDITS = 8;
const WORK_MS = 15;
const KILL_MS = 2_000;
const MIN_KILLS = 3;
/** On a busy machine a tenth of what the workers could do. */
const LIMIT_MS = 30_000 + ACTIONS * 10;

test(`${ACTIONS} actions, workers killed every ${KILL_MS} ms: none is lost`, {
  timeout: LIMIT_MS + 30_000,
}, async (t) => {
  const redis = await redisFor(t);
  const sender = await transportFor(t, redis.url);
  const begun = new Map<number, number>();
  const start = (): ChildProcess =>
    startWorker(t, { url: redis.url, queue: WORK, credits: CREDITS, workMs: WORK_MS }, (n) => {
      begun.set(n, (begun.get(n) ?? 0) + 1);
    });
  const workers = Array.from({ length: WORKERS }, start);
  const sending = (async () => {
    for (let at = 0; at < ACTIONS; at += 500) {
      const batch = Array.from({ length: Math.min(500, ACTIONS - at) }, (_, n) => at + n);
      await Promise.all(batch.map((n) => sender.send(WORK, action(n), n % 2 ? 'json' : 'msgpack')));
    }
  })();
  await until('work', () => begun.size > 0, 30_000);

  let kills = 0;
  let isOver = false;
  const killing = (async () => {
    while (!isOver || kills < MIN_KILLS) {
      // The time between two deaths is what is tested, not something that is waited for.
      await wait(KILL_MS);
      const place = kills % WORKERS;
      const victim = workers[place];
      if (victim) await killed(victim);
      kills += 1;
      workers[place] = start();
    }
  })();
  await sending;
  const missing = (): number => ACTIONS - begun.size;
  await until('all to be begun', () => missing() === 0, LIMIT_MS).finally(() => {
    isOver = true;
  });
  await killing;
  // What the dead held is finished by the living.
  const held = async (): Promise<number> => {
    const lists = [WORK, ...(await redis.client.keys('nooble:intake:*'))];
    const hashes = await redis.client.keys('nooble:taken:*');
    const lengths = await Promise.all(lists.map((list) => redis.client.llen(list)));
    const ids = await Promise.all(hashes.map((hash) => redis.client.hkeys(hash)));
    return lengths.reduce((sum, length) => sum + length, ids.flat().filter((id) => /^\d+$/.test(id)).length);
  };
  await until('nothing to be held', async () => (await held()) === 0, 30_000);

  const again = [...begun.values()].filter((count) => count > 1).length;
  const dead = await sender.dead.list(WORK, 1_000);
  t.diagnostic(
    `${kills} killed, ${again} of ${ACTIONS} actions begun more than once, ${dead.length} dead, 0 lost`,
  );
  assert.deepEqual(
    [...begun.keys()].toSorted((a, b) => a - b),
    [...Array(ACTIONS).keys()],
  );
  // One that happened to be in the hands of three that were killed counts as poison: not lost, but kept.
  assert.ok(dead.every(({ error }) => error.code === 'POISON'));
  assert.ok(dead.length < ACTIONS / 1_000);
});
