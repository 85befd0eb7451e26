/** What every request passes before its handler: request id, the adapter's refusals, access, and a look over the body. */
import { isUtf8 } from 'node:buffer';
import { randomUUID } from 'node:crypto';
import type { Context } from 'hono';
import { cors } from 'hono/cors';
import { createMiddleware } from 'hono/factory';
import { refusal } from '../../src/domain/errors.ts';
import { MAX_DEPTH } from '../../src/domain/frames.ts';
import { ID_PATTERN } from '../../src/domain/ids.ts';
import {
  type Access,
  createOriginCheck,
  hasTokenInQuery,
  MISPLACED_TOKEN,
  readBearer,
  type Scope,
} from '../wire/access.ts';
import { jsonTooDeep } from '../wire/depth-limit.ts';
import { type HttpEnv, refuse } from './errors.ts';

/** Gives the request its id, echoes it, and answers what the adapter refused; no route takes a token in its address. */
export const identified = createMiddleware<HttpEnv>(async (c, next) => {
  const given = c.req.header('x-request-id');
  const fits = given === undefined || ID_PATTERN.test(given);
  const id = given !== undefined && fits ? given : randomUUID();
  c.set('requestId', id);
  c.header('X-Request-ID', id);
  if (c.env.refused) return refuse(c, c.env.refused);
  if (!fits)
    return refuse(
      c,
      refusal('INVALID_REQUEST', {
        message: 'X-Request-ID must be 1 to 128 characters out of A-Z a-z 0-9 . _ : @ -',
      }),
    );
  if (hasTokenInQuery(new URL(c.req.url).searchParams)) return refuse(c, MISPLACED_TOKEN);
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

/** Admits callers with the scope, and leaves who they are in `caller`. The tenant is never read from anywhere else. */
export const needs = (access: Access, scope: Scope) =>
  createMiddleware<HttpEnv>(async (c, next) => {
    const reply = await access.check(
      {
        bearer: readBearer(c.req.header('authorization')),
        header: (name) => c.req.header(name) || undefined,
      },
      scope,
    );
    if (!reply.ok) return refuse(c, reply.error);
    c.set('caller', reply.admitted.caller);
    await next();
  });

/** Lets JSON bodies through that are safe to parse: named as JSON, UTF-8, and nested at most MAX_DEPTH deep. */
export const jsonBody = createMiddleware<HttpEnv>(async (c, next) => {
  if (!/^application\/json(;|$)/i.test(c.req.header('content-type') ?? ''))
    return refuse(
      c,
      refusal('INVALID_REQUEST', {
        message: 'The body must be JSON, sent with Content-Type: application/json.',
      }),
    );
  const bytes = new Uint8Array(await c.req.arrayBuffer());
  if (!isUtf8(bytes)) return refuse(c, refusal('INVALID_REQUEST', { message: 'The body is not UTF-8.' }));
  if (jsonTooDeep(bytes, MAX_DEPTH))
    return refuse(
      c,
      refusal('INVALID_REQUEST', { message: `The body is nested deeper than ${MAX_DEPTH} levels.` }),
    );
  await next();
});
