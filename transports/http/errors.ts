/** How the HTTP edge says no: refusals as values of the error table, and everything that broke as INTERNAL. */

import { z } from '@hono/zod-openapi';
import type { Context, Env, ErrorHandler, NotFoundHandler } from 'hono';
import { ERRORS, type ErrorData, errorDataSchema, RefusalError, refusal } from '../../src/domain/errors.ts';
import type { Caller } from '../../src/domain/turn.ts';
import type { Log } from '../../src/ports/telemetry.ts';
import type { Exchange } from './adapter.ts';

/** What a request carries through middlewares and handlers. */
export interface HttpEnv extends Env {
  Bindings: Exchange;
  Variables: { requestId: string; caller: Caller; refusal: ErrorData };
}

/** The body of every answer that is not a success (PROTOCOL 3). */
const errorBodySchema = z
  .object({ error: errorDataSchema.extend({ request_id: z.string() }) })
  .openapi('Error');

/** The refusals among a route's responses. */
export const failure = {
  description: 'A refusal; `error.code` says which, and a known waiting time stands in Retry-After.',
  content: { 'application/json': { schema: errorBodySchema } },
} as const;

/** Answers a request with a refusal: its code's status, Retry-After in whole seconds, and the request's id. */
export function refuse(c: Context<HttpEnv>, error: ErrorData) {
  c.set('refusal', error);
  if (error.retry_after_ms !== undefined)
    c.header('Retry-After', String(Math.ceil(error.retry_after_ms / 1000)));
  if (error.code === 'UNAUTHENTICATED') c.header('WWW-Authenticate', 'Bearer');
  return c.json(bodyOf(c, error), ERRORS[error.code].http);
}

const bodyOf = (c: Context<HttpEnv>, error: ErrorData) => ({
  error: { ...error, request_id: c.get('requestId') },
});

/** Answers for handlers that threw. Refusals keep their meaning; the rest is logged and INTERNAL. */
export const failed =
  (log: Log): ErrorHandler<HttpEnv> =>
  (error, c) => {
    if (error instanceof RefusalError) return refuse(c, error.data);
    log.error(
      { err: error, request_id: c.get('requestId'), method: c.req.method, path: c.req.path },
      'an HTTP handler failed',
    );
    return refuse(c, refusal('INTERNAL'));
  };

/** A route as far as a wrong address needs to know it. */
export interface KnownRoute {
  readonly method: string;
  /** With `{name}` for a parameter. */
  readonly path: string;
}

/** Answers for what no route takes, naming the methods that the path does take. */
export function unknownRoute(routes: readonly KnownRoute[]): NotFoundHandler<HttpEnv> {
  const patterns = routes.map(({ method, path }) => ({
    method: method.toUpperCase(),
    pattern: new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/\{[^}]+\}/g, '[^/]+')}$`),
  }));
  return (c) => {
    const path = c.req.path;
    if (/^\/ws(\/|$)/.test(path))
      return refuse(
        c,
        refusal('INVALID_REQUEST', {
          message: 'This address takes WebSocket upgrades: /ws/{tenant_id}/{session_id}.',
        }),
      );
    const methods = patterns
      .filter(({ pattern }) => pattern.test(path))
      .flatMap(({ method }) => (method === 'GET' ? ['GET', 'HEAD'] : [method]));
    if (methods.length === 0) return refuse(c, refusal('NOT_FOUND', { message: 'There is no such route.' }));
    const allowed = methods.join(', ');
    c.header('Allow', allowed);
    const error = refusal('INVALID_REQUEST', { message: `This route takes ${allowed} only.` });
    return c.json(bodyOf(c, error), 405);
  };
}
