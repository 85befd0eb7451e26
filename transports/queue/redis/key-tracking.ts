/**
 * Tells at once when a list has changed that a script of ours found empty, without a connection for each list.
 *
 * It is Redis's own client-side caching: the server remembers which keys the `reader` connection has read (LLEN), and
 * when anyone touches one of them, sends its name, once, to the `invalidations` connection. So plain LPUSHes by strangers wake
 * us, thousands of queues cost nothing while idle, and a flood of pushes brings one message until we have looked. Rejected: a blocking connection a queue (BLMOVE takes one source), BLMPOP (loses what it popped when the
 * connection breaks), keyspace notifications (server-wide configuration).
 */
import type { Redis } from 'ioredis';
import { closeConnection, connected, type Endpoint, openConnection, textOf } from './connection.ts';

/** Where Redis names the keys that have changed. */
export const INVALIDATIONS = '__redis__:invalidate';
const RETRY_MS = 500;

export interface KeyTracking {
  /** Reads and scripts go here: what it reads is tracked. Its own writes wake nobody here (NOLOOP). */
  readonly reader: Redis;
  /** False while changes may go unheard; a reset follows. */
  armed(): boolean;
  /** Calls `changed` after the next change of a key that was read; returns how to end that. */
  key(name: string, changed: () => void): () => void;
  /** Calls `reset` whenever changes may have gone unheard and will be heard again from now on. */
  onReset(reset: () => void): () => void;
  close(): void;
}

/** Rejects where Redis is away, or its user may not use CLIENT TRACKING. */
export async function openKeyTracking(endpoint: Endpoint): Promise<KeyTracking> {
  const reader = openConnection(endpoint, 'reader', 0);
  const invalidations = openConnection(endpoint, 'invalidations', 0);
  const keys = new Map<string, Set<() => void>>();
  const resets = new Set<() => void>();
  let armed = false;
  /** The invalidations' connection, once it listens. */
  let listening: number | undefined;
  let retry: NodeJS.Timeout | undefined;
  const resetAll = (): void => {
    for (const reset of [...resets]) reset();
  };

  const arm = async (): Promise<void> => {
    if (armed || invalidations.status !== 'ready' || reader.status !== 'ready') return;
    if (listening === undefined) {
      const id = await invalidations.client('ID');
      await invalidations.subscribe(INVALIDATIONS);
      listening = id;
    }
    await reader.call('CLIENT', 'TRACKING', 'ON', 'REDIRECT', listening, 'NOLOOP');
    armed = true;
    resetAll();
  };
  let arming = Promise.resolve();
  const rearm = (): void => {
    clearTimeout(retry);
    arming = arming.then(arm).catch((error: unknown) => {
      endpoint.log.warn({ error: textOf(error) }, 'Redis does not report changes of queues yet');
      retry = setTimeout(rearm, RETRY_MS);
    });
  };
  invalidations.on('messageBuffer', (_channel: Buffer, names: unknown) => {
    // Null after FLUSHALL: everything has changed.
    if (!Array.isArray(names)) resetAll();
    else for (const name of names) for (const changed of keys.get(String(name)) ?? []) changed();
  });
  const opened = Promise.all([connected(reader), connected(invalidations)]).then(arm);
  await opened.catch((error: unknown) => {
    closeConnection(reader);
    closeConnection(invalidations);
    throw error;
  });
  invalidations.on('close', () => {
    armed = false;
    listening = undefined;
  });
  reader.on('close', () => {
    armed = false;
  });
  invalidations.on('ready', rearm);
  reader.on('ready', rearm);

  return {
    reader,
    armed: () => armed,
    key(name, changed) {
      const listeners = keys.get(name) ?? new Set();
      keys.set(name, listeners.add(changed));
      return () => {
        listeners.delete(changed);
        if (listeners.size === 0) keys.delete(name);
      };
    },
    onReset(reset) {
      resets.add(reset);
      return () => resets.delete(reset);
    },
    close() {
      clearTimeout(retry);
      for (const connection of [reader, invalidations]) {
        connection.off('ready', rearm);
        closeConnection(connection);
      }
    },
  };
}
