/** The transactional outbox: what those who answer actions ask of its relay. */
import type { TenantId } from '../domain/ids.ts';
import type { Outgoing, Store } from './store.ts';
import type { EndStats } from './telemetry.ts';

/** A reply that the end of a turn brought: one object for each end, so that a later one is told from an earlier. */
export interface TurnReply {
  /** `stored`: it is on its way. `lost`: it was not stored with the end. */
  readonly state: 'storing' | 'stored' | 'lost';
}

/**
 * Sends what is stored to be sent: at once after the write, and repeatedly for as long as the transport is away.
 * Delivery: at least once; what no transport would ever take is logged and given up. Order: what goes to one queue
 * goes in the order in which it was stored; a queue that refuses holds up no other.
 * close(): writes ends that wait, if the store is back in a moment, sends what is on its way, then stops; what is left is
 * sent by the next start.
 */
export interface Relay {
  /** The store, as all of the node must use it: it makes the replies that ends of turns name, and stores them with those. */
  readonly store: Store;
  /** The reply of that id; undefined: no turn that has ended on this node lately brought it. */
  replied(tenantId: TenantId, id: string): TurnReply | undefined;
  /** No end of a turn on this node brings that reply from now on: whoever takes its action next answers it. */
  forgo(tenantId: TenantId, id: string): void;
  /** Stores and sends. Resolves once stored; rejects with STORE_UNAVAILABLE, and INVALID_REQUEST for what is malformed. */
  write(outgoing: readonly Outgoing[]): Promise<void>;
  /** Sends something stored once more. Resolves once sent, or given up; rejects with TRANSPORT_UNAVAILABLE. */
  resend(outgoing: Outgoing): Promise<void>;
  /** Ends that wait for a store which is out. */
  endStats(): EndStats;
  /** Begins with what an earlier process left. */
  start(): void;
  /** Reads the store once more: there is something to send that was not written here. */
  lookAgain(): void;
  close(): Promise<void>;
}
