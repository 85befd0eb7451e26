/** Who is asking: open mode trusts headers, jwt mode trusts a verified token (PROTOCOL 1). */

import { createHash, timingSafeEqual } from 'node:crypto';
import { errors, type JWTVerifyGetKey, jwtVerify } from 'jose';
import { z } from 'zod';
import { type ErrorCode, type ErrorData, refusal } from '../../src/domain/errors.ts';
import { claimedUserIdSchema, ID_RULE, tenantIdSchema, userIdSchema } from '../../src/domain/ids.ts';
import { TIERS, tierSchema } from '../../src/domain/tiers.ts';
import type { Caller } from '../../src/domain/turn.ts';
import type { Clock } from '../../src/ports/telemetry.ts';
import { createKeySet, KeysUnavailable } from './key-set.ts';

export type Scope = 'chat' | 'agents:read' | 'agents:write' | 'metrics' | 'admin';

export interface Credentials {
  /** The bearer token, wherever it travelled; undefined when there is none. */
  readonly bearer: string | undefined;
  /** A request header by its lower-case name; undefined when absent or empty. */
  readonly header: (name: string) => string | undefined;
  /** What the path or the query names; must agree with the token in jwt mode. */
  readonly tenantId?: string | undefined;
  readonly tier?: string | undefined;
  readonly userId?: string | undefined;
}

export type Admitted = {
  readonly caller: Caller;
  readonly scopes: ReadonlySet<Scope>;
  /** When the token expires, ms since the epoch; undefined in open mode. */
  readonly expiresAtMs: number | undefined;
};

export type AccessReply =
  | { readonly ok: true; readonly admitted: Admitted }
  | { readonly ok: false; readonly error: ErrorData };

/**
 * Resolves to a refusal (UNAUTHENTICATED, FORBIDDEN, INVALID_REQUEST; TRANSPORT_UNAVAILABLE when the keys cannot
 * be fetched), never rejects. `admin` implies every scope. Open mode answers in the same tick; headers are read in
 * the same tick in both modes, so that a request object may end with it.
 */
export interface Access {
  check(credentials: Credentials, needs: Scope): AccessReply | Promise<AccessReply>;
}

/** The part of `settings.access` that decides who gets in. */
export interface AccessSettings {
  readonly mode: 'open' | 'jwt';
  readonly jwtSecret: string | undefined;
  readonly jwksUrl: string | undefined;
  readonly issuer: string | undefined;
  readonly audience: string | undefined;
}

/** Headers that only proxies add. */
const PROXY_HEADER = /^(x-forwarded-.+|forwarded|x-real-ip|via)$/i;

const BEHIND_PROXY: ErrorData = refusal('FORBIDDEN', {
  message:
    'This request came through a proxy, and the node is in open mode, in which anybody may claim to be anybody: set AUTH_MODE=jwt, or ALLOW_INSECURE=1 if that is meant.',
});

/** Whether a request must be refused for the way it came, by the names of its headers. */
export type ProxyCheck = (headerNames: Iterable<string>) => ErrorData | undefined;

/** In open mode a proxy would make its clients anybody they like: it is refused, unless the operator insists. */
export function createProxyCheck({
  mode,
  allowInsecure,
}: {
  readonly mode: AccessSettings['mode'];
  readonly allowInsecure: boolean;
}): ProxyCheck {
  if (mode === 'jwt' || allowInsecure) return () => undefined;
  return (headerNames) => {
    for (const name of headerNames) if (PROXY_HEADER.test(name)) return BEHIND_PROXY;
    return undefined;
  };
}

/** The headers that name a caller; an edge that must copy headers copies these. */
export const IDENTITY_HEADERS = ['x-tenant-id', 'x-tenant-tier', 'x-user-id'] as const;

/** How far the clocks of an issuer and of this node may be apart. */
const CLOCK_TOLERANCE_S = 5;
/** Longer tokens are refused unread. */
const MAX_TOKEN_UNITS = 8_192;

const SCOPES: ReadonlySet<Scope> = new Set<Scope>([
  'chat',
  'agents:read',
  'agents:write',
  'metrics',
  'admin',
]);

/** The access check of this node. Throws where jwt mode has neither a secret nor a key set. */
export function createAccess(settings: AccessSettings, clock: Clock): Access {
  if (settings.mode === 'open') return { check: (credentials) => checkOpen(credentials) };
  const verify = createVerifier(settings, clock);
  return {
    check(credentials, needs) {
      // Read now: after the first await the request may be gone.
      const claimed = claimsOf(credentials);
      const { bearer } = credentials;
      if (bearer === undefined || bearer === '')
        return refuse(
          'UNAUTHENTICATED',
          'A bearer token is needed: send it as `Authorization: Bearer <token>`.',
        );
      if (bearer.length > MAX_TOKEN_UNITS) return refuse('UNAUTHENTICATED', 'The bearer token is too long.');
      return verify(bearer).then((reply) => (reply.ok ? agree(reply.admitted, claimed, needs) : reply));
    },
  };
}

function refuse(code: ErrorCode, message: string, details?: unknown): { ok: false; error: ErrorData } {
  return { ok: false, error: refusal(code, { message, details }) };
}

