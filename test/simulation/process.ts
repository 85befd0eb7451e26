/** A simulated process: it may freeze, so that all that it waits for comes later and in any order, and it may crash. */
import type { World } from './world.ts';

interface Asleep {
  readonly life: number;
  readonly act: () => void;
  /** Within a lane order is kept. */
  readonly lane: number | undefined;
  at: number;
}

export interface Process {
  /** Raised with each start, and when it begins anew as another boot: what belongs to an earlier one never happens. */
  life(): number;
  isUp(): boolean;
  isFrozen(): boolean;
  start(): void;
  crash(): void;
  /** It goes on, and nothing that it waited for comes any more. */
  beginAnew(): void;
  /** Does something in that life, now or when it wakes. */
  run(life: number, act: () => void, lane?: number): void;
  /** The same in this life, so much later. */
  after(ms: number, act: () => void): void;
  freeze(ms: number): void;
}

export function createProcess(world: World): Process {
  let life = 0;
  let isUp = false;
  let frozenUntilMs = 0;
  let asleep: Asleep[] = [];

  const isFrozen = (): boolean => frozenUntilMs > world.now();

  function run(of: number, act: () => void, lane?: number): void {
    if (of !== life || !isUp) return;
    if (isFrozen() || asleep.length > 0) asleep.push({ life: of, act, lane, at: world.between(0, 1) });
    else act();
  }

  /** What waited comes in any order, except that each lane keeps its own. */
  function thaw(): void {
    if (isFrozen()) return;
    const waiting = asleep;
    const lanes = new Set(waiting.flatMap(({ lane }) => (lane === undefined ? [] : [lane])));
    for (const lane of lanes) {
      const all = waiting.filter((each) => each.lane === lane);
      const places = all.map(({ at }) => at).sort((a, b) => a - b);
      for (const [n, each] of all.entries()) each.at = places[n] ?? each.at;
    }
    waiting.sort((a, b) => a.at - b.at);
    asleep = [];
    for (const each of waiting) {
      if (isFrozen()) asleep.push(each);
      else if (each.life === life && isUp) each.act();
    }
  }

  return {
    life: () => life,
    isUp: () => isUp,
    isFrozen,
    start() {
      isUp = true;
      life += 1;
      asleep = [];
      frozenUntilMs = 0;
    },
    crash() {
      isUp = false;
      asleep = [];
    },
    beginAnew() {
      life += 1;
    },
    run,
    after(ms, act) {
      const mine = life;
      world.after(ms, () => run(mine, act));
    },
    freeze(ms) {
      frozenUntilMs = world.now() + ms;
      world.after(ms + 0.001, thaw);
    },
  };
}
