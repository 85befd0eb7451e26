/** What every store of batches and callbacks keeps: bounds, claims, and what is forgotten. */
import assert from 'node:assert/strict';
import { refusal } from '../../src/domain/errors.ts';
import { sessionIdSchema, type TaskId, taskIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import type { ItemRequest, StoredBatch } from '../../src/ports/batches.ts';
import type { Stores } from '../../src/store/open.ts';
import { turnRequest } from '../actors/fixtures.ts';
import { accept, answer, named } from './records.ts';

export type WorkStores = Pick<Stores, 'conversations' | 'batches' | 'callbacks'>;
type Over = (sentence: string, body: (stores: WorkStores) => Promise<void>) => void;

const ACME = tenantIdSchema.parse('acme');
const OTHER = tenantIdSchema.parse('other');
const S1 = sessionIdSchema.parse('s1');
const task = (id: string): TaskId => taskIdSchema.parse(id);
const TERM_MS = 60_000;

const batch = (id: string, ids: readonly string[], more: Partial<StoredBatch> = {}): StoredBatch => ({
  ...{ id, tenantId: ACME, concurrency: 2, isOver: false },
  items: ids.map((each) => ({ taskId: task(each), sessionId: S1 })),
  ...more,
});
const asked = (ids: readonly string[]): readonly ItemRequest[] =>
  ids.map((id) => ({
    request: turnRequest(id, { context: { big: 2n ** 70n, text: '\u0000 \ud800' }, agentVersion: 3 }),
    callbackUrl: id === 't1' ? 'https://example.com/' : undefined,
  }));

export function batchContract(over: Over): void {
  over('a batch is found by its own tenant, with the turns of its items', async (stores) => {
    const { batches, conversations } = stores;
    await accept(conversations, named('t1'));
    await answer(conversations, named('t1'), 'four');
    await accept(conversations, named('t2'));
    await batches.add(batch('b1', ['t1', 't2', 't3']), asked(['t1', 't2', 't3']), 10, TERM_MS);
    const found = await batches.find(ACME, 'b1');
    assert.deepEqual(found?.batch, batch('b1', ['t1', 't2', 't3']));
    const turns = found?.turns.map(({ taskId, content }) => [taskId, content]).sort();
    assert.deepEqual(turns, [
      ['t1', 'four'],
      ['t2', undefined],
    ]);
    assert.equal(await batches.find(OTHER, 'b1'), null);
    assert.equal(await batches.find(ACME, 'b2'), null);
  });

  over('a tenant has so many batches that are not over, and no more', async ({ batches }) => {
    const add = (id: string, tenantId = ACME) =>
      batches.add(batch(id, ['t1'], { tenantId }), asked(['t1']), 2, TERM_MS);
    assert.deepEqual([await add('b1'), await add('b2'), await add('b3')], [true, true, false]);
    assert.equal(await add('b1', OTHER), true);
    await batches.save(batch('b1', ['t1'], { isOver: true }));
    assert.equal(await add('b3'), true);
  });

  over(
    'what is left is claimed once, with what was asked for, and not while it is claimed',
    async (stores) => {
      const { batches } = stores;
      await batches.add(batch('kept', ['t1']), asked(['t1']), 10, TERM_MS);
      await batches.add(batch('left', ['t1', 't2']), asked(['t1', 't2']), 10, 0);
      await batches.add(batch('over', ['t1']), asked(['t1']), 10, 0);
      const items = [{ taskId: task('t1'), sessionId: S1, error: refusal('AGENT_NOT_FOUND') }];
      await batches.save(batch('over', [], { items, isOver: true }));
      const claimed = await Promise.all([batches.claim(10, TERM_MS), batches.claim(10, TERM_MS)]);
      const [left, ...rest] = claimed.flat();
      assert.deepEqual(rest, []);
      assert.deepEqual([left?.id, left?.turns], ['left', []]);
      const [first, second] = left?.requests ?? [];
      assert.deepEqual(
        [first?.request.message, first?.request.agentVersion, first?.callbackUrl, second?.callbackUrl],
        ['message t1', 3, 'https://example.com/', undefined],
      );
      assert.match(first?.request.contextText ?? '', /1180591620717411303424/);
      assert.deepEqual(first?.request.caller, { tenantId: ACME, tier: undefined, userId: undefined });

      assert.deepEqual(await batches.claim(10, TERM_MS), []);
      await batches.renew([left ?? assert.fail(), batch('over', [])], 0);
      assert.deepEqual(
        (await batches.claim(10, TERM_MS)).map(({ id }) => id),
        ['left'],
        'one that is over is not claimed again',
      );
      assert.deepEqual((await batches.find(ACME, 'over'))?.batch.items, items);
    },
  );

  over('old batches that are over are deleted, others never', async ({ batches }) => {
    for (const id of ['open', 'over']) await batches.add(batch(id, ['t1']), asked(['t1']), 10, 0);
    await batches.save(batch('over', ['t1'], { isOver: true }));
    assert.equal(await batches.expire(Date.now() - TERM_MS), 0);
    assert.equal(await batches.expire(Date.now() + TERM_MS), 1);
    assert.deepEqual(
      [(await batches.find(ACME, 'open'))?.batch.id, await batches.find(ACME, 'over')],
      ['open', null],
    );
  });

  const callback = (id: string, more: object = {}) => ({
    ...{ tenantId: ACME, taskId: task(id), url: 'https://example.com/', ...more },
  });

  over('a callback is due once its turn has ended and nobody has it in hand', async (stores) => {
    const { callbacks, conversations } = stores;
    await accept(conversations, named('runs'));
    for (const id of ['mine', 'left']) {
      await accept(conversations, named(id));
      await answer(conversations, named(id), `of ${id}`);
    }
    await callbacks.add(callback('mine'), TERM_MS);
    for (const id of ['left', 'runs', 'unknown']) await callbacks.add(callback(id), 0);
    const claimed = await Promise.all([callbacks.claim(10, TERM_MS), callbacks.claim(10, TERM_MS)]);
    assert.deepEqual(
      claimed.flat().map(({ callback: each, turn }) => [each, turn.content]),
      [[{ ...callback('left'), attempts: 0 }, 'of left']],
    );
    await callbacks.put({ ...callback('left'), attempts: 2 }, 0);
    const [again] = await callbacks.claim(10, TERM_MS);
    assert.equal(again?.callback.attempts, 2);
    await callbacks.add(callback('left'), 0);
    assert.equal((await callbacks.claim(10, 0))[0]?.callback.attempts, 0, 'asked for again, it begins anew');
    await callbacks.remove(callback('left'));
    assert.deepEqual(await callbacks.claim(10, TERM_MS), []);
  });

  over(
    'first attempts of a batch are its node’s until it is over, further ones anybody’s',
    async (stores) => {
      const { callbacks, conversations, batches } = stores;
      await batches.add(batch('b1', ['t1', 't2']), asked(['t1', 't2']), 10, TERM_MS);
      for (const id of ['t1', 't2']) {
        await accept(conversations, named(id));
        await answer(conversations, named(id));
        await callbacks.add(callback(id, { batchId: 'b1' }), 0);
      }
      await callbacks.put({ ...callback('t2'), attempts: 1 }, 0);
      const claim = async () =>
        (await callbacks.claim(10, TERM_MS)).map(({ callback: { taskId } }) => taskId);
      assert.deepEqual(await claim(), ['t2']);
      await batches.save(batch('b1', ['t1', 't2'], { isOver: true }));
      assert.deepEqual(await claim(), ['t1']);
    },
  );
}
