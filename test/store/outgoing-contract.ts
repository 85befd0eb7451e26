/** The part of the stores' contract about what is stored to be sent, and what was answered to which action. */
import assert from 'node:assert/strict';
import type { DomainAction } from '../../src/domain/domain-action.ts';
import { queueNameSchema } from '../../src/domain/queues.ts';
import type { Outgoing, Store } from '../../src/ports/store.ts';
import { accept, answered, forget, message, named, type Over, page, taskOf, tenantOf } from './records.ts';

const queue = queueNameSchema.parse('orchestrator:acme:callback');

/** A message of one tenant; `answers` nothing unless told so. */
export const outgoing = (id: string, more: Partial<Outgoing> = {}, tenant = 'acme'): Outgoing => ({
  tenantId: tenantOf(named('t1', 's1', tenant)),
  id,
  answers: undefined,
  queue,
  format: 'json',
  action: actionOf(id, tenant, { response: id }),
  ...more,
});

const actionOf = (id: string, tenant: string, data: DomainAction['data']): DomainAction => ({
  action_id: id,
  action_type: 'execution.callback',
  tenant_id: tenantOf(named('t1', 's1', tenant)),
  data,
  metadata: {},
  timestamp: '2024-05-01T00:00:00.000Z',
});

export const storeOutgoing = (store: Store, ...messages: readonly Outgoing[]) =>
  store.commit({ type: 'outgoing', outgoing: messages });

export const sent = (store: Store, ...messages: readonly Outgoing[]) =>
  store.commit({ type: 'outgoing-sent', sent: messages });

/** Ends a turn with an answer and what is to be sent for it. */
export const endWith = (store: Store, name: ReturnType<typeof named>, ...messages: readonly Outgoing[]) =>
  store.commit({
    type: 'turn-ended',
    turn: answered(name, `say ${name.task}`),
    message: message(name, 'assistant', `say ${name.task}`),
    outgoing: messages,
  });

const expire = (store: Store, beforeMs: number) => store.commit({ type: 'outgoing-expired', beforeMs });

export const unsentIds = async (store: Store, afterSeq = 0, limit = 100): Promise<readonly string[]> =>
  (await store.unsent(afterSeq, limit)).map((each) => each.outgoing.id);

const acme = tenantOf(named('t1'));
const umbrella = tenantOf(named('t1', 's1', 'umbrella'));

