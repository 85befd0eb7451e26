/** The wrapper on real nact: order, bounds, supervision, dead letters, idleness, many children. */
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { type TestContext, test } from 'node:test';
import type { ActorKind, ActorSystem, Address, Behaviour } from '../../../actors/runtime/actor.ts';
import { createActorSystem } from '../../../actors/runtime/actor-system.ts';
import { leakFree } from '../../support/leaks.ts';
import { quiet } from '../../support/quiet.ts';
import { loopTurns } from '../../support/until.ts';
import { handClock } from '../fixtures.ts';

type Message =
  | { readonly type: 'note'; readonly text: string }
  | { readonly type: 'ask'; readonly replyTo: number }
  | { readonly type: 'ignore'; readonly replyTo: number }
  | { readonly type: 'think'; readonly boom: string }
  | { readonly type: 'act'; readonly boom: string }
  | { readonly type: 'leave' }
  | { readonly type: 'rest' }
  | { readonly type: 'idle' };
type Effect =
  | { readonly type: 'noted'; readonly text: string }
  | { readonly type: 'reply'; readonly replyTo: number; readonly value: readonly string[] }
  | { readonly type: 'explode'; readonly text: string }
  | { readonly type: 'stop' }
  | { readonly type: 'passivate' };
type State = readonly string[];

const keeper: Behaviour<State, Message, Effect> = (state, message) => {
  switch (message.type) {
    case 'note':
      return [[...state, message.text], [{ type: 'noted', text: message.text }]];
    case 'ask':
      return [state, [{ type: 'reply', replyTo: message.replyTo, value: state }]];
    case 'ignore':
      return [state, []];
    case 'think':
      throw new Error(message.boom);
    case 'act':
      return [
        [...state, 'acted'],
        [
          { type: 'noted', text: 'before' },
          { type: 'explode', text: message.boom },
          { type: 'noted', text: 'after' },
        ],
      ];
    case 'leave':
      return [state, [{ type: 'stop' }]];
    case 'rest':
      return [state, [{ type: 'passivate' }]];
    case 'idle':
      return [[...state, 'idle'], [{ type: 'noted', text: 'idle' }]];
  }
};

interface Bench {
  readonly system: ActorSystem;
  readonly clock: ReturnType<typeof handClock>;
  readonly noted: string[];
  readonly stopped: string[];
  readonly dead: string[];
  readonly crashes: string[];
  readonly letters: string[];
  readonly rested: boolean[];
  kind(more?: Partial<ActorKind<State, Message, Effect>>): ActorKind<State, Message, Effect>;
  spawn(
    name: string,
    kind?: ActorKind<State, Message, Effect>,
    parent?: Address<Message> | null,
  ): Address<Message>;
}

function bench(t: TestContext): Bench {
  leakFree(t);
  const clock = handClock();
  const crashes: string[] = [];
  const letters: string[] = [];
  const noted: string[] = [];
  const stopped: string[] = [];
  const dead: string[] = [];
  const rested: boolean[] = [];
  const system = createActorSystem({
    clock,
    log: quiet,
    onCrash: (kind) => crashes.push(kind),
    onDeadLetter: (kind) => letters.push(kind),
  });
  t.after(() => system.close());
  const kind: Bench['kind'] = (more = {}) => ({
    kind: 'keeper',
    behaviour: keeper,
    mailboxLimit: 100,
    restarts: { max: 2, withinMs: 60_000 },
    onStopped: (state, reason) => stopped.push(`${state[0]} ${reason}`),
    onDeadLetter: (message) => dead.push(message.type),
    ...more,
  });
  const spawn: Bench['spawn'] = (name, ofKind = kind(), parent = null) =>
    system.spawn(parent, ofKind, {
      name,
      initial: [name],
      interpret: (effect, self) => {
        switch (effect.type) {
          case 'noted':
            return void noted.push(effect.text);
          case 'reply':
            return system.reply(effect.replyTo, effect.value);
          case 'explode':
            throw new Error(effect.text);
          case 'stop':
            return system.stop(self);
          case 'passivate':
            return void rested.push(system.passivate(self));
        }
      },
    });
  return { system, clock, noted, stopped, dead, crashes, letters, rested, kind, spawn };
}

const note = (text: string): Message => ({ type: 'note', text });
const stateOf = (system: ActorSystem, address: Address<Message>): Promise<State> =>
  system.ask<Message, State>(address, 1_000, (replyTo) => ({ type: 'ask', replyTo }));

test('messages are handled in the order in which they were told, across many batches', async (t) => {
  const { system, spawn, kind } = bench(t);
  const address = spawn('a', kind({ mailboxLimit: 1_000 }));
  const texts = Array.from({ length: 500 }, (_, index) => `${index}`);
  for (const text of texts) system.tell(address, note(text));
  assert.deepEqual(await stateOf(system, address), ['a', ...texts]);
});

