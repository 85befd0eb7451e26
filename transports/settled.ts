/** Remembers how the latest requests ended, to tell a late reply from a second or a foreign one. */

export type End = 'answered' | 'expired';

/** Requests that are remembered at least. */
const MIN_SETTLED = 10_000;

/**
 * In the order in which they ended. An index is made when somebody asks, which is rare: a Map that is filled for
 * nothing costs every request 2 µs.
 */
interface Generation {
  readonly ids: string[];
  readonly ends: End[];
  /** The first of them, as many as there were when somebody asked last. */
  readonly index: Map<string, End>;
  indexed: number;
}

const emptyGeneration = (): Generation => ({ ids: [], ends: [], index: new Map(), indexed: 0 });

export interface Settled {
  add(id: string, end: End): void;
  /** How the request with that id ended last; undefined where none did, or long ago. */
  endOf(id: string): End | undefined;
}

export function createSettled(): Settled {
  // Two generations: to drop the oldest one by one would cost more.
  let current = emptyGeneration();
  let before = emptyGeneration();
  return {
    add(id, end) {
      if (current.ids.length >= MIN_SETTLED) {
        before = current;
        current = emptyGeneration();
      }
      current.ids.push(id);
      current.ends.push(end);
    },
    endOf: (id) => endIn(current, id) ?? endIn(before, id),
  };
}

function endIn(generation: Generation, id: string): End | undefined {
  const { ids, ends, index } = generation;
  for (let at = generation.indexed; at < ids.length; at += 1) {
    const [known, end] = [ids[at], ends[at]];
    if (known !== undefined && end !== undefined) index.set(known, end);
  }
  generation.indexed = ids.length;
  return index.get(id);
}
