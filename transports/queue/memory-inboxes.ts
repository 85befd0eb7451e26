/** Inboxes in one process, for tests and for nodes that live in one: bytes cross all the same, so that nothing is shared. */
import { refusalError } from '../../src/domain/errors.ts';
import type { Boot } from '../../src/ports/cluster.ts';
import type { Bundle, Inboxes } from '../../src/ports/links.ts';
import { decodeBundle, encodeBundle } from '../wire/bundle-codec.ts';
import { closed } from './requests.ts';

export interface MemoryInboxes {
  /** The view of one node. */
  open(): Inboxes;
  /** Whether pushes are taken. While they are not, what lies there stays. */
  setAway(isAway: boolean): void;
}

export function createMemoryInboxes(): MemoryInboxes {
  const lists = new Map<Boot, Buffer[]>();
  const readers = new Map<Boot, (bundle: Bundle) => void>();
  let away = false;

  const deliver = (boot: Boot): void => {
    for (;;) {
      const listener = readers.get(boot);
      const body = listener && !away ? lists.get(boot)?.shift() : undefined;
      if (!listener || !body) return;
      const read = decodeBundle(body);
      if (read.ok) listener(read.bundle);
    }
  };

  const open = (): Inboxes => {
    let mine: Boot | undefined;
    let isClosed = false;
    const leave = (): void => {
      if (mine !== undefined) readers.delete(mine);
    };
    return {
      async read(boot, listener) {
        if (isClosed) throw closed();
        leave();
        mine = boot;
        readers.set(boot, listener);
        setImmediate(deliver, boot);
      },
      async push(to, bundle) {
        if (isClosed) throw closed();
        if (away) throw refusalError('TRANSPORT_UNAVAILABLE');
        const list = lists.get(to) ?? [];
        lists.set(to, list);
        const unread = list.push(encodeBundle(bundle));
        setImmediate(deliver, to);
        return unread;
      },
      async close() {
        isClosed = true;
        leave();
      },
    };
  };

  return {
    open,
    setAway(isAway) {
      away = isAway;
      for (const boot of lists.keys()) setImmediate(deliver, boot);
    },
  };
}
