/** Whatever order messages come in, after whatever was cut off before, turns end once, everybody is answered, and the books come out even. */
import { test } from 'node:test';
import fc from 'fast-check';
import type { OnBusy } from '../../../src/domain/frames.ts';
import { randomFrom } from '../../support/dice.ts';
import { said, sessionId, taskId, tenantId } from '../fixtures.ts';
import { createSimulation, type Faults } from '../simulation.ts';

interface Say {
  readonly type: 'say' | 'cancel' | 'inquire' | 'forget' | 'drainExpired' | 'attach';
  readonly tenant: number;
  readonly session: number;
  readonly task: number;
  readonly onBusy: OnBusy;
  /** A turn that was interrupted may run again. */
  readonly again: boolean;
  /** Steps of the simulation before the next action. */
  readonly pause: number;
}

const action: fc.Arbitrary<Say> = fc.record({
  type: fc.constantFrom(
    'say',
    'say',
    'say',
    'say',
    'say',
    'cancel',
    'cancel',
    'inquire',
    'forget',
    'drainExpired',
    'attach',
  ),
  tenant: fc.nat(1),
  session: fc.nat(2),
  task: fc.nat(9),
  again: fc.boolean(),
  onBusy: fc.constantFrom('enqueue', 'enqueue', 'interrupt', 'reject'),
  pause: fc.nat(12),
});

const TENANTS = [0, 1];
/** So many of the first tasks were interrupted before the simulation began. */
const INTERRUPTED = 5;
const ATTACH = { type: 'attach', tier: undefined, resume: undefined, atMs: 1 } as const;

function play(actions: readonly Say[], seed: number, capacity: number, faults: Faults): void {
  const simulation = createSimulation(randomFrom(seed), capacity, faults);
  for (const tenant of TENANTS)
    for (let task = 0; task < INTERRUPTED; task += 1)
      simulation.interrupted(tenantId(`tenant${tenant}`), sessionId(`s${task % 3}`), taskId(`t${task}`));
  const saidBefore = new Set<string>();
  for (const { type, tenant, session, task, onBusy, again, pause } of actions) {
    const tenantKey = tenantId(`tenant${tenant}`);
    // A task lives in one session only: the directory refuses it in another.
    const ofTask = type === 'say' || type === 'cancel' || type === 'inquire';
    const sessionKey = sessionId(`s${ofTask ? task % 3 : session}`);
    const id = taskId(`t${task}`);
    if (type === 'drainExpired') simulation.tell(tenantKey, sessionKey, { type, atMs: 1 });
    else if (type === 'attach') simulation.tell(tenantKey, sessionKey, { ...ATTACH, clientId: `c${pause}` });
    else {
      const replyTo = simulation.nextReply();
      if (type === 'say') {
        simulation.say(
          tenantKey,
          sessionKey,
          said(`t${task}`, {
            onBusy,
            replyTo,
            arrival: replyTo,
            // An id of the node's own is said once.
            taskIdGiven: again || task < INTERRUPTED || saidBefore.has(`${tenant}/${task}`),
            ...(again ? { resumable: again } : {}),
          }),
        );
        saidBefore.add(`${tenant}/${task}`);
      } else simulation.ask(tenantKey, sessionKey, { type, taskId: id, replyTo, atMs: 1 });
    }
    for (let step = 0; step < pause; step += 1) simulation.step();
  }
  let left = 100_000;
  while (simulation.step() && left > 0) left -= 1;
  simulation.checkRest();
}

const runs = (faults: Faults): fc.IPropertyWithHooks<[Say[], number, number]> =>
  fc.property(
    fc.array(action, { minLength: 1, maxLength: 40 }),
    fc.integer(),
    fc.integer({ min: 1, max: 3 }),
    (actions, seed, capacity) => play(actions, seed, capacity, faults),
  );

/** INTERLEAVING_RUNS makes it more, after a change of what actors decide. */
const NUM_RUNS = Number(process.env.INTERLEAVING_RUNS ?? 400);

test('every interleaving of turns, cancels and interrupts keeps the promises', () => {
  fc.assert(runs({ store: 0, agent: 0, behaviour: 0 }), { numRuns: NUM_RUNS });
});

test('they hold too where agents are unknown and the store refuses writes', () => {
  fc.assert(runs({ store: 0.15, agent: 0.2, behaviour: 0 }), { numRuns: NUM_RUNS });
});

test('they hold too where sessions crash over their messages and recover', () => {
  fc.assert(runs({ store: 0.1, agent: 0.1, behaviour: 0.08 }), { numRuns: NUM_RUNS });
});
