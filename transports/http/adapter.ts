/** Carries HTTP between uWebSockets.js and fetch handlers: bounded bodies in, back-pressured bodies out, no leak on abort. */
// Before uWebSockets.js, which reads its settings when it is loaded.
import './header-limit.ts';
import {
  App,
  type HttpRequest,
  type HttpResponse,
  LIBUS_LISTEN_EXCLUSIVE_PORT,
  type TemplatedApp,
  type us_listen_socket,
  us_listen_socket_close,
  us_socket_local_port,
} from 'uWebSockets.js';
import { STATUS_CODES } from 'node:http';
import { type ErrorData, refusal } from '../../src/domain/errors.ts';
import type { TenantId } from '../../src/domain/ids.ts';
import { createLargeBodies, type LargeBodies } from '../wire/large-bodies.ts';
import { createUnsentBytes, type UnsentAccount, type UnsentBytes } from '../wire/unsent-bytes.ts';
import { HTTP_LIMITS, type HttpLimits, judgeFraming, tooLarge } from './body-limits.ts';
import type { Descriptors } from './descriptors.ts';
import { type BodyOutcome, NO_BODY, type RequestBody, requestBody } from './request-body.ts';
import { openWriter, type ResponseWriter as WriterOf } from './response-writer.ts';

declare module 'uWebSockets.js' {
  /** What the build has and its types leave out. */
  const LIBUS_LISTEN_EXCLUSIVE_PORT: number;
  interface TemplatedApp {
    listen(
      host: string,
      port: number,
      options: number,
      listening: (socket: us_listen_socket | false) => void,
    ): TemplatedApp;
  }
}

/** This uWS build corrupts a chunked response that overflows its 16 KiB cork; the chunk's framing and headers need room. */
const MAX_CORK_BYTES = 12 * 1024;

/** Bytes of a body from which on it is written as the socket takes it, and counted; sockets take less at once. */
const LARGE_BYTES = 64 * 1024;
/** After this long a tenant whose clients do not read may ask again. */
const UNREAD_RETRY_MS = 1_000;

type ResponseWriter = WriterOf<HttpResponse>;

/** Requests need an absolute URL; the Host header is the client's claim and stays a header. */
const BASE = 'http://node';
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

const LISTEN_REASONS = "the port is taken or not allowed, or the address is not this machine's";

/**
 * One listening uWS app. HTTP and the WebSocket are mounted on `app` before `listen`; what is mounted again takes the
 * place of what was there. So the next node of a process goes on on its port, which the connections that the last one
 * closed would keep taken for a minute.
 */
export interface Server {
  readonly app: TemplatedApp;
  /** Resolves to the port (the system's choice for 0), at once where it listens already. Rejects where nothing can. */
  listen(host: string, port: number): Promise<number>;
  /** Stops listening and closes every connection at once. Safe to call twice. */
  close(): void;
}

/** Opens a server that does not listen yet. It takes connections as long as there are descriptors for them. */
export function openServer(descriptors?: Pick<Descriptors, 'areGone'>): Server {
  const app = App();
  if (descriptors)
    // biome-ignore lint/suspicious/useIterableCallbackReturn: no array's, but what uWS calls with each connection
    app.filter((res, change) => {
      if (change > 0 && descriptors.areGone()) res.close();
    });
  let listening: us_listen_socket | undefined;
  let closed = false;
  return {
    app,
    listen: (host, port) =>
      new Promise((resolve, reject) => {
        if (listening) return resolve(us_socket_local_port(listening));
        // Not shared: by default uWS lets a second process listen on the same port, and each gets some of the clients.
        app.listen(host, port, LIBUS_LISTEN_EXCLUSIVE_PORT, (socket) => {
          if (socket) {
            listening = socket;
            resolve(us_socket_local_port(socket));
          } else reject(new Error(`Cannot listen on ${host}:${port}: ${LISTEN_REASONS}.`));
        });
      }),
    close() {
      if (closed) return;
      closed = true;
      if (listening) us_listen_socket_close(listening);
      app.close();
    },
  };
}

/** What the adapter knows of a request beyond the Request itself. */
export interface Exchange {
  /** Aborted when the client is gone before the response was. */
  readonly signal: AbortSignal;
  /** Why the request must be refused whatever its route: its body is too large, or it cannot be represented. */
  readonly refused: ErrorData | undefined;
  /** The Request has none. */
  readonly body: RequestBody;
  /** Says whose the response is: what a tenant's clients have not taken is bounded. */
  readonly belongsTo?: (tenantId: TenantId) => void;
  /** Counts what a stream of that tenant holds for its reader; `cut` has to end it. Closed with the response. */
  readonly account?: (cut: () => void) => UnsentAccount;
}

/** Answers a request. May be called with a refused one: then the answer is that refusal. */
export type HttpHandler = (request: Request, exchange: Exchange) => Response | Promise<Response>;

/** What the HTTP side of a server is doing. */
interface HttpMount {
  /** Requests that are being read or answered now. */
  pending(): number;
  /** Closes the connections of all of them. */
  cut(): void;
}

