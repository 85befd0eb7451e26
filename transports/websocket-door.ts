/** Who may come in over the chat WebSocket: every check between the handshake and the open socket. */
import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import { CLOSE, type Close, ERRORS, type ErrorData, refusal } from '../src/domain/errors.ts';
import { ID_PATTERN } from '../src/domain/ids.ts';
import { type Access, type Admitted, IDENTITY_HEADERS } from './access.ts';
import {
  type Address,
  type AddressReply,
  hasTokenInQuery,
  readAddress,
  readBearer,
  readSubprotocol,
  type Subprotocol,
} from './handshake.ts';
import { createOriginCheck } from './origin.ts';

/** A handshake, copied out of a request that does not outlive its handler. */
export interface Handshake {
  readonly subprotocol: Subprotocol;
  readonly address: AddressReply;
  readonly tokenInQuery: boolean;
  readonly bearer: string | undefined;
  readonly origin: string;
  readonly host: string;
  readonly requestId: string;
  readonly identity: ReadonlyMap<string, string>;
}

/** What this file needs of a uWebSockets.js request: absent headers are empty. */
export interface Request {
  getHeader(lowerCaseName: string): string;
  getParameter(index: number): string | undefined;
  getQuery(): string;
}

/** Copies everything that admission asks for. */
export function readHandshake(req: Request): Handshake {
  const query = new URLSearchParams(req.getQuery());
  const subprotocol = readSubprotocol(req.getHeader('sec-websocket-protocol'));
  return {
    subprotocol,
    address: readAddress(req.getParameter(0) ?? '', req.getParameter(1) ?? '', query, (name) =>
      req.getHeader(name),
    ),
    tokenInQuery: hasTokenInQuery(query),
    bearer: readBearer(req.getHeader('authorization')) ?? subprotocol.bearer,
    origin: req.getHeader('origin'),
    host: req.getHeader('host'),
    requestId: req.getHeader('x-request-id'),
    identity: new Map(IDENTITY_HEADERS.map((name): [string, string] => [name, req.getHeader(name)])),
  };
}

/** Admitted, or upgraded only to be told why not: a browser can not read the answer to a failed handshake. */
export type Entry =
  | { readonly ok: true; readonly admitted: Admitted; readonly address: Address }
  | { readonly ok: false; readonly error: ErrorData; readonly close: Close };

/** `refuse`: with an HTTP answer, before the upgrade. */
export type Verdict =
  | { readonly type: 'upgrade'; readonly entry: Entry }
  | { readonly type: 'refuse'; readonly error: ErrorData };

export interface DoorDeps {
  readonly access: Access;
  readonly allowedOrigins: readonly string[];
  readonly draining: () => boolean;
  /** Whether the node has as many sockets as it may. */
  readonly full: () => boolean;
}

/** Makes the check of a handshake. It answers in the same tick wherever the access check does (open mode). */
export function createDoor(deps: DoorDeps): (handshake: Handshake) => Verdict | Promise<Verdict> {
  const originAllowed = createOriginCheck(deps.allowedOrigins);

  const closed = (): ErrorData | null => {
    if (deps.draining()) return refusal('DRAINING');
    return deps.full() ? refusal('OVERLOADED', { message: 'This node has no socket free.' }) : null;
  };

  return (handshake) => {
    const { origin, host, address, bearer, identity } = handshake;
    const shut = closed();
    if (shut) return refuse(shut);
    if (!originAllowed(origin, host)) return refuse(refusal('FORBIDDEN', { message: FOREIGN_ORIGIN }));
    if (handshake.tokenInQuery) return refuse(refusal('UNAUTHENTICATED', { message: MISPLACED_TOKEN }));
    if (!address.ok) return badPath(address.error);

    const { tenantId, tier, userId } = address.address;
    const header = (name: string): string | undefined => identity.get(name) || undefined;
    const reply = deps.access.check({ bearer, header, tenantId, tier, userId }, 'chat');
    if (!(reply instanceof Promise)) return verdict(reply, address.address);
    return reply.then((late) => {
      const shutSince = closed();
      return shutSince ? refuse(shutSince) : verdict(late, address.address);
    });
  };
}

const refuse = (error: ErrorData): Verdict => ({ type: 'refuse', error });

const badPath = (error: ErrorData): Verdict => ({
  type: 'upgrade',
  entry: { ok: false, error, close: CLOSE.badPath },
});

function verdict(reply: Awaited<ReturnType<Access['check']>>, address: Address): Verdict {
  if (reply.ok) return { type: 'upgrade', entry: { ok: true, admitted: reply.admitted, address } };
  return reply.error.code === 'INVALID_REQUEST' ? badPath(reply.error) : refuse(reply.error);
}

/** The HTTP answer to a handshake that is refused before the upgrade. */
export interface RefusedHandshake {
  readonly status: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: string;
}

/** A refusal in the form that HTTP gives to all of them (PROTOCOL 3); `requestId` is the client's, if it gave a fit one. */
export function refusedHandshake(error: ErrorData, requestId: string): RefusedHandshake {
  const { http } = ERRORS[error.code];
  const request_id = ID_PATTERN.test(requestId) ? requestId : randomUUID();
  const headers: [string, string][] = [['Content-Type', 'application/json; charset=utf-8']];
  if (http === 401) headers.push(['WWW-Authenticate', 'Bearer']);
  if (http === 503) headers.push(['Retry-After', '1']);
  return {
    status: `${http} ${STATUS_CODES[http]}`,
    headers,
    body: JSON.stringify({ error: { ...error, request_id } }),
  };
}

const FOREIGN_ORIGIN = 'Pages of this origin may not connect; the node admits those of ALLOWED_ORIGINS.';
const MISPLACED_TOKEN =
  'A token does not belong into the address, where logs keep it: send it as `Authorization: Bearer <token>`, or as the subprotocols `nooble, bearer.<token>`.';
