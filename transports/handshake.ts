/** Reads what a WebSocket handshake says: whose session, which encoding, where to resume, and with which token. */
import { z } from 'zod';
import { type ErrorData, refusal } from '../src/domain/errors.ts';
import {
  type AgentId,
  agentIdSchema,
  type SessionId,
  sessionIdSchema,
  tenantIdSchema,
  userIdSchema,
} from '../src/domain/ids.ts';
import { tierSchema } from '../src/domain/tiers.ts';
import type { ResumePoint } from '../src/ports.ts';
import type { Format } from './codec.ts';

/** Milliseconds for which a client may ask its deltas to be held back. */
const MAX_DELTA_WINDOW_MS = 1_000;
/** Where people put tokens that then stand in every proxy's log. */
const TOKEN_PARAMETERS = ['token', 'access_token', 'bearer', 'authorization', 'jwt'] as const;

/** What the client offered in `Sec-WebSocket-Protocol`, and what it gets. */
export interface Subprotocol {
  /** What is echoed; empty where nothing known was offered. */
  readonly echo: '' | 'nooble' | 'nooble.msgpack';
  readonly format: Format;
  /** The token of `bearer.<token>`; never echoed. */
  readonly bearer: string | undefined;
}

/** Picks the first known protocol of the offered ones, in the client's order; JSON where there is none. */
export function readSubprotocol(header: string): Subprotocol {
  const offered = header.split(',').map((one) => one.trim());
  const bearer = offered.find((one) => one.startsWith('bearer.'))?.slice('bearer.'.length);
  const known = offered.find((one) => one === 'nooble' || one === 'nooble.msgpack');
  if (known === 'nooble.msgpack') return { echo: known, format: 'msgpack', bearer };
  return { echo: known === 'nooble' ? known : '', format: 'json', bearer };
}

/** The token of an `Authorization: Bearer …` header. */
export const readBearer = (header: string): string | undefined => /^Bearer +(\S+) *$/i.exec(header)?.[1];

/** Whether a token was put where it does not belong. */
export const hasTokenInQuery = (query: URLSearchParams): boolean =>
  TOKEN_PARAMETERS.some((name) => query.has(name));

/** What path and query ask for, in form but not yet in right. */
export interface Address {
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

export type AddressReply =
  | { readonly ok: true; readonly address: Address }
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
