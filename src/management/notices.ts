/** The notices of a node: heard where they arose, and where it matters on all nodes. */
import { type Broadcast, soleBroadcast } from '../ports/broadcast.ts';
import type { Notices } from '../ports/management.ts';
import type { Log } from '../ports/telemetry.ts';

type Listener = Parameters<Notices['listen']>[1];

/** Listeners are called in the order in which they came, in the same tick as `publish`. */
export function createNotices(log: Log, broadcast: Broadcast = soleBroadcast): Notices {
  const listeners = new Map<symbol, { readonly where: 'once' | 'everywhere'; readonly listener: Listener }>();

  function call(listener: Listener, ...[notice, stored]: Parameters<Listener>): void {
    try {
      listener(notice, stored);
    } catch (error) {
      log.error({ err: error, event: notice.event }, 'a listener of notices failed');
    }
  }

  broadcast.listen((item) => {
    if (item.type !== 'notice' || item.audience !== 'listeners') return;
    for (const { where, listener } of [...listeners.values()])
      if (where === 'everywhere') call(listener, item.notice, true);
  });

  return {
    publish(notice, stored = false) {
      for (const { listener } of [...listeners.values()]) call(listener, notice, stored);
      broadcast.tell({ type: 'notice', notice, audience: 'listeners' });
    },
    listen(where, listener) {
      const key = Symbol(); // one listener may listen twice
      listeners.set(key, { where, listener });
      return () => void listeners.delete(key);
    },
  };
}
