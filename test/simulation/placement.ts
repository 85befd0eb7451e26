/** The project's rules of placement over the model of the database: which boot has a session, and how it is given up. */
import {
  createPlacementRules,
  type PlacementEffect,
  type PlacementMessage,
} from '../../actors/cluster/placement.ts';
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import { sessionIdSchema, tenantIdSchema } from '../../src/domain/ids.ts';
import type { SessionKey, Wanted } from '../../src/ports/cluster.ts';
import type { SimulationOptions } from './options.ts';
import type { SimulatedSession } from './sessions.ts';
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
  readonly after: (ms: number, act: () => void) => void;
  readonly submit: <F, R>(statement: Statement<F, R>, done: (outcome: StoreOutcome<R>) => void) => void;
  readonly write: <F, R>(
    statement: Omit<Statement<F, R>, 'hold'>,
    done: (outcome: StoreOutcome<R>) => void,
  ) => void;
  readonly living: (name: string) => SimulatedSession | undefined;
  readonly activate: (name: string, epoch: number) => SimulatedSession;
  readonly onWanted: (name: string) => void;
}

type Found = (place: FoundSession) => void;

interface ClaimedRow {
  readonly boot: number;
  readonly epoch: number;
  readonly isNew?: true;
}

const RETRY_MS = 300;
const TENANT = tenantIdSchema.parse('t');
export const keyOf = (name: string): SessionKey => ({
  tenantId: TENANT,
  sessionId: sessionIdSchema.parse(name),
});

export function createPlacementModel(deps: PlacementModelDeps) {
  const { world, options, store, boot, after, submit, write } = deps;
  const rules = createPlacementRules();
  const seeking = new Map<string, Found[]>();
  const releasing = new Map<string, () => void>();
  const owners = new Map<string, number>();

  function take(message: PlacementMessage): void {
    for (const effect of rules.take(message)) carryOut(effect);
  }

  function carryOut(effect: PlacementEffect): void {
    switch (effect.type) {
      case 'claimSoon':
        return after(0, () => take({ type: 'due' }));
      case 'claim':
        return claim(effect.keys);
      case 'found':
        return answer(effect.key.sessionId, () => placeOf(effect.key.sessionId, effect.claimed));
      case 'refused':
        return answer(effect.key.sessionId, () => ({ at: 'unknown', error: effect.error }));
      case 'release':
        return release(effect.key, effect.epoch);
      case 'tell':
        return deps.onWanted(effect.wanted.key.sessionId);
    }
  }

  function answer(name: string, place: () => FoundSession): void {
    const line = seeking.get(name) ?? [];
    seeking.delete(name);
    const found = place();
    if (found.at === 'there') owners.set(name, found.owner);
    for (const done of line) done(found);
  }

  /** A row of our own that no session has is what a claim left whose answer was lost. */
  function placeOf(name: string, claimed: ClaimedRow): FoundSession {
    if (claimed.boot !== boot) return { at: 'there', owner: claimed.boot };
    const living = deps.living(name);
    if (!living && !claimed.isNew && !options.adopt)
      return { at: 'unknown', error: refusal('STORE_UNAVAILABLE') };
    return { at: 'here', session: living ?? deps.activate(name, claimed.epoch) };
  }

  function claim(keys: readonly SessionKey[]): void {
    const dead = (): ReadonlySet<number> =>
      new Set([...store.boots].flatMap(([each, { state }]) => (state === 'dead' ? [each] : [])));
    const apply = (deadThen: ReadonlySet<number>): readonly ClaimedRow[] =>
      keys.map(({ sessionId: name }) => {
        const row = store.owners.get(name);
        if (row && !deadThen.has(row.boot)) return row;
        const epoch = store.newEpoch(name);
        store.owners.set(name, { boot, epoch, wanted: false });
        world.note('boot', boot, 'claims', name, epoch);
        return { boot, epoch, isNew: true };
      });
    submit({ hold: 'free', check: dead, apply }, (outcome) =>
      outcome.ok
        ? take({ type: 'claimed', boot, keys, found: outcome.value })
        : take({ type: 'unclaimed', keys, error: refusal('STORE_UNAVAILABLE') }),
    );
  }

  function release(key: SessionKey, epoch: number): void {
    const name = key.sessionId;
    const apply = (): void => {
      if (store.owners.get(name)?.epoch === epoch) store.owners.delete(name);
    };
    write({ check: () => null, apply }, ({ ok }) => {
      if (!ok) return after(RETRY_MS, () => release(key, epoch));
      world.note('boot', boot, 'releases', name, epoch);
      releasing.get(name)?.();
      releasing.delete(name);
      take({ type: 'released', key });
    });
  }

  return {
    find(name: string, done: Found): void {
      const living = deps.living(name);
      if (living) return done({ at: 'here', session: living });
      const key = keyOf(name);
      const elsewhere = rules.elsewhere(key);
      if (elsewhere) return done({ at: 'there', owner: elsewhere.boot });
      seeking.set(name, [...(seeking.get(name) ?? []), done]);
      take({ type: 'sought', key });
    },
    moved: (name: string): void => take({ type: 'moved', key: keyOf(name) }),
    lost(other: number): void {
      take({ type: 'lost', boot: other });
      for (const [name, owner] of owners) if (owner === other) owners.delete(name);
    },
    wanted: (wanted: readonly Wanted[]): void => take({ type: 'wanted', wanted }),
    /** Gives a session up, behind all that it wrote. */
    release(name: string, epoch: number, done: () => void): void {
      releasing.set(name, done);
      take({ type: 'left', key: keyOf(name), epoch });
    },
    /** Boots that a session was found at. */
    owners: (): Iterable<number> => owners.values(),
    want(name: string, owner: number): void {
      const apply = (): void => {
        const row = store.owners.get(name);
        if (row && row.boot === owner) row.wanted = true;
      };
      submit({ hold: 'free', check: () => null, apply }, () => {});
    },
  };
}
