/** The keys that this transport keeps beside the queues. */

/** All that hold work, or may: one entry for each running consumer of each node. */
export const HOLDERS = 'nooble:holders';
/** Queues that have a dead list. */
export const DEAD_QUEUES = 'nooble:dead-queues';

/** There while its holder lives. */
export const leaseKey = (holder: string): string => `nooble:lease:${holder}`;
/** What a holder has taken: delivery id → queue, newline, body; and `hot:<list>` → queue. */
export const takenKey = (holder: string): string => `nooble:taken:${holder}`;
/** Where a holder's BLMOVE puts what it moves; a new list after every broken connection. */
export const intakeKey = (holder: string, generation: number): string =>
  `nooble:intake:${holder}:${generation}`;
