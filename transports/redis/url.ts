/** Reads REDIS_URL: redis, rediss (TLS), and redis+sentinel, rediss+sentinel. */
import type { RedisOptions } from 'ioredis';

const SENTINEL_PORT = 26_379;

/**
 * `redis[s]://[user:password@]host[:port][/db]` or
 * `redis[s]+sentinel://[user:password@]host[:port],host[:port]/master[/db][?sentinel_user=…&sentinel_password=…]`;
 * user and password are those of Redis itself. Throws an Error that names the problem and never the password.
 */
export function redisOptions(url: string): RedisOptions {
  const match = /^redis(s?)(\+sentinel)?:\/\/(?:([^@/]*)@)?([^/?]*)(\/[^?]*)?(\?.*)?$/.exec(url);
  if (!match) throw new Error('REDIS_URL must look like redis://[user:password@]host[:port][/db]');
  const [, secure, sentinel, credentials = '', hosts = '', path = '', query = ''] = match;
  const parts = path.split('/').filter((part) => part !== '');
  const [username, password] = credentialsOf(credentials);
  const common: RedisOptions = {
    ...(username ? { username } : {}),
    ...(password ? { password } : {}),
  };
  const db = databaseOf(sentinel ? parts[1] : parts[0]);
  if (!sentinel) {
    const { host, port } = addressOf(hosts, 6_379);
    return { ...common, host, port, db, ...(secure ? { tls: { servername: host } } : {}) };
  }
  const [name] = parts;
  if (!name) throw new Error('REDIS_URL with sentinels must name the master: redis+sentinel://hosts/master');
  const options = new URLSearchParams(query);
  const sentinelUsername = options.get('sentinel_user');
  const sentinelPassword = options.get('sentinel_password');
  return {
    ...common,
    db,
    name: decoded(name),
    sentinels: hosts.split(',').map((host) => addressOf(host, SENTINEL_PORT)),
    ...(sentinelUsername ? { sentinelUsername } : {}),
    ...(sentinelPassword ? { sentinelPassword } : {}),
    ...(secure ? { tls: {}, enableTLSForSentinelMode: true } : {}),
  };
}

/** Without a user, a lone word before the @ is the password, as in older URLs. */
function credentialsOf(text: string): readonly [string, string] {
  const cut = text.indexOf(':');
  return cut < 0 ? ['', decoded(text)] : [decoded(text.slice(0, cut)), decoded(text.slice(cut + 1))];
}

function addressOf(text: string, standardPort: number): { readonly host: string; readonly port: number } {
  const match = /^(\[[0-9a-f:.]+\]|[^:[\]]*)(?::(\d{1,5}))?$/i.exec(text);
  const port = match?.[2] === undefined ? standardPort : Number(match[2]);
  if (!match || port < 1 || port > 65_535) throw new Error('REDIS_URL has a host or port that is none');
  return { host: (match[1] ?? '').replace(/^\[|\]$/g, '') || '127.0.0.1', port };
}

function databaseOf(text: string | undefined): number {
  if (text === undefined) return 0;
  if (!/^\d{1,5}$/.test(text)) throw new Error('REDIS_URL has a database that is no number');
  return Number(text);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error('REDIS_URL has a % that is no escape');
  }
}
