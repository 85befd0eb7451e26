/**
 * Opens connections to Redis that fail fast and come back by themselves.
 *
 * ioredis never resends for us: a command in flight when its connection closes is rejected at once
 * (maxRetriesPerRequest 0), and whoever sent it decides. Left to itself it would run commands twice, unseen.
 * A heartbeat is the watchdog: a connection whose PING stays unanswered is destroyed and replaced, whether a proxy
 * swallows, the server is stopped, or a blocking read hangs after a reconnect; that rejects all that waits on it.
 * ioredis's own commandTimeout and socketTimeout, a timer each for every command, cost a third of a round trip.
 */
import { Redis, type RedisOptions } from 'ioredis';
import { RefusalError, refusal } from '../../../src/domain/errors.ts';
import { tlsAdvice } from '../../../src/domain/redis-url.ts';
import type { Log } from '../../../src/ports/telemetry.ts';
import type { TransportMeter } from '../../../src/ports/transport.ts';

/** How long a connection may owe an answer, beyond what it may block; looked at every HEARTBEAT_MS. */
const SILENCE_MS = 1_500;
const HEARTBEAT_MS = 500;
/** How long a connection that is closed in good order may take. */
const DISCONNECT_TIMEOUT_MS = 100;
const CONNECT_TIMEOUT_MS = 2_000;
/** How long a sentinel may take to say who is master, before another one is asked. */
const SENTINEL_TIMEOUT_MS = 1_000;
const MAX_RETRY_MS = 1_000;
/** A connection to a sentinel says nothing for months: without probes one that is gone would not be noticed. */
const KEEP_ALIVE_MS = 10_000;

export interface Endpoint {
  readonly options: RedisOptions;
  readonly log: Log;
  readonly meter: TransportMeter;
}

/** `blockMs`: how long its reads may block on the server; 0 for connections that never block. */
export function openConnection(endpoint: Endpoint, name: string, blockMs: number): Redis {
  const { options, log, meter } = endpoint;
  const settled: RedisOptions = {
    ...options,
    protocol: 2,
    lazyConnect: true,
    connectionName: `nooble-${name}`,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    connectTimeout: CONNECT_TIMEOUT_MS,
    keepAlive: KEEP_ALIVE_MS,
    disconnectTimeout: DISCONNECT_TIMEOUT_MS,
    retryStrategy: backOff,
    // Without it a connection ends for good where no sentinel answered once.
    sentinelRetryStrategy: backOff,
    sentinelCommandTimeout: SENTINEL_TIMEOUT_MS,
    reconnectOnError: isDemoted,
  };
  const redis = new Redis({ ...settled, replyMapping: 'legacy' });
  let state: 'new' | 'ready' | 'lost' = 'new';
  redis.on('error', (error: Error) =>
    log.debug({ connection: name, error: error.message }, 'a Redis connection failed'),
  );
  redis.on('sentinelError', (error: Error) =>
    log.debug({ connection: name, error: error.message }, 'a sentinel failed'),
  );
  redis.on('ready', () => {
    if (state === 'lost') log.info({ connection: name }, 'a Redis connection is back');
    state = 'ready';
  });
  // Not `close`, which we cause ourselves in the end.
  redis.on('reconnecting', () => {
    if (state !== 'ready') return;
    state = 'lost';
    meter.counted('link.lost', 1);
    log.warn({ connection: name }, 'a Redis connection is lost');
  });
  const beats = setInterval(heartbeat(redis, blockMs + SILENCE_MS), HEARTBEAT_MS).unref();
  const leave = options.sentinels ? listenerOf(endpoint).join(redis) : undefined;
  attendants.set(redis, () => {
    clearInterval(beats);
    leave?.();
  });
  return redis;
}

const backOff = (times: number): number => Math.min(25 * 2 ** Math.min(times, 10), MAX_RETRY_MS);

/** A master that became a replica keeps its connections and refuses all writes: whoever is master now must be found. */
const isDemoted = (error: Error): boolean => error.message.startsWith('READONLY');

/** How to end what looks after a connection. */
const attendants = new WeakMap<Redis, () => void>();
const sentinelListeners = new WeakMap<Endpoint, SentinelListener>();

/** One for all connections of an endpoint. */
function listenerOf(endpoint: Endpoint): SentinelListener {
  const listener = sentinelListeners.get(endpoint) ?? createSentinelListener(endpoint.options, endpoint.log);
  sentinelListeners.set(endpoint, listener);
  return listener;
}

function heartbeat(redis: Redis, limitMs: number): () => void {
  /** Since when an answer is owed: to a PING, or to the greetings of a new connection. */
  let owed: { readonly status: string; readonly sinceMs: number } | undefined;
  return () => {
    const { status } = redis;
    if (status !== 'ready' && status !== 'connect') owed = undefined;
    else if (owed?.status !== status) {
      const asked = { status, sinceMs: performance.now() };
      owed = asked;
      const answered = (): void => {
        if (owed === asked) owed = undefined;
      };
      if (status === 'ready') redis.ping().then(answered, answered);
    } else if (performance.now() - owed.sinceMs > limitMs) {
      owed = undefined;
      redis.stream.destroy(new Error('Redis does not answer'));
    }
  };
}

