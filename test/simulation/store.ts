/**
 * A model of the database: read committed, rows that are locked, locks that are waited for in order, answers that are
 * lost after the commit, transactions that outlive their client. It knows what was said to it, and checks who may write.
 */
import type { Boot } from '../../src/ports/cluster.ts';
import type { SimulationOptions } from './options.ts';
import type { World } from './world.ts';

export interface BootRow {
  state: 'live' | 'dead';
  beat: number;
  readonly nodeId: string;
}
export interface OwnerRow {
  readonly boot: Boot;
  readonly epoch: number;
  wanted: boolean;
}
export interface TurnRow {
  readonly session: string;
  boot: Boot;
  epoch: number;
  status: 'completed' | 'interrupted' | null;
  hasEffects: boolean;
  isUntold: boolean;
  ends: number;
}

/** The process that asks. */
export interface StoreClient {
  /** Whether what it says and is told is lost now. */
  readonly isCut: () => boolean;
  /** Does something in that process, if it is still the one that asked. */
  readonly resume: (act: () => void) => void;
}

export interface Statement<F, R> {
  /** The row that is held meanwhile; `free`: none. */
  readonly hold: { readonly boot: Boot; readonly mode: 'share' | 'alone' | 'bury' } | 'free';
  /** What it sees, and what it does with that, later. */
  readonly check: () => F;
  readonly apply: (found: F) => R;
}

/** `unavailable`: nobody knows whether it was done. `fenced`: that boot is dead. */
export type StoreOutcome<R> =
  | { readonly ok: true; readonly value: R }
  | { readonly ok: false; readonly why: 'unavailable' | 'fenced' };

interface Waiter {
  readonly isShared: boolean;
  readonly go: () => void;
  hasLeft: boolean;
}
interface Lock {
  shares: number;
  isAlone: boolean;
  readonly line: Waiter[];
}

/** How long a client waits for an answer, and a statement for a lock. */
const ANSWER_MS = 4_000;
const LOCK_MS = 3_000;

export function createStore(world: World, options: SimulationOptions) {
  const boots = new Map<Boot, BootRow>();
  const owners = new Map<string, OwnerRow>();
  const turns = new Map<string, TurnRow>();
  const locks = new Map<Boot, Lock>();
  const lastEpochs = new Map<string, number>();
  let isUp = true;
  let lastEpoch = 0;
  const { chance, between, now } = world;
  const isTrouble = (): boolean => now() < options.troubleMs;

  const lockOf = (boot: Boot): Lock => {
    const lock = locks.get(boot) ?? { shares: 0, isAlone: false, line: [] };
    locks.set(boot, lock);
    return lock;
  };

  function grant(lock: Lock): void {
    for (let first = lock.line[0]; first; first = lock.line[0]) {
      if (!first.hasLeft) {
        if (first.isShared ? lock.isAlone : lock.isAlone || lock.shares > 0) return;
        if (first.isShared) lock.shares += 1;
        else lock.isAlone = true;
      }
      lock.line.shift();
      if (!first.hasLeft) first.go();
    }
  }

  function acquire(boot: Boot, isShared: boolean, go: () => void): void {
    const lock = lockOf(boot);
    const waiter: Waiter = { isShared, go, hasLeft: false };
    lock.line.push(waiter);
    grant(lock);
    world.after(LOCK_MS, () => {
      if (!lock.line.includes(waiter)) return;
      waiter.hasLeft = true;
      grant(lock);
    });
  }

  function free(boot: Boot, isShared: boolean): void {
    const lock = lockOf(boot);
    if (isShared) lock.shares -= 1;
    else lock.isAlone = false;
    grant(lock);
  }

  /** Calls back at most once, in the process that asked. */
  function submit<F, R>(
    client: StoreClient,
    { hold, check, apply }: Statement<F, R>,
    done: (outcome: StoreOutcome<R>) => void,
  ): void {
    let isOver = false;
    const reply = (outcome: StoreOutcome<R>): void => {
      if (isOver) return;
      isOver = true;
      client.resume(() => done(outcome));
    };
    world.after(ANSWER_MS, () => reply({ ok: false, why: 'unavailable' }));
    const held = hold === 'free' || (!options.lock && hold.mode === 'share') ? undefined : hold;
    const isShared = held?.mode === 'share';
    const letGo = (): void => {
      if (held) free(held.boot, isShared);
    };
    const begin = (): void => {
      if (!isUp) return letGo();
      if (held && held.mode !== 'bury' && boots.get(held.boot)?.state === 'dead') {
        letGo();
        return world.after(between(0.1, 1), () => reply({ ok: false, why: 'fenced' }));
      }
      // Read committed: seen now, in force later.
      const found = check();
      const isSlow = chance(isTrouble() && options.slow > 0 ? options.slow : 0.02);
      world.after(isSlow ? between(50, 2_500) : between(0.1, 3), () => {
        if (!isUp) return letGo();
        const value = apply(found);
        letGo();
        if (!client.isCut()) world.after(between(0.1, 1), () => reply({ ok: true, value }));
      });
    };
    const isLate = chance(isTrouble() ? options.slow : 0.01);
    world.after(isLate ? between(50, 3_500) : between(0.1, 1.5), () => {
      // Lost: its client hears nothing.
      if (!isUp || client.isCut()) return;
      if (held) acquire(held.boot, isShared, begin);
      else begin();
    });
  }

  return {
    ...{ boots, owners, turns, submit },
    setUp(up: boolean): void {
      isUp = up;
    },
    newEpoch(session: string): number {
      lastEpoch += 1;
      lastEpochs.set(session, lastEpoch);
      return lastEpoch;
    },
    /** A write of an epoch is being committed: after another epoch has the session none may be. */
    wrote(session: string, epoch: number, what: string, task: string): void {
      const last = lastEpochs.get(session);
      if (last !== undefined && last !== epoch)
        world.problem('a write of a superseded owner was committed', { session, epoch, last, what, task });
    },
    end(turn: TurnRow, status: 'completed' | 'interrupted'): void {
      turn.status = status;
      turn.isUntold ||= status === 'interrupted';
      turn.ends += 1;
    },
    burial(boot: Boot): void {
      const row = boots.get(boot);
      if (row) row.state = 'dead';
      for (const turn of turns.values())
        if (turn.boot === boot && !turn.status) this.end(turn, 'interrupted');
    },
    isDead: (boot: Boot): boolean => boots.get(boot)?.state === 'dead',
  };
}

export type SimulatedStore = ReturnType<typeof createStore>;
