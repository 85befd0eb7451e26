/** One turn as a stream of server-sent events: a session client that hears its own turn only, and ends with it. */
import { type Frame, isTerminal } from '../../src/domain/frames.ts';
import type { TaskId } from '../../src/domain/ids.ts';
import type { Client } from '../../src/ports/sessions.ts';
import { encodeFrame } from '../wire/codec.ts';

/** Bytes handed to the socket at once; what comes meanwhile waits in the bounded buffer. */
const MAX_CHUNK_BYTES = 64 * 1024;

export interface TurnStreamOptions {
  /** The client's id; unique in this process. */
  readonly id: string;
  readonly taskId: TaskId;
  readonly deltaWindowMs: number;
  readonly heartbeatMs: number;
  readonly maxBufferedBytes: number;
  /** Called once, never inside `send`: the turn ended, the client left or was too slow, or the session closed it. */
  readonly onEnd: () => void;
  /** Called when the session has attached the client. */
  readonly onReady?: () => void;
}

export interface TurnStream {
  readonly client: Client;
  /** Ends after the terminal frame; breaks off with an error if the reader is too slow. */
  readonly body: ReadableStream<Uint8Array>;
  /** Ends the stream as it stands. */
  end(): void;
}

/** A frame as one server-sent event: its number, its type, and the whole frame. */
export function sseEvent(frame: Frame): string {
  const id = frame.seq === undefined ? '' : `id: ${frame.seq}\n`;
  return `${id}event: ${frame.type}\ndata: ${encodeFrame(frame, 'json')}\n\n`;
}

/** Opens the stream of one turn. The caller attaches `client`, and detaches it in `onEnd`. */
export function openTurnStream(options: TurnStreamOptions): TurnStream {
  const queue: string[] = [];
  let queuedBytes = 0;
  let ended = false;
  let closed = false;
  let wanted = false;
  let scheduled = false;
  let controller: ReadableStreamDefaultController<Uint8Array> | undefined;

  const push = (text: string): void => {
    if (ended) return;
    queue.push(text);
    queuedBytes += Buffer.byteLength(text);
    if (queuedBytes > options.maxBufferedBytes) breakOff();
    schedule();
  };
  /** One write for what one loop turn brings. */
  const schedule = (): void => {
    if (!scheduled) setImmediate(flush);
    scheduled = true;
  };
  const flush = (): void => {
    scheduled = false;
    if (closed || !wanted) return;
    if (queue.length > 0) {
      wanted = false;
      controller?.enqueue(take());
    }
    if (!closed && ended && queue.length === 0) {
      closed = true;
      controller?.close();
    }
  };
  const take = (): Uint8Array => {
    let text = '';
    while (queue[0] !== undefined && (text === '' || text.length + queue[0].length <= MAX_CHUNK_BYTES))
      text += queue.shift();
    const bytes = Buffer.from(text);
    queuedBytes -= bytes.length;
    return bytes;
  };
  const end = (): void => {
    if (ended) return;
    ended = true;
    clearInterval(heartbeat);
    queueMicrotask(options.onEnd);
    schedule();
  };
  const breakOff = (): void => {
    queue.length = 0;
    closed = true;
    end();
    controller?.error(new Error('The reader of the stream is too slow.'));
  };
  const heartbeat = setInterval(() => {
    if (queue.length === 0) push(': still running\n\n');
  }, options.heartbeatMs).unref();

  const body = new ReadableStream<Uint8Array>(
    {
      start(own) {
        controller = own;
      },
      pull() {
        wanted = true;
        flush();
      },
      cancel() {
        queue.length = 0;
        closed = true;
        end();
      },
    },
    { highWaterMark: 0 },
  );
  const client: Client = {
    id: options.id,
    deltaWindowMs: options.deltaWindowMs,
    send(frame) {
      if (frame.type === 'session.ready') options.onReady?.();
      if (frame.taskId !== options.taskId) return;
      push(sseEvent(frame));
      if (isTerminal(frame.type)) end();
    },
    close: end,
  };
  return { client, body, end };
}
