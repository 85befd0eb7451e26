/** One client session in the dialect its server speaks: our JSON frames, or the same as Socket.IO events. */
import { clientFrame, KIND, type Kind, type LeanSocket, open } from './socket.ts';

export const DIALECTS = ['json', 'socket.io'] as const;
export type Dialect = (typeof DIALECTS)[number];

export interface SessionHeard {
  frame(kind: Kind, bytes: Buffer, start: number, end: number): void;
  closed(): void;
}

/** A `chat.send`, `chat.cancel` or `ping`, ready to be written as often as one likes. */
export function encoded(dialect: Dialect, type: string, fields: Readonly<Record<string, unknown>>): Buffer {
  return clientFrame(
    dialect === 'json' ? JSON.stringify({ type, ...fields }) : `42${JSON.stringify([type, fields])}`,
  );
}

const ENGINE_IO = { open: 0x30, ping: 0x32, message: 0x34 } as const;
const SOCKET_IO_CONNECT = 0x30;
const PONG = clientFrame('3');
const CONNECT = clientFrame('40');

/** Opens a session; resolves once the server says that it is ready. Rejects when it is refused or closed before. */
export function openSession(
  dialect: Dialect,
  port: number,
  path: string,
  heard: SessionHeard,
): Promise<LeanSocket> {
  return new Promise((resolve, reject) => {
    let socket: LeanSocket | undefined;
    let ready = false;
    const settle = (): void => {
      ready = true;
      if (socket) resolve(socket);
    };
    const engineIo = (bytes: Buffer, start: number): void => {
      const packet = bytes[start];
      if (packet === ENGINE_IO.ping) socket?.write(PONG);
      else if (packet === ENGINE_IO.open) setImmediate(() => socket?.write(CONNECT));
      else if (packet === ENGINE_IO.message && bytes[start + 1] === SOCKET_IO_CONNECT) settle();
    };
    open(port, dialect === 'json' ? path : '/socket.io/?EIO=4&transport=websocket', {
      frame(kind, bytes, start, end) {
        if (kind === KIND.ready) settle();
        else if (kind === KIND.other && dialect === 'socket.io') engineIo(bytes, start);
        heard.frame(kind, bytes, start, end);
      },
      closed(reason) {
        if (!ready) reject(new Error(`${path}: ${reason} before it was ready`));
        heard.closed();
      },
    }).then((opened) => {
      socket = opened;
      if (ready) resolve(opened);
    }, reject);
  });
}
