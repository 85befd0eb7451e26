/** One attempt to deliver a notice or a callback: a POST, signed where there is a secret, that follows no redirect, wants no body, and can not hang. */
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { isIP } from 'node:net';
import { Webhook as Signer } from 'standardwebhooks';
import {
  anyLookup,
  bare,
  ForbiddenAddress,
  isPublicAddress,
  publicLookup,
  type Resolve,
} from './addresses.ts';

/** Bytes of an answer's body that are read, and thrown away, so that the receiver can finish writing. */
const MAX_ANSWER_BYTES = 64 * 1024;
/** How long it may take to come. */
const BODY_MS = 1_000;
const MAX_HEADER_BYTES = 16 * 1024;

/** What became of an attempt. `final`: no further one can do better. */
export type Sent =
  | { readonly type: 'answered'; readonly status: number; readonly retryAfter: string | undefined }
  | { readonly type: 'failed'; readonly reason: string; readonly final: boolean };

interface Post {
  readonly url: string;
  /** Signs the body; without one it goes unsigned. */
  readonly secret?: string | undefined;
  /** `webhook-id`: the same in every attempt, so that receivers can tell a repetition. */
  readonly id: string;
  readonly atMs: number;
  readonly body: string;
}

interface SenderOptions {
  readonly resolve: Resolve;
  readonly blockPrivate: boolean;
  /** Until the answer's status is there, name resolution included. */
  readonly timeoutMs: number;
  /** Certificates to trust instead of the usual ones. */
  readonly ca?: string | undefined;
}

/** Never rejects. Aborting ends the attempt at once. */
export type Send = (post: Post, signal: AbortSignal) => Promise<Sent>;

export function createSender(options: SenderOptions): Send {
  const { blockPrivate, timeoutMs } = options;
  const lookup = blockPrivate ? publicLookup(options.resolve) : anyLookup(options.resolve);

  return (post, signal) => {
    const url = new URL(post.url);
    const host = bare(url.hostname);
    // An address is connected to without any lookup.
    if (blockPrivate && isIP(host) !== 0 && !isPublicAddress(host))
      return Promise.resolve(failure(new ForbiddenAddress()));
    const late = AbortSignal.timeout(timeoutMs);
    const settings: RequestOptions = {
      method: 'POST',
      headers: headersOf(post),
      lookup,
      // A connection of its own: a kept one would have been checked for another name.
      agent: false,
      maxHeaderSize: MAX_HEADER_BYTES,
      signal: AbortSignal.any([signal, late]),
    };
    return new Promise((resolve) => {
      const request =
        url.protocol === 'https:'
          ? httpsRequest(url, options.ca === undefined ? settings : { ...settings, ca: options.ca })
          : httpRequest(url, settings);
      request.on('response', (response) => {
        resolve(answered(response));
        discard(response);
      });
      request.on('error', (error) =>
        resolve(late.aborted ? failed(`no answer within ${timeoutMs} ms`) : failure(error)),
      );
      request.end(post.body);
    });
  };
}

function headersOf({ id, atMs, body, secret }: Post): Record<string, string | number> {
  return {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    'user-agent': 'nooble-webhooks',
    'webhook-id': id,
    'webhook-timestamp': String(Math.floor(atMs / 1000)),
    ...(secret === undefined
      ? {}
      : { 'webhook-signature': new Signer(secret).sign(id, new Date(atMs), body) }),
  };
}

/** The status is the answer; how the body goes on, or whether it ends, makes no difference. */
function discard(response: IncomingMessage): void {
  let bytes = 0;
  const patience = setTimeout(() => response.destroy(), BODY_MS).unref();
  response.on('close', () => clearTimeout(patience));
  response.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > MAX_ANSWER_BYTES) response.destroy();
  });
  response.on('error', () => {});
}

const answered = (response: IncomingMessage): Sent => ({
  type: 'answered',
  status: response.statusCode ?? 0,
  retryAfter: response.headers['retry-after'],
});

const failed = (reason: string, final = false): Sent => ({ type: 'failed', reason, final });

/** The error's code and no more: its text may name addresses inside our network. */
function failure(error: Error): Sent {
  if (error instanceof ForbiddenAddress) return failed(error.message, true);
  const code = 'code' in error && typeof error.code === 'string' ? error.code : 'the connection failed';
  return failed(`could not be reached: ${code}`);
}

/** A secret as Standard Webhooks has it, or null where it is not 24 to 64 bytes of base64. */
export function secretProblem(secret: string): string | null {
  const base64 = secret.replace(/^whsec_/, '');
  const bytes = Buffer.from(base64, 'base64');
  if (bytes.toString('base64') !== base64 || bytes.length < 24 || bytes.length > 64)
    return 'must be whsec_ and base64 of 24 to 64 bytes';
  return null;
}
