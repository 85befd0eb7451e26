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

declare module 'bullmq' {
  import type { Redis } from 'ioredis';

  interface Connected {
    connection: Redis;
  }
  interface Keep {
    count: number;
  }
  export interface Job {
    readonly data: unknown;
    waitUntilFinished(events: QueueEvents, timeoutMs: number): Promise<unknown>;
  }
  export class Queue {
    constructor(
      name: string,
      options: Connected & { defaultJobOptions: { removeOnComplete: Keep; removeOnFail: Keep } },
    );
    add(name: string, data: unknown): Promise<Job>;
    setMaxListeners(count: number): this;
  }
  export class QueueEvents {
    constructor(name: string, options: Connected);
    setMaxListeners(count: number): this;
    waitUntilReady(): Promise<unknown>;
  }
  export class Worker {
    constructor(
      name: string,
      work: (job: Job) => Promise<unknown>,
      options: Connected & { concurrency: number },
    );
    on(event: 'error', listener: (error: Error) => void): this;
    waitUntilReady(): Promise<unknown>;
  }
}

declare module 'moleculer' {
  type Work = (context: { readonly params: unknown }) => unknown;

  export class ServiceBroker {
    constructor(options: {
      nodeID: string;
      transporter: string;
      logger: boolean;
      requestTimeout: number;
    });
    createService(schema: { name: string; actions: Readonly<Record<string, Work>> }): unknown;
    start(): Promise<void>;
    waitForServices(name: string, timeoutMs: number): Promise<unknown>;
    call(action: string, params: unknown): Promise<unknown>;
  }
}
