/** A model of Redis: one list a boot, whose bundles may be lost, may come twice, and of whose pushes nobody may hear. */
import type { Bundle } from '../../src/ports/links.ts';
import type { SimulationOptions } from './options.ts';
import type { Process } from './process.ts';
import type { World } from './world.ts';

interface Inbox {
  readonly process: Process;
  readonly life: number;
  readonly heard: (bundle: Bundle) => void;
  /** Nothing overtakes what one node wrote before. */
  readonly lastMs: Map<number, number>;
}

/** How long a push may go unanswered while Redis is away. */
const AWAY_MS = 1_500;

export function createMedium(world: World, options: SimulationOptions) {
  const inboxes = new Map<number, Inbox>();
  /** Each time it was away: what was under way is lost. */
  let outages = 0;
  let isUp = true;
  const isTrouble = (): boolean => world.now() < options.troubleMs;

  function deliver(to: number, bundle: Bundle): void {
    const inbox = inboxes.get(to);
    if (!inbox) return;
    const atMs = Math.max(inbox.lastMs.get(bundle.from) ?? 0, world.now() + world.between(0.1, 1));
    inbox.lastMs.set(bundle.from, atMs + 0.0001);
    const before = outages;
    world.after(atMs - world.now(), () => {
      if (isUp && before === outages) inbox.process.run(inbox.life, () => inbox.heard(bundle), bundle.from);
    });
  }

  return {
    setUp(up: boolean): void {
      if (!up) outages += 1;
      isUp = up;
    },
    open(boot: number, process: Process, heard: Inbox['heard']): void {
      inboxes.set(boot, { process, life: process.life(), heard, lastMs: new Map() });
    },
    /** As Inboxes.push; calls back in the process that pushed. */
    push(process: Process, to: number, bundle: Bundle, done: (unread: number | undefined) => void): void {
      const life = process.life();
      const answer = (unread: number | undefined, ms: number): void =>
        world.after(ms, () => process.run(life, () => done(unread)));
      world.note(
        'bundle',
        bundle.from,
        '>',
        to,
        bundle.linkId,
        bundle.n,
        bundle.items.map(({ kind }) => kind).join(),
      );
      if (!isUp) return answer(undefined, world.chance(0.5) ? 0 : world.between(0, AWAY_MS));
      const isBad = isTrouble() && world.chance(options.loss);
      // Lost on the way, taken and not answered, or taken twice.
      const fate = isBad ? world.pick(['lost', 'unanswered', 'twice'] as const) : 'taken';
      if (fate !== 'lost') deliver(to, bundle);
      if (fate === 'twice') deliver(to, bundle);
      answer(fate === 'unanswered' ? undefined : 1, world.between(0.1, 0.6));
    },
  };
}

export type Medium = ReturnType<typeof createMedium>;
