/** The outbox relay: what is kept with the end of a turn, and when it goes out. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tenantIdSchema } from '../../src/domain/ids.ts';
import { createRelay } from '../../src/outbox/relay.ts';
import { accept, answer, named, taskOf, tenantOf, turnOf } from '../store/records.ts';
import { leakFree } from '../support/leaks.ts';
import { quiet } from '../support/quiet.ts';
import { memoryStore } from '../support/stores.ts';
import { refusedWith } from '../support/transport.ts';
import { loopTurns, until } from '../support/until.ts';
import {
  comeBack,
  goAway,
  handReplies,
  memoryQueue,
  numbers,
  openRelay,
  outgoing,
  relayOver,
  storeAway,
  unsentIn,
} from './relay-fixtures.ts';

const TURN = named('t1');
const other = tenantIdSchema.parse('other');

test('the replies of a turn are kept in the same write as its end, and sent', async (t) => {
  const { fake, watched, start } = openRelay(t);
  const { spec, replyOf } = handReplies();
  const relay = start({ replyOf });
  await accept(relay.store, TURN);
  const first = spec('first', (turn) => outgoing(turn.content?.length ?? 0));
  const second = spec('second', () => outgoing(2));
  const states = () => [first, second].map(({ id }) => relay.replied(tenantOf(TURN), id)?.state);

  assert.deepEqual(states(), [undefined, undefined]);
  const ending = answer(relay.store, TURN, 'four', [first, second]);
  assert.deepEqual(states(), ['storing', 'storing']);
  assert.equal(await ending, 'stored');
  assert.deepEqual(states(), ['stored', 'stored']);

  await until('both', () => fake.arrived('q').length === 2);
  assert.deepEqual(fake.arrived('q'), [4, 2]);
  const end = watched.writes.find((write) => write.type === 'turn-ended');
  assert.deepEqual(
    end?.outgoing?.map(({ id }) => id),
    ['q-4', 'q-2'],
  );
  await relay.close();
  assert.deepEqual(await unsentIn(watched.store), []);
});

test('the hook of ended turns adds to every end, behind its replies', async (t) => {
  const { fake, start } = openRelay(t);
  const relay = start({
    onTurnEnded: (write) => [outgoing(9, 'save', { id: `save-${write.turn.taskId}` })],
  });
  await accept(relay.store, TURN);
  await answer(relay.store, TURN);
  await until('it', () => fake.ids().length === 1);
  assert.deepEqual(fake.ids(), ['save-t1']);
  await relay.close();
});

test('an end that is a duplicate or was refused keeps and sends nothing, and its replies are lost', async (t) => {
  const { fake, watched, start } = openRelay(t);
  const { spec, replyOf } = handReplies();
  const relay = start({ replyOf });
  const [late, lost] = [spec('late', () => outgoing(1)), spec('lost', () => outgoing(2))];
  await accept(relay.store, TURN);
  await answer(relay.store, TURN);
  assert.equal(await answer(relay.store, TURN, 'again', [late]), 'duplicate');

  const next = named('t2');
  await accept(relay.store, next);
  watched.fault = () => ({ error: storeAway() });
  assert.equal(await refusedWith(answer(relay.store, next, 'next', [lost])), 'STORE_UNAVAILABLE');
  watched.fault = () => undefined;
  const reads = watched.reads();
  await until('the store to be asked what became of it', () => watched.reads() > reads);
  await answer(relay.store, next);
  await relay.close();
  const states = [late, lost].map(({ id }) => relay.replied(tenantOf(TURN), id)?.state);
  assert.deepEqual([states, fake.calls()], [['lost', 'lost'], 0]);
});

test('make or hook throwing, or making nonsense, does not lose the end of the turn', async (t) => {
  const { fake, log, start } = openRelay(t);
  const { spec, replyOf } = handReplies();
  const relay = start({
    replyOf,
    onTurnEnded: () => {
      throw new Error('hook');
    },
  });
  await accept(relay.store, TURN);
  const bad = [
    () => {
      throw new Error('make');
    },
    () => outgoing(1, 'q', { action: undefined }),
    () => outgoing(2, 'q', { tenantId: other, action: outgoing(2).action }),
    () => outgoing(3, 'q', { id: '' }),
  ].map((make, index) => spec(`bad ${index}`, make));
  const good = spec('good', () => outgoing(4));
  const stateOf = ({ id }: { readonly id: string }) => relay.replied(tenantOf(TURN), id)?.state;

  assert.equal(await answer(relay.store, TURN, 'four', [...bad, good]), 'stored');
  assert.deepEqual(bad.map(stateOf), ['lost', 'lost', 'lost', 'lost']);
  assert.equal(stateOf(good), 'stored');
  await relay.close();
  assert.deepEqual(fake.arrived('q'), [4]);
  assert.equal(log.lines.filter(({ level }) => level === 'error').length, 5);
});

test('what the store can not write is left out, and the turn ends all the same', async (t) => {
  const { fake, watched, log, start } = openRelay(t);
  const { spec, replyOf } = handReplies();
  const relay = start({ replyOf });
  await accept(relay.store, TURN);
  const lone = spec('lone', () => outgoing(1, 'q', { id: 'lone \ud800', action: outgoing(1).action }));
  assert.equal(await answer(relay.store, TURN, 'four', [lone]), 'stored');
  assert.equal(relay.replied(tenantOf(TURN), 'lone')?.state, 'lost');
  assert.equal((await watched.store.turn(tenantOf(TURN), taskOf(TURN)))?.status, 'completed');
  await relay.close();
  assert.equal(fake.calls(), 0);
  assert.equal(log.lines.filter(({ level }) => level === 'error').length, 1);
});

test('writes reach the store in the tick and order of their calls', async (t) => {
  const { watched, start } = openRelay(t);
  const { spec, replyOf } = handReplies();
  const relay = start({ replyOf });
  const turnTold = { type: 'turn-notified', tenantId: tenantOf(TURN), taskId: taskOf(TURN) } as const;
  const calls = [
    accept(relay.store, TURN),
    relay.write([outgoing(2)]),
    answer(relay.store, TURN, 'four', [spec('one', () => outgoing(1))]),
    relay.store.commit(turnTold),
    relay.write([outgoing(3)]),
  ];
  assert.deepEqual(
    watched.writes.map(({ type }) => type),
    ['turn-accepted', 'outgoing', 'turn-ended', 'turn-notified', 'outgoing'],
  );
  await Promise.all(calls);
  await relay.close();
});

test('once caught up, what is kept is sent from memory, in order, and acknowledged in few writes', async (t) => {
  const { fake, watched, start } = openRelay(t);
  const relay = start({ timing: { ackMs: 5 } });
  await relay.write([outgoing(0)]);
  await until('the first', () => fake.arrived('q').length === 1);
  await until('the acknowledgement', async () => (await unsentIn(watched.store)).length === 0);
  const reads = watched.reads();
  await Promise.all(numbers(1, 1_000).map((n) => relay.write([outgoing(n)])));
  await until('all', () => fake.arrived('q').length === 1_000);
  assert.equal(watched.reads(), reads);
  await until('the acknowledgements', async () => (await watched.store.unsent(0, 1)).length === 0);

  assert.deepEqual(fake.arrived('q'), numbers(0, 1_000));
  const acks = watched.writes.filter(({ type }) => type === 'outgoing-sent').length;
  assert.ok(acks <= 20, `${acks} acknowledgements`);
  await relay.close();
});

test('keep resolves when it is kept, whether or not it can be sent; what was not kept is never sent', async (t) => {
  const { fake, watched, start } = openRelay(t);
  goAway(fake);
  const relay = start();
  await relay.write([]);
  assert.equal(watched.writes.length, 0);
  await relay.write([outgoing(1), outgoing(2)]);
  watched.fault = (write) => (write.type === 'outgoing' ? { error: storeAway() } : undefined);
  assert.equal(await refusedWith(relay.write([outgoing(3)])), 'STORE_UNAVAILABLE');
  watched.fault = () => undefined;
  assert.equal(await refusedWith(relay.write([outgoing(4, 'q', { action: undefined })])), 'INVALID_REQUEST');
  await relay.write([outgoing(5)]);
  comeBack(fake);
  await until('three', () => fake.arrived('q').length === 3);
  await relay.close();
  assert.deepEqual(fake.arrived('q'), [1, 2, 5]);
});

test('an id that was kept before is not sent again, but resend sends it', async (t) => {
  const { fake, start } = openRelay(t);
  const relay = start();
  const mine = outgoing(1, 'q', { answers: 'asked' });
  await Promise.all([relay.write([mine, mine]), relay.write([mine])]);
  await until('it', () => fake.arrived('q').length === 1);
  await relay.write([mine]);
  await relay.write([outgoing(1, 'q', { tenantId: other, answers: 'asked' })]);
  await until('the other tenant', () => fake.arrived('q').length === 2);
  const answered = await relay.store.answered(mine.tenantId, 'asked');
  assert.ok(answered);
  await relay.resend(answered);
  assert.equal(fake.arrived('q').length, 3);
  goAway(fake);
  assert.equal(await refusedWith(relay.resend(answered)), 'TRANSPORT_UNAVAILABLE');
  await relay.resend({ ...answered, queue: undefined });
  await relay.close();
});

test('what has no queue is kept and never sent', async (t) => {
  const { fake, watched, start } = openRelay(t);
  const relay = start();
  await relay.write([outgoing(1, 'q', { queue: undefined, answers: 'a' }), outgoing(2)]);
  await until('the one', () => fake.calls() === 1);
  await relay.close();
  assert.deepEqual(fake.arrived('q'), [2]);
  assert.equal((await watched.store.answered(tenantOf(TURN), 'a'))?.id, 'q-1');
});

test('before the start nothing is sent; after the close it is kept for the next start', async (t) => {
  const { fake, watched, start } = openRelay(t);
  const relay = createRelay({ store: watched.store, transport: fake.transport, log: quiet });
  await relay.write([outgoing(1)]);
  assert.deepEqual([fake.calls(), watched.reads()], [0, 0]);
  relay.start();
  await until('it', () => fake.arrived('q').length === 1);
  await Promise.all([relay.close(), relay.close()]);
  relay.start();
  await relay.write([outgoing(2)]);
  assert.deepEqual(await unsentIn(watched.store), ['q-2']);
  const next = start();
  await until('the second', () => fake.arrived('q').length === 2);
  await next.close();
  assert.deepEqual(await unsentIn(watched.store), []);
});

test('close waits for what is on its way, but not for ever', async (t) => {
  const { fake, watched, start } = openRelay(t);
  const relay = start({ timing: { closeMs: 50, page: 2 } });
  await relay.write([outgoing(0)]);
  await until('the first', () => fake.arrived('q').length === 1);
  fake.pace = loopTurns;
  await relay.write(numbers(1, 9).map((n) => outgoing(n)));
  await relay.close();
  assert.deepEqual(await unsentIn(watched.store), []);

  const stuck = start({ timing: { closeMs: 50 } });
  let release = (): void => {};
  fake.pace = () => new Promise((resolve) => (release = resolve));
  await stuck.write([outgoing(9)]);
  await until('it to be on its way', () => fake.arrived('q').length === 10);
  await stuck.close();
  release();
  assert.deepEqual(await unsentIn(watched.store), ['q-9']);
});

test('over the memory transport: answers are delivered in their format, in order', async (t) => {
  leakFree(t);
  const { transport, heard } = await memoryQueue();
  const relay = relayOver(transport, memoryStore());
  await Promise.all(
    numbers(0, 300).map((n) => relay.write([outgoing(n, 'q', { format: n % 2 ? 'msgpack' : 'json' })])),
  );
  await heard.heard(300);
  assert.deepEqual(heard.numbers(), numbers(0, 300));
  assert.deepEqual([heard.deliveries[0]?.format, heard.deliveries[1]?.format], ['json', 'msgpack']);
  await relay.close();
  await transport.close();
});

test('the end of a turn whose session is gone still answers who asked', async (t) => {
  const { fake, start } = openRelay(t);
  const { spec, replyOf } = handReplies();
  const relay = start({ replyOf });
  const replies = [spec('one', () => outgoing(1))];
  const ended = { ...turnOf(TURN), finishedAtMs: 1 };
  await relay.store.commit({ type: 'turn-ended', turn: ended, message: undefined, replies });
  assert.equal(relay.replied(tenantOf(TURN), 'one')?.state, 'stored');
  await until('it', () => fake.arrived('q').length === 1);
  await relay.close();
  assert.deepEqual(fake.arrived('q'), [1]);
});