/** Closes a connection for good. */
export function closeConnection(redis: Redis): void {
  attendants.get(redis)?.();
  redis.disconnect();
}

/**
 * Connects; rejects with TRANSPORT_UNAVAILABLE and the reason, and leaves nothing open, where the first try fails:
 * also where no sentinel names a master, and where the client itself would go on, as with a database that is not there.
 */
export async function connected(redis: Redis): Promise<void> {
  const sentinels: string[] = [];
  const listen = (error: Error): void => void sentinels.push(sentinelReason(error.message));
  let failed = (_error: Error): void => {};
  const failure = new Promise<never>((_resolve, reject) => {
    failed = reject;
  });
  redis.on('error', failed);
  redis.on('sentinelError', listen);
  const connecting = redis.connect();
  try {
    await Promise.race([connecting, failure]);
  } catch (error) {
    closeConnection(redis);
    connecting.catch(() => {});
    throw unavailable(explained(error, sentinels, redis.options.tls !== undefined));
  } finally {
    redis.off('error', failed);
    redis.off('sentinelError', listen);
  }
}

/** The client's words for it are long. */
const sentinelReason = (text: string): string =>
  text.replace(/^failed to connect to sentinel (\S+) because /, '$1: ');

/** With what each sentinel said where none named a master, and with what to do about it where TLS is the matter. */
function explained(error: unknown, sentinels: readonly string[], secure: boolean): Error {
  // OpenSSL's own message names places in its sources.
  const isOpenSsl = error instanceof Error && 'library' in error && 'reason' in error;
  const text = isOpenSsl ? String(error.reason) : textOf(error);
  if (text.startsWith('All sentinels are unreachable'))
    return new Error(`no sentinel names a master (${[...new Set(sentinels)].join('; ')})`);
  const advice = tlsAdvice(error instanceof Error && 'code' in error ? String(error.code) : text, secure);
  return new Error(advice ? `${text}; ${advice}` : text);
}

/** What a failed command means to callers. The text is the server's or the client's own, without arguments. */
export function unavailable(error: unknown): RefusalError {
  if (error instanceof RefusalError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new RefusalError(
    refusal('TRANSPORT_UNAVAILABLE', { message: `The message transport does not answer: ${reason}` }),
  );
}

/** Errors by which a server that answers refuses to write: a full one, a replica, one without replicas or disk. */
const REFUSED_WRITE = /^(?:OOM|READONLY|NOREPLICAS|MISCONF)\b/;
const MAX_REASON = 200;

/** As `unavailable`. Where the server refuses writes `details.reason` has its words, which name no hosts or users. */
export function notWritable(error: unknown): RefusalError {
  const text = textOf(error);
  if (!REFUSED_WRITE.test(text)) return unavailable(error);
  const reason = `Redis refuses writes: ${text.slice(0, MAX_REASON)}`;
  return new RefusalError(refusal('TRANSPORT_UNAVAILABLE', { message: reason, details: { reason } }));
}

/** Whether the server said no, rather than that nobody answered. */
export const isReply = (error: unknown): boolean => error instanceof Error && error.name === 'ReplyError';

export const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

const CHANNEL = '+switch-master';
const RETRY_MS = 1_000;

interface SentinelListener {
  /** Moves that connection to each new master, until the returned function is called; the last to leave ends it all. */
  join(connection: Redis): () => void;
}

/** Connects when the first connection joins. Sentinels that are down are retried; each that answers is enough. */
function createSentinelListener(options: RedisOptions, log: Log): SentinelListener {
  const { name, sentinels = [], sentinelUsername, sentinelPassword, sentinelTLS } = options;
  const connections = new Set<Redis>();
  let listening: readonly Redis[] = [];

  /** `text`: name, old host, old port, new host, new port. Every sentinel says it, each as soon as it would name it. */
  const heard = (text: string): void => {
    const [master, , , host, port] = text.split(' ');
    if (master !== name) return;
    for (const connection of connections) {
      // A connection that is not ready asks the sentinels by itself.
      if (connection.status !== 'ready') continue;
      const { remoteAddress, remotePort } = connection.stream;
      if (remoteAddress !== host || String(remotePort) !== port) connection.disconnect(true);
    }
  };

  const listen = (): readonly Redis[] =>
    sentinels.map(({ host = '127.0.0.1', port = 26_379 }) => {
      const sentinel = new Redis({
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
      sentinel.on('error', (error) =>
        log.debug({ sentinel: `${host}:${port}`, error: error.message }, 'a sentinel failed'),
      );
      sentinel.on('ready', () => {
        sentinel.subscribe(CHANNEL).catch((error: Error) => {
          if (sentinel.status !== 'ready') return;
          const told = { sentinel: `${host}:${port}`, error: error.message };
          log.warn(told, 'a sentinel does not say when another Redis becomes master');
        });
      });
      sentinel.on('message', (_channel, text) => heard(text));
      return sentinel;
    });

  return {
    join(connection) {
      if (connections.size === 0) listening = listen();
      connections.add(connection);
      return () => {
        if (!connections.delete(connection) || connections.size > 0) return;
        for (const sentinel of listening) sentinel.disconnect();
      };
    },
  };
}
