/** The little of the peers' types that we use, so that types are checked without bench/node_modules. */
declare module 'ws' {
  import type { Server } from 'node:http';

  export class WebSocket {
    send(data: string): void;
    on(event: 'message', listener: (data: Buffer) => void): this;
    on(event: 'error', listener: (error: Error) => void): this;
  }
  export class WebSocketServer {
    constructor(options: { server: Server; perMessageDeflate?: boolean });
    on(event: 'connection', listener: (socket: WebSocket) => void): this;
  }
}

declare module 'socket.io' {
  import type { Server as HttpServer } from 'node:http';

  export interface Socket {
    emit(event: string, data: unknown): boolean;
    on(event: string, listener: (data: unknown) => void): this;
  }
  export class Server {
    constructor(server: HttpServer, options: { transports: readonly string[]; serveClient: boolean });
    on(event: 'connection', listener: (socket: Socket) => void): this;
  }
}
