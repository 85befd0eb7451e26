/** Brings sessions to life on this node: one that nobody has is claimed, and one that another node has is asked for. */
import { RefusalError, refusal, refusalError } from '../../src/domain/errors.ts';
import type { Boot, LocalSessions, Opening, Place, Placement, SessionKey } from '../../src/ports/cluster.ts';
import { pause, systemTimers } from '../../src/ports/telemetry.ts';

export interface Seeking {
  /**
   * Undefined: the session lives here now. Else it does once the promise resolves; questions for one session resolve in
   * their order. Rejects with a RefusalError: TRANSPORT_UNAVAILABLE where another node has kept it for `patienceMs`.
   */
  bring(key: SessionKey, opening: Opening, patienceMs: number): Promise<unknown> | undefined;
  /**
   * The node that has a session, as far as is known; undefined: it lives here, from now on where nobody had it. Asks
   * nobody for it. Rejects with a RefusalError where that is not known in time.
   */
  locate(key: SessionKey, opening: Opening, patienceMs: number): Promise<Boot | undefined> | Boot | undefined;
  /** Gives up what is sought. */
  close(): void;
}

interface SeekingDeps {
  readonly local: Pick<LocalSessions, 'has' | 'activate'> & { isDraining(): boolean };
  readonly placement: Placement;
}

/** One session, while it is sought. */
interface Search {
  readonly done: Promise<Boot | undefined>;
  readonly end: AbortController;
  waiting: number;
}

/** Between two looks whether its owner has given a session up. */
const LOOK_MS = 250;
/** Who waits for one session, and for all of them. */
const MAX_WAITING = 1_000;
const MAX_WAITING_IN_ALL = 20_000;
/** After this long a client may ask again for a session that another node keeps. */
const RETRY_MS = 1_000;

export function createSeeking({ local, placement }: SeekingDeps): Seeking {
  const searches = new Map<string, Search>();
  let waiting = 0;

  function begin(id: string, seekUntil: (signal: AbortSignal) => Promise<Boot | undefined>): Search {
    const end = new AbortController();
    const search: Search = { done: seekUntil(end.signal), end, waiting: 0 };
    const over = (): void => {
      if (searches.get(id) === search) searches.delete(id);
    };
    search.done.then(over, over);
    searches.set(id, search);
    return search;
  }

  async function seek(
    key: SessionKey,
    found: Place | Promise<Place>,
    opening: Opening,
    signal: AbortSignal,
  ): Promise<undefined> {
    let asked: Boot | undefined;
    let place = await found;
    while (place.at === 'there') {
      if (signal.aborted) throw keptElsewhere();
      if (asked !== place.owner) await placement.want(key, place.owner);
      asked = place.owner;
      await pause(systemTimers, LOOK_MS, signal);
      placement.moved(key);
      place = await placement.find(key);
    }
    await settle(key, place, opening, signal);
  }

  /** What was claimed comes to life, unless nobody wants it any more. */
  async function settle(
    key: SessionKey,
    place: Extract<Place, { at: 'here' }>,
    opening: Opening,
    signal: AbortSignal,
  ): Promise<void> {
    if (!local.isDraining() && !signal.aborted) return local.activate(key, place, opening);
    await placement.release(key, place.epoch);
    throw local.isDraining() ? refusalError('DRAINING', { retryAfterMs: RETRY_MS }) : keptElsewhere();
  }

  async function look(
    key: SessionKey,
    found: Promise<Place>,
    opening: Opening,
    signal: AbortSignal,
  ): Promise<Boot | undefined> {
    const place = await found;
    if (place.at === 'there') return place.owner;
    await settle(key, place, opening, signal);
    return undefined;
  }

  /** As long as somebody waits it is sought. */
  async function join(search: Search, patienceMs: number): Promise<Boot | undefined> {
    if (search.waiting >= MAX_WAITING || waiting >= MAX_WAITING_IN_ALL)
      throw refusalError('OVERLOADED', { retryAfterMs: RETRY_MS });
    search.waiting += 1;
    waiting += 1;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(keptElsewhere()), patienceMs);
    });
    try {
      return await Promise.race([search.done, late]);
    } finally {
      clearTimeout(timer);
      search.waiting -= 1;
      waiting -= 1;
      if (search.waiting === 0) search.end.abort();
    }
  }

  return {
    bring(key, opening, patienceMs) {
      if (local.has(key)) return undefined;
      if (opening.ephemeral) {
        local.activate(key, placement.unplaced(), opening);
        return undefined;
      }
      const id = `${key.tenantId}/${key.sessionId}`;
      const under = searches.get(id);
      if (under) return join(under, patienceMs);
      const found = placement.find(key);
      if (found instanceof Promise || found.at === 'there')
        return join(
          begin(id, (signal) => seek(key, found, opening, signal)),
          patienceMs,
        );
      local.activate(key, found, opening);
      return undefined;
    },
    locate(key, opening, patienceMs) {
      if (local.has(key)) return undefined;
      const id = `where ${key.tenantId}/${key.sessionId}`;
      const under = searches.get(id);
      if (under) return join(under, patienceMs);
      const found = placement.find(key);
      if (!(found instanceof Promise)) {
        if (found.at === 'there') return found.owner;
        local.activate(key, found, opening);
        return undefined;
      }
      return join(
        begin(id, (signal) => look(key, found, opening, signal)),
        patienceMs,
      );
    },
    close() {
      for (const { end } of searches.values()) end.abort();
    },
  };
}

const keptElsewhere = (): RefusalError =>
  new RefusalError(
    refusal('TRANSPORT_UNAVAILABLE', {
      message: 'Another node has this session, and can not be reached from here; try again.',
      retryAfterMs: RETRY_MS,
    }),
  );
