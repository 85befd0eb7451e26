/** The placement of a node that has its database to itself: every session is its own, at once. */
import { randomUUID } from 'node:crypto';
import type { Owned, Placement } from '../../src/ports/cluster.ts';

const NOTHING = Promise.resolve();

/** Epochs are minted in memory: nobody else writes to the database that they would be compared in. */
export function createSolePlacement(): Placement {
  let minted = 0;
  const mint = (): Owned => {
    minted += 1;
    return { epoch: minted, log: randomUUID() };
  };
  return {
    find: () => ({ at: 'here', ...mint() }),
    unplaced: mint,
    moved() {},
    release: () => NOTHING,
    want: () => NOTHING,
    listen() {},
  };
}
