/** Who may come in over a WebSocket: every check between the handshake and the open socket, and the refusal over HTTP. */
import type { HttpRequest, HttpResponse } from 'uWebSockets.js';
import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import { z } from 'zod';
import { CLOSE, type Close, ERRORS, type ErrorData, type Reply, refusal } from '../../src/domain/errors.ts';
import {
  type AgentId,
  agentIdSchema,
  claimedUserIdSchema,
  ID_PATTERN,
  type SessionId,
  sessionIdSchema,
  tenantIdSchema,
} from '../../src/domain/ids.ts';
import { problemText } from '../../src/domain/problems.ts';
import { requestObject } from '../../src/domain/request-object.ts';
import { tierSchema } from '../../src/domain/tiers.ts';
import { flagSchema } from '../../src/domain/turn-schemas.ts';
import type { ResumePoint } from '../../src/ports/sessions.ts';
import {
  type Access,
  type AccessReply,
  type Admitted,
  createOriginCheck,
  hasTokenInQuery,
  IDENTITY_HEADERS,
  MISPLACED_TOKEN,
  type ProxyCheck,
  readBearer,
} from '../wire/access.ts';
import type { Format } from '../wire/codec.ts';

/** A handshake, copied out of a request that does not outlive its handler. */
interface Handshake {
  readonly subprotocol: Subprotocol;
  readonly path: Reply<SessionPath>;
  readonly hasTokenInQuery: boolean;
  readonly bearer: string | undefined;
  readonly origin: string;
  readonly host: string;
  readonly requestId: string;
  readonly headerNames: readonly string[];
  /** The headers that name a caller; empty where absent. */
  readonly identity: ReadonlyMap<string, string>;
}