test('an actor with much mail lets others have their turn after a batch', async (t) => {
  const { system, spawn, kind, noted } = bench(t);
  const busy = spawn('busy', kind({ mailboxLimit: 1_000 }));
  const quiet = spawn('quiet');
  for (let index = 0; index < 500; index += 1) system.tell(busy, note('busy'));
  system.tell(quiet, note('quiet'));
  await loopTurns(2);
  assert.ok(noted.includes('quiet'));
  assert.ok(noted.filter((text) => text === 'busy').length < 500);
});

/** Two actors that tell each other `times` messages in all; `left` counts down. */
function pingPong(t: TestContext, times: number) {
  const { system, kind } = bench(t);
  const told = { left: times };
  const others: Address<Message>[] = [];
  const spawnOne = (at: number): Address<Message> =>
    system.spawn(null, kind(), {
      name: `${at}`,
      initial: [`${at}`],
      interpret: () => {
        told.left -= 1;
        const other = others[1 - at];
        if (told.left > 0 && other) system.tell(other, note('ping'));
      },
    });
  others.push(spawnOne(0), spawnOne(1));
  const begin = (): void => void system.tell(others[0] ?? assert.fail(), note('ping'));
  return { told, begin };
}

test('actors that tell each other something run on in the same turn of the loop', async (t) => {
  const { told, begin } = pingPong(t, 10);
  begin();
  assert.equal(told.left, 10, 'not in the middle of who tells');
  await Promise.resolve();
  assert.equal(told.left, 0);
});

test('actors that never cease to tell each other something leave the loop its turns', async (t) => {
  const { told, begin } = pingPong(t, 10_000);
  begin();
  for (let turns = 0; turns < 10; turns += 1) await loopTurns();
  assert.ok(told.left > 10_000 - 11 * 64, `${10_000 - told.left} messages in ten turns of the loop`);
  assert.ok(told.left < 10_000 - 64);
  told.left = 0;
});

test('an edge is refused beyond the limit while actors still have room, up to their own bound', async (t) => {
  const { system, spawn, kind, dead, letters } = bench(t);
  const address = spawn('a', kind({ mailboxLimit: 2 }));
  assert.deepEqual(
    [1, 2, 3].map(() => system.offer(address, note('edge'))),
    ['delivered', 'delivered', 'full'],
  );
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6, 7].map(() => system.tell(address, note('inside'))),
    [...Array.from({ length: 6 }, () => 'delivered'), 'full'],
  );
  assert.deepEqual([dead, letters], [['note'], ['keeper']], 'what was told and not taken is a dead letter');
});

test('an ask that is full, dead or out of time is refused with that reason', async (t) => {
  const { system, spawn, kind, clock } = bench(t);
  const full = spawn('full', kind({ mailboxLimit: 1 }));
  system.tell(full, note('x'));
  await assert.rejects(stateOf(system, full), { reason: 'full' });
  system.stop(full);
  await assert.rejects(stateOf(system, full), { reason: 'dead' });
  const mute = spawn('mute');
  const asked = system.ask<Message, State>(mute, 50, (replyTo) => ({ type: 'ignore', replyTo }));
  clock.nowMs += 50;
  await assert.rejects(asked, { reason: 'timeout' });
});

test('the first reply counts; late and double ones are ignored', async (t) => {
  const { system, spawn } = bench(t);
  let number = 0;
  const asked = system.ask<Message, string>(spawn('a'), 1_000, (replyTo) => {
    number = replyTo;
    return { type: 'ignore', replyTo };
  });
  system.reply(number, 'first');
  system.reply(number, 'second');
  assert.equal(await asked, 'first');
  system.reply(number, 'third');
});

test('a behaviour that throws keeps the last good state, is told to recover, and goes on with its mail', async (t) => {
  const { system, spawn, kind, crashes } = bench(t);
  const recover: Behaviour<State, Message, Effect> = (state, message) => [
    [...state, `recovered from ${message.type}`],
    [],
  ];
  const address = spawn('a', kind({ recover }));
  system.tell(address, note('one'));
  system.tell(address, { type: 'think', boom: 'bug' });
  system.tell(address, note('two'));
  assert.deepEqual(await stateOf(system, address), ['a', 'one', 'recovered from think', 'two']);
  assert.deepEqual(crashes, ['keeper']);
});

test('without a way to recover, the message that crashed an actor is a dead letter', async (t) => {
  const { system, spawn, dead } = bench(t);
  const address = spawn('a');
  system.tell(address, { type: 'think', boom: 'bug' });
  assert.deepEqual(await stateOf(system, address), ['a']);
  assert.deepEqual(dead, ['think']);
});

