/** Which request bodies are taken: their bounds in bytes and time, and the framing that leaves no doubt. */
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import type { BodyOutcome } from './request-body.ts';

/** Bounds on one request. */
export interface HttpLimits {
  readonly maxBodyBytes: number;
  /** A body that has not arrived after this long closes the connection. */
  readonly bodyTimeoutMs: number;
  /** After a refused body: bytes read and thrown away, and how long, so that the refusal is not lost to a reset. */
  readonly maxDiscardedBytes: number;
  readonly discardMs: number;
}

export const HTTP_LIMITS: HttpLimits = {
  maxBodyBytes: 256 * 1024,
  bodyTimeoutMs: 30_000,
  maxDiscardedBytes: 4 * 1024 * 1024,
  discardMs: 1_000,
};

/** What the headers alone say: an outcome where the body need not be read, or must not be. */
export function judgeFraming(headers: Headers, limits: HttpLimits): BodyOutcome | 'body follows' {
  const length = headers.get('content-length');
  const coding = headers.get('transfer-encoding');
  if ((length !== null && !/^\d{1,15}$/.test(length)) || (coding !== null && coding !== 'chunked'))
    return {
      refused: refusal('INVALID_REQUEST', { message: 'The framing of the body is not taken.' }),
      close: true,
    };
  const declared = Number(length ?? 0);
  // Refused on its declaration: uWS throws the rest away, and a client that goes on beyond maxDiscardedBytes is cut off.
  if (declared > limits.maxBodyBytes)
    return { refused: tooLarge(limits), close: declared > limits.maxDiscardedBytes };
  return declared === 0 && coding === null ? {} : 'body follows';
}

/** The refusal of a body over the limit. */
export const tooLarge = (limits: HttpLimits): ErrorData =>
  refusal('TOO_LARGE', { message: `The body is larger than ${limits.maxBodyBytes} bytes.` });
