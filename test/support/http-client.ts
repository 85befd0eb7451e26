/** A raw HTTP/1.1 socket and an SSE reader, for what fetch hides: framing, pipelining, slow reading, breaking off. */
import assert from 'node:assert/strict';
import { createConnection } from 'node:net';
import { createParser, type EventSourceMessage } from 'eventsource-parser';
import { z } from 'zod';
import type { ErrorCode } from '../../src/domain/errors.ts';

/** The access check names one field, the schemas name all that are wrong. */
const problem = z.object({ field: z.string(), message: z.string() });
const errorBody = z.strictObject({
  error: z.strictObject({
    code: z.string(),
    message: z.string().min(1),
    retryable: z.boolean(),
    retry_after_ms: z.number().optional(),
    details: z
      .union([problem.array(), problem.partial()])
      .transform((found) => [found].flat())
      .optional(),
    request_id: z.string(),
  }),
});

/** Checks that a response is a refusal of that status and code, whole and in JSON, and returns the error. */
export async function refused(response: Response, status: number, code: ErrorCode) {
  const { error } = errorBody.parse(await response.json());
  assert.equal(error.code, code, error.message);
  assert.equal(response.status, status);
  assert.equal(error.request_id, response.headers.get('x-request-id'));
  return error;
}

/** A TCP connection that keeps what it received. */
export interface RawConnection {
  write(text: string | Buffer): void;
  /** Resolves once `text` has been received that often in all. Rejects if the socket closes first. */
  until(text: string, times?: number): Promise<void>;
  /** Resolves once what was received ends with `text`. Rejects if the socket closes first. */
  untilEnd(text: string): Promise<void>;
  /** Resolves once more than that many bytes came. Rejects if the socket closes first. */
  bytes(count: number): Promise<void>;
  /** Resolves to everything received once the socket is closed. */
  readonly closed: Promise<Buffer>;
  pause(): void;
  resume(): void;
  destroy(): void;
}

/** Opens a raw connection to the port on loopback. */
export function rawConnection(port: number): RawConnection {
  const socket = createConnection(port, '127.0.0.1');
  const chunks: Buffer[] = [];
  const watchers = new Set<() => void>();
  let over = false;
  const received = (): string => Buffer.concat(chunks).toString('latin1');
  const notice = (): void => {
    for (const watcher of watchers) watcher();
  };
  socket.on('data', (chunk) => {
    chunks.push(chunk);
    notice();
  });
  socket.on('error', () => {});
  const closed = new Promise<Buffer>((resolve) => {
    socket.on('close', () => {
      over = true;
      resolve(Buffer.concat(chunks));
      notice();
    });
  });
  const tail = (length: number): string =>
    Buffer.concat(chunks.slice(-4)).subarray(-length).toString('latin1');
  const watch = (text: string, came: () => boolean): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        const found = came();
        if (!found && !over) return;
        watchers.delete(look);
        if (found) resolve();
        else reject(new Error(`closed before ${JSON.stringify(text)} came, after ${received().slice(-200)}`));
      };
      watchers.add(look);
      look();
    });
  return {
    write: (text) => socket.write(text),
    until: (text, times = 1) => watch(text, () => received().split(text).length > times),
    bytes: (count) => watch(`${count} bytes`, () => socket.bytesRead > count),
    untilEnd: (text) => watch(text, () => tail(text.length) === text),
    closed,
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    destroy: () => socket.destroy(),
  };
}

/** Text of a request without a body; `extra` are header lines. */
export const requestText = (method: string, path: string, extra: readonly string[] = []): string =>
  `${[`${method} ${path} HTTP/1.1`, 'Host: node', ...extra].join('\r\n')}\r\n\r\n`;

/** Puts a chunked body together again. Throws where the framing is wrong or the last chunk is missing. */
export function dechunk(body: Buffer): Buffer {
  const parts: Buffer[] = [];
  let at = 0;
  for (;;) {
    const lineEnd = body.indexOf('\r\n', at);
    const line = body.toString('latin1', at, lineEnd);
    if (lineEnd < 0 || !/^[0-9a-f]+$/i.test(line))
      throw new Error(`bad chunk size at ${at}: ${line.slice(0, 40)}`);
    const size = Number.parseInt(line, 16);
    if (size === 0) return Buffer.concat(parts);
    parts.push(body.subarray(lineEnd + 2, lineEnd + 2 + size));
    at = lineEnd + 2 + size + 2;
    if (body.toString('latin1', at - 2, at) !== '\r\n') throw new Error(`chunk at ${at} does not end`);
  }
}

/** The body of a response, after its headers. */
export const bodyOf = (response: Buffer): Buffer => response.subarray(response.indexOf('\r\n\r\n') + 4);

/** Reads server-sent events one at a time. */
export interface EventReader {
  /** Resolves to the next event, or undefined where the stream has ended. */
  next(): Promise<EventSourceMessage | undefined>;
  /** Comments seen so far. */
  readonly comments: string[];
  rest(): Promise<EventSourceMessage[]>;
}

/** Reads a response's body as server-sent events. */
export function readEvents(response: Response): EventReader {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  const waiting: EventSourceMessage[] = [];
  const comments: string[] = [];
  const parser = createParser({
    onEvent: (event) => waiting.push(event),
    onComment: (comment) => comments.push(comment),
  });
  const next = async (): Promise<EventSourceMessage | undefined> => {
    while (waiting.length === 0) {
      const part = await reader?.read();
      if (!part || part.done) return undefined;
      parser.feed(part.value);
    }
    return waiting.shift();
  };
  return {
    next,
    comments,
    async rest() {
      const all: EventSourceMessage[] = [];
      for (let event = await next(); event; event = await next()) all.push(event);
      return all;
    },
  };
}
