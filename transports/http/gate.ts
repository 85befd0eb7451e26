/** What every request passes before its route runs: its id, the adapter's refusals, access, and a look over the body. */
import { randomUUID } from 'node:crypto';
import type { Context, MiddlewareHandler } from 'hono';
import { cors } from 'hono/cors';
import { createMiddleware } from 'hono/factory';
import { type ErrorData, type Reply, refusal } from '../../src/domain/errors.ts';
import { ID_PATTERN, type TenantId, tenantIdSchema } from '../../src/domain/ids.ts';
import type { Actor } from '../../src/ports/management.ts';
import type { Refusals } from '../../src/ports/telemetry.ts';
import {
  createOriginCheck,
  createServiceCheck,
  hasTokenInQuery,
  MISPLACED_TOKEN,
  NO_SERVICE_TOKEN,
  readBearer,
  type Scope,
} from '../wire/access.ts';
import { decodeJson } from '../wire/codec.ts';
import type { HttpDeps } from './deps.ts';
import { type HttpEnv, refuse } from './errors.ts';
import { isJson } from './media-types.ts';

/** The command line names itself in User-Agent, for the audit; it has no right by it. */
const CLI_AGENT = /^nooble-cli\b/;

const invalid = (message: string): ErrorData => refusal('INVALID_REQUEST', { message });

/**
 * Gives the request its id (one of ours where the client's is none), echoes it, and answers what the adapter refused; no
 * route takes a token in its address.
 */
export const identified = createMiddleware<HttpEnv>(async (c, next) => {
  const given = c.req.header('x-request-id');
  const id = given !== undefined && ID_PATTERN.test(given) ? given : randomUUID();
  c.set('requestId', id);
  c.header('X-Request-ID', id);
  if (c.env.refused) return refuse(c, c.env.refused);
  if (hasTokenInQuery(new URL(c.req.url).searchParams)) return refuse(c, MISPLACED_TOKEN);
  await next();
});

/** Reports what was refused, by whichever part of the edge. */
export const traced = (refusals: Refusals) =>
  createMiddleware<HttpEnv>(async (c, next) => {
    await next();
    const error = c.get('refusal');
    if (!error) return;
    const { method, path } = c.req;
    refusals.refused('http', error, {
      tenant_id: c.get('caller')?.tenantId,
      path: `${method} ${path}`,
      request_id: c.get('requestId'),
    });
  });

/** Routes that answer however a request came: load balancers ask them. */
const ALWAYS_ANSWERED: ReadonlySet<string> = new Set(['/health', '/ready']);

/** Refuses what came through a proxy, where `check` says so. */
export const notProxied = (check: HttpDeps['proxied']) =>
  createMiddleware<HttpEnv>(async (c, next) => {
    const error = ALWAYS_ANSWERED.has(c.req.path) ? undefined : check(c.req.raw.headers.keys());
    if (error) return refuse(c, error);
    await next();
  });

/** Lets browsers of the allowed origins in; none named means pages of the node's own host. `*` means all. */
export function allowOrigins(allowed: readonly string[]) {
  const isAllowed = createOriginCheck(allowed);
  return cors({
    origin: allowed.includes('*')
      ? '*'
      : (origin, c: Context) => (isAllowed(origin, c.req.header('host') ?? '') ? origin : null),
    allowMethods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
    allowHeaders: [
      'Accept',
      'Authorization',
      'Content-Type',
      'If-Match',
      'Last-Event-ID',
      'X-Agent-ID',
      'X-Request-ID',
      'X-Session-ID',
      'X-Tenant-ID',
      'X-Tenant-Tier',
      'X-User-ID',
    ],
    exposeHeaders: ['ETag', 'Location', 'X-Request-ID', 'Retry-After', 'X-Session-ID', 'X-Task-ID'],
    maxAge: 600,
  });
}

// --- Who may use a route ---------------------------------------------------------------------------------------

/** Who may use a route: callers with a scope, services with SERVICE_TOKEN, or anybody. */
export type Guard = Scope | 'service' | 'anybody';

export type Guards = (guard: Guard) => MiddlewareHandler<HttpEnv>;

/** The guards of this node. The scope `metrics` is asked for only where probes are guarded. */
export function createGuards({
  access,
  guardProbes,
  serviceToken,
}: Pick<HttpDeps, 'access' | 'guardProbes' | 'serviceToken'>): Guards {
  const anybody = createMiddleware<HttpEnv>((_c, next) => next());
  const service = needsService(serviceToken);
  return (guard) => {
    if (guard === 'service') return service;
    return guard === 'anybody' || (guard === 'metrics' && !guardProbes) ? anybody : needsScope(access, guard);
  };
}

/** Admits callers with the scope, and leaves who they are in `caller`. The tenant is never read from anywhere else. */
const needsScope = (access: HttpDeps['access'], scope: Scope) =>
  createMiddleware<HttpEnv>(async (c, next) => {
    const bearer = readBearer(c.req.header('authorization'));
    const header = (name: string): string | undefined => c.req.header(name) || undefined;
    const reply = await access.check({ bearer, header }, scope);
    if (!reply.ok) return refuse(c, reply.error);
    c.set('caller', reply.admitted.caller);
    c.env.belongsTo?.(reply.admitted.caller.tenantId);
    await next();
  });

const NO_SERVICE = refusal('UNAUTHENTICATED', {
  message: 'A service is needed here: send `Authorization: Bearer <SERVICE_TOKEN>`.',
});

function needsService(token: string | undefined) {
  const isToken = token === undefined ? undefined : createServiceCheck(token);
  return createMiddleware<HttpEnv>(async (c, next) => {
    if (!isToken) return refuse(c, NO_SERVICE_TOKEN);
    const given = readBearer(c.req.header('authorization'));
    if (given === undefined || !isToken(given)) return refuse(c, NO_SERVICE);
    await next();
  });
}

/** The tenant of the caller. */
export const tenantOf = (c: Context<HttpEnv>): TenantId => c.get('caller').tenantId;

/** Who asks, for the audit: the token's subject, or the user that an open node is told. */
export function actorOf(c: Context<HttpEnv>): Actor {
  const { tenantId, tier, userId } = c.get('caller');
  const source = CLI_AGENT.test(c.req.header('user-agent') ?? '') ? 'cli' : 'api';
  return { tenantId, tier, actor: userId ?? 'anonymous', source };
}

// --- Bodies ----------------------------------------------------------------------------------------------------

/** Services, which act for many tenants, take turns as one. */
const NO_TENANT = tenantIdSchema.parse('service');

/** Reads a body that is safe to parse: named as JSON, UTF-8, and within the limits of depth-limit.ts. */
export async function readJson(c: Context<HttpEnv>): Promise<Reply<unknown>> {
  const refused = (message: string) => ({ ok: false as const, error: invalid(message) });
  if (!isJson(c.req.header('content-type')))
    return refused('The body must be JSON in UTF-8, sent with Content-Type: application/json.');
  const tenantId = c.get('caller')?.tenantId ?? NO_TENANT;
  const read = await c.env.body.read(tenantId, decodeJson);
  return read.ok ? read : refused(`The body is not taken: ${read.problem}.`);
}
