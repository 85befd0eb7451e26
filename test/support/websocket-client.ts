/** A WebSocket client over a bare TCP socket: it can set headers, stop reading, and send what no library would. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect as connectTcp, type Socket } from 'node:net';
import { pack, unpack } from 'msgpackr';

/** A frame as it came over the wire. */
export interface Received {
  readonly type: string;
  readonly seq?: number;
  readonly ts: string;
  readonly task_id?: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into data of every shape
  readonly data: any;
}

export interface Closed {
  /** 1006 where the connection ended without a close frame. */
  readonly code: number;
  readonly reason: string;
}

export interface ConnectOptions {
  readonly protocols?: readonly string[];
  readonly headers?: Readonly<Record<string, string>>;
  /** False: pings are left unanswered. */
  readonly pong?: boolean;
}

export interface TestClient {
  /** The subprotocol that the server chose; empty for none. */
  readonly protocol: string;
  /** Everything received so far, in order. */
  readonly frames: readonly Received[];
  /** Pings received so far. */
  pings(): number;
  /** Sends an object in the connection's encoding, a string as text, bytes as a binary frame. */
  send(frame: object | string | Uint8Array): void;
  /** Sends bytes on the connection as they are, with no WebSocket framing. */
  raw(bytes: Uint8Array | string): void;
  /** The next frame, among those not yet handed out, that satisfies the predicate (or has the type); skips others. */
  next(wanted?: string | ((frame: Received) => boolean)): Promise<Received>;
  /** Stops reading from the connection. */
  pause(): void;
  resume(): void;
  /** Sends a close frame and resolves once the connection is gone. */
  close(code?: number): Promise<Closed>;
  /** Cuts the connection. */
  destroy(): void;
  readonly closed: Promise<Closed>;
}

/** What `connect` rejects with when the server answers the handshake with anything but 101. */
export class HandshakeRefused extends Error {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
  constructor(status: number, headers: ReadonlyMap<string, string>, body: string) {
    super(`handshake refused: ${status} ${body}`);
    this.status = status;
    this.headers = headers;
    this.body = body;
  }
}

/** Opens a WebSocket. `url` is `ws://host:port/path?query`. Rejects with HandshakeRefused, or where nobody listens. */
export async function connect(url: string, options: ConnectOptions = {}): Promise<TestClient> {
  const { hostname, port, pathname, search, host } = new URL(url);
  const socket = connectTcp({ host: hostname, port: Number(port), noDelay: true });
  await once(socket, 'connect');
  const headers = {
    Host: host,
    Upgrade: 'websocket',
    Connection: 'Upgrade',
    'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
    'Sec-WebSocket-Version': '13',
    ...(options.protocols ? { 'Sec-WebSocket-Protocol': options.protocols.join(', ') } : {}),
    ...options.headers,
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`GET ${pathname}${search} HTTP/1.1\r\n${lines.join('')}\r\n`);
  const { status, fields, rest } = await readHead(socket);
  if (status !== 101) {
    const body = await readBody(socket, rest, Number(fields.get('content-length') ?? 0));
    socket.destroy();
    throw new HandshakeRefused(status, fields, body);
  }
  return client(socket, rest, fields.get('sec-websocket-protocol') ?? '', options.pong ?? true);
}

/** Reads the head of an HTTP answer; `rest` is what came after it. */
function readHead(
  socket: Socket,
): Promise<{ status: number; fields: ReadonlyMap<string, string>; rest: Buffer }> {
  return new Promise((resolve, reject) => {
    let bytes = Buffer.alloc(0);
    const fail = () => reject(new Error('the connection ended during the handshake'));
    const onData = (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      const end = bytes.indexOf('\r\n\r\n');
      if (end < 0) return;
      socket.pause();
      socket.off('data', onData).off('close', fail).off('error', fail);
      const [statusLine = '', ...lines] = bytes.subarray(0, end).toString().split('\r\n');
      const fields = lines.map((line): [string, string] => {
        const colon = line.indexOf(':');
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
      });
      resolve({
        status: Number(statusLine.split(' ')[1]),
        fields: new Map(fields),
        rest: bytes.subarray(end + 4),
      });
    };
    socket.on('data', onData).on('close', fail).on('error', fail);
  });
}

function readBody(socket: Socket, rest: Buffer, length: number): Promise<string> {
  return new Promise((resolve) => {
    let bytes = rest;
    const done = () => resolve(bytes.subarray(0, length).toString());
    if (bytes.length >= length) return done();
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      if (bytes.length >= length) done();
    });
    socket.on('close', done).resume();
  });
}

interface Waiter {
  readonly fits: (frame: Received) => boolean;
  readonly resolve: (frame: Received) => void;
  readonly reject: (error: Error) => void;
}

