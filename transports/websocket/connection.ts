/** The sending half of a socket: gathers frames, writes them once a loop turn, and gives up on clients that do not read. */
import { CLOSE, type Close, type ErrorData } from '../../src/domain/errors.ts';
import type { Frame } from '../../src/domain/frames.ts';
import type { TaskId } from '../../src/domain/ids.ts';
import type { Client } from '../../src/ports/sessions.ts';
import { encodeFrame, type Format } from '../wire/codec.ts';

/** Bytes written but not yet taken by the client; beyond this it counts as too slow. */
export const MAX_BUFFERED_BYTES = 1024 * 1024;
/** Gathered bytes (UTF-16 units of JSON); beyond this they are written before the loop turn ends. */
const MAX_GATHERED_BYTES = 256 * 1024;
/** How long a client that was too slow may take to read its buffer, and so learn why it is closed. */
export const SLOW_GRACE_MS = 5_000;

/** What this file needs of a uWebSockets.js socket. */
export interface RawSocket {
  send(data: string | Uint8Array, isBinary: boolean): number;
  getBufferedAmount(): number;
  ping(): number;
  /** Packs what `write` sends into one system call. */
  cork(write: () => void): unknown;
  end(code: number, reason: string): void;
  close(): void;
}

export interface SocketClient extends Client {
  /** When it fell too far behind (performance.now()), or undefined. It is sent nothing more, and is to be closed. */
  readonly stalledAtMs: number | undefined;
  /** Asks for a sign of life. */
  ping(): void;
  /** Looks whether too much is buffered; for writes that did not come through `send` (pongs). */
  checkPressure(): void;
  /** The socket has taken some of its buffer. */
  drained(): void;
  /** The socket is gone: frames sent to the client from now on are dropped. */
  gone(): void;
}

/** A refusal to this client alone: an `error` frame without a number. */
export const errorFrame = (error: ErrorData, taskId: TaskId | undefined, atMs: number): Frame => ({
  type: 'error',
  seq: undefined,
  atMs,
  taskId,
  data: error,
});

interface SocketClientOptions {
  readonly id: string;
  readonly format: Format;
  readonly deltaWindowMs: number;
  readonly reasoning: boolean;
  /** Called once, when the client has become too slow. */
  readonly onStalled: () => void;
}

/** Makes the clients of one port. They share one list of clients to flush, worked off once a loop turn. */
export function createSocketClients(): (socket: RawSocket, options: SocketClientOptions) => SocketClient {
  let dirty: (() => void)[] = [];
  const flushAll = (): void => {
    const batch = dirty;
    dirty = [];
    for (const flush of batch) flush();
  };
  return (socket, options) =>
    createSocketClient(socket, options, (flush) => {
      if (dirty.push(flush) === 1) setImmediate(flushAll);
    });
}

function createSocketClient(
  socket: RawSocket,
  { id, format, deltaWindowMs, reasoning, onStalled }: SocketClientOptions,
  atTurnsEnd: (flush: () => void) => void,
): SocketClient {
  const gathered = createGatheredFrames(socket, format);
  const limit = createBufferLimit(socket);
  let state: 'open' | 'stalled' | 'closed' = 'open';
  let stalledAtMs: number | undefined;

  const flush = (): void => {
    if (state === 'open' && gathered.write()) checkPressure();
  };
  const flushAtTurnsEnd = (): void => {
    flush();
    limit.caughtUp();
  };
  const checkPressure = (): void => {
    if (state !== 'open' || !limit.isExceeded()) return;
    state = 'stalled';
    stalledAtMs = performance.now();
    gathered.clear();
    onStalled();
  };

  return {
    id,
    deltaWindowMs,
    reasoning,
    get stalledAtMs() {
      return stalledAtMs;
    },
    send(frame: Frame) {
      if (state !== 'open') return;
      if (frame.type === 'session.ready') limit.catchingUp();
      if (gathered.add(frame) === 1) atTurnsEnd(flushAtTurnsEnd);
      if (gathered.bytes() > MAX_GATHERED_BYTES) flush();
    },
    close(close: Close) {
      if (state === 'closed') return;
      flush();
      state = 'closed';
      // Behind a full buffer a close frame would wait, and keep the buffer, for as long as the client likes.
      if (stalledAtMs !== undefined) socket.close();
      else socket.end(close.code, close.reason);
    },
    ping() {
      if (state === 'open') socket.ping();
    },
    checkPressure,
    drained() {
      if (!limit.hasDrained() || state !== 'stalled') return;
      state = 'closed';
      socket.end(CLOSE.tooSlow.code, CLOSE.tooSlow.reason);
    },
    gone() {
      state = 'closed';
      gathered.clear();
    },
  };
}

/** The frames of one loop turn, encoded and not yet written. */
function createGatheredFrames(socket: RawSocket, format: Format) {
  const isBinary = format === 'msgpack';
  let frames: (string | Uint8Array)[] = [];
  let bytes = 0;
  const clear = (): void => {
    frames = [];
    bytes = 0;
  };
  return {
    bytes: () => bytes,
    clear,
    /** Returns how many there are now. The frame is encoded at once: the session's other sockets are given it next. */
    add(frame: Frame): number {
      const data = encodeFrame(frame, format);
      bytes += data.length;
      return frames.push(data);
    },
    /** Writes them in one cork; false where there are none. */
    write(): boolean {
      if (frames.length === 0) return false;
      const batch = frames;
      clear();
      socket.cork(() => {
        for (const data of batch) socket.send(data, isBinary);
      });
      return true;
    },
  };
}

/**
 * How much a client may leave unread. Attaching brings a snapshot or a replay, which may be larger than a healthy
 * connection takes at once: until the client has caught up, what is buffered counts as none.
 */
function createBufferLimit(socket: RawSocket) {
  let isCatchingUp = true;
  let limit = MAX_BUFFERED_BYTES;
  return {
    catchingUp(): void {
      isCatchingUp = true;
    },
    caughtUp(): void {
      isCatchingUp = false;
    },
    isExceeded(): boolean {
      const buffered = socket.getBufferedAmount();
      if (isCatchingUp) limit = MAX_BUFFERED_BYTES + buffered;
      return buffered > limit;
    },
    /** Whether nothing is left in the buffer; the limit is then the usual one again. */
    hasDrained(): boolean {
      if (socket.getBufferedAmount() > 0) return false;
      limit = MAX_BUFFERED_BYTES;
      return true;
    },
  };
}