test('an effect that throws is a crash, but the state and the other effects stand, and nothing is done twice', async (t) => {
  const { system, spawn, noted, crashes, dead, kind } = bench(t);
  const recover: Behaviour<State, Message, Effect> = (state) => [[...state, 'recovered'], []];
  const address = spawn('a', kind({ recover }));
  system.tell(address, { type: 'act', boom: 'bug' });
  assert.deepEqual(await stateOf(system, address), ['a', 'acted']);
  assert.deepEqual([noted, crashes, dead], [['before', 'after'], ['keeper'], []]);
});

test('an actor whose recovery crashes too is stopped, and the message is answered', async (t) => {
  const { system, spawn, kind, dead, stopped } = bench(t);
  const recover: Behaviour<State, Message, Effect> = () => {
    throw new Error('again');
  };
  const address = spawn('a', kind({ recover }));
  system.tell(address, { type: 'think', boom: 'bug' });
  await loopTurns(3);
  assert.equal(system.isAlive(address), false);
  assert.deepEqual([dead, stopped], [['think'], ['a crashed']]);
});

test('an actor that crashes more often than its intensity is stopped with its children, children first', async (t) => {
  const { system, spawn, stopped, dead, crashes } = bench(t);
  const parent = spawn('parent');
  const child = spawn('child', undefined, parent);
  const grandchild = spawn('grandchild', undefined, child);
  for (let crash = 0; crash < 3; crash += 1) system.tell(parent, { type: 'think', boom: 'bug' });
  system.tell(parent, note('left'));
  await loopTurns(8);
  assert.deepEqual(
    [parent, child, grandchild].map((address) => system.isAlive(address)),
    [false, false, false],
  );
  assert.deepEqual(stopped, ['grandchild crashed', 'child crashed', 'parent crashed']);
  assert.equal(crashes.length, 3);
  assert.deepEqual(dead, ['think', 'think', 'think', 'note'], 'the mail that was left is answered');
  assert.throws(() => spawn('late', undefined, parent), { reason: 'dead' });
});

test('crashes that lie further apart than the period do not add up', async (t) => {
  const { system, spawn, clock } = bench(t);
  const address = spawn('a');
  for (let crash = 0; crash < 6; crash += 1) {
    system.tell(address, { type: 'think', boom: 'bug' });
    await stateOf(system, address);
    clock.nowMs += 40_000;
  }
  assert.equal(system.isAlive(address), true);
});

test('a message to a stopped actor is counted and answered', async (t) => {
  const { system, spawn, dead, letters } = bench(t);
  const address = spawn('a');
  system.stop(address);
  assert.equal(system.tell(address, note('late')), 'dead');
  assert.deepEqual([dead, letters], [['note'], ['keeper']]);
  assert.equal(system.offer(address, note('late')), 'dead');
  assert.deepEqual([dead.length, letters.length], [1, 2], 'an edge answers for itself');
});

test('an actor that stops itself handles nothing more, and its own last message is no dead letter', async (t) => {
  const { system, spawn, noted, dead, stopped } = bench(t);
  const address = spawn('a');
  system.tell(address, { type: 'leave' });
  system.tell(address, note('late'));
  await loopTurns(3);
  assert.deepEqual([noted, dead, stopped], [[], ['note'], ['a stopped']]);
  assert.equal(system.stats()[0]?.depth, 0);
});

test('an actor is not passivated while mail waits for it', async (t) => {
  const { system, spawn, rested, noted } = bench(t);
  const address = spawn('a');
  system.tell(address, { type: 'rest' });
  system.tell(address, note('more'));
  await loopTurns(3);
  assert.deepEqual([rested, noted, system.isAlive(address)], [[false], ['more'], true]);
  system.tell(address, { type: 'rest' });
  await loopTurns(3);
  assert.deepEqual([rested, system.isAlive(address)], [[false, true], false]);
});

test('an actor without a message for long enough is told so, again and again, but not before', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const { system, spawn, kind, clock, noted } = bench(t);
  const address = spawn('a', kind({ idle: { afterMs: 1_000, message: { type: 'idle' } } }));
  const pass = async (ms: number): Promise<void> => {
    clock.nowMs += ms;
    t.mock.timers.tick(ms);
    await loopTurns(2);
  };
  await pass(750);
  system.tell(address, note('here'));
  await pass(750);
  assert.deepEqual(noted, ['here']);
  await pass(750);
  assert.deepEqual(noted, ['here']);
  await pass(250);
  assert.deepEqual(noted, ['here', 'idle']);
  await pass(1_000);
  assert.deepEqual(noted, ['here', 'idle', 'idle']);
});