/**
 * Mounts `handler` for every method and path that no WebSocket upgrade takes. A response is streamed if it says so
 * (`text/event-stream`, or `Transfer-Encoding: chunked`), and sent whole otherwise.
 * uWS knows no pipelining: a request that arrives before the last one was answered closes the connection.
 */
export function mountHttp(
  app: TemplatedApp,
  handler: HttpHandler,
  limits: HttpLimits = HTTP_LIMITS,
): HttpMount {
  const open = new Set<ResponseWriter>();
  const bodies = createLargeBodies(limits.maxBodyBytes);
  const unsent = createUnsentBytes();
  app.any('/*', (res, req) => {
    const writer = openWriter(res, () => open.delete(writer));
    open.add(writer);
    receive(writer, req, handler, { limits, bodies, unsent });
  });
  return {
    pending: () => open.size,
    cut() {
      for (const writer of [...open]) if (!writer.signal.aborted) writer.res.close();
    },
  };
}

/** A request as far as its headers: all that must be copied before uWS takes it back. */
interface RequestHead {
  readonly method: string;
  readonly url: string;
  readonly headers: Headers;
}

function readHead(req: HttpRequest): RequestHead | ErrorData {
  const method = req.getMethod().toUpperCase();
  const path = req.getUrl();
  if (!METHODS.has(method) || !path.startsWith('/'))
    return refusal('INVALID_REQUEST', { message: 'The request line is not taken.' });
  // A URL takes . and .. segments out, turns \ into /, and ends at #: the path that is guarded is the one that was written.
  if (!URL.canParse(BASE + path) || new URL(BASE + path).pathname !== path)
    return refusal('INVALID_REQUEST', {
      message:
        'The path is not taken: it may have no segments . and .., and no characters that a URL has not.',
    });
  const query = req.getQuery();
  const headers = new Headers();
  try {
    req.forEach((name, value) => {
      headers.append(name, value);
    });
  } catch {
    return refusal('INVALID_REQUEST', { message: 'A header is malformed.' });
  }
  return { method, url: query ? `${BASE}${path}?${query}` : BASE + path, headers };
}

const NO_HEAD: RequestHead = { method: 'GET', url: BASE, headers: new Headers() };

interface Reading {
  readonly limits: HttpLimits;
  readonly bodies: LargeBodies;
  readonly unsent: UnsentBytes;
}

function receive(writer: ResponseWriter, req: HttpRequest, handler: HttpHandler, reading: Reading): void {
  const answer = { writer, handler, unsent: reading.unsent };
  const head = readHead(req);
  if ('code' in head) return respond(answer, NO_HEAD, { refused: head });
  const framing = judgeFraming(head.headers, reading.limits);
  if (framing !== 'body follows') return respond(answer, head, framing);
  const outcome = new Promise<BodyOutcome>((resolve) => {
    receiveBody(writer, reading, resolve);
  });
  const body = requestBody(reading.bodies, outcome, writer.onEnd);
  // Who may not, or asks for what there is not, is refused before the body is there: nothing of it is looked at.
  if (!head.headers.has('transfer-encoding')) return respond(answer, head, {}, body);
  void outcome.then((arrived) => {
    if (arrived.body || arrived.refused) respond(answer, head, arrived, body);
  });
}

/** Reads the body that follows. Calls back once: with the whole of it, with a refusal, or without both where it broke off. */
function receiveBody(
  writer: ResponseWriter,
  { limits, bodies }: Reading,
  done: (outcome: BodyOutcome) => void,
): void {
  const chunks: Buffer[] = [];
  let bytes = 0;
  let settled = false;
  let timer = setTimeout(() => writer.res.close(), limits.bodyTimeoutMs);
  const settle = (outcome: BodyOutcome): void => {
    if (settled) return;
    settled = true;
    clearTimeout(timer);
    done(outcome);
  };
  writer.onEnd(() => settle({}));
  const refuse = (close: boolean): void => settle({ refused: tooLarge(limits), close });

  writer.res.onData((chunk, last) => {
    if (settled) return;
    const before = bytes;
    bytes += chunk.byteLength;
    // uWS takes the chunk back when this returns.
    const lent = new Uint8Array(chunk);
    if (bytes <= limits.maxBodyBytes) {
      if (last) settle({ body: bodies.joined([...chunks, lent], bytes) });
      else chunks.push(Buffer.from(lent));
    } else if (last || bytes > limits.maxBodyBytes + limits.maxDiscardedBytes) refuse(!last);
    else if (before <= limits.maxBodyBytes) {
      chunks.length = 0;
      clearTimeout(timer);
      timer = setTimeout(() => refuse(true), limits.discardMs);
    }
  });
}

interface Answer {
  readonly writer: ResponseWriter;
  readonly handler: HttpHandler;
  readonly unsent: UnsentBytes;
}

