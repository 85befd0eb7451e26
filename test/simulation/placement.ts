/** A model of placement: which boot has a session, asked of the database once for all who ask meanwhile. */
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import type { SimulationOptions } from './options.ts';
import type { SimulatedSession, SimulatedSessions } from './sessions.ts';
import type { SimulatedStore, Statement, StoreOutcome } from './store.ts';
import type { World } from './world.ts';

export type FoundSession =
  | { readonly at: 'here'; readonly session: SimulatedSession }
  | { readonly at: 'there'; readonly owner: number }
  | { readonly at: 'unknown'; readonly error: ErrorData };

interface PlacementModelDeps {
  readonly world: World;
  readonly options: SimulationOptions;
  readonly store: SimulatedStore;
  readonly boot: number;
  readonly sessions: SimulatedSessions;
  readonly after: (ms: number, act: () => void) => void;
  readonly submit: <F, R>(statement: Statement<F, R>, done: (outcome: StoreOutcome<R>) => void) => void;
  readonly read: <R>(apply: () => R, done: (outcome: StoreOutcome<R>) => void) => void;
}

interface Claimed {
  readonly boot: number;
  readonly epoch: number;
  readonly isNew?: true;
}

type Found = (place: FoundSession) => void;

/** While a session is given up here. */
const LEAVING_MS = 20;

export function createPlacementModel(deps: PlacementModelDeps) {
  const { world, options, store, boot, sessions, after, submit, read } = deps;
  const known = new Map<string, number>();
  const asking = new Map<string, Found[]>();

  function find(name: string, done: Found): void {
    const living = sessions.get(name);
    if (living?.isLeaving) return after(LEAVING_MS, () => find(name, done));
    if (living) return done({ at: 'here', session: living });
    const owner = known.get(name);
    if (owner !== undefined) return done({ at: 'there', owner });
    const line = asking.get(name);
    if (line) return void line.push(done);
    asking.set(name, [done]);
    claim(name);
  }

  function claim(name: string): void {
    const dead = (): ReadonlySet<number> =>
      new Set([...store.boots].flatMap(([each, { state }]) => (state === 'dead' ? [each] : [])));
    const apply = (deadThen: ReadonlySet<number>): Claimed => {
      const row = store.owners.get(name);
      if (row && !deadThen.has(row.boot)) return row;
      const epoch = store.newEpoch(name);
      store.owners.set(name, { boot, epoch, wanted: false });
      world.note('boot', boot, 'claims', name, epoch);
      return { boot, epoch, isNew: true };
    };
    submit({ hold: 'free', check: dead, apply }, (outcome) => {
      const line = asking.get(name) ?? [];
      asking.delete(name);
      const place = placeOf(name, outcome);
      for (const done of line) done(place);
    });
  }

  function placeOf(name: string, outcome: StoreOutcome<Claimed>): FoundSession {
    const unknown = { at: 'unknown', error: refusal('STORE_UNAVAILABLE') } as const;
    if (!outcome.ok) return unknown;
    const { boot: owner, epoch, isNew } = outcome.value;
    if (owner !== boot) {
      known.set(name, owner);
      return { at: 'there', owner };
    }
    const living = sessions.get(name);
    // A row of our own that no session has is what a claim left whose answer was lost.
    if (living?.isLeaving || (!living && !isNew && !options.adopt)) return unknown;
    return { at: 'here', session: living ?? sessions.activate(name, epoch) };
  }

  return {
    find,
    moved: (name: string): void => void known.delete(name),
    lost(other: number): void {
      for (const [name, owner] of known) if (owner === other) known.delete(name);
    },
    owners: (): Iterable<number> => known.values(),
    want(name: string, owner: number): void {
      const apply = (): void => {
        const row = store.owners.get(name);
        if (row && row.boot === owner) row.wanted = true;
      };
      read(apply, () => {});
    },
  };
}
