/** The transactional outbox: what those who answer actions ask of its relay. */
import type { TaskId, TenantId } from '../domain/ids.ts';
import type { TurnRecord } from '../domain/turn.ts';
import type { Outgoing, Store } from './store.ts';
import type { EndStats } from './telemetry.ts';

/** Something that is to be stored with the end of a turn. */
export interface Expectation {
  /** Whether it has been: then it is on its way. */
  stored(): boolean;
  /** It is not wanted any more. Safe to call at any time; what the end's write holds already is sent all the same. */
  release(): void;
}

/**
 * Sends what is stored to be sent: at once after the write, and repeatedly for as long as the transport is away.
 * Delivery: at least once; what no transport would ever take is logged and given up. Order: what goes to one queue
 * goes in the order in which it was stored; a queue that refuses holds up no other.
 * close(): writes ends that wait, if the store is back in a moment, sends what is on its way, then stops; what is left is
 * sent by the next start.
 */
export interface Relay {
  /** The store, as all of the node must use it: it adds what is expected to the ends of turns. */
  readonly store: Store;
  /** When this turn's end is stored, what `make` says of it is stored with it, and sent. `make` must not throw. */
  expect(tenantId: TenantId, taskId: TaskId, make: (turn: TurnRecord) => readonly Outgoing[]): Expectation;
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
