/** What went wrong at a model's endpoint, by status alone: texts of providers can hold keys and messages. */
import { defined } from '../domain/defined.ts';
import { RefusalError, refusal, refusalError } from '../domain/errors.ts';

/** A failed attempt before the first chunk. */
export class ModelFailure extends RefusalError {
  /** A further attempt may help. */
  readonly transient: boolean;
  readonly retryAfterMs: number | undefined;
  /** For logs and metrics: the HTTP status, or what else it was. */
  readonly reason: string;

  constructor(refused: RefusalError, reason: string, transient: boolean, retryAfterMs?: number) {
    super(refused.data);
    this.reason = reason;
    this.transient = transient;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Turns what a model threw before its first chunk into a refusal. `nowMs` is for Retry-After dates. */
export function classify(error: unknown, nowMs: number): ModelFailure {
  if (error instanceof RefusalError) return new ModelFailure(error, error.data.code, false);
  const status = numberAt(error, 'status');
  const code = providerCode(error);
  const details = defined({ status: status || undefined, provider_code: code });
  const shown = code ? `${status}, ${code}` : `${status}`;
  if (status === 429) {
    const retryAfterMs = readRetryAfter(error, nowMs);
    const refused = refusalError('MODEL_RATE_LIMITED', defined({ details, retryAfterMs }));
    // A spent quota stays spent.
    return new ModelFailure(refused, '429', code !== 'insufficient_quota', retryAfterMs);
  }
  if (status !== undefined && (status >= 500 || status === 408)) {
    const refused = refusal('MODEL_UNAVAILABLE', {
      message: `The model provider failed (HTTP ${shown}).`,
      details,
    });
    return new ModelFailure(new RefusalError(refused), `${status}`, true, readRetryAfter(error, nowMs));
  }
  if (status !== undefined) {
    const message = `The model provider refused the request (HTTP ${shown}).`;
    return new ModelFailure(refusalError('MODEL_ERROR', { message, details }), `${status}`, false);
  }
  if (nameOf(error) === 'ContextOverflowError') {
    const message = "The conversation is longer than the model's context.";
    return new ModelFailure(refusalError('MODEL_ERROR', { message }), 'context', false);
  }
  if (isConnectionError(error)) {
    const message = 'The connection to the model provider failed.';
    return new ModelFailure(refusalError('MODEL_UNAVAILABLE', { message }), 'connection', true);
  }
  const message = 'The model provider answered in a way that cannot be read.';
  return new ModelFailure(refusalError('MODEL_ERROR', { message, details }), 'unreadable', false);
}

/** A stream that broke after text came: never retried, since the client has seen it. */
export function brokenOff(error?: unknown): RefusalError {
  if (error instanceof RefusalError) return error;
  const message = 'The model broke off in the middle of its answer.';
  return refusalError('MODEL_ERROR', { message, details: { cut: true } });
}

/**
 * Milliseconds to wait, out of `retry-after-ms`, or `Retry-After` in seconds or as an HTTP date (RFC 9110, 10.2.3).
 * Undefined where neither is there or readable.
 */
export function parseRetryAfter(
  header: (name: string) => string | null | undefined,
  nowMs: number,
): number | undefined {
  const ms = Number.parseFloat(header('retry-after-ms') ?? '');
  if (Number.isFinite(ms) && ms >= 0) return ms;
  const text = header('retry-after')?.trim();
  if (!text) return undefined;
  if (/^\d+(\.\d+)?$/.test(text)) return Number.parseFloat(text) * 1000;
  const at = Date.parse(text);
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs);
}

function readRetryAfter(error: unknown, nowMs: number): number | undefined {
  const headers = at(error, 'headers');
  if (headers instanceof Headers) return parseRetryAfter((name) => headers.get(name), nowMs);
  return parseRetryAfter((name) => {
    const value = at(headers, name);
    return typeof value === 'string' ? value : undefined;
  }, nowMs);
}

/** The provider's own code, such as `invalid_api_key`, where it is surely only that. */
function providerCode(error: unknown): string | undefined {
  const code = at(error, 'code') ?? at(at(error, 'error'), 'code');
  return typeof code === 'string' && /^[a-z][a-z_]{1,48}$/.test(code) ? code : undefined;
}

/** True for what fetch and the clients throw when there was no HTTP answer; the cause chain is short. */
function isConnectionError(error: unknown): boolean {
  let link = error;
  for (let depth = 0; depth < 5 && link instanceof Error; depth += 1, link = link.cause) {
    const code = at(link, 'code');
    if (typeof code === 'string' && /^(E[A-Z]{3,}|UND_ERR_)/.test(code)) return true;
    if (/Connection|TimeoutError|SocketError/.test(`${link.name} ${link.constructor.name}`)) return true;
    if (/fetch failed|terminated|socket hang up|premature close/i.test(link.message)) return true;
  }
  return false;
}

const nameOf = (error: unknown): string => (error instanceof Error ? error.name : '');

function at(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, key) : undefined;
}

function numberAt(value: unknown, key: string): number | undefined {
  const found = at(value, key);
  return typeof found === 'number' ? found : undefined;
}
