/** Chance that can be had again: the same seed, the same numbers. */

/** Mulberry32: a whole number of 32 bits. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

/** A whole number from 0 up to, not including, `sides`. */
export function dice(seed: number): (sides: number) => number {
  const next = mulberry32(seed);
  return (sides) => next() % sides;
}

/** A number from 0 up to, not including, 1. */
export function randomFrom(seed: number): () => number {
  const next = mulberry32(seed);
  return () => next() / 2 ** 32;
}
