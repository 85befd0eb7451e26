/** The one table of refusals: every error code a client can meet, with what each edge does with it. */
import { z } from 'zod';

interface ErrorEntry {
  readonly http: 400 | 401 | 403 | 404 | 409 | 413 | 422 | 429 | 500 | 502 | 503 | 504;
  readonly retryable: boolean;
  /** What the client is told when nothing more exact is known. Says what to do. */
  readonly text: string;
}

export const ERRORS = {
  INVALID_REQUEST: { http: 400, retryable: false, text: 'The request is malformed.' },
  UNAUTHENTICATED: { http: 401, retryable: false, text: 'A valid bearer token is needed.' },
  FORBIDDEN: { http: 403, retryable: false, text: 'The token does not allow this.' },
  NOT_FOUND: { http: 404, retryable: false, text: 'There is no such thing here.' },
  CONFLICT: { http: 409, retryable: false, text: 'The request conflicts with what is stored.' },
  BUSY: { http: 409, retryable: true, text: 'A turn is running; wait for it, cancel it, or enqueue.' },
  TOO_LARGE: { http: 413, retryable: false, text: 'The body is larger than this node accepts.' },
  TIER_LIMIT: { http: 422, retryable: false, text: "The tenant's tier does not include this." },
  RATE_LIMITED: { http: 429, retryable: true, text: 'Too many requests; retry after retry_after_ms.' },
  QUOTA_EXCEEDED: { http: 429, retryable: true, text: "The day's requests are used up." },
  OVERLOADED: { http: 503, retryable: true, text: 'Too much is waiting already; retry later.' },
  DRAINING: { http: 503, retryable: true, text: 'This node is shutting down; reconnect to another.' },
  STORE_UNAVAILABLE: { http: 503, retryable: true, text: 'The store does not answer; nothing was kept.' },
  TRANSPORT_UNAVAILABLE: { http: 503, retryable: true, text: 'The message transport does not answer.' },
  EXECUTION_TIMEOUT: { http: 504, retryable: true, text: 'The execution ran into its time limit.' },
  MAX_ITERATIONS: {
    http: 422,
    retryable: false,
    text: 'The agent used all its iterations without an answer.',
  },
  MODEL_UNAVAILABLE: { http: 503, retryable: true, text: 'The model cannot be reached.' },
  MODEL_RATE_LIMITED: { http: 429, retryable: true, text: 'The model provider limits the rate of requests.' },
  MODEL_ERROR: { http: 502, retryable: false, text: 'The model provider refused or broke off the request.' },
  TOOL_DENIED: { http: 422, retryable: false, text: 'The agent asked for a tool that it may not use.' },
  TOOL_LOOP: {
    http: 422,
    retryable: false,
    text: 'The agent kept calling tools in a way that leads nowhere.',
  },
  AGENT_NOT_FOUND: { http: 404, retryable: false, text: 'The tenant has no such agent.' },
  AGENT_INACTIVE: { http: 409, retryable: false, text: 'The agent is switched off.' },
  PEER_TIMEOUT: { http: 504, retryable: true, text: 'A peer service did not answer in time.' },
  INTERRUPTED: { http: 503, retryable: true, text: 'The node stopped while this turn ran; send it again.' },
  POISON: { http: 422, retryable: false, text: 'The message made its receiver fail repeatedly.' },
  INTERNAL: { http: 500, retryable: true, text: 'Something broke on our side; it has been logged.' },
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;

const codes = Object.keys(ERRORS) as [ErrorCode, ...ErrorCode[]];

export const errorCodeSchema = z.enum(codes);

/** What a refusal looks like on every wire (HTTP adds `request_id`). */
export const errorDataSchema = z.object({
  code: errorCodeSchema,
  message: z.string(),
  retryable: z.boolean(),
  retry_after_ms: z.number().int().nonnegative().optional(),
  details: z.unknown().optional(),
});

export type ErrorData = z.infer<typeof errorDataSchema>;

/**
 * An expected refusal, as a value.
 * `message` replaces the table's text; `retryAfterMs` is rounded up to whole milliseconds.
 */
export function refusal(
  code: ErrorCode,
  more: { message?: string; retryAfterMs?: number; details?: unknown } = {},
): ErrorData {
  const entry = ERRORS[code];
  return {
    code,
    message: more.message ?? entry.text,
    retryable: entry.retryable,
    ...(more.retryAfterMs === undefined ? {} : { retry_after_ms: Math.ceil(Math.max(0, more.retryAfterMs)) }),
    ...(more.details === undefined ? {} : { details: more.details }),
  };
}

/** WebSocket close codes (PROTOCOL 2), as data. */
export const CLOSE = {
  goingAway: { code: 1001, reason: 'going away' },
  restart: { code: 1012, reason: 'restart, reconnect' },
  overloaded: { code: 1013, reason: 'overloaded' },
  badPath: { code: 4400, reason: 'bad path' },
  unauthenticated: { code: 4401, reason: 'unauthenticated' },
  forbidden: { code: 4403, reason: 'forbidden' },
  tooSlow: { code: 4408, reason: 'too slow, resume with last_seq' },
  ownedElsewhere: { code: 4409, reason: 'owned elsewhere' },
  tooMany: { code: 4429, reason: 'too many connections' },
} as const;

export type Close = (typeof CLOSE)[keyof typeof CLOSE];

/** Whether a code is one of the protocol's or of this node: a client may close with any of thousands. */
export const isKnownClose = (code: number): boolean =>
  (code >= 1000 && code <= 1015) || Object.values(CLOSE).some((close) => close.code === code);

/** Thrown only where a promise must reject with a refusal; edges turn it back into its data. */
export class RefusalError extends Error {
  readonly data: ErrorData;
  constructor(data: ErrorData) {
    super(`${data.code}: ${data.message}`);
    this.name = 'RefusalError';
    this.data = data;
  }
}

/** A refusal to be thrown; arguments as those of `refusal`. */
export const refusalError = (...[code, more]: Parameters<typeof refusal>): RefusalError =>
  new RefusalError(refusal(code, more));

export type Reply<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: ErrorData };

/** The same reply with another value; a refusal stays. */
export const mapReply = <T, U>(reply: Reply<T>, change: (value: T) => U): Reply<U> =>
  reply.ok ? { ok: true, value: change(reply.value) } : reply;