/** Everything a request says about its caller: by header, and by path or query. */
interface Claimed {
  readonly tenant: readonly string[];
  readonly tier: readonly string[];
  readonly user: readonly string[];
}

function claimsOf(credentials: Credentials): Claimed {
  const said = (...values: (string | undefined)[]): string[] =>
    values.filter((value): value is string => value !== undefined && value !== '');
  return {
    tenant: said(credentials.tenantId, credentials.header('x-tenant-id')),
    tier: said(credentials.tier, credentials.header('x-tenant-tier')),
    user: said(credentials.userId, credentials.header('x-user-id')),
  };
}

// --- Open mode ---------------------------------------------------------------------------------------------

function checkOpen(credentials: Credentials): AccessReply {
  const claimed = claimsOf(credentials);
  for (const [name, values] of [
    ['X-Tenant-ID', claimed.tenant],
    ['X-Tenant-Tier', claimed.tier],
    ['X-User-ID', claimed.user],
  ] as const) {
    if (values[1] !== undefined && values[1] !== values[0])
      return refuse('INVALID_REQUEST', `The header ${name} and the address name different values.`);
  }
  const [tenant, tier, user] = [claimed.tenant[0], claimed.tier[0], claimed.user[0]];
  if (tenant === undefined)
    return refuse('INVALID_REQUEST', 'No tenant is named: send the header X-Tenant-ID.');

  const tenantId = tenantIdSchema.safeParse(tenant);
  if (!tenantId.success) return refuse('INVALID_REQUEST', `The tenant id ${ID_RULE}`, { field: 'tenant_id' });
  const tierName = tierSchema.optional().safeParse(tier);
  if (!tierName.success)
    return refuse('INVALID_REQUEST', `Unknown tier; it must be one of ${TIERS.join(', ')}.`, {
      field: 'tier',
    });
  const userId = claimedUserIdSchema.optional().safeParse(user);
  if (!userId.success)
    return refuse('INVALID_REQUEST', `The user id ${userId.error.issues[0]?.message}.`, { field: 'user_id' });

  const caller = { tenantId: tenantId.data, tier: tierName.data, userId: userId.data };
  return { ok: true, admitted: { caller, scopes: SCOPES, expiresAtMs: undefined } };
}

// --- JWT mode ----------------------------------------------------------------------------------------------

const absent = <T extends z.ZodType>(schema: T) => schema.nullish().transform((value) => value ?? undefined);

const claimsSchema = z.object({
  tenant_id: tenantIdSchema,
  tier: absent(tierSchema),
  sub: absent(userIdSchema),
  /** Words with blanks between them, or a list of words. */
  scope: z.union([z.string(), z.array(z.string())]).nullish(),
  exp: z.number().optional(),
});

function createVerifier(settings: AccessSettings, clock: Clock): (token: string) => Promise<AccessReply> {
  const { getKey, algorithms } = keysOf(settings, clock);
  const fixed = {
    algorithms,
    clockTolerance: CLOCK_TOLERANCE_S,
    ...(settings.issuer === undefined ? {} : { issuer: settings.issuer }),
    ...(settings.audience === undefined ? {} : { audience: settings.audience }),
  };
  return async (token) => {
    try {
      const { payload } = await jwtVerify(token, getKey, { ...fixed, currentDate: new Date(clock.now()) });
      return admit(payload);
    } catch (error) {
      return refuseToken(error);
    }
  };
}

/** Which key checks which algorithm: a shared secret only HS256, a published key only RS256 and ES256. */
function keysOf(settings: AccessSettings, clock: Clock): { getKey: JWTVerifyGetKey; algorithms: string[] } {
  const secret = settings.jwtSecret === undefined ? undefined : new TextEncoder().encode(settings.jwtSecret);
  const remote = settings.jwksUrl === undefined ? undefined : createKeySet(settings.jwksUrl, clock);
  if (!secret && !remote) throw new Error('AUTH_MODE: jwt needs AUTH_JWT_SECRET or AUTH_JWKS_URL');
  const getKey: JWTVerifyGetKey = async (header, token) => {
    if (header.alg === 'HS256' && secret) return secret;
    if (!remote) throw new errors.JOSEAlgNotAllowed();
    return remote(header, token);
  };
  return { getKey, algorithms: [...(secret ? ['HS256'] : []), ...(remote ? ['RS256', 'ES256'] : [])] };
}

function admit(payload: unknown): AccessReply {
  const claims = claimsSchema.safeParse(payload);
  if (!claims.success) {
    const names = [...new Set(claims.error.issues.map((issue) => String(issue.path[0])))].join(', ');
    return refuse('UNAUTHENTICATED', `The token's claims are missing or malformed: ${names}.`);
  }
  const { tenant_id: tenantId, tier, sub: userId, scope, exp } = claims.data;
  const named = new Set([scope ?? []].flat().flatMap((words) => words.split(/\s+/)));
  const scopes = named.has('admin') ? SCOPES : new Set([...SCOPES].filter((one) => named.has(one)));
  const expiresAtMs = exp === undefined ? undefined : (exp + CLOCK_TOLERANCE_S) * 1000;
  return { ok: true, admitted: { caller: { tenantId, tier, userId }, scopes, expiresAtMs } };
}

