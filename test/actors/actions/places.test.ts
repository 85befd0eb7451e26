/** Places for actions: what waits is granted in turn at a few steps for each, and is known while it waits. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPlaces, type Places, withPlaces } from '../../../actors/actions/places.ts';
import { parseDomainAction } from '../../../src/domain/domain-action.ts';
import { refusal } from '../../../src/domain/errors.ts';
import { sessionIdSchema, taskIdSchema, tenantIdSchema } from '../../../src/domain/ids.ts';
import { nodeSubscriptions, workQueue } from '../../../src/domain/queues.ts';
import { TIER_TABLE, type Tier } from '../../../src/domain/tiers.ts';
import type { Directory } from '../../../src/ports/sessions.ts';
import { type ActionDelivery, SetAside } from '../../../src/ports/transport.ts';
import { quiet } from '../../support/quiet.ts';

const tenant = (name: string) => tenantIdSchema.parse(name);
const task = (name: string) => taskIdSchema.parse(name);

const placesOf = (size: number): Places =>
  createPlaces({
    size,
    subscriptions: nodeSubscriptions(),
    tiers: TIER_TABLE,
    atOnce: async () => 2,
    clock: { now: () => 1_000 },
    log: quiet,
  });

/** One run: resolves once it has its place; `end` gives that back. */
function enter(places: Places, tenantName: string, name: string, onIn = (_end: () => void): void => {}) {
  const parsed = parseDomainAction(
    { action_id: name, action_type: 'execution.agent_run', tenant_id: tenantName },
    0,
    () => name,
  );
  assert.ok(parsed.ok);
  const tier: Tier = 'free';
  const delivery: ActionDelivery = {
    queue: workQueue(tier, 'default'),
    action: parsed.action,
    idGiven: true,
    format: 'json',
    bytes: 100,
  };
  const turn = { taskId: task(name), sessionId: sessionIdSchema.parse(name), agentId: undefined };
  const wanting = { tenantId: tenant(tenantName), tier, sessionId: turn.sessionId, turn };
  const { promise: over, resolve: end } = Promise.withResolvers<void>();
  let isIn = false;
  const work = (started: () => void): Promise<void> => {
    isIn = true;
    started();
    onIn(end);
    return over;
  };
  const first = places.within(delivery, wanting, work);
  const done = first.catch(async (aside: unknown) => {
    if (!(aside instanceof SetAside)) throw aside;
    await aside.place.granted;
    await places.within({ ...delivery, place: aside.place }, wanting, work);
  });
  return { end, done, isIn: () => isIn };
}

/** What was granted has begun. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('tenants take turns, however many each has waiting', async () => {
  const places = placesOf(1);
  const first = enter(places, 'holder', 'h');
  const runs = ['loud', 'loud', 'loud', 'quiet'].map((name, at) => ({
    at,
    run: enter(places, name, `${name}-${at}`),
  }));
  const order: number[] = [];
  first.end();
  for (const _ of runs) {
    await settled();
    const next = runs.find(({ at, run }) => run.isIn() && !order.includes(at));
    assert.ok(next);
    order.push(next.at);
    next.run.end();
    await next.run.done;
  }
  assert.deepEqual(order, [0, 3, 1, 2]);
});

test('with five thousand tenants in line a grant costs no more than with fifty', async () => {
  /** Ms for each of a thousand grants. */
  async function cost(tenants: number): Promise<number> {
    const places = placesOf(1);
    let next = (): void => {};
    const onIn = (end: () => void): void => {
      next = end;
    };
    for (let at = 0; at < 3 * tenants; at += 1) enter(places, `t${at % tenants}`, `run-${at}`, onIn);
    const grants = Math.min(1_000, 3 * tenants);
    await settled();
    const startedAt = performance.now();
    for (let n = 0; n < grants; n += 1) {
      next();
      await settled();
    }
    return (performance.now() - startedAt) / grants;
  }
  await cost(50);
  const [few, many] = [await cost(50), await cost(5_000)];
  assert.ok(many < 5 * few + 0.2, `${few} and ${many} ms`);
});

test('what waits for a place is queued for whoever asks, and reaches its session when it is cancelled', async () => {
  const places = placesOf(1);
  const holder = enter(places, 'acme', 'running');
  const waiting = enter(places, 'acme', 'waiting');
  await settled();
  const cancelled: string[] = [];
  const absent = { ok: false, error: refusal('NOT_FOUND') } as const;
  const known: Pick<Directory, 'turn' | 'cancel'> = {
    turn: async () => absent,
    cancel: async (_tenant, taskId) => {
      assert.ok(waiting.isIn());
      cancelled.push(taskId);
      return { ...absent, taskId };
    },
  };
  const directory = withPlaces(known, places);
  const found = await directory.turn(tenant('acme'), task('waiting'));
  assert.ok(found.ok);
  assert.deepEqual(
    [found.value.status, found.value.sessionId, found.value.createdAtMs],
    ['queued', 'waiting', 1_000],
  );
  for (const [who, name] of [
    ['acme', 'running'],
    ['other', 'waiting'],
    ['acme', 'unknown'],
  ] as const)
    assert.equal((await directory.turn(tenant(who), task(name))).ok, false, name);
  await directory.cancel(tenant('acme'), task('waiting'));
  assert.deepEqual(cancelled, ['waiting']);
  assert.equal((await directory.turn(tenant('acme'), task('waiting'))).ok, false);
  holder.end();
  waiting.end();
  await Promise.all([holder.done, waiting.done]);
});