function respond(
  { writer, handler, unsent }: Answer,
  { method, url, headers }: RequestHead,
  { refused, close = false }: BodyOutcome,
  body: RequestBody = NO_BODY,
): void {
  let tenantId: TenantId | undefined;
  const belongsTo = (id: TenantId): void => {
    tenantId = id;
  };
  const account = (cut: () => void): UnsentAccount => {
    const opened = unsent.open(tenantId, cut);
    writer.onEnd(opened.close);
    return opened;
  };
  const { signal } = writer;
  const ask = async (no: ErrorData | undefined): Promise<Response> =>
    handler(new Request(url, { method, headers }), { signal, refused: no, body, belongsTo, account });
  const sendLarge = async (whole: Uint8Array, response: Response): Promise<void> => {
    // What changed something has been done: its answer is sent however much is unread, lest it is done once more.
    const whose = { unsent, tenantId, mayRefuse: method === 'GET' };
    if (writeLarge(writer, response, whole, whose)) return;
    const message = 'Responses that were asked for before have not been read yet.';
    const refusedNow = await ask(refusal('OVERLOADED', { message, retryAfterMs: UNREAD_RETRY_MS }));
    await deliver(writer, method, refusedNow, close, async () => {});
  };
  ask(refused)
    .then((response) => deliver(writer, method, response, close, sendLarge))
    // The routes turn their own failures into answers; what arrives here broke while it was written.
    .catch(() => {
      if (!writer.signal.aborted) writer.res.close();
    });
}

async function deliver(
  writer: ResponseWriter,
  method: string,
  response: Response,
  close: boolean,
  sendLarge: (whole: Uint8Array, response: Response) => Promise<void>,
): Promise<void> {
  const { body, headers } = response;
  if (writer.signal.aborted || !body || method === 'HEAD') {
    writer.write((res) => {
      writeHead(res, response);
      // Not `endWithoutBody(length, close)`: in this build a length never ends the response, and none becomes a huge one.
      if (close) res.end('', true);
      else res.endWithoutBody();
    });
    writer.ended();
    await body?.cancel();
    return;
  }
  if (headers.get('content-type')?.startsWith('text/event-stream') || headers.has('transfer-encoding'))
    return stream(writer, response, body);
  const whole = new Uint8Array(await response.arrayBuffer());
  if (whole.length > LARGE_BYTES && !close) return sendLarge(whole, response);
  writer.write((res) => writeHead(res, response).end(whole, close));
  writer.ended();
}

interface WhoseResponse {
  readonly unsent: UnsentBytes;
  readonly tenantId: TenantId | undefined;
  readonly mayRefuse: boolean;
}

/** Writes a large body as the socket takes it; false where its tenant, or the node, has too much unsent to begin. */
function writeLarge(
  writer: ResponseWriter,
  response: Response,
  whole: Uint8Array,
  { unsent, tenantId, mayRefuse }: WhoseResponse,
): boolean {
  const account = unsent.open(tenantId, () => writer.res.close());
  writer.onEnd(account.close);
  if (mayRefuse && !account.hasRoom()) return false;
  account.set(whole.length);
  const goOn = (res: HttpResponse, offset: number): boolean => {
    const [ok, done] = res.tryEnd(whole.subarray(offset), whole.length);
    if (done) writer.ended();
    else account.set(whole.length - offset);
    return ok;
  };
  writer.write((res) => {
    writeHead(res, response);
    if (!goOn(res, 0)) res.onWritable((offset) => goOn(res, offset));
  });
  return true;
}

/** uWS frames bodies itself. */
const FRAMING = new Set(['content-length', 'transfer-encoding', 'connection']);

function writeHead(res: HttpResponse, response: Response): HttpResponse {
  res.writeStatus(`${response.status} ${STATUS_CODES[response.status] ?? 'Unknown'}`);
  for (const [name, value] of response.headers) if (!FRAMING.has(name)) res.writeHeader(name, value);
  return res;
}

/**
 * Writes a body as it comes, waiting while the socket is full. Where the body breaks off in an error the connection
 * is closed without the last chunk, so that nobody takes the part for the whole.
 */
async function stream(
  writer: ResponseWriter,
  response: Response,
  body: ReadableStream<Uint8Array>,
): Promise<void> {
  const reader = body.getReader();
  const cancelled = (): unknown => reader.cancel().catch(() => {});
  writer.onEnd(cancelled);
  if (writer.signal.aborted) return void cancelled();
  writer.res.onWritable(() => {
    // With a handler set uWS leaves what it holds back to the next write; an empty cork is one.
    writer.write(() => {});
    writer.becameWritable();
    return true;
  });
  let started = false;
  for (;;) {
    const { done, value } = await reader.read();
    if (writer.signal.aborted) return;
    if (done) break;
    for (let at = 0; at < value.length; at += MAX_CORK_BYTES) {
      let flushed = true;
      writer.write((res) => {
        if (!started) writeHead(res, response);
        started = true;
        flushed = res.write(value.subarray(at, at + MAX_CORK_BYTES));
      });
      if (!flushed) await writer.untilWritable();
      if (writer.signal.aborted) return;
    }
  }
  writer.write((res) => {
    if (!started) writeHead(res, response);
    res.end();
  });
  writer.ended();
}
