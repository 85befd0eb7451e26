/**
 * Inboxes as Redis lists, one a boot: written to with LPUSH, read with a blocking pop on a connection of its own. The
 * reply to a push is the length of the list: the only back-pressure there is.
 */
import type { Boot } from '../../../src/ports/cluster.ts';
import type { Bundle, Inboxes, InboxMeter } from '../../../src/ports/links.ts';
import type { Log } from '../../../src/ports/telemetry.ts';
import type { TransportMeter } from '../../../src/ports/transport.ts';
import { decodeBundle, encodeBundle } from '../../wire/bundle-codec.ts';
import { closed } from '../requests.ts';
import { closeConnection, type Endpoint, openConnection, textOf, unavailable } from './connection.ts';
import { createListReader } from './list-reader.ts';
import { redisOptions } from './url.ts';

/** How long one read blocks on the server. */
const BLOCK_MS = 1_000;
/** An inbox that nobody reads is gone after so long: its boot is. */
const INBOX_TTL_MS = 30_000;
/** Inboxes are given their expiry that much after a push, all at once: usually they are empty by then. */
const EXPIRE_MS = 1_000;

/** Where what other nodes say to that boot waits. Two installations on one Redis both have a boot 1. */
export const inboxKey = (clusterId: string, boot: Boot): string => `nooble:${clusterId}:inbox:${boot}`;

interface RedisInboxesOptions {
  /** See redisOptions. */
  readonly url: string;
  /** Names the installation: the same for all nodes on one database. */
  readonly clusterId: string;
  readonly log: Log;
  readonly meter: TransportMeter & InboxMeter;
}

/**
 * Connects by itself, now or whenever Redis is there. Throws an Error for a URL that is none.
 * Order: kept as long as no connection breaks; what a dying connection still carries may come late.
 */
export function openRedisInboxes({ url, clusterId, log, meter }: RedisInboxesOptions): Inboxes {
  const endpoint: Endpoint = { options: redisOptions(url), log, meter };
  const sender = openConnection(endpoint, 'links', 0);
  sender.connect().catch(() => {});
  let reader: ReturnType<typeof createListReader> | undefined;
  let isClosed = false;
  const expiry = createExpiry((key) => sender.pexpire(key, INBOX_TTL_MS));

  const hear = (listener: (bundle: Bundle) => void) => (body: Buffer) => {
    const read = decodeBundle(body);
    if (!read.ok) return meter.dropped(read.problem, 1);
    if (read.newer > 0) meter.dropped('newer', read.newer);
    if (read.malformed > 0) meter.dropped('malformed', read.malformed);
    try {
      listener(read.bundle);
    } catch (error) {
      // What one bundle breaks must not end the reading of all.
      log.error({ err: error, from: read.bundle.from }, 'what another node said broke something');
    }
  };

  return {
    async read(boot, listener) {
      await reader?.close();
      if (isClosed) throw closed();
      const key = inboxKey(clusterId, boot);
      reader = createListReader(
        endpoint,
        { name: 'inbox', key, blockMs: BLOCK_MS, onBody: hear(listener) },
        log,
      );
      reader.start();
    },
    async push(to, bundle) {
      if (isClosed) throw closed();
      const key = inboxKey(clusterId, to);
      try {
        const unread = await sender.lpush(key, encodeBundle(bundle));
        expiry.later(key);
        return unread;
      } catch (error) {
        log.debug({ to, error: textOf(error) }, 'a bundle could not be sent');
        throw unavailable(error);
      }
    },
    async close() {
      isClosed = true;
      expiry.close();
      closeConnection(sender);
      await reader?.close();
    },
  };
}

/** Gives keys their expiry, each once a second at most. */
function createExpiry(expire: (key: string) => Promise<unknown>) {
  const keys = new Set<string>();
  let timer: NodeJS.Timeout | undefined;
  return {
    later(key: string): void {
      keys.add(key);
      timer ??= setTimeout(() => {
        timer = undefined;
        for (const each of keys) expire(each).catch(() => {});
        keys.clear();
      }, EXPIRE_MS);
    },
    close: () => clearTimeout(timer),
  };
}
