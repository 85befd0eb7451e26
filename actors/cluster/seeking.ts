/** Brings sessions to life on this node: one that nobody has is claimed, and one that another node has is asked for. */
import { RefusalError, refusal, refusalError } from '../../src/domain/errors.ts';
import type { Boot, LocalSessions, Opening, Place, Placement, SessionKey } from '../../src/ports/cluster.ts';
import { pause, systemTimers } from '../../src/ports/telemetry.ts';

export interface Seeking {
  /**
   * Undefined: the session lives here now. Else it does once the promise resolves; questions for one session resolve in
   * their order. Rejects with a RefusalError: TRANSPORT_UNAVAILABLE where another node has kept it for `patienceMs`.
   */
  bring(key: SessionKey, opening: Opening, patienceMs: number): Promise<void> | undefined;
  /** Gives up what is sought. */
  close(): void;
}

interface SeekingDeps {
  readonly local: Pick<LocalSessions, 'has' | 'activate'> & { isDraining(): boolean };
  readonly placement: Placement;
}

/** One session, while it is sought. */
interface Search {
  readonly done: Promise<void>;
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

  function begin(key: SessionKey, id: string, found: Place | Promise<Place>, opening: Opening): Search {
    const end = new AbortController();
    const search: Search = { done: seek(key, found, opening, end.signal), end, waiting: 0 };
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
  ): Promise<void> {
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
    if (!local.isDraining() && !signal.aborted) return local.activate(key, place, opening);
    await placement.release(key, place.epoch);
    throw local.isDraining() ? refusalError('DRAINING', { retryAfterMs: RETRY_MS }) : keptElsewhere();
  }

  /** As long as somebody waits it is sought. */
  async function join(search: Search, patienceMs: number): Promise<void> {
    if (search.waiting >= MAX_WAITING || waiting >= MAX_WAITING_IN_ALL)
      throw refusalError('OVERLOADED', { retryAfterMs: RETRY_MS });
    search.waiting += 1;
    waiting += 1;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(keptElsewhere()), patienceMs);
    });
    try {
      await Promise.race([search.done, late]);
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
        return join(begin(key, id, found, opening), patienceMs);
      local.activate(key, found, opening);
      return undefined;
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
