/** One question to a Redis or a sentinel, over a connection of its own: for `nooble doctor`. */
import { Redis } from 'ioredis';
import type { RedisAnswer, RedisTarget } from '../../../src/domain/redis-url.ts';
import { textOf } from './connection.ts';
import { tlsOptions } from './url.ts';

const DISCONNECT_TIMEOUT_MS = 100;
const CLOSED = 'it closed the connection';
/** What the client says of bytes that are not Redis's protocol, or answer nothing that was sent. */
const NO_PROTOCOL = /^(Unknown RESP type|Protocol error|Command queue state error)/;
const NOT_REDIS = 'it does not answer as Redis does';

/** Sends AUTH (where there is a password) and the command. Rejects only where a TLS file can not be read. */
export async function askRedis(
  { address, credentials, tlsFiles }: RedisTarget,
  [name, ...args]: readonly [string, ...string[]],
  timeoutMs: number,
): Promise<RedisAnswer> {
  const tls = tlsFiles && tlsOptions(tlsFiles, address.host);
  const redis = new Redis({
    ...address,
    ...credentials,
    ...(tls ? { tls } : {}),
    protocol: 2,
    replyMapping: 'legacy',
    lazyConnect: true,
    enableReadyCheck: false,
    disableClientInfo: true,
    disconnectTimeout: DISCONNECT_TIMEOUT_MS,
    connectTimeout: 2 * timeoutMs,
    maxRetriesPerRequest: 0,
    retryStrategy: () => null,
  });
  let timer: NodeJS.Timeout | undefined;
  const failed = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    redis.on('error', reject);
    redis.on('close', () => reject(new Error(CLOSED)));
  });
  try {
    return { ok: true, reply: await Promise.race([redis.call(name, ...args), failed]) };
  } catch (error) {
    return { ok: false, ...explained(error) };
  } finally {
    clearTimeout(timer);
    redis.disconnect();
  }
}

function explained(error: unknown): { readonly code: string; readonly problem: string } {
  const text = textOf(error);
  if (NO_PROTOCOL.test(text)) return { code: NOT_REDIS, problem: NOT_REDIS };
  if (error instanceof Error && error.name === 'ReplyError')
    return { code: text.split(' ', 1)[0] ?? text, problem: text.slice(0, 120) };
  if (!(error instanceof Error && 'code' in error)) return { code: text, problem: text };
  const code = String(error.code);
  // OpenSSL's own message names places in its sources; other codes of TLS do not say which name, or what else.
  return { code, problem: code.startsWith('ERR_TLS') ? `${code}: ${text.slice(0, 200)}` : code };
}