/** Copies everything that the checks and the upgrade need. */
export function readHandshake(req: HttpRequest): Handshake {
  const query = new URLSearchParams(req.getQuery());
  const subprotocol = readSubprotocol(req.getHeader('sec-websocket-protocol'));
  const headerNames: string[] = [];
  req.forEach((name) => {
    headerNames.push(name);
  });
  const [tenant = '', ...rest] = req
    .getUrl()
    .replace(/^\/ws\//, '')
    .split('/');
  // Proxies and clients that join paths leave a slash at the end.
  const session = (rest.at(-1) === '' ? rest.slice(0, -1) : rest).join('/');
  return {
    subprotocol,
    path: readSessionPath(tenant, session, query, req.getHeader('x-agent-id')),
    hasTokenInQuery: hasTokenInQuery(query),
    bearer: readBearer(req.getHeader('authorization')) ?? subprotocol.bearer,
    origin: req.getHeader('origin'),
    host: req.getHeader('host'),
    requestId: req.getHeader('x-request-id'),
    headerNames,
    identity: new Map(IDENTITY_HEADERS.map((name) => [name, req.getHeader(name)])),
  };
}

// --- The checks ------------------------------------------------------------------------------------------------

/**
 * What becomes of a socket that is upgraded: accepted, or rejected: told why, and closed. A browser can not read the
 * answer to a failed handshake, so it is upgraded for what its page can mend.
 */
export type Upgrade =
  | { readonly type: 'accept'; readonly admitted: Admitted; readonly path: SessionPath }
  | { readonly type: 'reject'; readonly error: ErrorData; readonly close: Close };

/** What becomes of a handshake. Refused: with an HTTP answer, and not upgraded. */
export type UpgradeDecision = Upgrade | { readonly type: 'refuse'; readonly error: ErrorData };

interface UpgradeDeps {
  readonly access: Access;
  readonly proxied: ProxyCheck;
  readonly allowedOrigins: readonly string[];
  readonly draining: () => boolean;
  /** Whether the node has as many sockets as it may. */
  readonly full: () => boolean;
}

/** Makes the check of a handshake. It answers in the same tick wherever the access check does (open mode). */
export function createUpgradeCheck(
  deps: UpgradeDeps,
): (handshake: Handshake) => UpgradeDecision | Promise<UpgradeDecision> {
  const isAllowed = createOriginCheck(deps.allowedOrigins);
  const unavailable = (): ErrorData | undefined => {
    if (deps.draining()) return refusal('DRAINING');
    return deps.full() ? refusal('OVERLOADED', { message: 'This node has no socket free.' }) : undefined;
  };

  return ({ origin, host, path, bearer, identity, ...handshake }) => {
    const error = unavailable() ?? deps.proxied(handshake.headerNames);
    if (error) return { type: 'refuse', error };
    if (!isAllowed(origin, host)) return { type: 'refuse', error: FOREIGN_ORIGIN };
    if (handshake.hasTokenInQuery) return { type: 'refuse', error: MISPLACED_TOKEN };
    if (!path.ok) return { type: 'reject', error: path.error, close: CLOSE.badPath };

    const { tenantId, tier, userId } = path.value;
    const header = (name: string): string | undefined => identity.get(name) || undefined;
    const reply = deps.access.check({ bearer, header, tenantId, tier, userId }, 'chat');
    if (!(reply instanceof Promise)) return decide(reply, path.value);
    return reply.then((late) => {
      const since = unavailable();
      return since ? { type: 'refuse', error: since } : decide(late, path.value);
    });
  };
}

const FOREIGN_ORIGIN = refusal('FORBIDDEN', {
  message: 'Pages of this origin may not connect; the node admits those of ALLOWED_ORIGINS.',
});

function decide(reply: AccessReply, path: SessionPath): UpgradeDecision {
  if (reply.ok) return { type: 'accept', admitted: reply.admitted, path };
  const { error } = reply;
  return error.code === 'INVALID_REQUEST'
    ? { type: 'reject', error, close: CLOSE.badPath }
    : { type: 'refuse', error };
}

/**
 * Answers a handshake that is not upgraded in the form that HTTP gives to all refusals (PROTOCOL 3). `requestId` is
 * what the client sent; one that is none is replaced.
 */
export function refuseHandshake(res: HttpResponse, error: ErrorData, requestId: string): void {
  const { http } = ERRORS[error.code];
  const request_id = ID_PATTERN.test(requestId) ? requestId : randomUUID();
  res.cork(() => {
    res.writeStatus(`${http} ${STATUS_CODES[http]}`);
    res.writeHeader('Content-Type', 'application/json; charset=utf-8');
    if (http === 401) res.writeHeader('WWW-Authenticate', 'Bearer');
    if (http === 503) res.writeHeader('Retry-After', '1');
    res.end(JSON.stringify({ error: { ...error, request_id } }));
  });
}

// --- What a handshake says -------------------------------------------------------------------------------------

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

/** Problems named in one refusal. */
const MAX_PROBLEMS = 9;

/** Milliseconds for which a client may ask its deltas to be held back. */
const MAX_DELTA_WINDOW_MS = 1_000;

/** What path and query ask for: its form is checked, its right is not. */
export interface SessionPath {
  readonly tenantId: string;
  readonly sessionId: SessionId;
  readonly tier: string | undefined;
  readonly userId: string | undefined;
  /** The agent of frames that name none. */
  readonly agentId: AgentId | undefined;
  readonly resume: ResumePoint | undefined;
  readonly deltaWindowMs: number | undefined;
  /** Whether the client is sent reasoning. */
  readonly reasoning: boolean;
}

const wholeNumber = (most: number) =>
  z
    .string()
    .regex(/^\d{1,16}$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.number().max(most));

const optionsSchema = requestObject({
  tier: tierSchema.optional(),
  user_id: claimedUserIdSchema.optional(),
  agent_id: agentIdSchema.optional(),
  last_seq: wholeNumber(Number.MAX_SAFE_INTEGER).optional(),
  epoch: z.string().max(128).optional(),
  delta_window_ms: wholeNumber(MAX_DELTA_WINDOW_MS).optional(),
  reasoning: flagSchema.optional(),
});

const pathSchema = z.object({ tenant_id: tenantIdSchema, session_id: sessionIdSchema });

/**
 * Reads the path's two segments (percent-encoded or not) and the query; the header X-Agent-ID, empty where absent,
 * stands in for `agent_id`. Refuses with INVALID_REQUEST, naming the fields.
 */
export function readSessionPath(
  tenant: string,
  session: string,
  query: URLSearchParams,
  agentHeader: string,
): Reply<SessionPath> {
  const path = pathSchema.safeParse({ tenant_id: unescaped(tenant), session_id: unescaped(session) });
  const options = optionsSchema.safeParse({
    ...(agentHeader ? { agent_id: agentHeader } : {}),
    // An empty value is absence; of a parameter that stands twice the last one counts.
    ...Object.fromEntries([...query].filter(([, value]) => value !== '')),
  });
  if (path.success && options.success)
    return { ok: true, value: { ...sessionOf(path.data), ...optionsOf(options.data) } };
  const issues = [...(path.error?.issues ?? []), ...(options.error?.issues ?? [])];
  const problems = problemText({ issues }, '', MAX_PROBLEMS);
  return { ok: false, error: refusal('INVALID_REQUEST', { message: `Bad path: ${problems}.` }) };
}

const sessionOf = ({ tenant_id, session_id }: z.infer<typeof pathSchema>) => ({
  tenantId: tenant_id,
  sessionId: session_id,
});

const optionsOf = (said: z.infer<typeof optionsSchema>) => ({
  tier: said.tier,
  userId: said.user_id,
  agentId: said.agent_id,
  resume: said.last_seq === undefined ? undefined : { lastSeq: said.last_seq, epoch: said.epoch },
  deltaWindowMs: said.delta_window_ms,
  reasoning: said.reasoning ?? false,
});

/** A path segment without percent-encoding; a broken one stays as it is, and is then refused for its `%`. */
function unescaped(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}