test('kinds that are idle after different times are looked for in their own', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const { system, spawn, kind, clock, noted } = bench(t);
  const slow = spawn('slow', kind({ idle: { afterMs: 60_000, message: note('slow') } }));
  const quick = spawn('quick', kind({ idle: { afterMs: 400, message: note('quick') } }));
  const pass = async (ms: number): Promise<void> => {
    clock.nowMs += ms;
    t.mock.timers.tick(ms);
    await loopTurns(2);
  };
  for (let looks = 0; looks < 4; looks += 1) await pass(100);
  assert.deepEqual(noted, ['quick'], 'the first kind that was watched does not hold up the second');
  system.stop(quick);
  for (let looks = 0; looks < 4; looks += 1) await pass(15_000);
  assert.deepEqual(noted, ['quick', 'slow'], 'one that has stopped is not looked for');
  assert.equal(system.isAlive(slow), true);
});

test('an ask tells in the same tick that it was taken, and only then', (t) => {
  const { system, spawn, kind } = bench(t);
  const address = spawn('a', kind({ mailboxLimit: 1 }));
  let taken = 0;
  const ask = () =>
    system.ask<Message, State>(
      address,
      1_000,
      (replyTo) => ({ type: 'ask', replyTo }),
      () => {
        taken += 1;
      },
    );
  const first = ask();
  assert.equal(taken, 1);
  const second = assert.rejects(ask(), { reason: 'full' });
  assert.equal(taken, 1);
  return Promise.all([first, second]).then(() => undefined);
});

/** nact's own actor behind one of ours: the children it would copy into the context of every message. */
const require = createRequire(import.meta.url);
const { find }: { find(name: string, ref: unknown): { children: Map<string, unknown> } } = require(
  require.resolve('nact').replace('index.js', 'system-map.js'),
);

function nactChildren(address: object): number {
  if (!('ref' in address) || typeof address.ref !== 'object' || address.ref === null)
    throw new Error('no ref');
  const { ref } = address;
  if (!('system' in ref) || typeof ref.system !== 'object' || ref.system === null)
    throw new Error('no system');
  if (!('name' in ref.system) || typeof ref.system.name !== 'string') throw new Error('no name');
  return find(ref.system.name, ref).children.size;
}

test('a parent of 10,000 has them under a nursery, so that its own messages carry one child', async (t) => {
  const { system, spawn, kind, noted, stopped } = bench(t);
  const crowded = spawn('crowded', kind({ manyChildren: true }));
  const plain = spawn('plain');
  const child = kind({ kind: 'child' });
  const children = Array.from({ length: 10_000 }, (_, index) => spawn(`${index}`, child, crowded));
  spawn('only', child, plain);
  assert.deepEqual([nactChildren(crowded), nactChildren(plain)], [1, 1]);
  for (const address of children) system.tell(address, note('child'));
  system.tell(crowded, note('parent'));
  await loopTurns(3);
  assert.equal(noted.length, 10_001);
  assert.equal(system.stats().find((stats) => stats.kind === 'child')?.alive, 10_001);
  system.stop(crowded);
  assert.equal(
    children.some((address) => system.isAlive(address)),
    false,
  );
  assert.equal(stopped.length, 10_001);
  assert.equal(system.stats().find((stats) => stats.kind === 'child')?.alive, 1);
});

test('numbers tell what is alive, what waits, how full it got, and what was done', async (t) => {
  const { system, spawn } = bench(t);
  const address = spawn('a');
  spawn('b');
  for (const text of ['1', '2', '3']) system.tell(address, note(text));
  const before = system.stats();
  assert.deepEqual(
    before.map(({ kind, alive, depth, deepest, handled }) => ({ kind, alive, depth, deepest, handled })),
    [{ kind: 'keeper', alive: 2, depth: 3, deepest: 3, handled: 0 }],
  );
  await loopTurns(2);
  const [after] = system.stats();
  assert.deepEqual([after?.depth, after?.deepest, after?.handled], [0, 3, 3]);
  assert.ok((after?.busyMs ?? 0) > 0);
});

test('closing stops everything, answers what waits, and a second close does nothing', async (t) => {
  const { system, spawn, dead, stopped, letters } = bench(t);
  const address = spawn('a');
  spawn('b', undefined, address);
  const asked = stateOf(system, address);
  system.tell(address, note('waits'));
  await Promise.all([assert.rejects(asked, { reason: 'dead' }), system.close()]);
  assert.deepEqual(
    [dead, stopped],
    [
      ['ask', 'note'],
      ['b stopped', 'a stopped'],
    ],
  );
  assert.equal(letters.length, 2);
  await system.close();
});

test('what throws while an actor is wound up does not keep the rest from ending', async (t) => {
  const { system, spawn, kind, stopped } = bench(t);
  const onStopped = (): void => {
    throw new Error('bug');
  };
  const parent = spawn('parent');
  const child = spawn('child', kind({ onStopped }), parent);
  system.stop(parent);
  assert.deepEqual([system.isAlive(child), stopped], [false, ['parent stopped']]);
});
