/** Turns REDIS_URL into what the client wants: redis, rediss (TLS), and redis+sentinel, rediss+sentinel. */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import type { RedisOptions } from 'ioredis';
import { parseRedisUrl, type TlsFiles } from '../../../src/domain/redis-url.ts';

/**
 * For the URLs that parseRedisUrl describes. Reads the files that they name, now: who exchanges a certificate starts
 * the node anew. Throws an Error that names the problem and never the password.
 */
export function redisOptions(url: string): RedisOptions {
  const { secure, credentials, db, tlsFiles, at } = parseRedisUrl(url);
  if (at.kind === 'server') {
    const { host, port } = at.address;
    return { ...credentials, host, port, db, ...(secure ? { tls: tlsOptions(tlsFiles, host) } : {}) };
  }
  const tls = tlsOptions(tlsFiles);
  const { username: sentinelUsername, password: sentinelPassword } = at.credentials;
  return {
    ...credentials,
    db,
    name: at.master,
    sentinels: [...at.addresses],
    ...(sentinelUsername ? { sentinelUsername } : {}),
    ...(sentinelPassword ? { sentinelPassword } : {}),
    ...(secure ? { tls, enableTLSForSentinelMode: true } : {}),
    ...(at.secure ? { sentinelTLS: tls } : {}),
  };
}

/** Options of TLS to a host; without one, the client fills it in. Throws an Error that names a file it can not read. */
export function tlsOptions({ ca, cert, key }: TlsFiles, host = ''): ConnectionOptions {
  return {
    // An address has no place there (RFC 6066); its certificate is checked all the same.
    ...(host !== '' && isIP(host) === 0 ? { servername: host } : {}),
    ...(ca ? { ca: pem('ssl_ca_certs', ca) } : {}),
    ...(cert && key ? { cert: pem('ssl_certfile', cert), key: pem('ssl_keyfile', key) } : {}),
  };
}

function pem(option: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    const reason = error instanceof Error && 'code' in error ? String(error.code) : 'it can not be read';
    throw new Error(`REDIS_URL: ${option} names ${path}: ${reason}`);
  }
}
