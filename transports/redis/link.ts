/**
 * Opens connections to Redis that fail fast and come back by themselves.
 *
 * ioredis never resends for us: a command in flight when its connection closes is rejected at once
 * (maxRetriesPerRequest 0), and whoever sent it decides. Left to itself it would run commands twice, unseen.
 * socketTimeout is the watchdog: a connection that owes an answer and stays silent is destroyed and replaced,
 * whether a proxy swallows, the server is stopped, or a blocking read hangs after a reconnect.
 */
import { Redis, type RedisOptions } from 'ioredis';
import { RefusalError, refusal } from '../../src/domain/errors.ts';
import type { Log } from '../../src/ports.ts';
import type { TransportMeter } from '../../src/transport-ports.ts';

export const COMMAND_TIMEOUT_MS = 2_000;
const CONNECT_TIMEOUT_MS = 2_000;
const MAX_RETRY_MS = 1_000;
const KEEP_ALIVE_MS = 10_000;

export interface Endpoint {
  readonly options: RedisOptions;
  readonly log: Log;
  readonly meter: TransportMeter;
}

/** `blockMs`: how long its reads may block on the server; 0 for connections that never block. */
export function openLink({ options, log, meter }: Endpoint, name: string, blockMs: number): Redis {
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
    socketTimeout: blockMs + COMMAND_TIMEOUT_MS,
    retryStrategy: (times) => Math.min(25 * 2 ** Math.min(times, 10), MAX_RETRY_MS),
    ...(blockMs === 0 ? { commandTimeout: COMMAND_TIMEOUT_MS } : {}),
  };
  const redis = new Redis({ ...settled, replyMapping: 'legacy' });
  let state: 'new' | 'ready' | 'lost' = 'new';
  redis.on('error', (error: Error) => log.debug({ link: name, error: error.message }, 'a Redis link failed'));
  redis.on('ready', () => {
    if (state === 'lost') log.info({ link: name }, 'a Redis link is back');
    state = 'ready';
  });
  // Not `close`, which we cause ourselves in the end.
  redis.on('reconnecting', () => {
    if (state !== 'ready') return;
    state = 'lost';
    meter.counted('link.lost', 1);
    log.warn({ link: name }, 'a Redis link is lost');
  });
  return redis;
}

/** Connects; rejects with TRANSPORT_UNAVAILABLE and the reason, and leaves nothing open, where the first try fails. */
export async function connected(redis: Redis): Promise<void> {
  let reason = '';
  const listen = (error: Error): void => {
    reason = error.message;
  };
  redis.on('error', listen);
  try {
    await redis.connect();
  } catch (error) {
    redis.disconnect();
    throw unavailable(reason === '' ? error : new Error(reason));
  } finally {
    redis.off('error', listen);
  }
}

/** What a failed command means to callers. The text is the server's or the client's own, without arguments. */
export function unavailable(error: unknown): RefusalError {
  if (error instanceof RefusalError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new RefusalError(
    refusal('TRANSPORT_UNAVAILABLE', { message: `The message transport does not answer: ${reason}` }),
  );
}

export const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
