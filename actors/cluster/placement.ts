/**
 * Which node has a session, as one of several concludes it from what it claims, is told, and gives up. Without a clock
 * and without deeds; but it changes its own maps: to copy them for each of ten thousand sessions would take longer than
 * their claims.
 */
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import type { Boot, Claimed, SessionKey, Wanted } from '../../src/ports/cluster.ts';
import type { Epoch } from '../../src/ports/store.ts';

export type PlacementMessage =
  /** Somebody here asks for a session that does not live here. */
  | { readonly type: 'sought'; readonly key: SessionKey }
  /** As many as are sought may be claimed now. */
  | { readonly type: 'due' }
  /** `boot`: this node's. */
  | {
      readonly type: 'claimed';
      readonly boot: Boot;
      readonly keys: readonly SessionKey[];
      readonly found: readonly (Claimed | undefined)[];
    }
  | { readonly type: 'unclaimed'; readonly keys: readonly SessionKey[]; readonly error: ErrorData }
  | { readonly type: 'left'; readonly key: SessionKey; readonly epoch: Epoch }
  /** The release of a session is over: stored, or refused for good, and then its row stays this node's. */
  | { readonly type: 'released'; readonly key: SessionKey }
  | { readonly type: 'moved'; readonly key: SessionKey }
  | { readonly type: 'wanted'; readonly wanted: readonly Wanted[] }
  | { readonly type: 'lost'; readonly boot: Boot }
  | { readonly type: 'superseded' };

export type PlacementEffect =
  /** `due` is to come at the end of this turn of the loop. */
  | { readonly type: 'claimSoon' }
  | { readonly type: 'claim'; readonly keys: readonly SessionKey[] }
  | { readonly type: 'found'; readonly key: SessionKey; readonly claimed: Claimed }
  | { readonly type: 'refused'; readonly key: SessionKey; readonly error: ErrorData }
  | { readonly type: 'release'; readonly key: SessionKey; readonly epoch: Epoch }
  | { readonly type: 'tell'; readonly wanted: Wanted };

export interface PlacementRules {
  take(message: PlacementMessage): readonly PlacementEffect[];
  /** Who has a session, where that is another node, as far as is known. */
  elsewhere(key: SessionKey): Claimed | undefined;
  /** A session that is on its way: sought, or being given up. */
  isMoving(key: SessionKey): boolean;
}

/** Sessions of one claim, and claims at once: more take no less time each. */
const MAX_CLAIMED = 500;
const MAX_CLAIMS = 2;
/** Sessions whose owner elsewhere is remembered; the oldest are forgotten, and claimed in vain once more. */
const MAX_ELSEWHERE = 100_000;

export function createPlacementRules(): PlacementRules {
  /** Sought, and not in a claim yet. */
  const queued = new Map<string, SessionKey>();
  const claiming = new Map<string, SessionKey>();
  const releasing = new Set<string>();
  /** Sought while it is being given up: claimed once that is over. */
  const behind = new Map<string, SessionKey>();
  const elsewhere = new Map<string, Claimed>();
  let claims = 0;
  let superseded = false;

  function sought(key: SessionKey): readonly PlacementEffect[] {
    if (superseded) return [{ type: 'refused', key, error: givenUp() }];
    const id = idOf(key);
    if (releasing.has(id)) {
      behind.set(id, key);
      return [];
    }
    if (queued.has(id) || claiming.has(id)) return [];
    queued.set(id, key);
    return queued.size === 1 && claims < MAX_CLAIMS ? [{ type: 'claimSoon' }] : [];
  }

  function due(): readonly PlacementEffect[] {
    const effects: PlacementEffect[] = [];
    while (queued.size > 0 && claims < MAX_CLAIMS) {
      const some = [...queued].slice(0, MAX_CLAIMED);
      for (const [id, key] of some) {
        queued.delete(id);
        claiming.set(id, key);
      }
      claims += 1;
      effects.push({ type: 'claim', keys: some.map(([, key]) => key) });
    }
    return effects;
  }

  /** What came of a claim; the next ones may go. */
  function over(keys: readonly SessionKey[], of: (key: SessionKey, index: number) => PlacementEffect) {
    claims -= 1;
    for (const key of keys) claiming.delete(idOf(key));
    return [...keys.map(of), ...due()];
  }

  function remember(id: string, claimed: Claimed, isHere: boolean): void {
    elsewhere.delete(id);
    if (isHere) return;
    elsewhere.set(id, claimed);
    const [oldest] = elsewhere.keys();
    if (elsewhere.size > MAX_ELSEWHERE && oldest !== undefined) elsewhere.delete(oldest);
  }

  function take(message: PlacementMessage): readonly PlacementEffect[] {
    switch (message.type) {
      case 'sought':
        return sought(message.key);
      case 'due':
        return due();
      case 'claimed':
        return over(message.keys, (key, index) => {
          const claimed = message.found[index];
          if (superseded) return { type: 'refused', key, error: givenUp() };
          if (!claimed) return { type: 'refused', key, error: moving() };
          remember(idOf(key), claimed, claimed.boot === message.boot);
          return { type: 'found', key, claimed };
        });
      case 'unclaimed':
        return over(message.keys, (key) => ({ type: 'refused', key, error: message.error }));
      case 'left':
        // What a node that was given up held is free already.
        if (superseded) return [];
        releasing.add(idOf(message.key));
        return [{ type: 'release', key: message.key, epoch: message.epoch }];
      case 'released': {
        const id = idOf(message.key);
        releasing.delete(id);
        const next = behind.get(id);
        behind.delete(id);
        return next ? sought(next) : [];
      }
      case 'moved':
        elsewhere.delete(idOf(message.key));
        return [];
      case 'wanted':
        // One that is on its way is not at rest here: its row may say so a moment longer.
        return message.wanted.filter(({ key }) => !isMoving(key)).map((wanted) => ({ type: 'tell', wanted }));
      case 'lost':
        for (const [id, { boot }] of elsewhere) if (boot === message.boot) elsewhere.delete(id);
        return [];
      case 'superseded': {
        superseded = true;
        const waiting = [...queued.values(), ...behind.values()];
        queued.clear();
        behind.clear();
        elsewhere.clear();
        return waiting.map((key) => ({ type: 'refused', key, error: givenUp() }));
      }
    }
  }

  function isMoving(key: SessionKey): boolean {
    const id = idOf(key);
    return queued.has(id) || claiming.has(id) || releasing.has(id);
  }

  return {
    take,
    elsewhere: (key) => elsewhere.get(idOf(key)),
    isMoving,
  };
}

/** No id may hold a slash. */
export const idOf = ({ tenantId, sessionId }: SessionKey): string => `${tenantId}/${sessionId}`;

const givenUp = (): ErrorData =>
  refusal('STORE_UNAVAILABLE', {
    message: 'This node was given up by the others; reconnect.',
    retryAfterMs: 1_000,
  });
const moving = (): ErrorData =>
  refusal('TRANSPORT_UNAVAILABLE', {
    message: 'The session is moving between nodes; try again.',
    retryAfterMs: 250,
  });
