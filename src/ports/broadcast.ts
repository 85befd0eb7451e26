/** How nodes that share a database tell each other what holds on all of them. */
import type { BroadcastItem } from '../domain/broadcast.ts';

/**
 * Tells every other node, and hears what they tell; nothing comes back to who told it. Delivery: at most once, and
 * nobody is waited for: what must reach all nodes is a row that they read as well. Order: what one node tells is heard
 * in that order, as far as it is heard.
 */
export interface Broadcast {
  /** Never throws. */
  tell(item: BroadcastItem): void;
  /** From now on, until the node ends; called before it begins. A listener must not throw. */
  listen(listener: (item: BroadcastItem) => void): void;
}

/** Of a node that nobody stands beside. */
export const soleBroadcast: Broadcast = { tell: () => {}, listen: () => {} };
