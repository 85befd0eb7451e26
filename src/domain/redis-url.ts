/** The parts of a REDIS_URL: where Redis is, over TLS or not, directly or through sentinels, and the credentials. */

const PORT = 6_379;
const SENTINEL_PORT = 26_379;

export interface RedisAddress {
  readonly host: string;
  readonly port: number;
}

interface RedisCredentials {
  readonly username?: string;
  readonly password?: string;
}

/** Paths of PEM files: authorities to trust in place of the well-known ones, and a client's own certificate and key. */
export interface TlsFiles {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

export interface RedisPlace {
  /** TLS to Redis. */
  readonly secure: boolean;
  readonly credentials: RedisCredentials;
  readonly db: number;
  readonly tlsFiles: TlsFiles;
  readonly at:
    | { readonly kind: 'server'; readonly address: RedisAddress }
    | {
        readonly kind: 'sentinels';
        readonly addresses: readonly RedisAddress[];
        /** As the sentinels call it. */
        readonly master: string;
        readonly credentials: RedisCredentials;
        /** TLS to the sentinels. */
        readonly secure: boolean;
      };
}

/** One Redis or sentinel to connect to. */
export interface RedisTarget {
  readonly address: RedisAddress;
  readonly credentials: RedisCredentials;
  /** Undefined: no TLS. */
  readonly tlsFiles: TlsFiles | undefined;
}

/** What came of a command that was sent to a Redis or a sentinel. */
export type RedisAnswer =
  | { readonly ok: true; readonly reply: unknown }
  /** `code`: of Node, OpenSSL, or the first word of what Redis says; where it has none, what is wrong in words. */
  | { readonly ok: false; readonly code: string; readonly problem: string };

/** As redis-py names them in its URLs, so that services in Python can share the node's. */
const TLS_OPTIONS = { ca: 'ssl_ca_certs', cert: 'ssl_certfile', key: 'ssl_keyfile' } as const;
const SENTINEL_OPTIONS = ['sentinel_user', 'sentinel_password'];

/**
 * `redis[s]://[user:password@]host[:port][/db]` or
 * `redis[s]+sentinel://[user:password@]host[:port],host[:port]/master[/db]`; user and password are those of Redis.
 * Options after `?`: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (paths, with rediss only), `sentinel_user`,
 * `sentinel_password`, and `sentinel_tls=no` where Redis alone speaks TLS.
 * Throws an Error that names the problem and never the password.
 */
export function parseRedisUrl(url: string): RedisPlace {
  const match = /^redis(s?)(\+sentinel)?:\/\/(?:([^/]*)@)?([^/?#@]*)(\/[^?#]*)?(?:\?([^#]*))?$/.exec(url);
  if (!match) throw new Error('REDIS_URL must look like redis://[user:password@]host[:port][/db]');
  const [, tls = '', sentinel, credentials = '', hosts = '', path = '', query = ''] = match;
  const secure = tls !== '';
  const parts = path.split('/').filter((part) => part !== '');
  const options = optionsOf(query, [
    ...(secure ? Object.values(TLS_OPTIONS) : []),
    ...(sentinel ? SENTINEL_OPTIONS : []),
    ...(secure && sentinel ? ['sentinel_tls'] : []),
  ]);
  return {
    secure,
    credentials: credentialsOf(credentials),
    db: databaseOf(sentinel ? parts[1] : parts[0]),
    tlsFiles: tlsFilesOf(options),
    at: sentinel
      ? {
          kind: 'sentinels',
          addresses: hosts.split(',').map((host) => addressOf(host, SENTINEL_PORT)),
          master: masterOf(parts[0]),
          credentials: some({
            username: options.get('sentinel_user'),
            password: options.get('sentinel_password'),
          }),
          secure: secure && !isNo(options.get('sentinel_tls')),
        }
      : { kind: 'server', address: addressOf(hosts, PORT) },
  };
}

const UNTRUSTED =
  'name the file of its authority: rediss://…?ssl_ca_certs=ca.pem, or NODE_EXTRA_CA_CERTS=ca.pem';
const UNSHOWN =
  'it wants a certificate of ours: ssl_certfile and ssl_keyfile, or `tls-auth-clients no` there';
const PLAIN = 'it does not speak TLS on that port: redis:// in place of rediss://, or another port';
const TLS_ADVICE: readonly (readonly [RegExp, string])[] = [
  [/SELF_SIGNED|UNABLE_TO_(VERIFY|GET_ISSUER)/, UNTRUSTED],
  [/ALTNAME_INVALID/, 'its certificate is for another name: connect by that name, or give it one for this'],
  [/^CERT_(HAS_EXPIRED|NOT_YET_VALID)$/, 'renew its certificate, or look at the clock'],
  [/CERTIFICATE_REQUIRED|ALERT_HANDSHAKE_FAILURE/, UNSHOWN],
  [
    /ALERT_(UNKNOWN_CA|BAD_CERTIFICATE|CERTIFICATE_)/,
    'it does not trust ssl_certfile: look at its tls-ca-cert-file',
  ],
  [/WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG/, PLAIN],
  // A server may hang up before we have read why, and Redis without TLS waits for the end of our first line.
  [/ECONNRESET|EPIPE|closed/, `perhaps ${UNSHOWN}`],
  [/TIMEDOUT|no answer/, `perhaps ${PLAIN}`],
];

/**
 * What to do about a connection that failed; `code` is Node's or OpenSSL's, or what happened in words. Undefined where
 * it has nothing to do with TLS.
 */
export function tlsAdvice(code: string, secure: boolean): string | undefined {
  if (secure) return TLS_ADVICE.find(([pattern]) => pattern.test(code))?.[1];
  return /ECONNRESET|EPIPE|closed/.test(code) ? 'perhaps it wants TLS: rediss:// in REDIS_URL' : undefined;
}

/** A lone word before the @ is the password, as in older URLs. */
function credentialsOf(text: string): RedisCredentials {
  const cut = text.indexOf(':');
  return cut < 0
    ? some({ password: decoded(text) })
    : some({ username: decoded(text.slice(0, cut)), password: decoded(text.slice(cut + 1)) });
}

const some = (given: { readonly username?: string | undefined; readonly password?: string | undefined }) => ({
  ...(given.username ? { username: given.username } : {}),
  ...(given.password ? { password: given.password } : {}),
});

function addressOf(text: string, standardPort: number): RedisAddress {
  const match = /^(\[[0-9a-f:.]+\]|[^:[\],\s]*)(?::(\d{1,5}))?$/i.exec(text);
  const port = match?.[2] === undefined ? standardPort : Number(match[2]);
  if (!match || port < 1 || port > 65_535) throw new Error('REDIS_URL has a host or port that is none');
  return { host: (match[1] ?? '').replace(/^\[|\]$/g, '') || '127.0.0.1', port };
}

function databaseOf(text: string | undefined): number {
  if (text === undefined) return 0;
  if (!/^\d{1,5}$/.test(text)) throw new Error('REDIS_URL has a database that is no number');
  return Number(text);
}

function masterOf(text: string | undefined): string {
  if (text === undefined)
    throw new Error('REDIS_URL with sentinels must name the master: redis+sentinel://hosts/master');
  return decoded(text);
}

/** An option without effect would be believed: `ssl_cert_reqs=none`, or a CA file beside redis://. */
function optionsOf(query: string, known: readonly string[]): ReadonlyMap<string, string> {
  // A plus is a plus, as it is before the @.
  const options = new Map(new URLSearchParams(query.replaceAll('+', '%2B')));
  for (const name of options.keys()) {
    if (known.includes(name)) continue;
    const shown = /^[a-z_]{1,32}$/.test(name) ? `the option ${name}` : 'an option';
    const allowed = known.length > 0 ? known.join(', ') : 'none';
    throw new Error(`REDIS_URL has ${shown}, which means nothing here; known are with this kind: ${allowed}`);
  }
  return options;
}

function tlsFilesOf(options: ReadonlyMap<string, string>): TlsFiles {
  const [ca, cert, key] = [TLS_OPTIONS.ca, TLS_OPTIONS.cert, TLS_OPTIONS.key].map((name) =>
    options.get(name),
  );
  if ((cert === undefined) !== (key === undefined))
    throw new Error('REDIS_URL needs ssl_certfile and ssl_keyfile together');
  return { ...(ca ? { ca } : {}), ...(cert && key ? { cert, key } : {}) };
}

function isNo(text: string | undefined): boolean {
  if (text === undefined || /^(yes|true|1)$/.test(text)) return false;
  if (/^(no|false|0)$/.test(text)) return true;
  throw new Error('REDIS_URL: sentinel_tls is yes or no');
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error('REDIS_URL has a % that is no escape');
  }
}
