/** A bare uWebSockets.js server: sockets, messages, and nothing else. */
import { App, type WebSocket } from 'uWebSockets.js';

export type PeerSocket = WebSocket<{ open: boolean }>;

interface Served {
  readonly ready: string;
  message(socket: PeerSocket, text: string): void;
}

/** Listens on PORT and answers `/ready`; exits on SIGTERM, and with the bench that started it. */
export function serveUws({ ready, message }: Served): void {
  App()
    .get('/ready', (res) => {
      res.end('ok');
    })
    .ws<{ open: boolean }>('/*', {
      idleTimeout: 0,
      maxBackpressure: 16 * 2 ** 20,
      upgrade(res, req, context) {
        res.upgrade(
          { open: true },
          req.getHeader('sec-websocket-key'),
          req.getHeader('sec-websocket-protocol'),
          req.getHeader('sec-websocket-extensions'),
          context,
        );
      },
      open: (socket) => void socket.send(ready),
      message: (socket, bytes) => message(socket, Buffer.from(bytes).toString()),
      close: (socket) => {
        socket.getUserData().open = false;
      },
    })
    .listen('127.0.0.1', Number(process.env.PORT), (listening) => {
      if (!listening) process.exit(1);
    });
  endWithParent();
}

/** Lets a profiler write its file: the process exits by itself. */
export function endWithParent(): void {
  process.once('SIGTERM', () => process.exit(0));
  process.once('disconnect', () => process.exit(0));
}

/** `{ type: 'chat.send', message }` as the load process sends it. */
export function messageOf(frame: unknown): string {
  if (typeof frame !== 'object' || frame === null || !('message' in frame)) return '';
  return typeof frame.message === 'string' ? frame.message : '';
}