function client(socket: Socket, rest: Buffer, protocol: string, answerPings: boolean): TestClient {
  const frames: Received[] = [];
  let handedOut = 0;
  let waiters: Waiter[] = [];
  let pings = 0;
  let ending: Closed | undefined;
  let isClosed = false;

  const serve = (): void => {
    waiters = waiters.filter((waiter) => {
      while (handedOut < frames.length) {
        const frame = frames[handedOut++];
        if (!frame || !waiter.fits(frame)) continue;
        waiter.resolve(frame);
        return false;
      }
      return true;
    });
  };

  const take = (opcode: number, payload: Buffer): void => {
    if (opcode === 1) frames.push(JSON.parse(payload.toString()));
    else if (opcode === 2) frames.push(unpack(payload));
    else if (opcode === 8) {
      ending ??= {
        code: payload.length >= 2 ? payload.readUInt16BE(0) : 1005,
        reason: payload.subarray(2).toString(),
      };
      socket.end(masked(8, payload.subarray(0, 2)));
    } else if (opcode === 9) {
      pings += 1;
      if (answerPings) socket.write(masked(10, payload));
    }
    serve();
  };

  const closed = new Promise<Closed>((resolve) => {
    socket.on('close', () => {
      isClosed = true;
      ending ??= { code: 1006, reason: '' };
      for (const waiter of waiters) waiter.reject(new Error(`closed ${ending.code} ${ending.reason}`));
      waiters = [];
      resolve(ending);
    });
  });

  const parser = frameParser(take);
  socket.on('error', () => {});
  socket.on('data', parser);
  parser(rest);
  socket.resume();

  return {
    protocol,
    frames,
    closed,
    pings: () => pings,
    send(frame) {
      if (typeof frame === 'string') socket.write(masked(1, Buffer.from(frame)));
      else if (frame instanceof Uint8Array) socket.write(masked(2, frame));
      else if (protocol === 'nooble.msgpack') socket.write(masked(2, pack(frame)));
      else socket.write(masked(1, Buffer.from(JSON.stringify(frame))));
    },
    raw: (bytes) => void socket.write(bytes),
    next(wanted = () => true) {
      const fits = typeof wanted === 'string' ? (frame: Received) => frame.type === wanted : wanted;
      return new Promise((resolve, reject) => {
        waiters.push({ fits, resolve, reject });
        serve();
        if (isClosed && waiters.some((waiter) => waiter.resolve === resolve))
          reject(new Error(`closed ${ending?.code} ${ending?.reason}`));
      });
    },
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    close(code = 1000) {
      const payload = Buffer.alloc(2);
      payload.writeUInt16BE(code);
      if (!socket.destroyed) socket.write(masked(8, payload));
      return closed;
    },
    destroy: () => void socket.destroy(),
  };
}

/** One frame as a client sends it: final and masked. */
export function masked(opcode: number, payload: Uint8Array): Buffer {
  const { length } = payload;
  const head = Buffer.alloc(length < 126 ? 2 : length < 65_536 ? 4 : 10);
  head[0] = 0x80 | opcode;
  head[1] = 0x80 | (length < 126 ? length : length < 65_536 ? 126 : 127);
  if (head.length === 4) head.writeUInt16BE(length, 2);
  if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2);
  const mask = randomBytes(4);
  const body = Buffer.from(payload);
  for (let at = 0; at < length; at += 1) body[at] = (body[at] ?? 0) ^ (mask[at & 3] ?? 0);
  return Buffer.concat([head, mask, body]);
}

/** Cuts a server's bytes into frames; keeps what is incomplete without copying it for every chunk. */
function frameParser(take: (opcode: number, payload: Buffer) => void): (chunk: Buffer) => void {
  let chunks: Buffer[] = [];
  let held = 0;
  let wanted = 2;
  return (chunk) => {
    chunks.push(chunk);
    held += chunk.length;
    if (held < wanted) return;
    let bytes = Buffer.concat(chunks);
    for (;;) {
      const size = frameSize(bytes);
      wanted = size ?? 2;
      if (size === undefined || bytes.length < size) break;
      const length = (bytes[1] ?? 0) & 0x7f;
      const start = 2 + (length === 126 ? 2 : length === 127 ? 8 : 0);
      take((bytes[0] ?? 0) & 0x0f, bytes.subarray(start, size));
      bytes = bytes.subarray(size);
    }
    chunks = [bytes];
    held = bytes.length;
  };
}

/** Bytes of the whole frame that starts here; undefined while its head is incomplete. */
function frameSize(bytes: Buffer): number | undefined {
  if (bytes.length < 2) return undefined;
  const length = (bytes[1] ?? 0) & 0x7f;
  if (length < 126) return 2 + length;
  if (length === 126) return bytes.length < 4 ? undefined : 4 + bytes.readUInt16BE(2);
  return bytes.length < 10 ? undefined : 10 + Number(bytes.readBigUInt64BE(2));
}
