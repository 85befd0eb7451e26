/** Whatever fails in whatever order, the outbox relay sends all that was kept, in order, and nothing else. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RefusalError } from '../../src/domain/errors.ts';
import type { Store } from '../../src/ports/store.ts';
import { accept, answer, named, tenantOf } from '../store/records.ts';
import { dice } from '../support/dice.ts';
import { memoryStore } from '../support/stores.ts';
import { loopTurns, until } from '../support/until.ts';
import {
  fakeTransport,
  firsts,
  handReplies,
  outgoing,
  relayOver,
  storeAway,
  unsentIn,
  watchedStore,
} from './relay-fixtures.ts';

const QUEUES = ['a', 'b', 'c'] as const;

type Step =
  | { readonly type: 'keep'; readonly queues: readonly (typeof QUEUES)[number][] }
  | { readonly type: 'turn'; readonly queue: (typeof QUEUES)[number] }
  | { readonly type: 'pause'; readonly turns: number }
  | { readonly type: 'restart' };

const queueName = fc.constantFrom(...QUEUES);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ type: fc.constant('keep'), queues: fc.array(queueName, { maxLength: 6 }) }),
  },
  { weight: 3, arbitrary: fc.record({ type: fc.constant('turn'), queue: queueName }) },
  { weight: 4, arbitrary: fc.record({ type: fc.constant('pause'), turns: fc.nat(12) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('restart') }) },
);

interface Faults {
  /** Out of 100. */
  readonly send: number;
  readonly sent: number;
  readonly write: number;
  readonly read: number;
  readonly ping: number;
}

const faults: fc.Arbitrary<Faults> = fc.record({
  send: fc.constantFrom(0, 5, 30, 60),
  sent: fc.constantFrom(0, 30, 80),
  write: fc.constantFrom(0, 20),
  read: fc.constantFrom(0, 30),
  ping: fc.constantFrom(0, 50, 100),
});

/** Small bounds, so that every one of them is met. */
const SMALL = { page: 3, maxInMemory: 7, ackBatch: 4, ackMs: 1, backoffMs: 1, maxBackoffMs: 3, closeMs: 50 };

async function play(
  steps: readonly Step[],
  chances: Faults,
  delayTurns: number,
  seed: number,
): Promise<void> {
  const roll = dice(seed);
  const fails = (chance: number): boolean => roll(100) < chance;
  const inner = memoryStore();
  const slow: Store = {
    ...inner,
    async commit(write) {
      const outcome = await inner.commit(write);
      await loopTurns(delayTurns);
      return outcome;
    },
    async unsent(...asked) {
      const found = await inner.unsent(...asked);
      await loopTurns(delayTurns);
      return found;
    },
  };
  const [fake, watched] = [fakeTransport(), watchedStore(slow)];
  let faulty = true;
  fake.fate = () =>
    !faulty || !fails(chances.send) ? 'taken' : roll(3) === 0 ? 'refused and taken' : 'refused';
  fake.pace = () => loopTurns(roll(3));
  const { ping } = fake.transport;
  const transport = {
    ...fake.transport,
    ping: () => (faulty && fails(chances.ping) ? Promise.reject(storeAway()) : ping()),
  };
  watched.fault = ({ type }) =>
    faulty && fails(type === 'outgoing-sent' ? chances.sent : chances.write)
      ? { error: storeAway(), done: roll(2) === 0 }
      : undefined;
  watched.readFault = () => (faulty && fails(chances.read) ? storeAway() : undefined);

  const random = (): number => roll(100) / 100;
  const replies = handReplies();
  const { replyOf } = replies;
  const open = () => relayOver(transport, watched.store, { timing: SMALL, random, replyOf });
  let relay = open();
  let count = 0;
  /** Ids of which the relay has said that they are kept; and those of which it said nothing certain. */
  const kept = new Set<string>();
  const unsure = new Set<string>();
  const calls: Promise<void>[] = [];

  const note = (ids: readonly string[], result: Promise<unknown>): void => {
    const noted = result.then(
      () => {
        for (const id of ids) kept.add(id);
      },
      (error: unknown) => {
        assert.ok(error instanceof RefusalError);
        for (const id of ids) unsure.add(id);
      },
    );
    calls.push(noted);
  };
  for (const each of steps) {
    if (each.type === 'pause') await loopTurns(each.turns);
    else if (each.type === 'restart') {
      await Promise.all(calls);
      await relay.close();
      relay = open();
    } else if (each.type === 'keep') {
      const messages = each.queues.map((name, at) => outgoing(count + at, name));
      count += messages.length;
      note(
        messages.map(({ id }) => id),
        relay.write(messages),
      );
    } else {
      const turn = named(`t${count}`);
      const message = outgoing(count, each.queue);
      count += 1;
      await accept(inner, turn);
      const current = relay;
      const reply = replies.spec(message.id, () => message);
      const state = () => current.replied(tenantOf(turn), message.id)?.state;
      const ending = answer(relay.store, turn, 'four', [reply]);
      note([message.id], ending);
      calls.push(
        ending.then(
          () => assert.equal(state(), 'stored'),
          () => assert.equal(state(), 'lost'),
        ),
      );
    }
  }
  await Promise.all(calls);
  faulty = false;
  const arrived = (): ReadonlySet<string> => new Set(fake.ids());
  await until('all that was kept', () => [...kept].every((id) => arrived().has(id)));
  await until('the acknowledgements', async () => (await unsentIn(inner)).length === 0);
  await relay.close();

  for (const id of arrived()) assert.ok(kept.has(id) || unsure.has(id), `${id} was never kept`);
  for (const name of QUEUES) {
    const first = firsts(fake.arrived(name));
    // Numbers grow with the calls, and writes take effect in the order of the calls.
    assert.deepEqual(
      first,
      [...first].sort((one, other) => one - other),
    );
  }
}

test('random failures of sends, writes, reads and processes: at least once, in order, never unkept', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 40 }), faults, fc.nat(3), fc.integer(), play),
    { numRuns: 150 },
  );
});
