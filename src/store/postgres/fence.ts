/** The fence: which boot the batches of this process write as, and how each proves that it is not dead. */
import type { PoolClient } from 'pg';
import type { Boot } from '../../ports/cluster.ts';
import { isSuperseded, superseded } from '../failure.ts';
import { FENCED_SCOPE, LONE_FENCED_SCOPE, SCOPE } from './statements.ts';

interface Identity {
  readonly boot: Boot;
  readonly nonce: string;
}

export interface Fence {
  identity(): Identity | undefined;
  /** From now on batches write as this boot. */
  hold(identity: Identity): void;
  /** What a batch on that connection begins with. Throws where the boot is known to be dead. */
  opening(client: PoolClient): {
    readonly name: string;
    readonly text: string;
    readonly values: readonly string[];
  };
  /** A batch on that connection was carried out. */
  passed(client: PoolClient): void;
  /** Notes where a failure says that the boot is dead. */
  heed(error: unknown): void;
  onSuperseded(listener: () => void): void;
}

/**
 * The first batch on each new connection takes the node's row alone: it waits until no transaction of a connection that
 * was given up holds it any more. All others share it, so that only a burial has to wait for them.
 */
export function createFence(): Fence {
  const known = new WeakSet<PoolClient>();
  const listeners: (() => void)[] = [];
  let identity: Identity | undefined;
  let isDead = false;
  return {
    identity: () => identity,
    hold(given) {
      identity = given;
    },
    opening(client) {
      if (isDead) throw superseded();
      if (!identity) return { name: 'scope', text: SCOPE, values: [] };
      const values = [String(identity.boot), identity.nonce];
      return known.has(client)
        ? { name: 'fenced', text: FENCED_SCOPE, values }
        : { name: 'loneFenced', text: LONE_FENCED_SCOPE, values };
    },
    passed(client) {
      if (identity) known.add(client);
    },
    heed(error) {
      if (isDead || !isSuperseded(error)) return;
      isDead = true;
      for (const listener of listeners.splice(0)) listener();
    },
    onSuperseded(listener) {
      listeners.push(listener);
    },
  };
}