/** Says what is wrong with a token, never what stands in it. */
function refuseToken(error: unknown): AccessReply {
  if (error instanceof KeysUnavailable)
    return refuse('TRANSPORT_UNAVAILABLE', 'The keys that check tokens cannot be fetched now; retry later.');
  if (error instanceof errors.JWTExpired)
    return refuse('UNAUTHENTICATED', 'The token has expired; get a new one and try again.');
  if (error instanceof errors.JWTClaimValidationFailed)
    return refuse(
      'UNAUTHENTICATED',
      `The token is not for this node, or not valid yet: claim ${error.claim}.`,
    );
  return refuse('UNAUTHENTICATED', 'The token is not valid here: malformed, or signed with an unknown key.');
}

function agree(admitted: Admitted, claimed: Claimed, needs: Scope): AccessReply {
  const { tenantId, tier, userId } = admitted.caller;
  for (const [name, own, values] of [
    ['tenant', tenantId, claimed.tenant],
    ['tier', tier, claimed.tier],
    ['user', userId, claimed.user],
  ] as const) {
    if (values.some((value) => value !== own))
      return refuse('FORBIDDEN', `The request names a ${name} that the token does not.`, { field: name });
  }
  if (!admitted.scopes.has(needs))
    return refuse('FORBIDDEN', `The token lacks the scope ${needs}.`, { scope: needs });
  return { ok: true, admitted };
}

/** The token of an `Authorization: Bearer …` header; undefined where there is none. */
export const readBearer = (header: string | undefined): string | undefined =>
  /^Bearer +(\S+) *$/i.exec(header ?? '')?.[1];

/** Where people put tokens, which then stand in every proxy's log: names without case, hyphens and underscores. */
const TOKEN_PARAMETERS: ReadonlySet<string> = new Set([
  'token',
  'accesskey',
  'accesstoken',
  'apikey',
  'apitoken',
  'auth',
  'authorization',
  'authkey',
  'authtoken',
  'bearer',
  'bearertoken',
  'clientsecret',
  'idtoken',
  'jwt',
  'jwttoken',
  'key',
  'refreshtoken',
  'secret',
  'secretkey',
  'servicetoken',
  'sessiontoken',
  'xaccesstoken',
  'xapikey',
  'xauthtoken',
]);

export const MISPLACED_TOKEN: ErrorData = refusal('UNAUTHENTICATED', {
  message:
    'A token does not belong into the address, where logs keep it: send it as `Authorization: Bearer <token>`; a WebSocket of a page as the subprotocols `nooble, bearer.<token>`.',
});

/** Whether a token was put into the address. */
export function hasTokenInQuery(query: URLSearchParams): boolean {
  for (const name of query.keys())
    if (TOKEN_PARAMETERS.has(name.toLowerCase().replace(/[-_.[\]]/g, ''))) return true;
  return false;
}

/**
 * Makes the check for `ALLOWED_ORIGINS`: `*` lets everyone in, an empty list only pages of the same host. Origins are
 * compared without case, default port and trailing slash. Requests without an Origin do not come from a browser page
 * and pass. Takes the raw `Origin` and `Host` headers; X-Forwarded-Host is not believed.
 */
export function createOriginCheck(allowed: readonly string[]): (origin: string, host: string) => boolean {
  const everyone = allowed.includes('*');
  const listed = new Set(allowed.map(normalOrigin));
  return (origin, host) => {
    if (everyone || origin === '') return true;
    return listed.size > 0 ? listed.has(normalOrigin(origin)) : isSameHost(origin, host);
  };
}

const WEB_ORIGIN = /^(https?):\/\/[^/?#@\s]+\/?$/i;

/** `HTTPS://App.example:443/` is `https://app.example`; what is no web origin (`null`, an app's scheme) stays, in lower case. */
function normalOrigin(text: string): string {
  const isWeb = WEB_ORIGIN.test(text) && URL.canParse(text);
  return isWeb ? new URL(text).origin : text.toLowerCase().replace(/\/+$/, '');
}

/** The node does not know by which scheme it is reached: a default port is that of the page's own. */
function isSameHost(origin: string, host: string): boolean {
  const scheme = WEB_ORIGIN.exec(origin)?.[1];
  const own = `${scheme}://${host}`;
  return scheme !== undefined && WEB_ORIGIN.test(own) && normalOrigin(origin) === normalOrigin(own);
}

/** What is told where the operator has set no SERVICE_TOKEN: nobody is a service then. */
export const NO_SERVICE_TOKEN: ErrorData = refusal('FORBIDDEN', {
  message: 'This node takes no services: set SERVICE_TOKEN (at least 16 characters) to let them in.',
});

/** Makes the comparison. It takes the same time wherever two tokens differ, and whatever their lengths. */
export function createServiceCheck(token: string): (given: string) => boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  const expected = digest(token);
  return (given) => timingSafeEqual(digest(given), expected);
}
