/**
 * A WebSocket client that costs next to nothing, so that the load process is not what a bench measures:
 * frames are told apart by a few bytes, never parsed; sent frames are masked once and reused.
 */
import { randomBytes } from 'node:crypto';
import { connect as connectTcp, type Socket } from 'node:net';

/** What a frame is to the load generator. */
export const KIND = {
  other: 0,
  delta: 1,
  response: 2,
  cancelled: 3,
  error: 4,
  ready: 5,
  accepted: 6,
  started: 7,
  snapshot: 8,
} as const;
export type Kind = (typeof KIND)[keyof typeof KIND];

export interface Heard {
  /** `payload` lies in `bytes` from `start` to `end`, and is overwritten after the call. */
  frame(kind: Kind, bytes: Buffer, start: number, end: number): void;
  closed(reason: string): void;
}

export interface LeanSocket {
  /** `frame` comes from `clientFrame`. */
  write(frame: Buffer): void;
  close(): void;
}

const OPCODE = { text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** A masked client frame of that opcode. */
export function clientFrame(payload: string | Uint8Array, opcode: number = OPCODE.text): Buffer {
  const body = Buffer.from(payload);
  const mask = randomBytes(4);
  for (let i = 0; i < body.length; i++) body[i] = (body[i] ?? 0) ^ (mask[i & 3] ?? 0);
  const head = Buffer.alloc(body.length < 126 ? 2 : 4);
  head[0] = 0x80 | opcode;
  if (body.length < 126) head[1] = 0x80 | body.length;
  else {
    head[1] = 0x80 | 126;
    head.writeUInt16BE(body.length, 2);
  }
  return Buffer.concat([head, mask, body]);
}

// All sockets read into one buffer: what is read is consumed in the same callback.
const READ = Buffer.allocUnsafeSlow(256 * 1024);

/** Opens one WebSocket; resolves after the 101. Rejects with the server's status line when it is refused. */
export function open(port: number, path: string, heard: Heard): Promise<LeanSocket> {
  return new Promise((resolve, reject) => {
    let rest: Buffer = Buffer.alloc(0);
    let upgraded = false;
    const socket: Socket = connectTcp({
      port,
      host: '127.0.0.1',
      noDelay: true,
      onread: {
        buffer: READ,
        callback: (length) => {
          const read = READ.subarray(0, length);
          const bytes = rest.length === 0 ? read : Buffer.concat([rest, read]);
          const used = upgraded ? consume(bytes, 0) : upgrade(bytes);
          rest = used === bytes.length ? EMPTY : Buffer.from(bytes.subarray(used));
          return true;
        },
      },
    });
    const lean: LeanSocket = {
      write: (frame) => void socket.write(frame),
      close: () => void socket.end(clientFrame(Buffer.from([0x03, 0xe8]), OPCODE.close)),
    };

    function upgrade(bytes: Buffer): number {
      const end = bytes.indexOf('\r\n\r\n');
      if (end < 0) return 0;
      const status = bytes.toString('latin1', 0, bytes.indexOf('\r\n'));
      if (!status.startsWith('HTTP/1.1 101')) {
        reject(new Error(`${path}: ${status}`));
        socket.destroy();
        return bytes.length;
      }
      upgraded = true;
      resolve(lean);
      return consume(bytes, end + 4);
    }

    /** Hands out whole frames from `at` on; returns where the first incomplete one begins. */
    function consume(bytes: Buffer, at: number): number {
      let position = at;
      while (bytes.length - position >= 2) {
        const short = (bytes[position + 1] ?? 0) & 0x7f;
        const head = short < 126 ? 2 : short === 126 ? 4 : 10;
        if (bytes.length - position < head) break;
        const length =
          short < 126
            ? short
            : short === 126
              ? bytes.readUInt16BE(position + 2)
              : Number(bytes.readBigUInt64BE(position + 2));
        const start = position + head;
        if (bytes.length - start < length) break;
        take((bytes[position] ?? 0) & 0x0f, bytes, start, start + length);
        position = start + length;
      }
      return position;
    }

    function take(opcode: number, bytes: Buffer, start: number, end: number): void {
      if (opcode === OPCODE.text || opcode === OPCODE.binary)
        heard.frame(kindOf(bytes, start), bytes, start, end);
      else if (opcode === OPCODE.ping) socket.write(clientFrame(bytes.subarray(start, end), OPCODE.pong));
      else if (opcode === OPCODE.close) socket.end();
    }

    socket.on('error', (error) => {
      reject(error);
    });
    socket.on('close', () => heard.closed(upgraded ? 'closed' : 'refused'));
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\n\r\n`,
    );
  });
}

const EMPTY = Buffer.alloc(0);
/** `{"type":"` of our frames; `42["` of a Socket.IO event. */
const TYPE_AT = { json: 9, socketIo: 4 } as const;
const code = (letter: string): number => letter.charCodeAt(0);
const [BRACE, FOUR, DOT] = [code('{'), code('4'), code('.')];
const [A, C, D, E, R, S, X] = [...'acdersx'].map(code);

/** Looks at the few letters in which the types of frames differ. */
function kindOf(bytes: Buffer, start: number): Kind {
  const first = bytes[start];
  const at = start + (first === BRACE ? TYPE_AT.json : first === FOUR ? TYPE_AT.socketIo : 0);
  const initial = bytes[at];
  if (initial === C) {
    const fifth = bytes[at + 5];
    if (fifth === D) return KIND.delta;
    if (fifth === R) return KIND.response;
    if (fifth === A) return KIND.accepted;
    return fifth === C ? KIND.cancelled : KIND.other;
  }
  if (initial === E) {
    const second = bytes[at + 1];
    if (second === R) return KIND.error;
    return second === X ? KIND.started : KIND.other;
  }
  // session.ready and session.snapshot, and not server.draining
  if (initial !== S || bytes[at + 7] !== DOT) return KIND.other;
  const eighth = bytes[at + 8];
  if (eighth === R) return KIND.ready;
  return eighth === S ? KIND.snapshot : KIND.other;
}