/** Adds its sentences to the suite of `storeContract`. */
export function outgoingContract(over: Over): void {
  over(
    'a message that is stored is found to be sent, as it was, and nothing answers for it',
    async (store) => {
      const full = outgoing('a', { answers: 'request-1', format: 'msgpack' });
      assert.equal(await storeOutgoing(store, full, outgoing('b', { action: undefined })), 'stored');

      const [first, second, ...more] = await store.unsent(0, 10);
      assert.deepEqual(first?.outgoing, full);
      assert.deepEqual(second?.outgoing, outgoing('b', { action: undefined }));
      assert.deepEqual(more, []);
      assert.deepEqual(await store.answered(acme, 'request-1'), full);
      assert.equal(await store.answered(acme, 'a'), null);
      assert.equal(await store.answered(acme, 'b'), null);
    },
  );

  over('what ends a turn is found with it, in the order in which all of them were stored', async (store) => {
    for (const task of ['t1', 't2']) await accept(store, named(task));
    await Promise.all([
      storeOutgoing(store, outgoing('a'), outgoing('b')),
      endWith(store, named('t1'), outgoing('c', { answers: 'r1' }), outgoing('d')),
      storeOutgoing(store, outgoing('e')),
      endWith(store, named('t2'), outgoing('f')),
    ]);

    assert.deepEqual(await unsentIds(store), ['a', 'b', 'c', 'd', 'e', 'f']);
    assert.equal((await store.answered(acme, 'r1'))?.id, 'c');
    assert.equal((await store.turn(acme, taskOf(named('t1'))))?.status, 'completed');
  });

  over('an id that is there already is left as it is', async (store) => {
    const [first, second] = [
      outgoing('a', { answers: 'r1' }),
      outgoing('a', { answers: 'r2', format: 'msgpack' }),
    ];
    await storeOutgoing(store, first, second);
    await storeOutgoing(store, second, outgoing('b'));
    assert.deepEqual(await unsentIds(store), ['a', 'b']);
    assert.deepEqual(await store.answered(acme, 'r1'), first);
    assert.equal(await store.answered(acme, 'r2'), null);

    await sent(store, first);
    await storeOutgoing(store, first);
    assert.deepEqual(await unsentIds(store), ['b'], 'an answer that was sent is not sent again');
  });

  over(
    'an end that comes twice stores nothing more, one of a deleted session is answered still',
    async (store) => {
      const [done, gone] = [named('t1'), named('t2', 's2')];
      for (const name of [done, gone]) await accept(store, name);
      await forget(store, gone);

      assert.equal(await endWith(store, done, outgoing('a')), 'stored');
      assert.equal(await endWith(store, done, outgoing('b')), 'duplicate');
      assert.equal(await endWith(store, gone, outgoing('c')), 'stored');
      assert.deepEqual(await unsentIds(store), ['a', 'c']);
      await forget(store, done);
      assert.deepEqual(await unsentIds(store), ['a', 'c'], 'messages outlive their session');
    },
  );

  over('of two ends at the same time the first alone is answered for', async (store) => {
    await accept(store, named('t1'));
    const outcomes = await Promise.all([
      endWith(store, named('t1'), outgoing('a')),
      endWith(store, named('t1'), outgoing('b')),
    ]);

    assert.deepEqual(outcomes, ['stored', 'duplicate']);
    assert.deepEqual(await unsentIds(store), ['a']);
  });

  over('what was sent is not found again; answers stay, and the rest can be stored anew', async (store) => {
    const [answer, plain] = [outgoing('a', { answers: 'r1' }), outgoing('b')];
    await storeOutgoing(store, answer, plain, outgoing('c'));
    assert.equal(await sent(store, answer, plain, outgoing('never-stored')), 'stored');
    assert.equal(await sent(store, answer, plain), 'stored');

    assert.deepEqual(await unsentIds(store), ['c']);
    assert.deepEqual(await store.answered(acme, 'r1'), answer);
    await Promise.all([
      storeOutgoing(store, plain),
      sent(store, plain),
      storeOutgoing(store, plain),
      storeOutgoing(store, plain),
    ]);
    assert.deepEqual(await unsentIds(store), ['c', 'b']);
  });

  over('an answer that nobody waits for is remembered and never sent', async (store) => {
    const quiet = outgoing('a', { answers: 'r1', queue: undefined, action: undefined });
    await accept(store, named('t1'));
    await endWith(store, named('t1'), quiet);

    assert.deepEqual(await unsentIds(store), []);
    assert.deepEqual(await store.answered(acme, 'r1'), quiet);
  });

  over('of several answers to one action the first is given', async (store) => {
    await storeOutgoing(store, outgoing('a', { answers: 'r1' }), outgoing('b', { answers: 'r1' }));

    assert.equal((await store.answered(acme, 'r1'))?.id, 'a');
  });

  over('tenants with the same ids know nothing of each other', async (store) => {
    const [mine, theirs] = [outgoing('a', { answers: 'r1' }), outgoing('a', { answers: 'r1' }, 'umbrella')];
    await storeOutgoing(store, mine);
    assert.equal(await store.answered(umbrella, 'r1'), null);
    await storeOutgoing(store, theirs);
    assert.deepEqual(await store.answered(umbrella, 'r1'), theirs);

    await sent(store, theirs);
    assert.deepEqual(
      (await store.unsent(0, 9)).map((each) => each.outgoing),
      [mine],
    );
  });

  over('pages of what is unsent hold each once, also while others are sent and stored', async (store) => {
    await storeOutgoing(store, ...Array.from({ length: 25 }, (_, index) => outgoing(`m${index}`)));
    const seen: string[] = [];
    let afterSeq = 0;
    for (;;) {
      const found = await store.unsent(afterSeq, 10);
      if (found.length === 0) break;
      assert.ok(found.length <= 10);
      seen.push(...found.map((each) => each.outgoing.id));
      afterSeq = found.at(-1)?.seq ?? 0;
      await sent(store, ...found.map((each) => each.outgoing));
      if (seen.length === 25) await storeOutgoing(store, outgoing('late'));
    }

    assert.deepEqual(seen, [...Array.from({ length: 25 }, (_, index) => `m${index}`), 'late']);
    assert.deepEqual(await store.unsent(0, 10), []);
    assert.deepEqual(await store.unsent(0, 0), []);
  });

  over('answers that were sent, or that nobody waits for, expire; what is unsent stays', async (store) => {
    const [old, silent] = [
      outgoing('a', { answers: 'r1' }),
      outgoing('b', { answers: 'r2', queue: undefined }),
    ];
    await storeOutgoing(store, old, silent, outgoing('c', { answers: 'r3' }), outgoing('d'));
    await sent(store, old);
    await expire(store, Date.now() - 60_000);
    assert.deepEqual(await store.answered(acme, 'r1'), old, 'a young one stays');

    await expire(store, Date.now() + 60_000);
    assert.equal(await store.answered(acme, 'r1'), null);
    assert.equal(await store.answered(acme, 'r2'), null);
    assert.equal((await store.answered(acme, 'r3'))?.id, 'c');
    assert.deepEqual(await unsentIds(store), ['c', 'd']);
  });

  over('very many answers expire', async (store) => {
    const many = Array.from({ length: 1_200 }, (_, index) => outgoing(`a${index}`, { answers: `r${index}` }));
    await storeOutgoing(store, ...many);
    await sent(store, ...many);
    await expire(store, Date.now() + 60_000);

    for (const index of [0, 499, 500, 1_199]) assert.equal(await store.answered(acme, `r${index}`), null);
  });

  over('a body comes back as it was, however large and whatever it holds', async (store) => {
    const data = {
      huge: '😀\u0000\ud800'.repeat(250_000),
      "'; DROP TABLE outgoing; --": [null, -0.5, 1e300, true, '', { deep: [[['\udfff\ud800']]] }],
      '\u0000 key \ud800': '\\u0000 \\ "',
    };
    const hostile = outgoing('a', { answers: 'r1', action: actionOf('a', 'acme', data) });
    await accept(store, named('t1'));
    await endWith(store, named('t1'), hostile);

    assert.deepEqual((await store.unsent(0, 1))[0]?.outgoing, hostile);
    assert.deepEqual(await store.answered(acme, 'r1'), hostile);
  });

  over('an end with a message that can not be stored leaves the turn unended', async (store) => {
    await accept(store, named('t1'));
    for (const id of ['nul \u0000', 'half \ud800'])
      await assert.rejects(endWith(store, named('t1'), outgoing('good'), outgoing(id)), TypeError);

    assert.equal((await store.turn(acme, taskOf(named('t1'))))?.status, 'processing');
    assert.deepEqual(await unsentIds(store), []);
    assert.equal(await store.answered(acme, '\u0000'), null);
    assert.equal(await store.answered(acme, '\ud800'), null);
  });

  over('nothing to store and nothing sent is no mistake', async (store) => {
    await accept(store, named('t1'));

    assert.equal(await storeOutgoing(store), 'stored');
    assert.equal(await sent(store), 'stored');
    assert.equal(await endWith(store, named('t1')), 'stored');
    assert.deepEqual(await unsentIds(store), []);
    assert.equal((await page(store, named('t1')))?.messages.length, 2);
  });
}
