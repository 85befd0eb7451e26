/** The sending half of a socket: gathers frames, writes them once a loop turn, and gives up on clients that do not read. */
import { CLOSE, type Close, type ErrorData } from '../../src/domain/errors.ts';
import type { Frame } from '../../src/domain/frames.ts';
import type { TaskId } from '../../src/domain/ids.ts';
import type { Client } from '../../src/ports/sessions.ts';
import { encodeFrame, type Format } from '../wire/codec.ts';

/** Bytes written but not yet taken by the client beyond which it counts as too slow. */
export const MAX_BUFFERED_BYTES = 1024 * 1024;
/** Gathered bytes (UTF-16 units of JSON) at which the turn's end is not awaited. */
const MAX_GATHERED_BYTES = 256 * 1024;
/** How long a client that was too slow may take to read what is buffered, and so learn why it is closed. */
export const SLOW_GRACE_MS = 5_000;

/** What this file needs of a uWebSockets.js socket. */
export interface Wire {
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
  /** The socket took something of what was buffered. */
  drained(): void;
  /** The socket is gone; whatever is still said to this client falls away. */
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

interface ClientOptions {
  readonly id: string;
  readonly format: Format;
  readonly deltaWindowMs: number;
  readonly onStalled: () => void;
}

/** Makes the clients of one port. They share one list of what is to be written, flushed once a loop turn. */
export function createClients(): (wire: Wire, options: ClientOptions) => SocketClient {
  let dirty: (() => void)[] = [];
  const flushAll = (): void => {
    const batch = dirty;
    dirty = [];
    for (const flush of batch) flush();
  };
  return (wire, options) =>
    createClient(wire, options, (flush) => {
      if (dirty.push(flush) === 1) setImmediate(flushAll);
    });
}

function createClient(
  wire: Wire,
  options: ClientOptions,
  atTurnsEnd: (flush: () => void) => void,
): SocketClient {
  const { id, format, deltaWindowMs, onStalled } = options;
  const isBinary = format === 'msgpack';
  let gathered: (string | Uint8Array)[] = [];
  let gatheredBytes = 0;
  let state: 'open' | 'stalled' | 'closed' = 'open';
  let stalledAtMs: number | undefined;
  // What attaching brings (a snapshot, a replay) may be larger than a healthy connection takes at once: the limit
  // starts above what of it is left in the buffer, or such a client could never catch up.
  let catchingUp = true;
  let limit = MAX_BUFFERED_BYTES;

  const flush = (): void => {
    if (state !== 'open' || gathered.length === 0) return;
    const frames = gathered;
    gathered = [];
    gatheredBytes = 0;
    wire.cork(() => {
      for (const data of frames) wire.send(data, isBinary);
    });
    checkPressure();
  };

  const flushAtTurnsEnd = (): void => {
    flush();
    catchingUp = false;
  };

  const checkPressure = (): void => {
    if (state !== 'open') return;
    const buffered = wire.getBufferedAmount();
    if (catchingUp) limit = MAX_BUFFERED_BYTES + buffered;
    else if (buffered > limit) stall();
  };

  const stall = (): void => {
    state = 'stalled';
    stalledAtMs = performance.now();
    gathered = [];
    onStalled();
  };

  return {
    id,
    deltaWindowMs,
    get stalledAtMs() {
      return stalledAtMs;
    },
    send(frame: Frame) {
      if (state !== 'open') return;
      if (frame.type === 'session.ready') catchingUp = true;
      // Encoded now and not at the flush: the session's other sockets are given the same frame next.
      const data = encodeFrame(frame, format);
      if (gathered.push(data) === 1) atTurnsEnd(flushAtTurnsEnd);
      gatheredBytes += data.length;
      if (gatheredBytes > MAX_GATHERED_BYTES) flush();
    },
    close(close: Close) {
      if (state === 'closed') return;
      flush();
      const wasStalled = stalledAtMs !== undefined;
      state = 'closed';
      // Behind a full buffer a close frame would wait, and keep the buffer, for as long as the client likes.
      if (wasStalled) wire.close();
      else wire.end(close.code, close.reason);
    },
    ping() {
      if (state === 'open') wire.ping();
    },
    checkPressure,
    drained() {
      const buffered = wire.getBufferedAmount();
      if (buffered > 0) return;
      limit = MAX_BUFFERED_BYTES;
      if (state !== 'stalled') return;
      state = 'closed';
      wire.end(CLOSE.tooSlow.code, CLOSE.tooSlow.reason);
    },
    gone() {
      state = 'closed';
      gathered = [];
    },
  };
}
