/** The placement of one node of several: asks the table of owners what its rules decide, and answers who seeks a session. */
import { randomUUID } from 'node:crypto';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import type {
  Boot,
  Claimed,
  Owned,
  OwnerTable,
  Place,
  Placement,
  PlacementEvent,
  SessionKey,
  Wanted,
} from '../../src/ports/cluster.ts';
import type { Epoch, Store } from '../../src/ports/store.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import { createPlacementRules, idOf, type PlacementEffect, type PlacementMessage } from './placement.ts';

interface SharedPlacementOptions {
  readonly owners: OwnerTable;
  /** Releases go the way of all writes of this node: behind those of the session. */
  readonly store: Pick<Store, 'commit'>;
  /** This node's boot; undefined before it joined. */
  readonly boot: () => Boot | undefined;
  readonly log: Log;
}

/** What the node's membership tells its placement. */
export interface SharedPlacement extends Placement {
  wanted(wanted: readonly Wanted[]): void;
  lost(boot: Boot): void;
  superseded(): void;
}

interface Seeker {
  readonly promise: Promise<Place>;
  readonly resolve: (place: Place) => void;
  readonly reject: (error: RefusalError) => void;
}

export function createSharedPlacement(options: SharedPlacementOptions): SharedPlacement {
  const { owners, store, boot, log } = options;
  const rules = createPlacementRules();
  const seekers = new Map<string, Seeker>();
  const releases = new Map<string, PromiseWithResolvers<void>>();
  const listeners: ((event: PlacementEvent) => void)[] = [];

  function take(message: PlacementMessage): void {
    for (const effect of rules.take(message)) carryOut(effect);
  }

  function carryOut(effect: PlacementEffect): void {
    switch (effect.type) {
      case 'claimSoon':
        setImmediate(() => take({ type: 'due' }));
        return;
      case 'claim':
        return void claim(effect.keys);
      case 'found':
        return settle(effect.key, (seeker) => seeker.resolve(placeOf(effect.claimed)));
      case 'refused':
        return settle(effect.key, (seeker) => seeker.reject(new RefusalError(effect.error)));
      case 'release':
        return void release(effect.key, effect.epoch);
      case 'tell':
        return tell({ type: 'wanted', ...effect.wanted });
    }
  }

  function settle(key: SessionKey, how: (seeker: Seeker) => void): void {
    const id = idOf(key);
    const seeker = seekers.get(id);
    seekers.delete(id);
    if (seeker) how(seeker);
  }

  async function claim(keys: readonly SessionKey[]): Promise<void> {
    try {
      const found = await owners.claim(keys);
      take({ type: 'claimed', boot: boot() ?? 0, keys, found });
    } catch (error) {
      log.warn({ err: error, sessions: keys.length }, 'sessions could not be claimed');
      const known = error instanceof RefusalError ? error.data : undefined;
      take({
        type: 'unclaimed',
        keys,
        error: known ?? refusal('STORE_UNAVAILABLE', { retryAfterMs: 1_000 }),
      });
    }
  }

  async function release({ tenantId, sessionId }: SessionKey, epoch: Epoch): Promise<void> {
    const key = { tenantId, sessionId };
    try {
      await store.commit({ type: 'session-released', tenantId, sessionId, epoch });
    } catch (error) {
      // Its row stays this node's: it is taken up again where it is asked for here, and given up where it is wanted.
      log.warn({ err: error, tenant_id: tenantId, session_id: sessionId }, 'a session was not released');
    }
    const id = idOf(key);
    releases.get(id)?.resolve();
    releases.delete(id);
    take({ type: 'released', key });
  }

  const placeOf = (claimed: Claimed): Place =>
    claimed.boot === boot()
      ? { at: 'here', ...owned(claimed.epoch) }
      : { at: 'there', owner: claimed.boot, epoch: claimed.epoch };

  function tell(event: PlacementEvent): void {
    for (const listener of listeners) listener(event);
  }

  return {
    find(key) {
      const known = rules.elsewhere(key);
      if (known) return placeOf(known);
      const id = idOf(key);
      const under = seekers.get(id);
      if (under) return under.promise;
      const seeker = Promise.withResolvers<Place>();
      seekers.set(id, seeker);
      take({ type: 'sought', key });
      return seeker.promise;
    },
    unplaced: () => owned(-(boot() ?? 0)),
    moved: (key) => take({ type: 'moved', key }),
    release(key, epoch) {
      const id = idOf(key);
      const under = releases.get(id);
      if (under) return under.promise;
      const over = Promise.withResolvers<void>();
      releases.set(id, over);
      take({ type: 'left', key, epoch });
      if (rules.isMoving(key)) return over.promise;
      releases.delete(id);
      return Promise.resolve();
    },
    want: (key, owner) => owners.want(key, owner),
    listen: (listener) => void listeners.push(listener),
    wanted: (wanted) => take({ type: 'wanted', wanted }),
    lost(gone) {
      take({ type: 'lost', boot: gone });
      tell({ type: 'lost', boot: gone });
    },
    superseded() {
      take({ type: 'superseded' });
      tell({ type: 'superseded' });
    },
  };
}

/** An epoch that was taken up again has had a log before, which its clients may remember. */
const owned = (epoch: Epoch): Owned => ({ epoch, log: `${epoch}.${randomUUID().slice(0, 8)}` });
