/** Who may come in over the chat WebSocket: every check between the handshake and the open socket. */
import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import { z } from 'zod';
import { CLOSE, type Close, ERRORS, type ErrorData, refusal } from '../../src/domain/errors.ts';
import {
  type AgentId,
  agentIdSchema,
  ID_PATTERN,
  type SessionId,
  sessionIdSchema,
  tenantIdSchema,
  userIdSchema,
} from '../../src/domain/ids.ts';
import { tierSchema } from '../../src/domain/tiers.ts';
import type { ResumePoint } from '../../src/ports/sessions.ts';
import {
  type Access,
  type Admitted,
  createOriginCheck,
  hasTokenInQuery,
  IDENTITY_HEADERS,
  MISPLACED_TOKEN,
  readBearer,
} from '../wire/access.ts';
import type { Format } from '../wire/codec.ts';

/** A handshake, copied out of a request that does not outlive its handler. */
interface Handshake {
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
interface Request {
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
export type UpgradeRequest =
  | { readonly ok: true; readonly admitted: Admitted; readonly address: SessionPath }
  | { readonly ok: false; readonly error: ErrorData; readonly close: Close };

/** `refuse`: with an HTTP answer, before the upgrade. */
export type UpgradeVerdict =
  | { readonly type: 'upgrade'; readonly entry: UpgradeRequest }
  | { readonly type: 'refuse'; readonly error: ErrorData };

interface UpgradeDeps {
  readonly access: Access;
  readonly allowedOrigins: readonly string[];
  readonly draining: () => boolean;
  /** Whether the node has as many sockets as it may. */
  readonly full: () => boolean;
}

/** Makes the check of a handshake. It answers in the same tick wherever the access check does (open mode). */
export function createDoor(
  deps: UpgradeDeps,
): (handshake: Handshake) => UpgradeVerdict | Promise<UpgradeVerdict> {
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
    if (handshake.tokenInQuery) return refuse(MISPLACED_TOKEN);
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

const refuse = (error: ErrorData): UpgradeVerdict => ({ type: 'refuse', error });

const badPath = (error: ErrorData): UpgradeVerdict => ({
  type: 'upgrade',
  entry: { ok: false, error, close: CLOSE.badPath },
});

function verdict(reply: Awaited<ReturnType<Access['check']>>, address: SessionPath): UpgradeVerdict {
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

/** Milliseconds for which a client may ask its deltas to be held back. */
const MAX_DELTA_WINDOW_MS = 1_000;

/** What the client offered in `Sec-WebSocket-Protocol`, and what it gets. */
interface Subprotocol {
  /** What is echoed; empty where nothing known was offered. */
  readonly echo: '' | 'nooble' | 'nooble.msgpack';
  readonly format: Format;
  /** The token of `bearer.<token>`; never echoed. */
  readonly bearer: string | undefined;
}

/** Picks the first known protocol of the offered ones, in the client's order; JSON where there is none. */
function readSubprotocol(header: string): Subprotocol {
  const offered = header.split(',').map((one) => one.trim());
  const bearer = offered.find((one) => one.startsWith('bearer.'))?.slice('bearer.'.length);
  const known = offered.find((one) => one === 'nooble' || one === 'nooble.msgpack');
  if (known === 'nooble.msgpack') return { echo: known, format: 'msgpack', bearer };
  return { echo: known === 'nooble' ? known : '', format: 'json', bearer };
}

/** What path and query ask for, in form but not yet in right. */
export interface SessionPath {
  readonly tenantId: string;
  readonly sessionId: SessionId;
  readonly tier: string | undefined;
  readonly userId: string | undefined;
  /** The agent of frames that name none. */
  readonly agentId: AgentId | undefined;
  readonly resume: ResumePoint | undefined;
  readonly deltaWindowMs: number | undefined;
}

const wholeNumber = (most: number) =>
  z
    .string()
    .regex(/^\d{1,16}$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.number().max(most));

const addressSchema = z.object({
  tenant_id: tenantIdSchema,
  session_id: sessionIdSchema,
  tier: tierSchema.optional(),
  user_id: userIdSchema.optional(),
  agent_id: agentIdSchema.optional(),
  last_seq: wholeNumber(Number.MAX_SAFE_INTEGER).optional(),
  epoch: z.string().max(128).optional(),
  delta_window_ms: wholeNumber(MAX_DELTA_WINDOW_MS).optional(),
});

const OPTIONS = ['tier', 'user_id', 'agent_id', 'last_seq', 'epoch', 'delta_window_ms'] as const;

type AddressReply =
  | { readonly ok: true; readonly address: SessionPath }
  | { readonly ok: false; readonly error: ErrorData };

/**
 * Reads the path's two segments (percent-encoded or not) and the query; the header X-Agent-ID stands in for
 * `agent_id`. Refuses with INVALID_REQUEST, naming the fields.
 */
export function readAddress(
  tenant: string,
  session: string,
  query: URLSearchParams,
  header: (name: string) => string,
): AddressReply {
  const given: Record<string, string> = { tenant_id: unescaped(tenant), session_id: unescaped(session) };
  for (const name of OPTIONS) {
    const value = query.get(name);
    if (value !== null && value !== '') given[name] = value;
  }
  const agent = header('x-agent-id');
  if (agent !== '') given.agent_id ??= agent;
  const parsed = addressSchema.safeParse(given);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
    return { ok: false, error: refusal('INVALID_REQUEST', { message: `Bad path: ${problems.join('; ')}.` }) };
  }
  const { last_seq: lastSeq, epoch } = parsed.data;
  return {
    ok: true,
    address: {
      tenantId: parsed.data.tenant_id,
      sessionId: parsed.data.session_id,
      tier: parsed.data.tier,
      userId: parsed.data.user_id,
      agentId: parsed.data.agent_id,
      resume: lastSeq === undefined ? undefined : { lastSeq, epoch },
      deltaWindowMs: parsed.data.delta_window_ms,
    },
  };
}

/** A path segment without percent-encoding; a broken one stays as it is, and is then refused for its `%`. */
function unescaped(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
