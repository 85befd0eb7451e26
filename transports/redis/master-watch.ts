/**
 * Hears from the sentinels that another Redis is master now, and takes connections off the old one at once.
 *
 * A master that is exchanged while it lives (SENTINEL FAILOVER) takes writes for some ten seconds more before it is
 * made a replica, and then forgets them all. Rejected: ioredis's failoverDetector, which wants a connection to every
 * sentinel for every link, and ends a link for good where the news comes while that link is being connected anew.
 */
import { Redis, type RedisOptions } from 'ioredis';
import type { Log } from '../../src/ports.ts';

const CHANNEL = '+switch-master';
const RETRY_MS = 1_000;
const CONNECT_TIMEOUT_MS = 2_000;
/** It says nothing for months: without probes a connection that is gone would not be noticed. */
const KEEP_ALIVE_MS = 10_000;

export interface MasterWatch {
  /** Watches over that link until the returned function is called; the last to leave ends the watch. */
  join(link: Redis): () => void;
}

/** Connects when the first link joins. Sentinels that are down are tried again; each that answers is enough. */
export function createMasterWatch(options: RedisOptions, log: Log): MasterWatch {
  const { name, sentinels = [], sentinelUsername, sentinelPassword, sentinelTLS } = options;
  const links = new Set<Redis>();
  let ears: readonly Redis[] = [];

  /** `text`: name, old host, old port, new host, new port. Every sentinel says it, each as soon as it would name it. */
  const heard = (text: string): void => {
    const [master, , , host, port] = text.split(' ');
    if (master !== name) return;
    for (const link of links) {
      // A link that is not ready asks the sentinels by itself.
      if (link.status !== 'ready') continue;
      const { remoteAddress, remotePort } = link.stream;
      if (remoteAddress !== host || String(remotePort) !== port) link.disconnect(true);
    }
  };

  const listen = (): readonly Redis[] =>
    sentinels.map(({ host = '127.0.0.1', port = 26_379 }) => {
      const ear = new Redis({
        host,
        port,
        protocol: 2,
        replyMapping: 'legacy',
        ...(sentinelUsername ? { username: sentinelUsername } : {}),
        ...(sentinelPassword ? { password: sentinelPassword } : {}),
        ...(sentinelTLS ? { tls: sentinelTLS } : {}),
        enableReadyCheck: false,
        enableOfflineQueue: false,
        autoResubscribe: false,
        connectionName: 'nooble-sentinel',
        connectTimeout: CONNECT_TIMEOUT_MS,
        keepAlive: KEEP_ALIVE_MS,
        retryStrategy: () => RETRY_MS,
      });
      ear.on('error', (error) =>
        log.debug({ sentinel: `${host}:${port}`, error: error.message }, 'a sentinel failed'),
      );
      ear.on('ready', () => {
        ear.subscribe(CHANNEL).catch((error: Error) => {
          if (ear.status !== 'ready') return;
          const told = { sentinel: `${host}:${port}`, error: error.message };
          log.warn(told, 'a sentinel does not say when another Redis becomes master');
        });
      });
      ear.on('message', (_channel, text) => heard(text));
      return ear;
    });

  return {
    join(link) {
      if (links.size === 0) ears = listen();
      links.add(link);
      return () => {
        if (!links.delete(link) || links.size > 0) return;
        for (const ear of ears) ear.disconnect();
      };
    },
  };
}
